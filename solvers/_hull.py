"""The lower convex hull of every group's (cost, damage) points, as steps from cheap to accurate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Steps", "hull_steps"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """Hull steps of all groups, best first: those that remove most damage per cost.

    start (G,): each group's cheapest candidate, the least damaging of equals. Every other array (S,):
    ``group`` moves to candidate ``to``, at ``cost`` more and ``damage`` less; ``ratio`` is damage / cost.
    Within a group the ratios fall, so any prefix is an allocation.
    """

    start: IntArray
    group: IntArray
    to: IntArray
    cost: IntArray
    damage: FloatArray | IntArray
    ratio: FloatArray

    def choice(self, count: int) -> IntArray:
        """Return the allocation (G,) after the first ``count`` steps."""
        choice = self.start.copy()
        # Later steps of a group come later, and assignment keeps the last.
        choice[self.group[:count]] = self.to[:count]
        return choice


def hull_steps(cost: IntArray, damage: FloatArray | IntArray) -> Steps:
    """Return the hull steps of tables (G, K), ties broken by group and candidate."""
    rows = np.arange(len(cost))
    cheapest = cost == cost.min(axis=1)[:, None]
    # Damages may be integers too (the core's fixed-point needs), and then have to stay exact.
    largest = np.iinfo(np.int64).max if damage.dtype.kind == "i" else np.inf
    start = np.where(cheapest, damage, largest).argmin(axis=1)
    at, active = start.copy(), rows
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray | IntArray]] = []
    while len(active):
        here = at[active]
        more = cost[active] - cost[active, here][:, None]
        less = damage[active, here][:, None] - damage[active]
        ratio = np.where((more > 0) & (less > 0), less / np.maximum(more, 1), -1.0)
        best = ratio.max(axis=1)
        # Of equal ratios the farthest, so that a step never stops inside an edge of the hull.
        to = np.where(ratio == best[:, None], more, -1).argmax(axis=1)
        going = best > 0
        active, to = active[going], to[going]
        lines = np.flatnonzero(going)
        parts.append((active, to, more[lines, to], less[lines, to]))
        at[active] = to
    group, to, step_cost, step_damage = (np.concatenate(p) for p in zip(*parts, strict=True))
    ratio = step_damage / step_cost
    order = np.lexsort((step_cost, group, -ratio))
    order = _keep_chain(order, group, len(cost))
    return Steps(start, group[order], to[order], step_cost[order], step_damage[order], ratio[order])


def _keep_chain(order: IntArray, group: IntArray, count: int) -> IntArray:
    """Put each group's steps in chain order where rounding swapped two nearly equal ratios."""
    by_group = order[np.argsort(group[order], kind="stable")]
    # Steps were made in chain order, so within a group their numbers must rise.
    slots = np.argsort(group[order], kind="stable")
    chain = np.lexsort((by_group, group[by_group]))
    fixed = np.empty_like(order)
    fixed[slots] = by_group[chain]
    return fixed
