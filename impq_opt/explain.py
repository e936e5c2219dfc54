"""Why a group has its bits: prices, what one step more or less costs and saves, and what would change the choice.

The explanation is the Lagrangian one. The multiplier of an allocation is a price: so many bits of storage for a unit of
damage. At that price every group by itself has a best candidate; how far another candidate is behind it is its *reduced
cost* (never negative). The few groups whose next candidate is behind by less than the duality gap are near-ties: the
price alone does not settle them, their combination does. Where costs couple groups, a candidate's cost is what it would
be with all other groups as they are.

What is said *by multipliers* follows from the price alone and is an estimate between points of the convex frontier;
what is said *by solving again* is an answer of the exact strategy to the changed problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Allocation, Status
from impq_opt.arithmetic import ceil_float
from impq_opt.audit import question
from impq_opt.coupling import Coupling
from impq_opt.errors import AllocationError, ImpqError, UnsupportedError
from impq_opt.instance import Direction, Instance
from impq_opt.problem import Problem
from impq_opt.solver import solve

__all__ = ["Alternative", "Candidate", "Change", "Explanation", "Overview", "explain", "overview"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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
class Alternative:
    """One step more or less for a group: what it changes by itself, and what is best around it when solved again.

    ``objective`` is that of the best allocation with the group so pinned, ``None`` where none keeps the limits;
    ``increase`` is how much worse that is; ``proved`` says whether its optimum was proved.
    """

    label: str
    cost_change: float
    damage_change: float
    objective: Fraction | None
    increase: float
    proved: bool


@dataclass(frozen=True)
class Change:
    """Where a group's bits would change, by multipliers: the limit at which its price is reached.

    ``solved_again`` is what the exact strategy gives the group at that limit, where it was asked.
    """

    label: str
    limit: str
    value: float
    solved_again: str | None


@dataclass(frozen=True)
class Explanation:
    """All about one group; ``held`` says where it had no choice."""

    name: str
    label: str
    held: str
    price: float
    candidates: tuple[Candidate, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def best(self) -> Candidate | None:
        """The group's best candidate at the price."""
        return min(self.candidates, key=lambda c: (c.reduced_cost, not c.chosen), default=None)


@dataclass(frozen=True)
class Overview:
    """The groups closest to changing, the nearest first.

    ``price`` is in the objective's unit per unit of the limit; ``slack`` is objective less dual bound, below which a
    reduced cost is a near-tie; ``rows`` are (name, bits, next candidate, reduced cost of changing to it, near-tie).
    """

    price: float
    slack: float
    near_ties: int
    free_groups: int
    rows: tuple[tuple[str, str, str, float, bool], ...]


def overview(problem: Problem, allocation: Allocation, *, count: int = 20) -> Overview:
    """Return the ``count`` groups whose choice is closest to changing at the allocation's price."""
    view = _View.of(problem, allocation)
    if view.instance.size == 0:
        return Overview(view.price, 0.0, 0, 0, ())
    value, chosen = view.value, view.choice
    rows = np.arange(view.instance.size)
    behind = _clean(value - value[rows, chosen][:, None], value)
    other = behind.copy()
    other[rows, chosen] = np.inf
    nearest = other.argmin(axis=1)
    distance = np.abs(other[rows, nearest])
    order = np.argsort(distance, kind="stable")[:count]
    near = (view.reduced <= view.slack) & view.inside
    near[rows, chosen] = False
    found = tuple(
        (
            view.name(int(g)),
            view.label(int(g), int(chosen[g])),
            view.label(int(g), int(nearest[g])),
            float(behind[g, nearest[g]]) * view.unit,
            bool(near[g, nearest[g]]),
        )
        for g in order
        if math.isfinite(distance[g])
    )
    return Overview(view.price, view.slack * view.unit, int(near.any(axis=1).sum()), view.instance.size, found)


def explain(problem: Problem, allocation: Allocation, group: str, *, solve_again: bool = True) -> Explanation:
    """Return why ``group`` has its bits in ``allocation``, and what would change them.

    Parameters
    ----------
    problem : Problem
        That ``allocation`` answers.
    allocation : Allocation
        With an answer; its certificate gives the price, or the Lagrangian strategy where it has none.
    group : str
        Name of a group.
    solve_again : bool
        Also solve the changed problems: the group pinned one step up and down, and the limit where it would change.
    """
    view = _View.of(problem, allocation)
    index = problem.names.index_of(group)
    label = _label(problem, index, int(view.full[index]))
    place, held = view.place_of(index)
    if place is None:
        return Explanation(group, label, held, view.price)
    steps = view.steps(place)
    return Explanation(
        name=group,
        label=label,
        held=held,
        price=view.price,
        candidates=view.candidates(place),
        alternatives=tuple(_alternative(view, group, place, column, solve_again) for column in steps),
        changes=tuple(_changes(view, group, place, solve_again)),
    )


