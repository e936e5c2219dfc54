"""The least sums of single rows, and of two lines between which a multiplier stands: what follows from tables alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import exact_int_sum, exact_sum, nearest_float
from impq_opt.instance.instance import Instance, RankOne
from impq_opt.judge.lines import Line, chunks, pair_tables, tied_damages
from impq_opt.types import FloatArray, IntArray

__all__ = ["between", "least_costly", "least_damaging"]

# Halvings of the angle between two limits: its tangent is their multiplier.
_HALVINGS = 50
_EPS = 2.0**-53


def least_costly(part: Instance) -> tuple[int, IntArray]:
    """Return the sum of the smallest entries of groups and pairs, in quanta, and the choice (size,) of the groups'."""
    choice, total = np.zeros(part.size, dtype=np.int64), part.base_cost
    for block in part.blocks:
        if isinstance(block.cost, RankOne):
            left, right = block.cost.left, block.cost.right
            columns = np.where(left < 0, right.argmax(), right.argmin())
            total += exact_int_sum(left * right[columns])
        else:
            table = block.tables()[0]
            columns = table.argmin(axis=1)
            total += exact_int_sum(table.min(axis=1))
        choice[block.groups] = columns
    if part.pairs is not None:
        for edges in chunks(len(part.pairs)):
            total += exact_int_sum(pair_tables(part.pairs, np.arange(edges.start, edges.stop)).min(axis=(1, 2)))
        flat = (part.tables[0] == part.tables[0][:, :1]).all(axis=1)
        choice[flat] = part.pairs.levels[flat].argmin(axis=1)
    return total, choice


def least_damaging(part: Instance) -> IntArray:
    """Return the choice (size,) of smallest damage, that of ties by the exact sums of their members."""
    choice = np.zeros(part.size, dtype=np.int64)
    for block in part.blocks:
        if isinstance(block.damage, RankOne):
            choice[block.groups] = block.damage.right.argmin()
        else:
            choice[block.groups] = block.tables()[1].argmin(axis=1)
    for group, sums in tied_damages(part).items():
        choice[group] = sums.index(min(sums))
    return choice


def between(first: Line, second: Line) -> Iterator[tuple[IntArray, bool]]:
    """Yield choices (size,) of least ``first + multiplier * second``, and whether that is above what the limits allow.

    The multiplier grows while the choice has too much of ``second`` and shrinks otherwise. The lines have no pairs.
    """
    every, lines = np.arange(len(first.widths)), (first, second)
    above = [_above_least(line, every) for line in lines]
    rooms = [Fraction(line.limit - line.base - line.least(every), line.unit) for line in lines]
    scale = [max(float(table.max(initial=0.0)), 1e-300) for table in above]
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        prices = [math.cos(angle) / scale[0], math.sin(angle) / scale[1]]
        values = prices[0] * above[0] + prices[1] * above[1]
        choice = values.argmin(axis=1)  # where candidates end their last one is repeated: of equal ones the first
        # Each value is within a few roundings of the exact one, and two underflows.
        least = exact_sum(values.min(axis=1) * (1 - 8 * _EPS)) - Fraction(2 * len(values), 1 << 1074)
        beyond = least > Fraction(prices[0]) * rooms[0] + Fraction(prices[1]) * rooms[1]
        yield choice, beyond
        if exact_sum(np.take_along_axis(above[1], choice[:, None], 1)) > rooms[1]:
            low = angle
        else:
            high = angle


def _above_least(line: Line, every: IntArray) -> FloatArray:
    """Return by how much each entry (size, K) is above its group's smallest, rounded once."""
    rows = line.rows(every)
    rows = np.take_along_axis(rows, np.minimum(np.arange(rows.shape[1]), line.widths[:, None] - 1), axis=1)
    above = (rows - rows.min(axis=1, keepdims=True)).astype(np.float64)
    for group, exact in line.exact.items():
        least = min(exact)
        # The rows of ties are rounded themselves.
        own = [nearest_float(Fraction(value - least, line.unit)) for value in exact]
        above[group] = [own[min(k, len(own) - 1)] for k in range(above.shape[1])]
    return above
