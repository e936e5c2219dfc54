"""An allocation at its price: what each candidate of a group would cost there, and how far it is behind the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.errors import AllocationError, ImpqError, UnsupportedError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.instance import Instance
from impq_opt.instance.question import asked
from impq_opt.instance.row import Row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve_in_passing
from impq_opt.types import FloatArray, IntArray

__all__ = ["Candidate", "Priced", "answer_again", "clean"]


# Seconds for each changed problem; an answer that is not proved by then is said to be so.
_TIME_LIMIT = 20.0


@dataclass(frozen=True)
class Candidate:
    """One precision that a group may take.

    Parameters
    ----------
    label : str
        Its bits or format.
    cost : float
        Of the group alone, in the cost's unit.
    damage : float
    reduced_cost : float
        How far it is behind the group's best at the price; in the unit of what is minimised.
    chosen, near_tie : bool
        A near-tie is not chosen, and the price alone does not rule it out.
    """

    label: str
    cost: float
    damage: float
    reduced_cost: float
    chosen: bool
    near_tie: bool


@dataclass(frozen=True)
class Priced:
    """An allocation at its price. Tables are (size, K) over the free groups, in quanta of cost and in damage."""

    allocation: Allocation
    instance: Instance
    full: IntArray
    choice: IntArray
    multipliers: dict[str, float]
    cost: FloatArray
    damage: FloatArray
    value: FloatArray
    inside: npt.NDArray[np.bool_]
    slack: float

    @classmethod
    def of(cls, problem: Problem, allocation: Allocation) -> Priced:
        """Read an allocation of ``problem`` at its own multipliers, or at those of the Lagrangian strategy.

        Raises
        ------
        AllocationError
            Where it has no answer, or answers another problem.
        UnsupportedError
            Where a peak is minimised.
        """
        if allocation.choice is None:
            hint = str(allocation.diagnosis) if allocation.diagnosis else ""
            raise AllocationError(
                "has no answer to explain", where="allocation", value=allocation.status.value, hint=hint
            )
        if allocation.problem is not problem and allocation.problem.digest != problem.digest:
            raise AllocationError("answers another problem", where="allocation", value=allocation.problem.digest[:12])
        instance = asked(problem, allocation)
        if instance.row.peaks:
            raise UnsupportedError(
                f"{'+'.join(instance.row.weights)} is the largest of several sums, so that groups have no price in it; "
                "explain an answer that keeps it as a budget"
            )
        choice = instance.reduce(allocation.choice)
        multipliers, dual = _prices(problem, allocation)
        cost, damage = _conditional(instance.cost, choice), _together(instance, choice)
        value = cost if instance.objective.whole else damage
        for row in instance.limits:
            table = _conditional(row, choice) if row.whole else damage
            value = value + multipliers.get(row.name, 0.0) * table
        inside = np.arange(value.shape[1]) < instance.widths[:, None]
        value = np.where(inside, value, np.inf)
        objective = allocation.exact_objective
        slack = math.inf
        if dual != -math.inf and objective is not None:
            slack = max(0.0, nearest_float((objective - Fraction(dual)) / instance.objective.quantum))
        return cls(allocation, instance, allocation.choice, choice, multipliers, cost, damage, value, inside, slack)

    @property
    def unit(self) -> float:
        """What one of ``value`` is worth in the objective's unit."""
        return nearest_float(self.instance.objective.quantum)

    @property
    def limit(self) -> Row | None:
        """The limit on the other one of cost and damage, if there is one."""
        return next((row for row in self.instance.limits if row.of_blocks), None)

    @property
    def multiplier(self) -> float:
        """What one of ``limit`` weighs in ``value``."""
        return 0.0 if self.limit is None else self.multipliers.get(self.limit.name, 0.0)

    @property
    def price(self) -> float:
        """Objective units per unit of the limit: cost per damage, or damage per unit of cost."""
        return 0.0 if self.limit is None else self.multiplier * self.unit / nearest_float(self.limit.quantum)

    def table(self, row: Row) -> FloatArray:
        """Return the table (size, K) of the objective or of ``limit``."""
        return self.cost if row.whole else self.damage

    @property
    def reduced(self) -> FloatArray:
        """How far each candidate is behind its group's best."""
        return clean(self.value - self.value.min(axis=1, keepdims=True), self.value)

    def name(self, place: int) -> str:
        """Return the name of the group, or of the first of the ties, at ``place``."""
        return self.instance.problem.names[int(self.instance.representatives[place])]

    def label(self, place: int, column: int) -> str:
        choice = self.choice.copy()
        choice[place] = column
        first = int(self.instance.representatives[place])
        return self.instance.problem.candidates.label(first, int(self.instance.lift(choice)[first]))

    def place_of(self, group: int) -> tuple[int | None, str]:
        """Return the free group that stands for ``group``, and what holds it."""
        problem = self.instance.problem
        tie = next((members for members in problem.ties if group in members), ())
        others = [problem.names[g] for g in tie if g != group]
        held = f"tied with {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}" if others else ""
        first = tie[0] if tie else group
        place = np.flatnonzero(self.instance.representatives == first)
        if len(place) == 0:
            return None, _held(problem, group, tie)
        return int(place[0]), held

    def candidates(self, place: int) -> tuple[Candidate, ...]:
        reduced = self.reduced[place]
        steps = []
        for column in range(int(self.instance.widths[place])):
            chosen = column == int(self.choice[place])
            steps.append(
                Candidate(
                    label=self.label(place, column),
                    cost=float(self.cost[place, column]) * nearest_float(self.instance.quantum),
                    damage=float(self.damage[place, column]),
                    reduced_cost=float(reduced[column]) * self.unit,
                    chosen=chosen,
                    near_tie=not chosen and bool(reduced[column] <= self.slack),
                )
            )
        return tuple(steps)

    def steps(self, place: int) -> list[int]:
        """Return the columns of the next fewer and the next more bits, as there are."""
        bits = self.instance.bits[place, : int(self.instance.widths[place])]
        here = bits[int(self.choice[place])]
        order = np.argsort(bits, kind="stable")
        lower, higher = order[bits[order] < here], order[bits[order] > here]
        return [int(column) for column in (*lower[-1:], *higher[:1])]