# -- the Lagrangian view -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
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
    def of(cls, problem: Problem, allocation: Allocation) -> _View:
        if allocation.choice is None:
            hint = str(allocation.diagnosis) if allocation.diagnosis else ""
            raise AllocationError(
                "has no answer to explain", where="allocation", value=allocation.status.value, hint=hint
            )
        if allocation.problem is not problem and allocation.problem.digest != problem.digest:
            raise AllocationError("answers another problem", where="allocation", value=allocation.problem.digest[:12])
        instance = question(problem, allocation)
        if instance.row.peaks:
            raise UnsupportedError(
                f"{'+'.join(instance.row.weights)} is the largest of several sums, so that groups have no price in it; "
                "explain an answer that keeps it as a budget"
            )
        choice = instance.reduce(allocation.choice)
        multipliers, dual = _prices(problem, allocation)
        cost, damage = (table.astype(np.float64) for table in instance.tables)
        if instance.pairs is not None:
            cost = cost + _conditional(instance.pairs, choice, cost.shape)
        by_cost = instance.direction is Direction.COST
        lam = multipliers.get("bound" if by_cost else "budget", 0.0)
        value = cost + lam * damage if by_cost else damage + lam * cost
        for budget in instance.budgets:
            row = budget.table.astype(np.float64)
            if budget.pairs is not None:
                row = row + _conditional(budget.pairs, choice, row.shape)
            value = value + multipliers.get(budget.name, 0.0) * row
        inside = np.arange(value.shape[1]) < instance.widths[:, None]
        value = np.where(inside, value, np.inf)
        objective = allocation.exact_objective
        unit = instance.quantum if by_cost else Fraction(1)
        slack = (
            math.inf if dual == -math.inf or objective is None else max(0.0, float((objective - Fraction(dual)) / unit))
        )
        return cls(allocation, instance, allocation.choice, choice, multipliers, cost, damage, value, inside, slack)

    @property
    def by_cost(self) -> bool:
        return self.instance.direction is Direction.COST

    @property
    def unit(self) -> float:
        """What one of ``value`` is worth in the objective's unit."""
        return float(self.instance.quantum) if self.by_cost else 1.0

    @property
    def price(self) -> float:
        """Objective units per unit of the limit: cost per damage, or damage per unit of cost."""
        lam = self.multipliers.get("bound" if self.by_cost else "budget", 0.0)
        return lam * self.unit if self.by_cost else lam / float(self.instance.quantum)

    @property
    def reduced(self) -> FloatArray:
        """How far each candidate is behind its group's best."""
        return _clean(self.value - self.value.min(axis=1, keepdims=True), self.value)

    def name(self, place: int) -> str:
        """Return the name of the group, or of the first of the ties, at ``place``."""
        return self.instance.problem.names[int(self.instance.representatives[place])]

    def label(self, place: int, column: int) -> str:
        choice = self.choice.copy()
        choice[place] = column
        first = int(self.instance.representatives[place])
        return _label(self.instance.problem, first, int(self.instance.lift(choice)[first]))

    def place_of(self, group: int) -> tuple[int | None, str]:
        """Return the free group that stands for ``group``, and what holds it."""
        problem = self.instance.problem
        tie = next((one for one in problem.ties if group in one), ())
        others = [problem.names[g] for g in tie if g != group]
        held = f"tied with {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}" if others else ""
        first = tie[0] if tie else group
        place = np.flatnonzero(self.instance.representatives == first)
        if len(place) == 0:
            by = next((problem.names[g] for g in tie if g in problem.pins and g != group), "")
            return None, f"tied with {by}, which is pinned" if by and group not in problem.pins else "pinned"
        return int(place[0]), held

    def candidates(self, place: int) -> tuple[Candidate, ...]:
        reduced = self.reduced[place]
        found = []
        for column in range(int(self.instance.widths[place])):
            chosen = column == int(self.choice[place])
            found.append(
                Candidate(
                    label=self.label(place, column),
                    cost=float(self.cost[place, column]) * float(self.instance.quantum),
                    damage=float(self.damage[place, column]),
                    reduced_cost=float(reduced[column]) * self.unit,
                    chosen=chosen,
                    near_tie=not chosen and bool(reduced[column] <= self.slack),
                )
            )
        return tuple(found)

    def steps(self, place: int) -> list[int]:
        """Return the columns of the next fewer and the next more bits, as there are."""
        bits = self.instance.bits[place, : int(self.instance.widths[place])]
        here = bits[int(self.choice[place])]
        order = np.argsort(bits, kind="stable")
        lower, higher = order[bits[order] < here], order[bits[order] > here]
        return [int(column) for column in (*lower[-1:], *higher[:1])]


def _clean(difference: FloatArray, value: FloatArray) -> FloatArray:
    """Return the difference with what is only rounding taken as 0."""
    return np.where(np.abs(difference) <= np.abs(value) * 2**-44, 0.0, difference)


