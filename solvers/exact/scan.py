"""One pass over the tables, to find the groups that a bracket of multipliers can still change.

Reduced costs are differences of linear functions of the multiplier. Where one candidate beats all others of its group
by more than a threshold at both ends of a bracket it does so everywhere inside, and the group is settled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from impq_opt.exactness import limits
from impq_opt.exactness.sums import dyadic_units, exact_int_sum, exact_units
from impq_opt.instance.instance import Block, RankOne
from impq_opt.solvers import native
from impq_opt.solvers.native import ColumnArray, column_type
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "GUARD",
    "LARGEST_PRICE",
    "PROHIBITIVE",
    "Pool",
    "Scan",
    "Total",
    "closest",
    "everything",
    "gather",
    "scan",
    "second_choices",
    "values_at",
    "within",
]


# A float64 value of a candidate (three roundings, all terms >= 0) times this is below its true value.
GUARD = 1.0 - 2.0**-48
# Multipliers stay below this, so that they can be multiplied by any cost.
LARGEST_PRICE = 1e280
# On top of the cost of a column that stands for no candidate.
PROHIBITIVE = np.int64(limits.PROHIBITIVE)
# Groups per chunk: the temporaries of one chunk stay in the cache.
_CHUNK = 1 << 13
# So few groups are chosen from in compiled code.
_FEW = 1024
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
    def of(cls, cost: int, damage: tuple[int, int]) -> Total:
        """Return the total that the kernel gives, whose damage is (integer, exponent)."""
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


def scan(blocks: Sequence[Block], size: int, low: float, high: float, threshold: float) -> Scan:
    """Settle what can be settled for every multiplier in [low, high] (cost per damage) within ``threshold`` of cost."""
    parts = [_scan_block(block, low, high, threshold) for block in blocks]
    if len(parts) == 1 and isinstance(blocks[0].groups, slice):
        return parts[0]
    columns = np.empty(size, dtype=column_type(max(map(block_width, blocks))))
    pools = []
    for block, part in zip(blocks, parts, strict=True):
        columns[block.groups] = part.columns
        places = part.pool.places
        pools.append(replace(part.pool, places=places if isinstance(block.groups, slice) else block.groups[places]))
    ends = ([part.settled for part in parts], [part.at_low for part in parts], [part.at_high for part in parts])
    settled, at_low, at_high = (functools.reduce(Total.plus, totals) for totals in ends)
    return Scan(columns, _joined(pools), settled, at_low, at_high, low, high, threshold)


def _scan_block(block: Block, low: float, high: float, threshold: float) -> Scan:
    """Scan one block; its groups are numbered by row."""
    arrays = _native_arrays(block)
    return (
        _scan_numpy(block, low, high, threshold)
        if arrays is None
        else _scan_native(block, arrays, low, high, threshold)
    )


def _scan_native(block: Block, arrays: tuple[Any, ...], low: float, high: float, threshold: float) -> Scan:
    count, width = arrays[-2:]
    needed = count // (_POOL_SHARE if block.structured else _POOL_SHARE // 2) + _POOL_LEAST
    columns = np.empty(count, dtype=np.uint16)  # lives longer than the pool
    while needed:
        room, table = needed, (needed, width)
        places, pool_cost, pool_damage = native.blank(((room,), np.int64), (table, np.int64), (table, np.float64))
        opened, needed, *found = native.kernel.scan(
            *(*arrays, low, high, threshold, GUARD, columns, places),
            *(pool_cost, pool_damage, room, native.thread_count(count)),
        )
    pool = Pool(places[:opened], pool_cost[:opened], pool_damage[:opened])
    settled, at_low, at_high = (Total.of(*total) for total in found)
    return Scan(columns, pool, settled, at_low, at_high, low, high, threshold)


def _scan_numpy(block: Block, low: float, high: float, threshold: float) -> Scan:
    count = block_length(block)
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
    return Scan(columns, Pool(opened, *_rows(block, opened)), settled, at_low_end, at_high_end, low, high, threshold)


def _native_arrays(block: Block) -> tuple[Any, ...] | None:
    """Return a block's arrays as the kernel takes them; None where NumPy has to read the block."""
    if native.kernel is None:
        return None
    if isinstance(block.cost, RankOne) and isinstance(block.damage, RankOne):
        vectors = [block.cost.left, block.damage.left, block.cost.right, block.damage.right]
        arrays, width = [np.ascontiguousarray(vector) for vector in vectors], block.cost.right.size
    else:
        arrays, width = [block.cost, block.damage], block.cost.shape[1]  # type: ignore[list-item,union-attr]
        if not all(array.flags.c_contiguous for array in arrays):
            return None
        arrays += [None, None]  # type: ignore[list-item]
    if width > native.MOST_COLUMNS or block_length(block) > native.MOST_ROWS:
        return None
    return (*arrays, block.widths, block_length(block), width)


