"""Checking an answer without trusting whoever gave it. Imports no solver.

Three things are recomputed from the problem alone: cost and damage of the choice (exactly), feasibility (exactly), and
the lower bound that the multipliers prove (rounding accounted for).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from impq_opt.errors import SolverError
from impq_opt.exactness import native
from impq_opt.exactness.sums import UNIT_BITS, dyadic_units, exact_units, of_units, product
from impq_opt.instance.instance import Block, Instance, RankOne
from impq_opt.instance.local import is_local
from impq_opt.instance.row import Table
from impq_opt.proof.check import Assessment, assess
from impq_opt.proof.pricing import Priced, above_least, least_priced
from impq_opt.proof.tangent import tangent_bound
from impq_opt.types import FloatArray, IntArray

__all__ = ["dual_bound", "examine"]

_EPS = 2.0**-53
# Smaller than the largest float64: a product that overflows still gives a valid, lower, bound.
_HUGE = 1e300
# Groups per chunk: the temporaries of one chunk stay in the cache.
_CHUNK = 1 << 14


def examine(
    instance: Instance, choice: IntArray | None, multipliers: Mapping[str, float], tangent: FloatArray | None = None
) -> tuple[Assessment | None, Fraction | float]:
    """Return :func:`assess` of a choice, if there is one, and :func:`dual_bound`, -inf where there are no multipliers.

    Where groups stand alone, with one limit, both come from one pass over the tables.
    """
    if instance.interacting:
        _priced(instance, multipliers)
        assessment = None if choice is None else assess(instance, choice)
        return assessment, tangent_bound(instance, multipliers, tangent)
    plain = not (instance.ties or instance.budgets or instance.coupled or instance.peaks)
    if choice is None or not multipliers or not plain or not _is_choice(instance, choice):
        assessment = None if choice is None else assess(instance, choice)
        return assessment, dual_bound(instance, multipliers) if multipliers else -math.inf
    priced = _priced(instance, multipliers)
    by_cost, lam = instance.objective.whole, priced[1][1] if instance.limits else 0.0
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
    broken = tuple(row.name for row in instance.limits if row.broken_by(cost if row.whole else exact))
    dual = _lowered(instance, minima) + (least if by_cost else Fraction(lam) * least)
    return Assessment(cost, exact, cost if by_cost else exact, broken), dual + _constants(priced)


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


def _priced(instance: Instance, multipliers: Mapping[str, float]) -> Priced:
    """Return the objective and the limits with what each weighs; raise SolverError for wrong multipliers."""
    for name, value in multipliers.items():
        if not (math.isfinite(value) and value >= 0):
            raise SolverError(f"multiplier {name!r} must be finite and >= 0, got {value}")
    unknown = multipliers.keys() - instance.multiplier_names
    if unknown:
        raise SolverError(f"unknown multipliers {sorted(unknown)}")
    return [(instance.objective, 1.0), *((row, multipliers.get(row.name, 0.0)) for row in instance.limits)]


def _lowered(instance: Instance, minima: int) -> Fraction:
    """Return the sum ``minima`` of least values, in units of 2**-1074, less what underflow may have taken off them."""
    minima -= instance.size * (1 + len(instance.budgets))  # one unit for each product
    if not instance.objective.whole:
        return of_units(minima)
    # A bound on whole numbers needs no bits so far below one, and shorter fractions are quicker.
    return Fraction(minima >> (UNIT_BITS - 128), 1 << 128)


@np.errstate(over="ignore")  # a value that overflows still gives a valid, lower, bound
def dual_bound(instance: Instance, multipliers: Mapping[str, float]) -> Fraction | float:
    """Return a lower bound on the objective that ``multipliers`` >= 0 prove; -inf where they prove nothing.

    sum_g min_k (objective + sum_r mu_r row_r) - sum_r mu_r limit_r, in quanta of the objective (Everett 1963).
    Where costs couple groups, and with limits on few groups, the minimum is over all groups together
    (:func:`impq_opt.proof.pricing.least_priced`). For the least of a peak it is the first limit on its steps at which
    sum_r mu_r (row_r - limit_r) is not above 0 for every choice.

    Every float64 operation rounds by at most a factor (1 +- 2^-53); all terms are made non-negative first (a row's
    smallest cost is taken out exactly), so the computed minima are at most a known factor above the true ones.

    Parameters
    ----------
    multipliers : mapping
        By the names of the limits; of those that are left out it is 0.

    Raises
    ------
    SolverError
        For multipliers that are negative or not finite, or of no limit.
    """
    priced = _priced(instance, multipliers)
    if instance.interacting:
        return tangent_bound(instance, multipliers, None)
    if instance.peaks:
        return _peak_bound(instance, multipliers)
    if instance.coupled or any(map(is_local, instance.budgets)):
        return least_priced(instance, priced) + _constants(priced)
    shifts, minima = Fraction(0), 0  # what was taken out of the values, and their minima in units of 2**-1074
    factor = _factor(len(instance.budgets))
    for tables in _chunks(instance, priced):
        value: Table = np.zeros(1)
        for table, (_, price) in zip(tables, priced, strict=True):
            if price:
                excess, lowest = above_least(table)
                value = value + (excess if price == 1 else price * excess)
                shifts += Fraction(price) * lowest
        minima += exact_units(np.minimum(value.min(axis=1), _HUGE) * factor)
    return _lowered(instance, minima) + shifts + _constants(priced)


def _peak_bound(instance: Instance, multipliers: Mapping[str, float]) -> Fraction:
    """Return the least peak that ``multipliers`` do not rule out, by bisection."""
    ends = [step.ends for step in instance.peaks]
    low, high = int(max(least for least, _ in ends)) - 1, int(max(most for _, most in ends))
    while high - low > 1:
        limit = (low + high) // 2
        below = instance.below_peak(limit)
        priced = _priced(below, multipliers)[1:]
        if least_priced(below, priced) + _constants(priced) > 0:
            low = limit
        else:
            high = limit
    return Fraction(low + 1)


def _constants(priced: Priced) -> int | Fraction:
    """Return what pinned groups bring, less the multipliers times the limits."""
    total: int | Fraction = 0
    for row, price in priced:
        if price:
            total += row.base if row.limit is None else product(price, row.base - row.limit)
    return total


def _chunks(instance: Instance, priced: Priced) -> Iterator[list[Table]]:
    """Yield the tables (n, K) of ``priced`` rows, a cache-sized part of the instance at a time."""
    for block in instance.blocks:
        count = len(np.arange(instance.size)[block.groups]) if isinstance(block.groups, slice) else len(block.groups)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            places = part if isinstance(block.groups, slice) else block.groups[part]
            cost, damage = block.part(part).tables()
            yield [
                (cost if row.whole else damage) if row.of_blocks else row.table[places][:, : cost.shape[1]]
                for row, _ in priced
            ]
