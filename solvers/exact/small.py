"""What is small: every assignment, in whole numbers. No price and no bound can be led astray, and nothing runs on.

Costs are whole numbers, and so are damages in units of 2**-1074, however many decades they span. Every row is an
array with one axis for each group that has a choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from impq_opt.exactness.sums import units_within
from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.instance import Instance, Row
from impq_opt.instance.settle import settle
from impq_opt.problem.allocation import Enumeration
from impq_opt.types import BoolArray, IntArray

__all__ = ["enumerated"]


def enumerated(instance: Instance, control: Control, most: int) -> Claim | None:
    """Return the best of all assignments, or that none keeps the limits; None where there are more than ``most``.

    The least objective, among equals the least of the other (damage or cost), among those the first in order of the
    columns.
    """
    if np.log2(instance.widths).sum() > math.log2(most + 0.5):
        return None
    control.check()
    choosing = np.flatnonzero(instance.widths > 1)
    single = np.flatnonzero(instance.widths == 1)
    rest = settle(instance, single, np.zeros(len(single), dtype=np.int64)) if len(single) else instance
    best, states = _best(rest, control)
    done = Enumeration(instance.size, states)
    if best is None:
        return Claim(lower_bound=math.inf, enumeration=done)
    choice = np.zeros(instance.size, dtype=np.int64)
    choice[choosing] = best
    return Claim(choice, instance.objective_of(choice), enumeration=done)


def _best(instance: Instance, control: Control) -> tuple[IntArray | None, int]:
    """Return the best choice (size,) of groups that all have a choice, and the number of assignments."""
    shape = tuple(instance.widths.tolist())
    kept = np.ones(shape, dtype=bool)
    for row in instance.budgets:
        control.check()
        kept &= _within(_step(row, shape), int(row.room))
    cost = _costs(instance, shape)
    if instance.limit is not None:
        kept &= _within(cost, instance.limit - instance.base_cost)
    states = kept.size
    places = np.flatnonzero(kept)
    columns = np.unravel_index(places, shape) if shape else ()
    costs: list[int] = cost.reshape(-1)[places].tolist()
    damages, room = _damages(instance, columns, len(places), control)
    fits = [i for i in range(len(places)) if room is None or damages[i] <= room]
    if not fits:
        return None, states
    first, second = (costs, damages) if instance.objective.whole else (damages, costs)
    best = min(fits, key=lambda i: (first[i], second[i]))  # the first of equals
    return np.array([column[best] for column in columns], dtype=np.int64), states


def _costs(instance: Instance, shape: tuple[int, ...]) -> IntArray:
    """Return what is minimised or limited in cost, the constant left out but for the largest of several sums."""
    if not instance.peaks:
        return _sums(instance.tables[0], instance.pairs, shape)
    return np.asarray(np.max([int(step.base) + _step(step, shape) for step in instance.peaks], axis=0))


def _step(row: Row, shape: tuple[int, ...]) -> IntArray:
    return _sums(row.table, row.pairs, shape)


def _sums(table: IntArray, pairs: Coupling | None, shape: tuple[int, ...]) -> IntArray:
    """Return one row of every assignment."""
    total = np.zeros(shape, dtype=np.int64)
    for axis, width in enumerate(shape):
        total += _along(table[axis, :width], (axis,), len(shape))
    if pairs is not None:
        for left, right, values in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.dense(), strict=True):
            total += _along(values[: shape[left], : shape[right]], (left, right), len(shape))
    return total


def _along(values: IntArray, axes: tuple[int, ...], count: int) -> IntArray:
    """Return an array whose axes are ``axes``, in order, of ``count``, ready to be broadcast."""
    shape = [1] * count
    for axis, width in zip(axes, values.shape, strict=True):
        shape[axis] = width
    return values.reshape(shape)


def _within(values: IntArray, limit: int) -> BoolArray:
    large = np.iinfo(np.int64)
    return values <= min(max(limit, large.min), large.max) if limit >= large.min else np.zeros(values.shape, dtype=bool)


def _damages(
    instance: Instance, columns: Iterable[IntArray], count: int, control: Control
) -> tuple[list[int], int | None]:
    """Return the damage of some assignments in units of 2**-1074, and what the bound leaves of them."""
    total = np.zeros(count, dtype=object)
    for row, column in zip(instance.damage_units(), columns, strict=True):
        control.check()
        total += np.array(row, dtype=object)[column]  # Python's whole numbers: no sum rounds
    room = None if instance.bound is None else units_within(instance.bound - instance.base_damage)
    return total.tolist(), room
