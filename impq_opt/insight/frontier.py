"""The whole trade-off between cost and damage: every breakpoint of the convex hull, and exact points in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from impq_opt.costs import format_quantity
from impq_opt.errors import UnsupportedError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.arrays import exact_bound
from impq_opt.groups.held import Held, held
from impq_opt.instance.compile import compile_instance
from impq_opt.instance.contract import Control, clock, listening
from impq_opt.instance.cost_row import cost_row
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.card import card, curve
from impq_opt.problem.frame import data_frame
from impq_opt.problem.problem import Problem
from impq_opt.solve import answer_prepared
from impq_opt.types import FloatArray, IntArray, Real

if TYPE_CHECKING:
    import pandas as pd

    from impq_opt.solvers.exact.strategy import Prepared
    from impq_opt.solvers.lagrange.hull import Steps

__all__ = ["Frontier", "frontier"]


@dataclass(frozen=True, eq=False)
class Frontier(Held):
    """The breakpoints, from the cheapest allocation to the most accurate; each differs from the one before in a group.

    Every breakpoint is optimal at its own damage: no allocation with at most that damage is cheaper (Everett 1963).
    What lies between two of them is found by :meth:`solve`.

    Parameters
    ----------
    instance : Instance
    edges : Steps
        The hull steps of all groups, group after group.
    order : ndarray of int64 (B - 1,)
        The steps by rising price.
    cost : ndarray of float64 (B,)
        In the unit of the cost.
    damage : ndarray of float64 (B,)
        Falling; summed from the accurate end, so that small damages keep their digits.
    """

    instance: Instance = field(compare=False)
    edges: Steps = field(compare=False)
    order: IntArray
    cost: FloatArray
    damage: FloatArray

    def __len__(self) -> int:
        return len(self.cost)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Yield the cost and the damage of each breakpoint."""
        return zip(self.cost.tolist(), self.damage.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        if same is True and isinstance(other, Frontier):
            return self.problem == other.problem and self._cost_name == other._cost_name
        return same

    __hash__ = Held.__hash__

    @property
    def problem(self) -> Problem:
        """The problem whose trade-off it is."""
        return self.instance.problem

    @property
    def _cost_name(self) -> str:
        return " + ".join(self.instance.row.weights)

    @cached_property
    def price(self) -> FloatArray:
        """What damage costs (B - 1,) between two breakpoints: cost per damage, rising."""
        with np.errstate(over="ignore", divide="ignore"):
            return held(nearest_float(self.instance.quantum) / self.edges.ratio[self.order])

    @cached_property
    def _columns(self) -> IntArray:
        """Column (size, K) among its own candidates that each free group's first member takes for each choice."""
        widths = self.instance.widths
        choices = (np.minimum(k, widths - 1) for k in range(int(widths.max())))
        return np.stack([self.instance.lift(choice)[self.instance.representatives] for choice in choices], axis=1)

    def choice(self, place: int) -> IntArray:
        """Return the columns (G,) of breakpoint ``place``."""
        taken = self.order[: range(len(self))[place]]
        free = self.edges.start.copy()
        # Later steps of a group come later, and assignment keeps the last.
        free[self.edges.group[taken]] = self.edges.to[taken]
        return self.instance.lift(free)

    def moved(self, place: int) -> str:
        """Return the group that breakpoint ``place`` changes, and what it then has; empty for the first."""
        if place == 0:
            return ""
        problem = self.instance.problem
        step = self.order[place - 1]
        free = self.edges.group[step]
        group = int(self.instance.representatives[free])
        column = int(self._columns[free, self.edges.to[step]])
        return f"{problem.names[group]}={problem.candidates.label(group, column)}"

    def place(self, bound: float) -> int:
        """Return the cheapest breakpoint whose damage is at most ``bound``, the last one where none is."""
        return min(int(np.searchsorted(-self.damage, -bound, side="left")), len(self) - 1)

    def solve(self, bounds: Iterable[Real], *, time_limit: float | None = None) -> list[Allocation]:
        """Return the proved optimum at each bound on damage; the sorted hulls serve all of them.

        Parameters
        ----------
        time_limit : float, optional
            Seconds for each bound.

        Examples
        --------
        >>> problem = Problem.from_tables([[1, 2, 5], [1, 2, 6]], [[0.9, 0.3, 0.1], [0.8, 0.2, 0.0]])
        >>> [found.objective for found in frontier(problem).solve([1.0, 0.5, 0.3])]
        [4, 4, 7]
        """
        answers = []
        with listening() as interrupt:  # one for all bounds: those to come after it get no answer, at once
            for bound in map(exact_bound, bounds):
                started = clock()
                limits = Control(math.inf if time_limit is None else started + time_limit, interrupt=interrupt)
                answers.append(answer_prepared(self._prepared, bound, limits, started))
        return answers

    @property
    def _counted(self) -> str:
        return f"{len(self):,} {'breakpoint' if len(self) == 1 else 'breakpoints'}"

    def to_dict(self) -> dict[str, Any]:
        """Return the breakpoints as plain Python numbers and text, which JSON takes: lists of one length each.

        ``"moved"`` is the group that a breakpoint changes, and what it then has.
        """
        return {
            "cost_name": self._cost_name,
            "cost": self.cost.tolist(),
            "damage": self.damage.tolist(),
            "moved": [self.moved(place) for place in range(len(self))],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a table of pandas, a row a breakpoint: cost, damage, and what damage costs from the one before.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        price = np.concatenate([[np.nan], self.price])
        return data_frame({"cost": self.cost, "damage": self.damage, "price": price})

    def __repr__(self) -> str:
        return (
            f"Frontier({self._counted}, {self._cost_name} {self.cost[0]:.6g} to {self.cost[-1]:.6g}, "
            f"damage {self.damage[0]:.4g} to {self.damage[-1]:.4g})"
        )

    def _repr_html_(self) -> str:
        unit = self.instance.row.unit
        ends = [format_quantity(float(cost), unit) for cost in self.cost[[0, -1]]]
        facts = [
            (self._cost_name, " to ".join(ends)),
            (f"damage ({self.problem.metric})", f"{self.damage[0]:.4g} to {self.damage[-1]:.4g}"),
        ]
        title = f"damage, on a scale of powers of ten, over {self._cost_name}"
        return card(f"Frontier of {self._counted}", facts, [curve(title, self.cost, self.damage)])

    @cached_property
    def _prepared(self) -> Prepared:
        """The exact strategy with the sorted hulls, which serve all bounds."""
        from impq_opt.solvers.exact.strategy import Exact

        return Exact().prepared(self.instance, self.edges.taken(self.order))


def frontier(problem: Problem, minimize: str | Mapping[str, float] | None = None) -> Frontier:
    """Return all breakpoints of ``problem``; pins and ties hold, its bound and budgets do not.

    Examples
    --------
    >>> hull = frontier(Problem.from_tables([[1, 2, 5], [1, 2, 6]], [[0.9, 0.3, 0.1], [0.8, 0.2, 0.0]]))
    >>> hull.cost.tolist()
    [2.0, 3.0, 4.0, 7.0, 11.0]

    Raises
    ------
    UnsupportedError
        Where the cost belongs to pairs of groups or is a peak, or damages interact: the groups' hulls do not add up.
    """
    from impq_opt.solvers.lagrange.hull import descending, hull_edges, sums_along

    weights = {minimize: 1} if isinstance(minimize, str) else dict(minimize or problem.objective)
    row = cost_row(problem, weights)
    if row.coupled:
        raise UnsupportedError(
            f"the hull of {' + '.join(weights)} is not a sum over groups, since it couples them; ask for exact points"
        )
    if problem.interactions is not None:
        raise UnsupportedError(
            "the hull of damages that interact is not a sum over groups; ask for exact points at the bounds of interest"
        )
    if row.peaks:
        raise UnsupportedError(
            f"{' + '.join(weights)} is the largest of several sums and has no hull; ask for exact points"
        )
    # So that what an allocation says of its problem is what it was asked for.
    problem = replace(problem, budgets={}) if problem.budgets else problem
    instance = compile_instance(problem, cost=row)
    edges = hull_edges(*instance.tables)
    order = descending(edges.ratio)
    for array in vars(edges).values():
        array.flags.writeable = False
    last = edges.start.copy()
    last[edges.group] = edges.to  # in chain order within a group: the last one stays
    first, least = instance.cost_of(edges.start), nearest_float(instance.damage_of(last))
    # Costs are whole numbers, exact in float64 where they are below 2**53.
    cost, damage = sums_along(edges, order, first, nearest_float(instance.quantum), least)
    return Frontier(instance, edges, order, cost, damage)
