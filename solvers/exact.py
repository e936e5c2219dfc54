"""Exact: the Lagrangian bound fixes nearly all groups, dynamic programming settles the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Enumeration, Stop
from impq_opt.arithmetic import ceil_float, exact_sum, floor_float
from impq_opt.errors import OptionError
from impq_opt.instance import Direction, Instance
from impq_opt.solver import Claim, Control, Solver
from impq_opt.solvers._hull import hull_steps
from impq_opt.solvers.greedy import fill
from impq_opt.solvers.lagrangian import break_step, price
from impq_opt.verification import dual_bound

__all__ = ["Exact"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Exact(Solver):
    """Prove the optimum: multiplier, incumbent, reduced-cost fixing, then all undominated states of what is open.

    Parameters
    ----------
    states : int
        Most states to keep; beyond it the incumbent is returned with the dual bound.
    """

    name: ClassVar[str] = "exact"
    summary: ClassVar[str] = "proves the optimum: dual bound, then dynamic programming over the open core"
    proves: ClassVar[str] = "optimal"
    supports: ClassVar[frozenset[str]] = frozenset({"damage"})

    states: int = 5_000_000

    def __post_init__(self) -> None:
        if self.states < 1:
            raise OptionError("must be positive", where="exact.states", value=self.states)

    def run(self, instance: Instance, control: Control) -> Claim:
        steps = hull_steps(*instance.tables)
        count = break_step(instance, steps)
        prices = price(instance, steps, count)
        incumbent = fill(instance, steps.choice(count))
        dual = dual_bound(instance, prices)
        value = _value(instance, incumbent)
        if dual != -math.inf and _closed(instance, value, dual):
            return Claim(incumbent, dual, prices, statistics={"core_groups": 0})
        core = _open_choices(instance, prices, float(value - dual) if dual != -math.inf else math.inf)
        groups = np.flatnonzero(core.sum(axis=1) > 1)
        states, looked, stop = self._enumerate(instance, prices, incumbent, core, groups, control)
        statistics = {"core_groups": len(groups), "states": looked}
        if states is None:
            return Claim(incumbent, dual, prices, stop=stop, statistics=statistics)
        best, lower = _first_feasible(instance, incumbent, value, states)
        return Claim(best, lower, prices, Enumeration(len(groups), looked), Stop.COMPLETED, statistics)

    def _enumerate(
        self,
        instance: Instance,
        prices: dict[str, float],
        incumbent: IntArray,
        core: npt.NDArray[np.bool_],
        groups: IntArray,
        control: Control,
    ) -> tuple[_States | None, int, Stop]:
        """Return every undominated assignment of the core that could beat the incumbent."""
        cost_table, damage_table = instance.tables
        fixed = core.argmax(axis=1)
        rest = np.setdiff1d(np.arange(instance.size), groups)
        states = _States.start(
            instance.base_cost + int(cost_table[rest, fixed[rest]].sum()),
            instance.base_damage + exact_sum(damage_table[rest, fixed[rest]]),
        )
        reduced = _reduced(instance, prices)
        value = _value(instance, incumbent)
        room = float(value - dual_bound(instance, prices)) if prices else math.inf
        # Coarse groups first: they separate the states most.
        order = groups[np.argsort(-np.ptp(cost_table[groups], axis=1), kind="stable")]
        looked = 0
        # what the groups still to come cost at least: below zero, a sum over the budget can come back under it
        least = dict(zip(groups.tolist(), cost_table[groups].min(axis=1).tolist(), strict=True))
        rest_cost = sum(least.values())
        for group in order.tolist():
            columns = np.flatnonzero(core[group])
            states = states.extend(group, columns, cost_table[group], damage_table[group], reduced[group])
            looked += len(states.cost)
            rest_cost -= least[group]
            states = states.prune(instance, room, rest_cost)
            if len(states.cost) > self.states:
                return None, looked, Stop.STATE_LIMIT
            if control.expired():
                return None, looked, Stop.TIME_LIMIT
        states.fixed = fixed
        return states, looked, Stop.COMPLETED


class _States:
    """Partial assignments: exact integer cost, damage rounded down, reduced cost, and how each was reached."""

    def __init__(self, cost, damage, reduced, trail) -> None:  # type: ignore[no-untyped-def]
        self.cost: IntArray = cost
        self.damage: npt.NDArray[np.longdouble] = damage
        self.reduced: FloatArray = reduced
        self.trail: list[tuple[int, IntArray, IntArray]] = trail
        self.fixed: IntArray = np.empty(0, dtype=np.int64)

    @classmethod
    def start(cls, cost: int, damage: Fraction) -> _States:
        low = floor_float(damage)
        return cls(
            np.array([cost]),
            np.array([low], dtype=np.longdouble) + np.longdouble(floor_float(damage - Fraction(low))),
            np.zeros(1),
            [],
        )

    def extend(self, group: int, columns: IntArray, cost, damage, reduced) -> _States:  # type: ignore[no-untyped-def]
        parent = np.repeat(np.arange(len(self.cost)), len(columns))
        column = np.tile(columns, len(self.cost))
        return _States(
            self.cost[parent] + cost[column],
            # one rounding a group, taken off again: never above the exact sum
            (self.damage[parent] + damage[column]) * (1 - np.longdouble(2) ** -62),
            self.reduced[parent] + reduced[column],
            [*self.trail, (group, parent, column)],
        )

    def prune(self, instance: Instance, room: float, rest: int) -> _States:
        keep = self.reduced <= room * (1 + 1e-9)
        if instance.direction is Direction.COST and instance.bound is not None:
            keep &= self.damage <= np.longdouble(ceil_float(instance.bound))
        if instance.limit is not None:
            keep &= self.cost + rest <= instance.limit
        live = np.flatnonzero(keep)
        live = live[np.lexsort((self.damage[live], self.cost[live]))]
        falling = np.minimum.accumulate(self.damage[live])
        first = np.ones(len(live), dtype=bool)
        first[1:] = self.damage[live][1:] < falling[:-1]
        live = live[first]
        group, parent, column = self.trail[-1]
        return _States(
            self.cost[live],
            self.damage[live],
            self.reduced[live],
            [*self.trail[:-1], (group, parent[live], column[live])],
        )

    def choice(self, number: int) -> IntArray:
        """Return the whole choice (size,) that state ``number`` stands for."""
        choice = self.fixed.copy()
        for group, parent, column in reversed(self.trail):
            choice[group] = column[number]
            number = int(parent[number])
        return choice


def _first_feasible(
    instance: Instance, incumbent: IntArray, value: Fraction | int, states: _States
) -> tuple[IntArray, Fraction | int]:
    """Return the best exactly feasible assignment and what the enumeration proves."""
    by_cost = instance.direction is Direction.COST
    order = np.argsort(states.cost if by_cost else states.damage, kind="stable")
    lower: Fraction | int | None = None
    for number in order.tolist():
        relaxed = int(states.cost[number]) if by_cost else _fraction(states.damage[number])
        if relaxed >= value:
            break
        lower = relaxed if lower is None else lower
        choice = states.choice(number)
        if instance.is_feasible(choice):
            found = _value(instance, choice)
            if found < value:
                return choice, lower
    return incumbent, value if lower is None else lower


def _fraction(value: np.longdouble) -> Fraction:
    high = float(value)
    return Fraction(high) + Fraction(float(value - np.longdouble(high)))


def _value(instance: Instance, choice: IntArray) -> Fraction | int:
    return instance.cost_of(choice) if instance.direction is Direction.COST else instance.damage_of(choice)


def _closed(instance: Instance, value: Fraction | int, dual: Fraction | float) -> bool:
    if instance.direction is Direction.COST:
        return math.ceil(dual) >= value
    return float(dual) >= float(value)


def _reduced(instance: Instance, prices: dict[str, float]) -> FloatArray:
    cost, damage = instance.tables
    if instance.direction is Direction.COST:
        value = (cost - cost.min(axis=1)[:, None]) + prices["bound"] * damage
    else:
        value = damage + prices["budget"] * (cost - cost.min(axis=1)[:, None])
    return value - value.min(axis=1)[:, None]


def _open_choices(instance: Instance, prices: dict[str, float], gap: float) -> npt.NDArray[np.bool_]:
    """Return which candidates (size, K) an answer better than the incumbent could use; padding is closed."""
    reduced = _reduced(instance, prices)
    scale = np.abs(reduced).max(initial=0.0) * 2.0**-45
    open_ = reduced <= gap * (1 + 1e-9) + scale
    return open_ & (np.arange(reduced.shape[1]) < instance.widths[:, None])
