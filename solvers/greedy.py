"""Greedy: the convex frontier by ratio, then whatever still fits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Direction, Instance
from impq_opt.problem.allocation import Stop
from impq_opt.solvers.lagrange.hull import hull_steps
from impq_opt.solvers.lagrangian import break_step, price
from impq_opt.types import IntArray

__all__ = ["Greedy", "fill"]


@dataclass(frozen=True)
class Greedy(Solver):
    """Best damage per cost first along the convex hulls, then use up the slack.

    Prefer it for a quick, good answer with a bound; it is what most allocators in the field do, but with all the
    choices of a group and an exact check.

    Parameters
    ----------
    passes : int
        Passes over the groups that look for a single change which still fits.
    """

    name: ClassVar[str] = "greedy"
    summary: ClassVar[str] = "best ratio first on the convex frontier, then single changes that fit"
    proves: ClassVar[str] = "dual bound"
    supports: ClassVar[frozenset[str]] = frozenset({"damage"})

    passes: int = 3

    def run(self, instance: Instance, control: Control) -> Claim:
        steps = hull_steps(*instance.tables)
        count = break_step(instance, steps)
        choice, stop = steps.choice(count), Stop.COMPLETED
        for _ in range(self.passes):
            better = fill(instance, choice, control)
            if control.expired():
                stop = Stop.TIME_LIMIT
            same, choice = np.array_equal(better, choice), better
            if same or stop is not Stop.COMPLETED:
                break
        return Claim(choice, multipliers=price(instance, steps, count), stop=stop)


def fill(instance: Instance, choice: IntArray, control: Control) -> IntArray:
    """Return a feasible choice at least as good: single changes that improve and fit, largest gain first.

    At most one change a group. Slack is kept exactly, so the result is feasible if ``choice`` was.
    """
    cost, damage = instance.tables
    rows = np.arange(len(choice))
    saved = cost[rows, choice][:, None] - cost
    added = damage - damage[rows, choice][:, None]
    slack: Fraction | int
    gain: npt.NDArray[Any]
    need: npt.NDArray[Any]
    if instance.direction is Direction.COST:
        if instance.bound is None:
            return choice
        gain, need, slack = saved, added, instance.bound - instance.damage_of(choice)
    else:
        assert instance.limit is not None
        gain, need, slack = -added, -saved, instance.limit - instance.cost_of(choice)
    fits = (gain > 0) & (need <= nearest_float(slack))
    found = choice.copy()
    best = np.where(fits, gain, 0)
    to = best.argmax(axis=1)
    for group in np.argsort(-best[rows, to], kind="stable").tolist():
        column = int(to[group])
        if best[group, column] <= 0 or control.expired():
            break
        if instance.direction is Direction.COST:
            change = Fraction(float(damage[group, column])) - Fraction(float(damage[group, choice[group]]))
        else:
            change = Fraction(int(need[group, column]))
        if change <= slack:
            slack -= change
            found[group] = column
    return found if instance.is_feasible(found) else choice