def values_at(cost: IntArray, damage: FloatArray, price: float) -> FloatArray:
    """Return cost - least cost of the group + price * damage (n, K), rounded at most three times; it may overflow."""
    return (cost - cost.min(axis=1)[:, None]).astype(np.float64) + price * damage


def block_length(block: Block) -> int:
    """Return the number of groups of a block."""
    return len(block.cost.left) if block.structured else len(block.cost)  # type: ignore[union-attr,arg-type]


def block_width(block: Block) -> int:
    """Return the number of columns of a block's tables."""
    return int(block.cost.right.size if isinstance(block.cost, RankOne) else block.cost.shape[1])


def _rows(block: Block, rows: IntArray | slice) -> tuple[IntArray, FloatArray]:
    """Return the tables of some rows of a block; columns past a width repeat the last at a prohibitive cost."""
    arrays = None if isinstance(rows, slice) else _native_arrays(block)
    if arrays is not None:
        shape = (len(rows), arrays[-1])  # type: ignore[arg-type]
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


def everything(blocks: Sequence[Block], size: int) -> Pool:
    """Return the pool of all groups; views of the instance's tables where it has one block of them."""
    pools = [
        Pool(np.arange(size) if isinstance(block.groups, slice) else block.groups, *_rows(block, slice(None)))
        for block in blocks
    ]
    if len(pools) == 1 and isinstance(blocks[0].groups, slice):
        return pools[0]
    joined = _joined(pools)
    order = np.argsort(joined.places, kind="stable")
    return Pool(joined.places[order], joined.cost[order], joined.damage[order])


def gather(blocks: Sequence[Block], size: int, places: IntArray) -> Pool:
    """Return the pool of some ``places`` (sorted) of the instance."""
    pools = []
    for block in blocks:
        if isinstance(block.groups, slice):
            rows, found = places, places
        else:
            # groups of a block are sorted, or few: look the places up
            order = np.argsort(block.groups, kind="stable")
            where = np.searchsorted(block.groups, places, sorter=order)
            inside = where < len(order)
            rows = order[np.minimum(where, len(order) - 1)]
            inside &= block.groups[rows] == places
            rows, found = rows[inside], places[inside]
        pools.append(Pool(found, *_rows(block, rows)))
    return _joined(pools)


def _joined(pools: list[Pool]) -> Pool:
    if len(pools) == 1:
        return pools[0]
    width = max(pool.cost.shape[1] for pool in pools)

    def widened(pool: Pool) -> tuple[IntArray, FloatArray]:
        columns = np.minimum(np.arange(width), pool.cost.shape[1] - 1)
        past = np.arange(width) > columns
        # A last column that already stands for none is not to be raised again: it would overflow.
        is_one = pool.cost[:, -1:] - pool.cost.min(axis=1)[:, None] < PROHIBITIVE
        return pool.cost[:, columns] + PROHIBITIVE * (past & is_one), pool.damage[:, columns]

    costs, damages = zip(*(widened(pool) for pool in pools), strict=True)
    return Pool(np.concatenate([pool.places for pool in pools]), np.concatenate(costs), np.concatenate(damages))


