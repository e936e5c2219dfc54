"""One group that outweighs the others: the relaxation splits it, and says little until its choice is settled.

Its candidates part the answers. For each of them the other groups are a problem of their own, with a multiplier of its
own, whose relaxation is as close as ever; the best of their answers is the best of all (Land & Doig 1960).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np

from impq_opt.exactness.sums import exact_int_sum, exact_sum
from impq_opt.instance.contract import Claim
from impq_opt.instance.instance import Block, Instance, RankOne
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.types import IntArray

__all__ = ["branch"]


def branch(
    instance: Instance, place: int, columns: Sequence[int], root: Claim, solve: Callable[[Instance], Claim]
) -> Claim:
    """Solve ``instance`` for each of the candidates ``columns`` of the group at ``place``, and join what is found.

    ``root`` is what is known without: its answer stands where no branch has a better one, its multipliers prove what
    they prove, and no candidate that is left out is in a better answer.
    """
    best, stop = root.choice, Stop.COMPLETED
    value: Fraction | float = math.inf if best is None else _objective(instance, best)
    bounds: list[Fraction | float] = []
    groups = states = 0
    for column in columns:
        claim = solve(_with_choice(instance, place, column))
        bounds.append(claim.lower_bound)
        groups = max(groups, claim.statistics["core_groups"])
        states += claim.statistics["states"]
        if claim.choice is not None:
            choice = claim.choice.copy()
            choice[place] = column
            own = _objective(instance, choice)
            if own < value:
                best, value = choice, own
        if claim.enumeration is None:
            stop = claim.stop
            if stop is not Stop.STATE_LIMIT:  # the others would fare no better
                break
    statistics = dict(root.statistics) | {"core_groups": groups, "states": states, "branches": len(bounds)}
    joined = dataclasses.replace(root, choice=best, stop=stop, statistics=statistics)
    if stop is not Stop.COMPLETED:
        return joined
    return dataclasses.replace(joined, lower_bound=min([*bounds, value]), enumeration=Enumeration(groups, states))


def _objective(instance: Instance, choice: IntArray) -> Fraction:
    """Return what a choice costs or damages. Columns are those of the blocks, where some may have been left out."""
    by_cost, total = instance.objective.whole, Fraction(instance.objective.base)
    for block in instance.blocks:
        own, table = choice[block.groups], cast(Any, block.cost if by_cost else block.damage)
        chosen = table.left * table.right[own] if isinstance(table, RankOne) else table[np.arange(len(own)), own]
        total += exact_int_sum(chosen) if by_cost else exact_sum(chosen)
    return total


def _with_choice(instance: Instance, place: int, column: int) -> Instance:
    """Return ``instance`` with a single candidate left for one group; tables stay views."""
    return dataclasses.replace(instance, blocks=tuple(_parts(instance, place, column)))


def _parts(instance: Instance, place: int, column: int) -> Iterable[Block]:
    for block in instance.blocks:
        groups = np.arange(instance.size) if isinstance(block.groups, slice) else block.groups
        at = np.flatnonzero(groups == place)
        if len(at) == 0:
            yield block
            continue
        row, only = int(at[0]), slice(column, column + 1)
        for rows in (slice(0, row), slice(row + 1, len(groups))):
            if groups[rows].size:
                yield dataclasses.replace(block.part(rows), groups=groups[rows])
        its_row = slice(row, row + 1)
        if isinstance(block.cost, RankOne) and isinstance(block.damage, RankOne):
            cost, damage = block.cost[its_row], block.damage[its_row]
            yield Block(groups[its_row], RankOne(cost.left, cost.right[only]), RankOne(damage.left, damage.right[only]))
        else:
            yield Block(groups[its_row], block.cost[its_row, only], block.damage[its_row, only])  # type: ignore[index]
