"""Passes over one table of groups: ``scan``, ``gather``, ``seconds`` and ``divisor`` of ``_kernel.c``.

Reduced costs are differences of linear functions of the multiplier. Where one candidate beats all others of its group
by more than a threshold at both ends of a bracket it does so everywhere inside, and the group is settled.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from impq_opt.exactness import limits
from impq_opt.exactness.sums import dyadic_units, exact_int_sum, exact_units
from impq_opt.instance.instance import Block, RankOne
from impq_opt.solvers import native
from impq_opt.solvers.native import COMPILED, FLOAT, INT, ColumnArray, Limits, column_type, plain
from impq_opt.solvers.native.signatures import RawTotal
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "GUARD",
    "LARGEST_PRICE",
    "PROHIBITIVE",
    "Pool",
    "Scan",
    "Total",
    "block_width",
    "gather_rows",
    "row_divisor",
    "scan_block",
    "second_choices",
    "values_at",
]

# A float64 value of a candidate (three roundings, all terms >= 0) times this is below its true value.
GUARD = 1.0 - 2.0**-48
# Multipliers stay below this, so that they can be multiplied by any cost.
LARGEST_PRICE = 1e280
# On top of the cost of a column that stands for no candidate.
PROHIBITIVE = np.int64(limits.PROHIBITIVE)
# Groups per chunk: the temporaries of one chunk stay in the cache.
_CHUNK = 1 << 13
# Room for one open group in this many (in half as many of full tables) before a pass has to be made again.
_POOL_SHARE = 16
_POOL_LEAST = 1 << 10


@dataclass(frozen=True, eq=False)
class Pool:
    """Some groups with their tables; what an open group looks like once it is copied out.

    places (n,): where the groups stand in what they were copied from. cost, damage (n, K): columns past a group's
    width repeat its last candidate at a prohibitive cost.
    """

    places: IntArray
    cost: IntArray
    damage: FloatArray

    def __len__(self) -> int:
        return len(self.places)

    @property
    def block(self) -> Block:
        """The pool as a block of its own."""
        return Block(slice(None), self.cost, self.damage)

    def take(self, rows: IntArray) -> Pool:
        """Return the pool of some of its rows, numbered by their row."""
        return Pool(rows, self.cost[rows], self.damage[rows])

    def chosen(self, columns: npt.NDArray[np.integer]) -> tuple[IntArray, FloatArray]:
        """Return cost and damage (n,) of one candidate a group."""
        return self.cost[self._rows, columns], self.damage[self._rows, columns]

    @functools.cached_property
    def _rows(self) -> IntArray:
        return np.arange(len(self.places))

    def total(self, rows: IntArray, columns: npt.NDArray[np.integer]) -> Total:
        """Return what some of its rows cost and damage at their entries of ``columns`` (n,)."""
        columns = columns[rows]
        return Total(exact_int_sum(self.cost[rows, columns]), exact_units(self.damage[rows, columns]))


class Total(NamedTuple):
    """An exact sum over some groups; damage in units of 2**-1074."""

    cost: int = 0
    damage: int = 0

    @classmethod
    def of(cls, total: RawTotal) -> Total:
        """Return a total as a kernel gives it."""
        cost, damage = total
        return cls(cost, dyadic_units(*damage))

    def plus(self, other: Total) -> Total:
        """Return the sum of two."""
        return Total(self.cost + other.cost, self.damage + other.damage)


class Scan(NamedTuple):
    """What a pass found.

    columns (size,): the best candidate at the low end. pool: the open groups. settled: what the settled groups cost and
    damage; at_low, at_high: the same for the open groups at the two ends. The rest says what the pass was asked for.
    """

    columns: ColumnArray
    pool: Pool
    settled: Total
    at_low: Total
    at_high: Total
    low: float
    high: float
    threshold: float


class _Arrays(NamedTuple):
    """A block as kernels read it: tables, or vectors with the levels and scales that they are multiplied by."""

    cost: IntArray
    damage: FloatArray
    levels: IntArray | None
    scales: FloatArray | None
    widths: IntArray | None
    rows: int
    columns: int


def _arrays(block: Block, limits: Limits) -> _Arrays | None:
    """Return a block's arrays for a kernel; None where NumPy has to read it."""
    if native.kernel is None:
        return None
    widths = None if block.widths is None else np.ascontiguousarray(block.widths, dtype=np.int64)
    if isinstance(block.cost, RankOne) and isinstance(block.damage, RankOne):
        rows, columns = len(block.cost.left), block.cost.right.size
        cost, levels = (np.ascontiguousarray(part, dtype=np.int64) for part in (block.cost.left, block.cost.right))
        damage = np.ascontiguousarray(block.damage.left, dtype=np.float64)
        scales = np.ascontiguousarray(block.damage.right, dtype=np.float64)
        return _Arrays(cost, damage, levels, scales, widths, rows, columns) if limits.hold(rows, columns) else None
    assert isinstance(block.cost, np.ndarray) and isinstance(block.damage, np.ndarray)
    rows, columns = block.cost.shape
    # Copies of tables would take longer than NumPy does.
    if not (limits.hold(rows, columns) and plain(block.cost, INT) and plain(block.damage, FLOAT)):
        return None
    return _Arrays(block.cost, block.damage, None, None, widths, rows, columns)


