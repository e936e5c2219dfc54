"""How far from the best an allocation from elsewhere is: under the same scores, what it overspends, proved."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.errors import AllocationError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.held import Held
from impq_opt.judge.declared import broken_rule, cost_of, damage_of
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve_in_passing
from impq_opt.types import IntArray

__all__ = ["Audit", "audit"]


# Limits are above 0. Nothing that float64 holds lies between 0 and this.
_LEAST = Fraction(1, 2**1075)


@dataclass(frozen=True, eq=False)
class Audit(Held):
    """A choice beside the best of its own cost, and the cheapest of its own damage.

    Parameters
    ----------
    problem : Problem
    choice : array of int
        Column of the candidate of each group (G,).
    cost, damage : Fraction
        Of the choice, exactly, in the units of the objective and of the problem's damage.
    breaks : str
        Which pin or tie of the problem the choice breaks, in words; empty where it keeps all.
    better : Allocation
        The least damage at no more than ``cost``.
    cheaper : Allocation
        The least cost at no more than ``damage``.
    """

    problem: Problem
    choice: IntArray
    cost: Fraction
    damage: Fraction
    breaks: str
    better: Allocation
    cheaper: Allocation

    @property
    def excess_damage(self) -> Fraction | None:
        """Damage that the choice has too much for its cost; None where no answer was found."""
        return None if self.better.exact_damage is None else self.damage - self.better.exact_damage

    @property
    def excess_cost(self) -> Fraction | None:
        """Cost that the choice has too much for its damage; None where no answer was found."""
        return None if self.cheaper.exact_cost is None else self.cost - self.cheaper.exact_cost

    @property
    def optimal(self) -> bool:
        """Whether it is proved that the choice is the best of its cost."""
        return self.better.status is Status.OPTIMAL and self.better.damage == nearest_float(self.damage)

    def differ(self, other: Allocation) -> int:
        """Return how many groups an allocation gives another candidate than the choice."""
        return 0 if other.choice is None else int((np.asarray(other.choice) != self.choice).sum())


def audit(problem: Problem, choice: npt.ArrayLike, *, time_limit: float | None = None) -> Audit:
    """Hold a choice from elsewhere against the best ones under the same scores.

    Pins, ties and budgets of the problem hold for the better allocations; its bound does not.

    Parameters
    ----------
    problem : Problem
    choice : array_like of int
        Column of the candidate of each group (G,).
    time_limit : float, optional
        Seconds for each of the two questions.

    Raises
    ------
    AllocationError
        Where the choice is not one candidate for each group, or one of infinite damage.
    """
    columns = np.asarray(choice)
    if columns.shape != (len(problem),) or columns.dtype.kind not in "iu":
        raise AllocationError("must be one column for each group", where="choice", value=columns.shape)
    outside = (columns < 0) | (columns >= problem.candidates.counts(len(problem)))
    if outside.any():
        group = int(outside.argmax())
        raise AllocationError("has no such candidate", where=problem.names[group], value=int(columns[group]))
    columns = columns.astype(np.int64)
    if problem.allowed is not None and not (taken := problem.allowed[np.arange(len(columns)), columns]).all():
        group = int(taken.argmin())
        label = problem.candidates.label(group, int(columns[group]))
        raise AllocationError("may not take it: its damage is infinite", where=problem.names[group], value=label)
    cost, damage = cost_of(problem, problem.objective, columns), damage_of(problem, columns)
    return Audit(
        problem=problem,
        choice=columns,
        cost=cost,
        damage=damage,
        breaks=broken_rule(problem, columns),
        better=solve_in_passing(problem, budget=cost or _LEAST, time_limit=time_limit),
        cheaper=solve_in_passing(problem, bound=damage or _LEAST, time_limit=time_limit),
    )
