"""Greedy: the convex frontier by ratio, then whatever still fits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
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
    if not instance.limits:
        return choice
    (limit,), objective, limited = instance.limits, instance.objective.table, instance.limits[0].table
    assert limit.limit is not None
    rows = np.arange(len(choice))
    gain = objective[rows, choice][:, None] - objective
    need = limited - limited[rows, choice][:, None]
    slack = limit.limit - instance.value_of(limit, choice)
    fits = (gain > 0) & (need <= nearest_float(slack))
    filled = choice.copy()
    best = np.where(fits, gain, 0)
    to = best.argmax(axis=1)
    for group in np.argsort(-best[rows, to], kind="stable").tolist():
        column = int(to[group])
        if best[group, column] <= 0 or control.expired():
            break
        change = Fraction(limited[group, column].item()) - Fraction(limited[group, choice[group]].item())
        if change <= slack:
            slack -= change
            filled[group] = column
    return filled if instance.is_feasible(filled) else choice