def scan_block(block: Block, low: float, high: float, threshold: float, limits: Limits = COMPILED) -> Scan:
    """Settle what can be settled for every multiplier in [low, high] (cost per damage) within ``threshold`` of cost.

    Groups are numbered by row.
    """
    arrays = _arrays(block, limits)
    if native.kernel is None or arrays is None:
        return _scan_numpy(block, low, high, threshold)
    count, width = arrays.rows, arrays.columns
    needed = count // (_POOL_SHARE if block.structured else _POOL_SHARE // 2) + _POOL_LEAST
    columns = np.empty(count, dtype=np.uint16)  # lives longer than the pool
    while needed:
        room, table = needed, (needed, width)
        places, pool_cost, pool_damage = native.blank(((room,), np.int64), (table, np.int64), (table, np.float64))
        opened, needed, *totals = native.kernel.scan(
            *(*arrays, low, high, threshold, GUARD, columns, places),
            *(pool_cost, pool_damage, room, native.thread_count(count)),
        )
    pool = Pool(places[:opened], pool_cost[:opened], pool_damage[:opened])
    settled, at_low, at_high = (Total.of(total) for total in totals)
    return Scan(columns, pool, settled, at_low, at_high, low, high, threshold)


def _scan_numpy(block: Block, low: float, high: float, threshold: float) -> Scan:
    count = _block_length(block)
    columns = np.empty(count, dtype=column_type(block_width(block)))
    rows = []
    settled = at_low_end = at_high_end = Total()
    for start in range(0, count, _CHUNK):
        part = block.part(slice(start, min(start + _CHUNK, count)))
        part_cost, part_damage = part.tables()
        with np.errstate(over="ignore"):
            at_low, at_high = values_at(part_cost, part_damage, low), values_at(part_cost, part_damage, high)
        best = at_low.argmin(axis=1)
        least_low, least_high = at_low.min(axis=1) + threshold, at_high.min(axis=1) + threshold
        out = (at_low * GUARD > least_low[:, None]) & (at_high * GUARD > least_high[:, None])
        if part.widths is not None:
            out |= np.arange(out.shape[1]) >= part.widths[:, None]
        is_open = out.sum(axis=1) < out.shape[1] - 1
        columns[start : start + len(best)] = best
        here = Pool(np.arange(len(best)), part_cost, part_damage)
        settled = settled.plus(here.total(np.flatnonzero(~is_open), best))
        rows.append(np.flatnonzero(is_open))
        at_low_end = at_low_end.plus(here.total(rows[-1], best))
        at_high_end = at_high_end.plus(here.total(rows[-1], at_high.argmin(axis=1)))
        rows[-1] += start
    opened = np.concatenate(rows)
    return Scan(
        columns, Pool(opened, *gather_rows(block, opened)), settled, at_low_end, at_high_end, low, high, threshold
    )


def values_at(cost: IntArray, damage: FloatArray, price: float) -> FloatArray:
    """Return cost - least cost of the group + price * damage (n, K), rounded at most three times; it may overflow."""
    return (cost - cost.min(axis=1)[:, None]).astype(np.float64) + price * damage


