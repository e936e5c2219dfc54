"""Using up what is left of the capacity: single changes that fit, the largest gain first."""

from __future__ import annotations

import numpy as np

from impq_opt.solvers.exact.goal import Goal
from impq_opt.solvers.native.passes import Pool
from impq_opt.types import IntArray

__all__ = ["fill"]


def fill(pool: Pool, base: IntArray, goal: Goal, slack: int, changes: int) -> IntArray:
    """Return columns (n,) at least as good as ``base`` that use up at most ``slack`` more, after some ``changes``.

    Each is of another group. ``slack`` is of what the ``goal`` limits.
    """
    cost, damage = pool.chosen(base)
    saved, added = cost[:, None] - pool.cost, pool.damage - damage[:, None]
    gain, need = goal.changes(saved, added)
    rows, columns = np.nonzero((gain > 0) & goal.may_fit(need, slack))
    gain, need = gain[rows, columns], need[rows, columns]
    filled = base.copy()
    for _ in range(changes):
        if len(gain) == 0:
            break
        # Among equal gains the least need: sort keys would cost more than two scans.
        best = np.flatnonzero(gain == gain.max())
        pick = int(best[need[best].argmin()])
        row, column = int(rows[pick]), int(columns[pick])
        change = goal.needed(pool, row, int(base[row]), column)
        if change <= slack:
            slack -= change
            filled[row] = column
            live = (rows != row) & goal.may_fit(need, slack)
        else:  # the rounded difference was too small
            live = np.arange(len(gain)) != pick
        rows, columns, gain, need = rows[live], columns[live], gain[live], need[live]
    return filled
