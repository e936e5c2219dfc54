"""Using up what is left of the capacity: single changes that fit, the largest gain first."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import ceil_float
from impq_opt.solvers._exact_scan import Pool

__all__ = ["fill"]

IntArray = npt.NDArray[np.int64]

_MOST_CHANGES = 256


def fill(pool: Pool, base: IntArray, by_cost: bool, slack: Fraction) -> IntArray:
    """Return columns (n,) at least as good as ``base`` that use up at most ``slack`` more; one change a group.

    ``slack`` is damage where cost is minimised, and cost where damage is.
    """
    cost, damage = pool.chosen(base)
    saved, added = cost[:, None] - pool.cost, pool.damage - damage[:, None]
    gain, need = (saved, added) if by_cost else (-added, -saved)
    rows, columns = np.nonzero((gain > 0) & (need <= ceil_float(slack)))
    gain, need = gain[rows, columns], need[rows, columns]
    found = base.copy()
    for _ in range(_MOST_CHANGES):
        if len(gain) == 0:
            break
        # Among equal gains the least need: sort keys would cost more than two scans.
        best = np.flatnonzero(gain == gain.max())
        pick = int(best[need[best].argmin()])
        row, column = int(rows[pick]), int(columns[pick])
        change = _exactly(pool, row, column, int(base[row]), by_cost)
        if change <= slack:
            slack -= change
            found[row] = column
            live = (rows != row) & (need <= ceil_float(slack))
        else:  # the rounded difference was too small
            live = np.arange(len(gain)) != pick
        rows, columns, gain, need = rows[live], columns[live], gain[live], need[live]
    return found


def _exactly(pool: Pool, row: int, to: int, at: int, by_cost: bool) -> Fraction:
    if by_cost:
        return Fraction(float(pool.damage[row, to])) - Fraction(float(pool.damage[row, at]))
    return Fraction(int(pool.cost[row, to]) - int(pool.cost[row, at]))
