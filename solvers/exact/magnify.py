"""Damages at the bottom of float64 as larger ones: a price, cost per damage, must not overflow.

Multiplying by a power of two is exact upwards, so the problem stays the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from impq_opt.instance.contract import Claim
from impq_opt.instance.instance import Block, Instance

__all__ = ["as_before", "magnified"]

# Damages that are all below this make prices that may overflow.
_SMALL = 2.0**-500
_LARGEST = 1e300


def magnified(instance: Instance) -> tuple[Instance, int]:
    """Return an instance whose damages are 2**shift times as large, and the shift; 0 where that is not needed."""
    if instance.ties or not all(map(_may_be_small, instance.blocks)):
        return instance, 0
    largest = max(_largest(block) for block in instance.blocks)
    if not 0 < largest < _SMALL:
        return instance, 0
    shift = -math.frexp(largest)[1]
    blocks = []
    for block in instance.blocks:
        cost, damage = block.tables()
        blocks.append(Block(block.groups, cost, np.ldexp(damage, shift), block.widths))
    base = instance.base_damage * 2**shift
    # All damages are below 1 now: more than their number is no limit, and might overflow.
    bound = None if instance.bound is None else min(instance.bound * 2**shift, base + instance.size)
    return replace(instance, blocks=tuple(blocks), base_damage=base, bound=bound), shift


def as_before(claim: Claim, instance: Instance, shift: int) -> Claim:
    """Return what a claim about the magnified instance says about ``instance`` itself."""
    if shift == 0:
        return claim
    lower, by_cost = claim.lower_bound, instance.objective.whole
    if not by_cost and abs(lower) != math.inf:
        lower = Fraction(lower) / 2**shift
    multipliers = {name: _shifted(value, shift if by_cost else -shift) for name, value in claim.multipliers.items()}
    return replace(claim, lower_bound=lower, multipliers=multipliers)


def _shifted(value: float, shift: int) -> float:
    """Return value * 2**shift, no more than any multiplier may be: a smaller one proves less, but nothing wrong."""
    try:
        return min(math.ldexp(value, shift), _LARGEST)
    except OverflowError:
        return _LARGEST


def _may_be_small(block: Block) -> bool:
    """Return whether the first group's damages are small: one pass over all is half of what solving takes."""
    damage = block.damage
    first = damage[0] if isinstance(damage, np.ndarray) else damage.left[0] * damage.right
    return bool(first.max() < _SMALL)


def _largest(block: Block) -> float:
    damage = block.damage
    if isinstance(damage, np.ndarray):
        return float(damage.max(initial=0.0))
    return float(damage.left.max(initial=0.0)) * float(damage.right.max(initial=0.0))