def _block_length(block: Block) -> int:
    """Return the number of groups of a block."""
    return len(block.cost.left) if block.structured else len(block.cost)  # type: ignore[union-attr,arg-type]


def block_width(block: Block) -> int:
    """Return the number of columns of a block's tables."""
    return int(block.cost.right.size if isinstance(block.cost, RankOne) else block.cost.shape[1])


def gather_rows(block: Block, rows: IntArray | slice, limits: Limits = COMPILED) -> tuple[IntArray, FloatArray]:
    """Return cost and damage (n, K) of some rows of a block; a slice gives views where it can.

    Columns past a width repeat the last at a prohibitive cost.
    """
    arrays = None if isinstance(rows, slice) else _arrays(block, limits)
    if native.kernel is not None and arrays is not None and not isinstance(rows, slice):
        shape = (len(rows), arrays.columns)
        cost, damage = np.empty(shape, dtype=np.int64), np.empty(shape)
        native.kernel.gather(*arrays, np.ascontiguousarray(rows, dtype=np.int64), shape[0], cost, damage)
        return cost, damage
    part = block.part(rows) if isinstance(rows, slice) else _picked(block, rows)
    cost, damage = part.tables()
    if part.widths is not None:
        cost = cost + PROHIBITIVE * (np.arange(cost.shape[1]) >= part.widths[:, None])
    return cost, damage


def _picked(block: Block, rows: IntArray) -> Block:
    return Block(rows, block.cost[rows], block.damage[rows], None if block.widths is None else block.widths[rows])


def second_choices(
    pool: Pool, price: float, columns: ColumnArray, limits: Limits = COMPILED
) -> tuple[FloatArray, FloatArray, FloatArray, Total]:
    """Return each group's least value (n,) at ``price``, how far the second is behind, its entry's of ``columns``.

    And what those entries cost and damage.

    See :func:`values_at` for what a value is. How far is rounded down; it is -1 where rounding, or the largest price,
    made ``columns`` take another choice than the best, so that a better answer differs.
    """
    count, width = pool.cost.shape
    if native.kernel is not None and limits.hold(count, width):
        first, behind, own = np.empty(count), np.empty(count), np.empty(count)
        cost, damage = np.ascontiguousarray(pool.cost), np.ascontiguousarray(pool.damage)
        chosen = np.ascontiguousarray(columns, dtype=np.uint16)
        total = native.kernel.seconds(cost, damage, count, width, price, GUARD, chosen, first, behind, own)
        return first, behind, own, Total.of(total)
    with np.errstate(over="ignore"):
        values = values_at(pool.cost, pool.damage, price)
    own = values[np.arange(count), columns]
    lowest = np.partition(values, 1, axis=1) if width > 1 else np.pad(values, ((0, 0), (0, 1)), constant_values=np.inf)
    first = np.ascontiguousarray(lowest[:, 0])
    with np.errstate(invalid="ignore"):
        behind = lowest[:, 1] * GUARD - first
    behind = np.where((own * GUARD > first) | np.isnan(behind), -1.0, behind)
    return first, behind, own, pool.total(np.arange(count), columns)


def row_divisor(values: IntArray, widths: IntArray | None = None) -> int:
    """Return the greatest common divisor of the differences inside rows (n, K), or of the values of a single column.

    ``widths`` (n,): columns at and past a row's are ignored.
    """
    count, width = values.shape
    if native.kernel is not None and plain(values, INT):
        widths = None if widths is None else np.ascontiguousarray(widths, dtype=np.int64)
        return native.kernel.divisor(values, widths, count, width, native.thread_count(count))
    divisor = 0
    for start in range(0, count, _CHUNK):
        part = values[start : start + _CHUNK]
        steps = np.diff(part, axis=1) if width > 1 else part
        if widths is not None:
            steps = steps * (np.arange(1, width) < widths[start : start + _CHUNK, None])
        # Once a divisor is known, a remainder is rare and cheaper to look for.
        if divisor == 0 or (steps % divisor).any():
            divisor = math.gcd(divisor, int(np.gcd.reduce(steps, axis=None)))
        if divisor == 1:
            break
    return divisor
