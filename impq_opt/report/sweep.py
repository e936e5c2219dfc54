"""One sweep over the convex hulls of all groups: every breakpoint of the trade-off between cost and damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impq_opt.costs.rows import cost_row
from impq_opt.errors import UnsupportedError
from impq_opt.instance import Direction, Instance, compile_instance
from impq_opt.problem import Problem
from impq_opt.solvers._hull import Steps, hull_steps

__all__ = ["Sweep", "sweep"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sweep:
    """The breakpoints, from the cheapest allocation to the most accurate; each differs from the one before in a group.

    Every breakpoint is optimal at its own damage: no allocation with at most that damage is cheaper (Everett 1963).

    Parameters
    ----------
    cost : ndarray of float64 (B,)
        In the unit of the cost.
    damage : ndarray of float64 (B,)
        Falling; summed from the accurate end, so that small damages keep their digits.
    """

    instance: Instance
    steps: Steps
    cost: FloatArray
    damage: FloatArray

    def __len__(self) -> int:
        return len(self.cost)

    @cached_property
    def _columns(self) -> IntArray:
        """Column (size, K) among its own candidates that each free group's first member takes for each choice."""
        widths = self.instance.widths
        choices = (np.minimum(k, widths - 1) for k in range(int(widths.max())))
        return np.stack([self.instance.lift(one)[self.instance.representatives] for one in choices], axis=1)

    def choice(self, place: int) -> IntArray:
        """Return the columns (G,) of breakpoint ``place``."""
        return self.instance.lift(self.steps.choice(place))

    def moved(self, place: int) -> str:
        """Return the group that breakpoint ``place`` changes, and what it then has; empty for the first."""
        if place == 0:
            return ""
        problem = self.instance.problem
        free = self.steps.group[place - 1]
        group = int(self.instance.representatives[free])
        column = int(self._columns[free, self.steps.to[place - 1]])
        number = 0 if problem.candidates.set_of is None else int(problem.candidates.set_of[group])
        return f"{problem.names[group]}={problem.candidates.labels(number)[column]}"


def sweep(problem: Problem, minimize: str | Mapping[str, float] | None = None) -> Sweep:
    """Return all breakpoints of ``problem``; pins and ties hold, its bound and budgets do not.

    Raises
    ------
    UnsupportedError
        Where the cost belongs to pairs of groups: the groups' hulls do not add up then.
    """
    weights = {minimize: 1} if isinstance(minimize, str) else dict(minimize or problem.objective)
    row = cost_row(problem, weights)
    if row.coupled:
        raise UnsupportedError(
            f"the hull of {' + '.join(weights)} is not a sum over groups, since it couples them; ask for exact points"
        )
    instance = compile_instance(problem, direction=Direction.COST, bound=None, cost=row)
    steps = hull_steps(*instance.tables)
    start = instance.cost_of(steps.start)
    cost = np.concatenate([[start], start + np.cumsum(steps.cost)]) * float(instance.quantum)
    least = float(instance.damage_of(steps.choice(len(steps.group))))
    damage = np.concatenate([least + np.cumsum(steps.damage[::-1])[::-1], [least]])
    return Sweep(instance, steps, cost, damage)