def _held(problem: Problem, group: int, tie: tuple[int, ...]) -> str:
    """Return in words what leaves a group no choice: its own pin, or that of one it is tied to."""
    holder = group if group in problem.pins else next(g for g in tie if g in problem.pins)
    how = "kept at its most bits: no damage is known of it" if holder in problem.kept else "pinned"
    return how if holder == group else f"tied with {problem.names[holder]}, which is {how}"


def clean(difference: FloatArray, value: FloatArray) -> FloatArray:
    """Return the difference with what is only rounding taken as 0."""
    # Infinite stays infinite: columns that a group does not have are never near.
    return np.where((np.abs(difference) <= np.abs(value) * 2**-44) & np.isfinite(value), 0.0, difference)


def _conditional(row: Row, choice: IntArray) -> FloatArray:
    """Return what each candidate (size, K) adds to a row, the other ends of its pairs being as chosen."""
    table, pairs = row.table.astype(np.float64), row.pairs
    if pairs is None:
        return table
    in_pairs = np.zeros(table.shape)
    dense = pairs.dense().astype(np.float64)[:, : table.shape[1], : table.shape[1]]
    edges = np.arange(len(pairs))
    np.add.at(in_pairs, pairs.left, dense[edges, :, choice[pairs.right]])
    np.add.at(in_pairs, pairs.right, dense[edges, choice[pairs.left], :])
    return table + in_pairs


def _together(instance: Instance, choice: IntArray) -> FloatArray:
    """Return what each candidate (size, K) damages, with what it does together with all others as chosen."""
    interactions, table = instance.problem.interactions, _conditional(instance.damage, choice)
    if interactions is None:
        return table
    beside = interactions.beside(instance.lift(choice))
    tied = {int(group) for tie in instance.ties for group in tie.groups}
    for column in range(table.shape[1]):
        taken = instance.lift(np.minimum(column, instance.widths - 1))[instance.representatives]
        table[:, column] += beside[instance.representatives, taken]
    for place in tied:  # members move together
        others = np.repeat(choice[None], table.shape[1], axis=0)
        others[:, place] = np.minimum(np.arange(table.shape[1]), instance.widths[place] - 1)
        table[place] = instance.damage.table[place] + interactions.totals(np.stack(list(map(instance.lift, others))))
    return table


def _prices(problem: Problem, allocation: Allocation) -> tuple[dict[str, float], Fraction | float]:
    """Return multipliers and what they prove: the allocation's own, or those of the Lagrangian strategy."""
    certificate = allocation.certificate
    if certificate is not None and any(certificate.multipliers.values()):
        return dict(certificate.multipliers), certificate.dual_bound
    try:
        answer = answer_again(problem, allocation, solver="lagrangian")
    except ImpqError:
        answer = allocation
    if answer.certificate is None:
        return {}, -math.inf
    return dict(answer.certificate.multipliers), answer.certificate.dual_bound


def answer_again(
    problem: Problem, allocation: Allocation, *, solver: str = "", limit: Fraction | None = None
) -> Allocation:
    """Solve the allocation's question for ``problem``; ``limit`` is another bound, or another budget."""
    weights: Any = allocation.cost_weights
    budgets = dict(allocation.budgets)
    goals: dict[str, Any] = {"bound": limit or allocation.bound}
    if allocation.minimizes == "damage":
        stated = budgets.pop("+".join(weights))
        goals = {"budget": limit or stated}
    changed = replace(problem, budgets=budgets)
    goals |= {"minimize": weights, "time_limit": _TIME_LIMIT}
    try:
        return solve_in_passing(changed, solver=solver or "exact", **goals)
    except UnsupportedError:
        return solve_in_passing(changed, solver="milp", **goals)