def _label(problem: Problem, group: int, column: int) -> str:
    sets = problem.candidates.set_of
    return problem.candidates.labels(0 if sets is None else int(sets[group]))[column]


def _conditional(pairs: Coupling, choice: IntArray, shape: tuple[int, ...]) -> FloatArray:
    """Return what each candidate (size, K) costs in pairs, the other ends being as chosen."""
    table = np.zeros(shape)
    dense = pairs.dense().astype(np.float64)[:, : shape[1], : shape[1]]
    edges = np.arange(len(pairs))
    np.add.at(table, pairs.left, dense[edges, :, choice[pairs.right]])
    np.add.at(table, pairs.right, dense[edges, choice[pairs.left], :])
    return table


def _prices(problem: Problem, allocation: Allocation) -> tuple[dict[str, float], Fraction | float]:
    """Return multipliers and what they prove: the allocation's own, or those of the Lagrangian strategy."""
    certificate = allocation.certificate
    if certificate is not None and any(certificate.multipliers.values()):
        return dict(certificate.multipliers), certificate.dual_bound
    try:
        found = _again(problem, allocation, solver="lagrangian")
    except ImpqError:
        found = allocation
    if found.certificate is None:
        return {}, -math.inf
    return dict(found.certificate.multipliers), found.certificate.dual_bound


# -- solving again -----------------------------------------------------------------------------------------------


def _again(problem: Problem, allocation: Allocation, *, solver: str = "", limit: Fraction | None = None) -> Allocation:
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
        return solve(changed, solver=solver or "exact", **goals)
    except UnsupportedError:
        return solve(changed, solver="milp", **goals)


def _alternative(view: _View, group: str, place: int, column: int, solve_again: bool) -> Alternative:
    quantum = float(view.instance.quantum)
    here = int(view.choice[place])
    label = view.label(place, column)
    found = None
    if solve_again:
        problem = view.instance.problem
        found = _again(problem.revise(pins={group: label}), view.allocation)
    objective = None if found is None else found.exact_objective
    before = view.allocation.exact_objective
    assert before is not None
    return Alternative(
        label=label,
        cost_change=float(view.cost[place, column] - view.cost[place, here]) * quantum,
        damage_change=float(view.damage[place, column] - view.damage[place, here]),
        objective=objective,
        increase=math.nan if found is None else math.inf if objective is None else float(objective - before),
        proved=found is not None and found.status in (Status.OPTIMAL, Status.INFEASIBLE),
    )


def _changes(view: _View, group: str, place: int, solve_again: bool) -> list[Change]:
    """Return where the group's best candidate changes as the price falls and rises."""
    instance = view.instance
    if instance.coupled or instance.budgets or (view.by_cost and instance.bound is None):
        return []  # one price does not tell
    lam = view.multipliers.get("bound" if view.by_cost else "budget", 0.0)
    # main + lambda * limited, whichever is minimised
    main, limited = (view.cost, view.damage) if view.by_cost else (view.damage, view.cost)
    best = int(view.value[place].argmin())
    d_main, d_limited = main[place] - main[place, best], limited[place] - limited[place, best]
    inside = view.inside[place]
    changes = []
    for sign in (1, -1):  # a rising price takes less of what is limited
        other = inside & (d_limited * sign < 0) & (d_main * sign > 0)
        if not other.any():
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(other, -d_main / d_limited, sign * np.inf)
        column = int(ratio.argmin() if sign > 0 else ratio.argmax())
        at = float(ratio[column])
        if at * sign < lam * sign or not math.isfinite(at):
            continue
        changes.append(_change(view, group, place, column, at, sign, solve_again))
    return changes


def _change(view: _View, group: str, place: int, column: int, price: float, sign: int, solve_again: bool) -> Change:
    """Return the limit that is used up by everybody's best choice at ``price``, ties to the side of ``sign``."""
    instance = view.instance
    main, limited = (view.cost, view.damage) if view.by_cost else (view.damage, view.cost)
    priced = np.where(view.inside, main + price * limited, np.inf)
    least = priced.min(axis=1, keepdims=True)
    # Of candidates that are equal at this price (but for rounding) the one on the far side of it.
    equal = view.inside & (priced <= least + np.abs(least) * 2**-40)
    choice = np.where(equal, limited * sign, np.inf).argmin(axis=1)
    choice[place] = column
    exact = instance.damage_of(choice) if view.by_cost else instance.cost_of(choice) * instance.quantum
    value = ceil_float(Fraction(exact))  # rounded up, so that the choice keeps it
    solved = None
    if solve_again and value > 0:
        found = _again(instance.problem, view.allocation, limit=Fraction(value))
        index = instance.problem.names.index_of(group)
        solved = None if found.choice is None else _label(instance.problem, index, int(found.choice[index]))
    name = "bound" if view.by_cost else "+".join(view.allocation.cost_weights)
    return Change(view.label(place, column), name, value, solved)
