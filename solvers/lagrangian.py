"""Lagrangian relaxation: one price for the limit, each group on its own."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from impq_opt.exactness.limits import UNLIMITED
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.solvers.lagrange.hull import Steps, hull_steps

__all__ = ["Lagrangian", "break_step", "price"]


@dataclass(frozen=True)
class Lagrangian(Solver):
    """The best multiplier, its lower bound, and the feasible end of the convex hull there.

    Prefer it when a bound within one hull step of the optimum is enough: it sorts the hull once. The answer is a point
    of the convex frontier, so what lies between two such points is left on the table (Everett 1963; Shoham & Gersho
    1988 for bit allocation).
    """

    name: ClassVar[str] = "lagrangian"
    summary: ClassVar[str] = "best multiplier over the convex hulls; a bound and the hull point that is feasible"
    proves: ClassVar[str] = "dual bound"
    supports: ClassVar[frozenset[str]] = frozenset({"damage"})

    def run(self, instance: Instance, control: Control) -> Claim:
        steps = hull_steps(*instance.tables)
        count = break_step(instance, steps)
        return Claim(
            steps.choice(count),
            multipliers=price(instance, steps, count),
            statistics={"hull_steps": len(steps.group)},
        )


def break_step(instance: Instance, steps: Steps) -> int:
    """Return the number of leading steps that end at the hull allocation nearest to the limit, on its feasible side.

    A float sum finds the place, exact sums settle it.
    """
    if instance.limit is not None:
        spent = instance.cost_of(steps.start) + np.cumsum(steps.cost)
        return int(np.searchsorted(spent, max(min(instance.limit, UNLIMITED), -UNLIMITED), side="right"))
    if instance.bound is None or instance.is_feasible(steps.start):
        return 0
    with np.errstate(over="ignore", invalid="ignore"):
        left = nearest_float(instance.damage_of(steps.start)) - np.cumsum(steps.damage)
    if np.isfinite(left).all():
        count = int(np.searchsorted(-left, -nearest_float(instance.bound), side="left")) + 1
        count = min(count, len(steps.group))
    else:
        fits = partial(_fits, instance, steps)
        count = min(bisect_left(range(len(steps.group) + 1), True, key=fits), len(steps.group))
    while count and instance.is_feasible(steps.choice(count - 1)):
        count -= 1
    while count < len(steps.group) and not instance.is_feasible(steps.choice(count)):
        count += 1
    return count


def _fits(instance: Instance, steps: Steps, count: int) -> bool:
    return instance.is_feasible(steps.choice(count))


def price(instance: Instance, steps: Steps, count: int) -> dict[str, float]:
    """Return the multiplier at the break: the ratio of the step that crosses the limit."""
    if instance.limit is not None:
        ratio = float(steps.ratio[count]) if count < len(steps.ratio) else 0.0
        return {"budget": ratio}
    if count == 0:
        return {"bound": 0.0}
    with np.errstate(over="ignore"):
        return {"bound": min(float(1 / steps.ratio[count - 1]), 1e300)}