def second_choices(pool: Pool, price: float, columns: ColumnArray) -> tuple[FloatArray, FloatArray, FloatArray, Total]:
    """Return each group's least value (n,) at ``price``, how far the second is behind, its entry's of ``columns``.

    And what those entries cost and damage.

    See :func:`values_at` for what a value is. How far is rounded down; it is -1 where rounding, or the largest price,
    made ``columns`` take another choice than the best, so that a better answer differs.
    """
    count, width = pool.cost.shape
    if native.kernel is not None and width <= native.MOST_COLUMNS:
        first, behind, own = np.empty(count), np.empty(count), np.empty(count)
        cost, damage = np.ascontiguousarray(pool.cost), np.ascontiguousarray(pool.damage)
        chosen = native.kernel.seconds(cost, damage, count, width, price, GUARD, columns, first, behind, own)
        return first, behind, own, Total.of(*chosen)
    with np.errstate(over="ignore"):
        values = values_at(pool.cost, pool.damage, price)
    own = values[np.arange(count), columns]
    lowest = np.partition(values, 1, axis=1) if width > 1 else np.pad(values, ((0, 0), (0, 1)), constant_values=np.inf)
    first = np.ascontiguousarray(lowest[:, 0])
    with np.errstate(invalid="ignore"):
        behind = lowest[:, 1] * GUARD - first
    behind = np.where((own * GUARD > first) | np.isnan(behind), -1.0, behind)
    return first, behind, own, pool.total(np.arange(count), columns)


def closest(behind: FloatArray, limit: float, most: int) -> tuple[IntArray, int]:
    """Return at most ``most`` rows, in order, those with the closest second choice within ``limit``; and how many are.

    Of equally close ones the first are taken.
    """
    if native.core is not None and len(behind) <= _FEW:  # NumPy selects from many as quickly
        rows = np.empty(min(most, len(behind)), dtype=np.int64)
        count: int = native.core.closest(behind, len(behind), limit, most, rows)
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


def within(
    pool: Pool, rows: IntArray, first: FloatArray, price: float, limit: float
) -> tuple[Pool, npt.NDArray[np.bool_]]:
    """Return some rows of a pool, and which choices (n, K) have a value at most ``limit`` above their group's best.

    ``first`` (pool rows,) are the best values at ``price``; see :func:`values_at` for what a value is.
    """
    count, width = len(rows), pool.cost.shape[1]
    if native.core is not None and pool.cost.flags.c_contiguous and pool.damage.flags.c_contiguous:
        cost, damage = np.empty((count, width), dtype=np.int64), np.empty((count, width))
        kept = np.empty((count, width), dtype=np.bool_)
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


def common_divisor(blocks: Sequence[Block]) -> int:
    """Return the greatest common divisor of all differences of costs inside a group, 0 where there are none."""
    found = 0
    for block in blocks:
        if isinstance(block.cost, RankOne):
            levels = np.diff(block.cost.right)
            here = _divisor(block.cost.left[:, None], None) * int(np.gcd.reduce(levels)) if levels.size else 0
        else:  # one candidate alone has no differences
            here = _divisor(block.cost, block.widths) if block.cost.shape[1] > 1 else 0
        found = math.gcd(found, here)
        if found == 1:
            return 1
    return found


def _divisor(values: IntArray, widths: IntArray | None) -> int:
    """Return the greatest common divisor of the differences inside rows, or of the values of a single column."""
    count, width = values.shape
    if native.kernel is not None and values.flags.c_contiguous:
        divisor: int = native.kernel.divisor(values, widths, count, width, native.thread_count(count))
        return divisor
    found = 0
    for start in range(0, count, _CHUNK):
        part = values[start : start + _CHUNK]
        steps = np.diff(part, axis=1) if width > 1 else part
        if widths is not None:
            steps = steps * (np.arange(1, width) < widths[start : start + _CHUNK, None])
        # Once a divisor is known, a remainder is rare and cheaper to look for.
        if found == 0 or (steps % found).any():
            found = math.gcd(found, int(np.gcd.reduce(steps, axis=None)))
        if found == 1:
            break
    return found
