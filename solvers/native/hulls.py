"""The lower convex hull of every group's (cost, damage) points, as steps from cheap to accurate.

``hull``, ``order`` and ``sweep`` of ``_kernel.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from impq_opt.solvers import native
from impq_opt.solvers.native.signatures import KernelModule
from impq_opt.types import FloatArray, IntArray

__all__ = ["Steps", "descending", "hull_edges", "hull_steps", "sums_along"]


@dataclass(frozen=True)
class Steps:
    """Hull steps of all groups, best first: those that remove most damage per cost.

    start (G,): each group's cheapest candidate, the least damaging of equals. Every other array (S,):
    ``group`` moves to candidate ``to``, at ``cost`` more and ``damage`` less; ``ratio`` is damage / cost.
    Within a group the ratios do not rise, so any prefix is an allocation.
    """

    start: IntArray
    group: IntArray
    to: IntArray
    cost: IntArray
    damage: FloatArray | IntArray
    ratio: FloatArray

    @cached_property
    def cost_so_far(self) -> IntArray:
        """What the first steps, up to and with each, cost (S,)."""
        return np.cumsum(self.cost)

    @cached_property
    def damage_so_far(self) -> FloatArray | IntArray:
        """What the first steps, up to and with each, take off the damage (S,)."""
        total: FloatArray | IntArray = self.damage.cumsum()
        return total

    def choice(self, count: int) -> IntArray:
        """Return the allocation (G,) after the first ``count`` steps."""
        choice = self.start.copy()
        # Later steps of a group come later, and assignment keeps the last.
        choice[self.group[:count]] = self.to[:count]
        return choice

    def sorted(self) -> Steps:
        """Return the steps of all groups, best first; of equal ones the first group's."""
        return self.taken(descending(self.ratio))

    def taken(self, order: IntArray) -> Steps:
        """Return some of the steps, in the given order."""
        return Steps(
            self.start, self.group[order], self.to[order], self.cost[order], self.damage[order], self.ratio[order]
        )


def hull_steps(cost: IntArray, damage: FloatArray | IntArray) -> Steps:
    """Return the hull steps of tables (G, K), best first, ties by group.

    Damages may be integers too: the needs of a core in fixed point.
    """
    if native.kernel is None:
        return _edges_numpy(cost, damage).sorted()
    return _compiled(native.kernel, cost, damage, sort=True)


def _compiled(kernel: KernelModule, cost: IntArray, damage: FloatArray | IntArray, sort: bool) -> Steps:
    count, width = cost.shape
    most = count * (width - 1)
    kind: type = np.int64 if damage.dtype.kind == "i" else np.float64
    kinds: list[type] = [np.int64, np.int64, np.int64, kind, np.float64]
    (scratch,) = native.blank(((3 * most,), np.int64)) if sort else (None,)
    start, *steps = native.blank(((count,), np.int64), *(((most,), dtype) for dtype in kinds))
    group, to, step_cost, step_damage, ratio = steps
    cost, damage = np.ascontiguousarray(cost, dtype=np.int64), np.ascontiguousarray(damage, dtype=kind)
    used = kernel.hull(
        *(cost, damage, kind is np.int64, count, width, start, group, to, step_cost, step_damage, ratio, scratch)
    )
    return Steps(start, group[:used], to[:used], step_cost[:used], step_damage[:used], ratio[:used])


def descending(keys: FloatArray) -> IntArray:
    """Return the stable order (n,) in which ``keys`` >= 0 fall."""
    if native.kernel is None:
        return np.argsort(-keys, kind="stable")
    order, scratch = np.empty(len(keys), dtype=np.int64), np.empty(2 * len(keys), dtype=np.int64)
    keys = np.ascontiguousarray(keys, dtype=np.float64)
    native.kernel.order(keys, order, len(keys), scratch, native.thread_count(len(keys) // 8))
    return order


def sums_along(
    steps: Steps, order: IntArray, first: int, quantum: float, least: float
) -> tuple[FloatArray, FloatArray]:
    """Return cost and damage (n + 1,) before each of the steps in ``order`` (n,), and after the last.

    ``first`` quanta is the cost before all, ``least`` the damage after all; it is summed from there.
    """
    count = len(order)
    costs, damages = np.empty(count + 1), np.empty(count + 1)
    if native.kernel is not None and steps.damage.dtype == np.float64:
        damage = np.ascontiguousarray(steps.damage, dtype=np.float64)
        order, cost = np.ascontiguousarray(order), np.ascontiguousarray(steps.cost)
        native.kernel.sweep(order, cost, damage, count, first, quantum, least, costs, damages)
        return costs, damages
    costs[0], damages[count] = first * quantum, least
    with np.errstate(over="ignore"):
        np.multiply(np.cumsum(steps.cost[order]) + first, quantum, out=costs[1:])
        np.add(np.cumsum(steps.damage[order[::-1]])[::-1], least, out=damages[:count])
    return costs, damages


def hull_edges(cost: IntArray, damage: FloatArray | IntArray) -> Steps:
    """Return the hull steps of tables (G, K), group after group."""
    if native.kernel is None:
        return _edges_numpy(cost, damage)
    return _compiled(native.kernel, cost, damage, sort=False)


def _edges_numpy(cost: IntArray, damage: FloatArray | IntArray) -> Steps:
    count, whole = len(cost), damage.dtype.kind == "i"
    cheapest = cost == cost.min(axis=1)[:, None]
    largest = np.iinfo(np.int64).max if whole else np.inf
    start = np.where(cheapest, damage, largest).argmin(axis=1)
    at, active = start.copy(), np.arange(count)
    last = np.full(count, np.inf)
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray | IntArray, FloatArray]] = []
    while len(active):
        here = at[active]
        more = cost[active] - cost[active, here][:, None]
        less = damage[active, here][:, None] - damage[active]
        ratio = np.where((more > 0) & (less > 0), less / np.maximum(more, 1), -1.0)
        best = ratio.max(axis=1)
        # Of equal ratios the least damage, then the least cost: a step never stops inside an edge of the hull, and
        # passes nothing by that rounding hides.
        equal = ratio == best[:, None]
        least = np.where(equal, damage[active], largest)
        equal &= least == least.min(axis=1)[:, None]
        to = np.where(equal, cost[active], np.iinfo(np.int64).max).argmin(axis=1)
        going = best > 0
        active, to, best = active[going], to[going], best[going]
        lines = np.flatnonzero(going)
        # Rounding must not let a step overtake the one before it.
        last[active] = np.minimum(last[active], best)
        parts.append((active, to, more[lines, to], less[lines, to], last[active]))
        at[active] = to
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Steps(start, none, none, none, damage[:0, 0], none.astype(np.float64))
    group, to, step_cost, step_damage, ratio = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.argsort(group, kind="stable")
    return Steps(start, group[order], to[order], step_cost[order], step_damage[order], ratio[order])
