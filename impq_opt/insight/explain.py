"""Why a group has its bits: prices, what one step more or less costs and saves, and what would change the choice.

The explanation is the Lagrangian one. The multiplier of an allocation is a price: so many bits of storage for a unit of
damage. At that price every group by itself has a best candidate; how far another candidate is behind it is its *reduced
cost* (never negative). The few groups whose next candidate is behind by less than the duality gap are near-ties: the
price alone does not settle them, their combination does. Where costs couple groups, a candidate's cost is what it would
be with all other groups as they are, and so is its damage where damages interact.

What is said *by multipliers* follows from the price alone and is an estimate between points of the convex frontier;
what is said *by solving again* is an answer of the exact strategy to the changed problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import ceil_float, nearest_float
from impq_opt.insight.priced import Candidate, Priced, answer_again, clean
from impq_opt.instance.row import Row
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem

__all__ = ["Alternative", "Candidate", "Change", "Explanation", "Overview", "explain", "overview"]


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
    """Return the ``count`` groups whose choice is closest to changing at the allocation's price.

    Raises
    ------
    AllocationError
        Where the allocation has no answer, or answers another problem.
    UnsupportedError
        Where a peak is minimised: groups have no price in it.
    """
    view = Priced.of(problem, allocation)
    if view.instance.size == 0:
        return Overview(view.price, 0.0, 0, 0, ())
    value, chosen = view.value, view.choice
    rows = np.arange(view.instance.size)
    behind = clean(value - value[rows, chosen][:, None], value)
    other = behind.copy()
    other[rows, chosen] = np.inf
    nearest = other.argmin(axis=1)
    distance = np.abs(other[rows, nearest])
    order = np.argsort(distance, kind="stable")[:count]
    near = (view.reduced <= view.slack) & view.inside
    near[rows, chosen] = False
    closest = tuple(
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
    return Overview(view.price, view.slack * view.unit, int(near.any(axis=1).sum()), view.instance.size, closest)


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

    Raises
    ------
    AllocationError
        Where the allocation has no answer, or answers another problem.
    UnsupportedError
        Where a peak is minimised: groups have no price in it.
    ProblemError
        For a name that no group has.
    """
    view = Priced.of(problem, allocation)
    index = problem.names.index_of(group)
    label = problem.candidates.label(index, int(view.full[index]))
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


# -- solving again -----------------------------------------------------------------------------------------------


def _alternative(view: Priced, group: str, place: int, column: int, solve_again: bool) -> Alternative:
    quantum = nearest_float(view.instance.quantum)
    here = int(view.choice[place])
    label = view.label(place, column)
    other = None
    if solve_again:
        problem = view.instance.problem
        other = answer_again(problem.revise(pins={group: label}), view.allocation)
    objective = None if other is None else other.exact_objective
    before = view.allocation.exact_objective
    assert before is not None
    return Alternative(
        label=label,
        cost_change=float(view.cost[place, column] - view.cost[place, here]) * quantum,
        damage_change=float(view.damage[place, column] - view.damage[place, here]),
        objective=objective,
        increase=math.nan if other is None else math.inf if objective is None else nearest_float(objective - before),
        proved=other is not None and other.status in (Status.OPTIMAL, Status.INFEASIBLE),
    )


def _changes(view: Priced, group: str, place: int, solve_again: bool) -> list[Change]:
    """Return where the group's best candidate changes as the price falls and rises."""
    instance = view.instance
    if instance.coupled or instance.interacting or instance.budgets or view.limit is None:
        return []  # one price does not tell
    lam = view.multiplier
    main, limited = view.table(instance.objective), view.table(view.limit)
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
        changes.append(_change(view, view.limit, group, place, column, at, sign, solve_again))
    return changes


def _change(
    view: Priced, limit: Row, group: str, place: int, column: int, price: float, sign: int, solve_again: bool
) -> Change:
    """Return the ``limit`` that is used up by everybody's best choice at ``price``, ties to the side of ``sign``."""
    instance = view.instance
    main, limited = view.table(instance.objective), view.table(limit)
    with np.errstate(over="ignore"):
        priced = np.where(view.inside, main + price * limited, np.inf)
    least = priced.min(axis=1, keepdims=True)
    # Of candidates that are equal at this price (but for rounding) the one on the far side of it.
    equal = view.inside & (priced <= least + np.abs(least) * 2**-40)
    choice = np.where(equal, limited * sign, np.inf).argmin(axis=1)
    choice[place] = column
    exact = instance.value_of(limit, choice) * limit.quantum
    value = ceil_float(Fraction(exact))  # rounded up, so that the choice keeps it
    solved = None
    if solve_again and value > 0:
        again = answer_again(instance.problem, view.allocation, limit=Fraction(value))
        index = instance.problem.names.index_of(group)
        solved = None if again.choice is None else again.problem.candidates.label(index, int(again.choice[index]))
    return Change(view.label(place, column), limit.term or limit.name, value, solved)
