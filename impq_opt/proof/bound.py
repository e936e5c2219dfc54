"""Checking an answer without trusting whoever gave it. Imports no solver.

Three things are recomputed from the problem alone: cost and damage of the choice (exactly), feasibility (exactly), and
the lower bound that the multipliers prove (rounding accounted for).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from impq_opt.errors import SolverError
from impq_opt.exactness import native
from impq_opt.exactness.sums import UNIT_BITS, dyadic_units, exact_int_sum, exact_units, of_units, product
from impq_opt.instance.instance import Block, Direction, Instance, RankOne
from impq_opt.instance.local import is_local
from impq_opt.proof.check import Assessment, assess
from impq_opt.proof.pricing import Prices, least_priced
from impq_opt.types import FloatArray, IntArray

__all__ = ["dual_bound", "examine"]

_EPS = 2.0**-53
# Smaller than the largest float64: a product that overflows still gives a valid, lower, bound.
_HUGE = 1e300
# Groups per chunk: the temporaries of one chunk stay in the cache.
_CHUNK = 1 << 14


def examine(
    instance: Instance, choice: IntArray | None, multipliers: Mapping[str, float]
) -> tuple[Assessment | None, Fraction | float]:
    """Return :func:`assess` of a choice, if there is one, and :func:`dual_bound`, -inf where there are no multipliers.

    Where groups stand alone, with one limit, both come from one pass over the tables.
    """
    plain = not (instance.ties or instance.budgets or instance.coupled or instance.peaks)
    if choice is None or not multipliers or not plain or not _is_choice(instance, choice):
        found = None if choice is None else assess(instance, choice)
        return found, dual_bound(instance, multipliers) if multipliers else -math.inf
    by_cost, lam = instance.direction is Direction.COST, _multiplier(instance, multipliers)
    cost, least, damage, minima = instance.base_cost, 0, 0, 0  # the last two in units of 2**-1074
    for block in instance.blocks:
        recounted = _recount(block, choice[block.groups], by_cost, lam)
        if recounted is None:  # NumPy has to read it, or the choice is none
            return assess(instance, choice), dual_bound(instance, multipliers)
        chosen_cost, chosen_damage, least_cost, least_values = recounted
        cost += chosen_cost
        damage += dyadic_units(*chosen_damage)
        least += least_cost
        minima += dyadic_units(*least_values)
    exact = instance.base_damage + of_units(damage) if instance.base_damage else of_units(damage)
    broken = []
    if instance.bound is not None and exact > instance.bound:
        broken.append("bound")
    if instance.limit is not None and cost > instance.limit:
        broken.append("budget")
    dual = _lowered(instance, minima) + (least if by_cost else Fraction(lam) * least)
    return Assessment(cost, exact, tuple(broken)), dual + _constants(instance, lam, multipliers)


def _is_choice(instance: Instance, choice: object) -> bool:
    return isinstance(choice, np.ndarray) and choice.shape == (instance.size,) and choice.dtype.kind in "iu"


def _recount(block: Block, choice: IntArray, by_cost: bool, lam: float) -> native.Recount | None:
    """Return cost, damage, least costs and least values of a block; None where that takes NumPy."""
    tables: tuple[IntArray, FloatArray] | tuple[IntArray, FloatArray, IntArray, FloatArray]
    if isinstance(block.cost, RankOne) and isinstance(block.damage, RankOne):
        tables = (block.cost.left, block.damage.left, block.cost.right, block.damage.right)
    else:
        assert isinstance(block.cost, np.ndarray) and isinstance(block.damage, np.ndarray)
        tables = (block.cost, block.damage)
    return native.recount(tables, block.widths, choice, (by_cost, lam, _factor(0), _HUGE))


def _factor(budgets: int) -> float:
    """Return what takes off all roundings of a value: int to float, product and sum, once more for each budget."""
    return 1.0 - (4 + 3 * budgets) * _EPS


def _multiplier(instance: Instance, multipliers: Mapping[str, float]) -> float:
    """Return the multiplier of the bound or budget that goes with the direction; raise SolverError for wrong ones."""
    for name, value in multipliers.items():
        if not (math.isfinite(value) and value >= 0):
            raise SolverError(f"multiplier {name!r} must be finite and >= 0, got {value}")
    known = {"bound", "budget"} | {budget.name for budget in (*instance.budgets, *instance.peaks)}
    if not set(multipliers) <= known:
        raise SolverError(f"unknown multipliers {sorted(set(multipliers) - known)}")
    if instance.direction is Direction.COST:
        return multipliers.get("bound", 0.0) if instance.bound is not None else 0.0
    return multipliers.get("budget", 0.0)


def _lowered(instance: Instance, minima: int) -> Fraction:
    """Return the sum ``minima`` of least values, in units of 2**-1074, less what underflow may have taken off them."""
    minima -= instance.size * (1 + len(instance.budgets))  # one unit for each product
    if instance.direction is Direction.DAMAGE:
        return of_units(minima)
    # A bound on whole numbers needs no bits so far below one, and shorter fractions are quicker.
    return Fraction(minima >> (UNIT_BITS - 128), 1 << 128)


@np.errstate(over="ignore")  # a value that overflows still gives a valid, lower, bound
def dual_bound(instance: Instance, multipliers: Mapping[str, float]) -> Fraction | float:
    """Return a lower bound on the objective that ``multipliers`` >= 0 prove; -inf where they prove nothing.

    COST: sum_g min_k (cost + lambda damage + sum_r mu_r row_r) - lambda bound - sum_r mu_r limit_r, in quanta.
    DAMAGE: sum_g min_k (damage + lambda cost + ...) - lambda limit - ..., in damage.
    Where costs couple groups, and with limits on few groups, the minimum is over all groups together
    (:func:`impq_opt.proof.pricing.least_priced`). For the least of a peak it is the first limit on its steps at which
    lambda (damage - bound) + sum_r mu_r (row_r - limit_r) is not above 0 for every choice.

    Every float64 operation rounds by at most a factor (1 +- 2^-53); all terms are made non-negative first (a row's
    smallest cost is taken out exactly), so the computed minima are at most a known factor above the true ones.
    """
    lam = _multiplier(instance, multipliers)
    if instance.direction is Direction.DAMAGE and instance.limit is None:
        return -math.inf
    if instance.peaks:
        return _peak_bound(instance, lam, multipliers)
    if instance.coupled or any(map(is_local, instance.budgets)):
        by_cost = instance.direction is Direction.COST
        prices = Prices(1.0 if by_cost else lam, lam if by_cost else 1.0, multipliers)
        return least_priced(instance, prices) + _constants(instance, lam, multipliers)
    shifts, minima = Fraction(0), 0  # what was taken out of the values, and their minima in units of 2**-1074
    for cost, damage, rows in _chunks(instance):
        least = cost.min(axis=1)
        excess = (cost - least[:, None]).astype(np.float64)
        value = excess + lam * damage if instance.direction is Direction.COST else damage + lam * excess
        shift = exact_int_sum(least)
        shifts += shift if instance.direction is Direction.COST else Fraction(lam) * shift
        for budget, row in zip(instance.budgets, rows, strict=True):
            mu = multipliers.get(budget.name, 0.0)
            if mu:
                lowest = row.min(axis=1)
                value = value + mu * (row - lowest[:, None]).astype(np.float64)
                shifts += Fraction(mu) * exact_int_sum(lowest)
        minima += exact_units(np.minimum(value.min(axis=1), _HUGE) * _factor(len(rows)))
    return _lowered(instance, minima) + shifts + _constants(instance, lam, multipliers)


def _peak_bound(instance: Instance, lam: float, multipliers: Mapping[str, float]) -> Fraction:
    """Return the least peak that ``multipliers`` do not rule out, by bisection."""
    low = max(step.base + exact_int_sum(step.table.min(axis=1)) for step in instance.peaks) - 1
    high = max(step.base + exact_int_sum(step.table.max(axis=1)) for step in instance.peaks)
    prices = Prices(0.0, lam, multipliers)
    while high - low > 1:
        limit = (low + high) // 2
        steps = tuple(replace(step, limit=limit) for step in instance.peaks)
        below = replace(instance, peaks=(), budgets=(*instance.budgets, *steps))
        if least_priced(below, prices) + _constants(below, lam, multipliers) > 0:
            low = limit
        else:
            high = limit
    return Fraction(low + 1)


def _constants(instance: Instance, lam: float, multipliers: Mapping[str, float]) -> int | Fraction:
    """Pinned groups, less the multipliers times the limits."""
    if instance.direction is Direction.COST:
        total: int | Fraction = instance.base_cost
        if instance.bound is not None:
            total += product(lam, instance.base_damage - instance.bound)
    else:
        assert instance.limit is not None
        total = instance.base_damage + Fraction(lam) * (instance.base_cost - instance.limit)
    for budget in instance.budgets:
        total += Fraction(multipliers.get(budget.name, 0.0)) * (budget.base - budget.limit)
    return total


def _chunks(instance: Instance) -> Iterator[tuple[IntArray, FloatArray, list[IntArray]]]:
    """Yield cost, damage and budget tables (n, K), a cache-sized part of the instance at a time."""
    for block in instance.blocks:
        count = len(np.arange(instance.size)[block.groups]) if isinstance(block.groups, slice) else len(block.groups)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            places = part if isinstance(block.groups, slice) else block.groups[part]
            cost, damage = block.part(part).tables()
            rows = [budget.table[places][:, : cost.shape[1]] for budget in instance.budgets]
            yield cost, damage, rows
