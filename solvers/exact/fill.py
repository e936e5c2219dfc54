"""Using up what is left of the capacity: single changes that fit, the largest gain first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_units, float_above
from impq_opt.solvers.native.passes import Pool
from impq_opt.types import IntArray

__all__ = ["fill"]


def fill(pool: Pool, base: IntArray, by_cost: bool, slack: int, changes: int) -> IntArray:
    """Return columns (n,) at least as good as ``base`` that use up at most ``slack`` more, after some ``changes``.

    Each is of another group. ``slack`` is damage, in units of 2**-1074, where cost is minimised, and cost where damage
    is.
    """
    cost, damage = pool.chosen(base)
    saved, added = cost[:, None] - pool.cost, pool.damage - damage[:, None]
    gain, need = (saved, added) if by_cost else (-added, -saved)

    def may_fit() -> npt.NDArray[np.bool_]:
        # Differences of damages are rounded: none that fits is rounded above the slack rounded up.
        return np.asarray(need <= (float_above(slack) if by_cost else slack))

    rows, columns = np.nonzero((gain > 0) & may_fit())
    gain, need = gain[rows, columns], need[rows, columns]
    filled = base.copy()
    for _ in range(changes):
        if len(gain) == 0:
            break
        # Among equal gains the least need: sort keys would cost more than two scans.
        best = np.flatnonzero(gain == gain.max())
        pick = int(best[need[best].argmin()])
        row, column = int(rows[pick]), int(columns[pick])
        change = _exactly(pool, row, column, int(base[row]), by_cost)
        if change <= slack:
            slack -= change
            filled[row] = column
            live = (rows != row) & may_fit()
        else:  # the rounded difference was too small
            live = np.arange(len(gain)) != pick
        rows, columns, gain, need = rows[live], columns[live], gain[live], need[live]
    return filled


def _exactly(pool: Pool, row: int, to: int, at: int, by_cost: bool) -> int:
    if by_cost:
        return exact_units(pool.damage[row, to : to + 1]) - exact_units(pool.damage[row, at : at + 1])
    return int(pool.cost[row, to]) - int(pool.cost[row, at])
