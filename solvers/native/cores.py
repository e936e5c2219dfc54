"""Steps around a core: ``closest``, ``within``, ``relative`` and ``exchange`` of ``_core.c``."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from impq_opt.exactness.limits import CORE_BITS
from impq_opt.exactness.sums import UNIT_BITS, dyadic_units, exact_int_sum, exact_units
from impq_opt.solvers import native
from impq_opt.solvers.native import BOOL, COMPILED, FLOAT, INT, Limits, plain
from impq_opt.solvers.native.passes import GUARD, PROHIBITIVE, Pool, values_at
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Relative", "closest", "exchange", "relative", "relative_to", "rounded_down", "within"]

# So few groups are chosen from in compiled code; NumPy selects from many as quickly.
_FEW = 1024


def closest(behind: FloatArray, limit: float, most: int) -> tuple[IntArray, int]:
    """Return at most ``most`` rows, in order, those with the closest second choice within ``limit``; and how many are.

    Of equally close ones the first are taken.
    """
    if native.core is not None and len(behind) <= _FEW:
        rows = np.empty(min(most, len(behind)), dtype=np.int64)
        count = native.core.closest(np.ascontiguousarray(behind), len(behind), limit, most, rows)
        return rows[:count], count
    rows = (behind <= limit).nonzero()[0]
    count = len(rows)
    if count > most:
        values = behind[rows]
        farthest = np.partition(values, most - 1)[most - 1]
        nearer = values < farthest
        nearer[(values == farthest).nonzero()[0][: most - int(nearer.sum())]] = True
        rows = rows[nearer]
    return rows, count


def within(pool: Pool, rows: IntArray, first: FloatArray, price: float, limit: float) -> tuple[Pool, BoolArray]:
    """Return some rows of a pool, and which choices (n, K) have a value at most ``limit`` above their group's best.

    ``first`` (pool rows,) are the best values at ``price``; see :func:`~.passes.values_at` for what a value is.
    """
    count, width = len(rows), pool.cost.shape[1]
    if native.core is not None and plain(pool.cost, INT) and plain(pool.damage, FLOAT):
        cost, damage = np.empty((count, width), dtype=np.int64), np.empty((count, width))
        kept = np.empty((count, width), dtype=np.bool_)
        first, rows = np.ascontiguousarray(first), np.ascontiguousarray(rows)
        native.core.within(
            *(pool.cost, pool.damage, len(pool), first, rows, count, width, price, limit, GUARD, int(PROHIBITIVE)),
            *(cost, damage, kept),
        )
        return Pool(rows, cost, damage), kept
    part = pool.take(rows)
    values = values_at(part.cost, part.damage, price)
    kept = ~(values * GUARD - first[rows][:, None] > limit)
    kept &= part.cost - part.cost.min(axis=1)[:, None] < PROHIBITIVE
    return part, kept


class Relative(NamedTuple):
    """Groups in integers relative to a base.

    cost, damage (n, K): beyond the base's, 0 for choices that are not kept; damages in units of 2**-shift, rounded
    down. inexact: groups with a rounded damage. base_units: sum of the base's damages so rounded. base_damage: their
    exact sum, in units of 2**-1074.
    """

    cost: IntArray
    damage: IntArray
    shift: int
    inexact: int
    base_units: int
    base_damage: int


def relative(
    cost: IntArray, damage: FloatArray, kept: BoolArray, base: IntArray, most: float, limits: Limits = COMPILED
) -> Relative:
    """Return tables (n, K) relative to the choices ``base`` (n,), in integers.

    Choices that do more damage than ``most`` are taken off ``kept`` (n, K), the base's never.
    """
    if native.core is not None and limits.hold(len(cost)) and plain(kept, BOOL):
        costs, damages = np.empty(kept.shape, dtype=np.int64), np.empty(kept.shape, dtype=np.int64)
        tables = np.ascontiguousarray(cost), np.ascontiguousarray(damage)
        base = np.ascontiguousarray(base)
        shift, inexact, base_units, exact = native.core.relative(
            *(*tables, kept, base, *kept.shape, most, CORE_BITS, UNIT_BITS, costs, damages)
        )
        return Relative(costs, damages, shift, inexact, base_units, dyadic_units(*exact))
    units, shift, rounded = rounded_down(damage, kept, base, most)
    own = exact_units(damage[np.arange(len(cost)), base])
    return relative_to(cost, units, kept, base, shift, int(rounded.sum()), own)


def relative_to(
    cost: IntArray, units: IntArray, kept: BoolArray, base: IntArray, shift: int, inexact: int, base_damage: int
) -> Relative:
    """Return what :func:`relative` does, of damages (n, K) that are whole numbers of 2**-shift already."""
    rows = np.arange(len(cost))
    own = units[rows, base]
    damages = np.where(kept, units - own[:, None], 0)
    costs = np.where(kept, cost - cost[rows, base][:, None], 0)
    return Relative(costs, damages, shift, inexact, exact_int_sum(own), base_damage)


def rounded_down(damage: FloatArray, kept: BoolArray, base: IntArray, most: float) -> tuple[IntArray, int, BoolArray]:
    """Return the damages (n, K) that are kept in units of 2**-shift, rounded down; the shift; rows (n,) so rounded.

    See :func:`relative` for ``kept``. No sum of one choice a row reaches 2**62.
    """
    kept &= damage <= most
    kept[np.arange(len(damage)), base] = True
    damages = np.where(kept, damage, 0.0)
    # No assignment does more damage than the sum of the rows' largest; as shares of the largest of all, rounded up
    # to whole parts, they cannot overflow, and add up to the same in any order. One bit more is for their rounding.
    rows = damages.max(axis=1, initial=0.0)
    largest, shift = float(rows.max(initial=0.0)), UNIT_BITS
    if largest:
        parts = int(np.ceil(np.ldexp(rows / largest, 32)).astype(np.int64).sum())
        shift = min(CORE_BITS - (math.frexp(largest)[1] + parts.bit_length() - 32 + 1), UNIT_BITS)
    scaled = np.ldexp(damages, shift)
    units = np.floor(scaled)
    rounded: BoolArray = (np.ldexp(units, -shift) != damages).any(axis=1)
    return units.astype(np.int64), shift, rounded


def exchange(
    pool: Pool, rows: IntArray, base: IntArray, columns: IntArray, kept: BoolArray | None, limits: Limits = COMPILED
) -> tuple[IntArray, IntArray, int, int]:
    """Return the rows (m,) of ``pool`` that change from ``base`` to ``columns`` (n,), and to which column (m,).

    A column that is not ``kept`` (n, K) stands for the base's. Also return what that saves, cost and damage (in units
    of 2**-1074), exactly.
    """
    cost, damage = pool.cost, pool.damage
    # Two damages a row are summed.
    small = limits.hold(2 * len(rows)) and (kept is None or plain(kept, BOOL))
    if native.core is not None and small and plain(cost, INT) and plain(damage, FLOAT):
        moved, to = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
        rows, base = np.ascontiguousarray(rows), np.ascontiguousarray(base)
        columns = np.ascontiguousarray(columns, dtype=np.int64)
        count, saved, less = native.core.exchange(
            *(cost, damage, len(pool), rows, base, columns, kept, len(rows), cost.shape[1], moved, to)
        )
        return moved[:count], to[:count], saved, dyadic_units(*less)
    if kept is not None:
        columns = np.where(kept[np.arange(len(rows)), columns], columns, base)
    differs = (columns != base).nonzero()[0]
    rows, to, base = rows[differs], columns[differs], base[differs]
    saved = exact_int_sum(cost[rows, base] - cost[rows, to])
    return rows, to, saved, exact_units(np.concatenate([damage[rows, base], -damage[rows, to]]))
