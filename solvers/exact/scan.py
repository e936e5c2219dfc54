"""One pass over all tables, to find the groups that a bracket of multipliers can still change.

What happens to one table stands in ``native.passes``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from impq_opt.instance.instance import Block, RankOne
from impq_opt.solvers.native import column_type
from impq_opt.solvers.native.passes import (
    PROHIBITIVE,
    Pool,
    Scan,
    Total,
    block_width,
    gather_rows,
    row_divisor,
    scan_block,
)
from impq_opt.types import FloatArray, IntArray

__all__ = ["common_divisor", "everything", "gather", "scan"]


def scan(blocks: Sequence[Block], size: int, low: float, high: float, threshold: float) -> Scan:
    """Settle what can be settled for every multiplier in [low, high] (cost per damage) within ``threshold`` of cost."""
    parts = [scan_block(block, low, high, threshold) for block in blocks]
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


def everything(blocks: Sequence[Block], size: int) -> Pool:
    """Return the pool of all groups; views of the instance's tables where it has one block of them."""
    pools = [
        Pool(np.arange(size) if isinstance(block.groups, slice) else block.groups, *gather_rows(block, slice(None)))
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
            rows, inside = places, places
        else:
            # groups of a block are sorted, or few: look the places up
            order = np.argsort(block.groups, kind="stable")
            where = np.searchsorted(block.groups, places, sorter=order)
            there = where < len(order)
            rows = order[np.minimum(where, len(order) - 1)]
            there &= block.groups[rows] == places
            rows, inside = rows[there], places[there]
        pools.append(Pool(inside, *gather_rows(block, rows)))
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


def common_divisor(blocks: Sequence[Block]) -> int:
    """Return the greatest common divisor of all differences of costs inside a group, 0 where there are none."""
    divisor = 0
    for block in blocks:
        if isinstance(block.cost, RankOne):
            levels = np.diff(block.cost.right)
            here = row_divisor(block.cost.left[:, None]) * int(np.gcd.reduce(levels)) if levels.size else 0
        else:  # one candidate alone has no differences
            here = row_divisor(block.cost, block.widths) if block.cost.shape[1] > 1 else 0
        divisor = math.gcd(divisor, here)
        if divisor == 1:
            return 1
    return divisor
