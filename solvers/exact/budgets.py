"""Several limits at once: one price each, then an enumeration of the choices that the prices leave open.

1. The Lagrangian dual over all prices gives a lower bound and, along the way, choices near the optimum.
2. A choice whose reduced cost exceeds the gap is in no better answer. Groups with another choice left, closest first,
   make a core; the others keep their choice at the best prices.
3. The core's partial choices are extended group by group. One is dropped when it cannot meet a limit, when the bound of
   any of several price vectors reaches the best answer, or when another is at least as good in every sum.
4. While the core grows it is a search for better answers, cut to the most promising states; once it holds every open
   group and nothing was cut, it is a proof.

Sums are whole numbers: costs are, and damages are floored to a fixed point, which relaxes their limit. An answer of the
relaxation that meets the limits exactly is therefore optimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.limits import UNLIMITED
from impq_opt.exactness.sums import exact_int_sum, exact_sum, nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError
from impq_opt.instance.instance import Direction, Instance
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers.exact.exchange import exchange
from impq_opt.solvers.lagrange.dual import Dual, maximize_dual
from impq_opt.solvers.lagrange.oracle import Oracle, Point, Row
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["solve_budgets"]

Value = int | Fraction

# Candidates beside the chosen ones in the first core, and how they grow.
_FIRST_CORE, _GROWTH = 32, 2
# States that a core on the way may keep.
_TRIAL_STATES = 2_000
_LARGEST_TRIAL = 512
# Groups that are searched for any answer at all.
_LARGEST_SEARCH = 1 << 13
# Where the gap is below a millionth and more groups than this are open, larger cores are not worth their time.
_SMALL_GAP, _LARGEST_CORE = 1e-6, 150
# States a chunk: the matrix of their bounds stays in the cache.
_CHUNK = 1 << 12
# States between two looks at the clock, and sums of limits that all states together may hold.
_BETWEEN, _MOST_SUMS = 1 << 16, 1 << 21


def solve_budgets(instance: Instance, control: Control, states: int = 400_000) -> Claim:
    """Return what can be claimed about an instance of single groups with any number of limits."""
    search = _Search(instance, control, states)
    try:
        search.run()
    except ExpiredError:
        search.stop = Stop.TIME_LIMIT
    except KeyboardInterrupt:
        search.stop = Stop.INTERRUPTED
    return search.claim()


class _Search:
    def __init__(self, instance: Instance, control: Control, states: int) -> None:
        self.instance, self.control = instance, control
        self.oracle = Oracle(instance, control.check)
        self.most = min(states, _MOST_SUMS // max(1, len(self.oracle.limits)))
        self.by_cost = instance.direction is Direction.COST
        self.best: IntArray | None = None
        self.value: Value | None = None
        self.looked = self.core_groups = self.evaluations = 0
        self.rows = [part.table for part in self.oracle.parts]
        self.prices: dict[str, float] = {}
        self.proved: tuple[Value | float, Enumeration] | None = None
        self.stop = Stop.COMPLETED

    def run(self) -> None:
        """Find the prices, then close the gap as far as time and states go."""
        dual = maximize_dual(self.oracle, self.control)
        self.evaluations = len(dual.points)
        if dual.infeasible:
            self.proved = math.inf, Enumeration(0, 0)
            return
        self.prices = self.oracle.prices(dual.best)
        if self.control.warm_start is not None:
            self.offer(self.control.warm_start)
        for point in dual.points:
            self._offer_point(point)
        self._close(dual)

    def claim(self) -> Claim:
        """Return what was found and proved."""
        lower, enumeration = (-math.inf, None) if self.proved is None else self.proved
        statistics = {"evaluations": self.evaluations, "states": self.looked, "core_groups": self.core_groups}
        return Claim(self.best, lower, self.prices, enumeration, self.stop, statistics)

    # -- closing ------------------------------------------------------------------------------------------------------

    def _close(self, dual: Dual) -> None:
        point = dual.best
        vectors = _vectors(dual)
        reduced = self._reduced(point)
        chosen = np.zeros(reduced.shape, dtype=bool)
        chosen[np.arange(len(reduced)), point.choice] = True
        inside = np.arange(reduced.shape[1]) < self.instance.widths[:, None]
        others = np.sort(reduced[~chosen & np.isfinite(reduced)])
        count = _FIRST_CORE
        while True:
            self.control.check()
            gap = self._gap(point)
            reach = float(others[count]) if count < len(others) else math.inf
            whole = gap <= reach or count >= _LARGEST_TRIAL
            reach = gap if whole else reach
            open_ = (~(reduced > min(gap, reach)) & inside) | chosen
            groups = np.flatnonzero(open_.sum(axis=1) > 1)
            if whole and self.value is not None and not len(groups):
                self.proved = self.value, Enumeration(0, self.looked)
                return
            if len(groups) > (_LARGEST_TRIAL if self.value is not None else _LARGEST_SEARCH):
                self.stop = Stop.STATE_LIMIT
                return
            core = _Core(self, point, vectors, groups, open_)
            self.core_groups = len(groups)
            found = core.search(self.most if whole else _TRIAL_STATES, cut=not whole)
            self.looked += core.looked
            lower = self._take(found)
            if whole and not core.was_cut:
                self.proved = lower, Enumeration(len(groups), self.looked)
            if self.proved is None or lower != self.value:
                self._exchange(reduced, point)
            if self.proved is not None:
                return
            if whole or self._hopeless(point):
                self.stop = Stop.STATE_LIMIT
                return
            count *= _GROWTH

    def _hopeless(self, point: Point) -> bool:
        """Return whether the gap is already small and would still leave too many groups open to close it."""
        if self.value is None or nearest_float(self.value) - point.value > _SMALL_GAP * abs(nearest_float(self.value)):
            return False
        open_ = self._reduced(point) <= self._gap(point)
        return int((open_.sum(axis=1) > 1).sum()) > _LARGEST_CORE

    def _reduced(self, point: Point) -> FloatArray:
        """Return the reduced cost (size, K) of every candidate at the point's prices; inf past a group's width."""
        value = self.rows[0] + sum(
            (price * table for price, table in zip(point.prices.tolist(), self.rows[1:], strict=True) if price),
            np.zeros_like(self.rows[0]),
        )
        value = value - value.min(axis=1)[:, None]
        value[np.arange(value.shape[1]) >= self.instance.widths[:, None]] = np.inf
        return value

    def _gap(self, point: Point) -> float:
        if self.value is None:
            return math.inf
        # A little wider than the gap, so that rounding in the reduced costs closes no candidate too early.
        return max(nearest_float(self.value) - point.value, 0.0) * (1 + 1e-9) + 2 * point.margin

    def _take(self, found: Iterable[tuple[Value, IntArray]]) -> Value | float:
        """Offer the core's whole choices, best first, until one is feasible; return what the core proves."""
        lower: Value | float | None = None
        for number, (value, choice) in enumerate(found):
            self.control.check()
            if self.value is not None and value >= self.value:
                break
            lower = value if lower is None else lower
            self.offer(choice)
            if number > 1000:
                break
        if self.value is None:
            return math.inf if lower is None else lower
        return self.value if lower is None else min(lower, self.value)

    def _exchange(self, reduced: FloatArray, point: Point) -> None:
        if self.best is not None:
            near = partial(self._gap, point)
            exchange(self.rows, reduced, self.best, self._slack, self.offer, near, self.control.check)

    def _slack(self, choice: IntArray) -> FloatArray:
        used = [part.total(choice) for part in self.oracle.parts[1:]]
        return self.oracle.limit_values - np.array(used)

    def _offer_point(self, point: Point) -> None:
        """Offer a point's choice, unless its sums say clearly enough that it is not feasible."""
        if (point.slope <= 1e-9 * np.abs(self.oracle.limit_values)).all():
            if self.value is not None:
                self.control.check()
            self.offer(point.choice)

    def offer(self, choice: IntArray) -> bool:
        """Keep the choice if it is feasible and better than the best so far; return whether it is feasible."""
        if not self.instance.is_feasible(choice):
            return False
        value = self.instance.cost_of(choice) if self.by_cost else self.instance.damage_of(choice)
        if self.value is None or value < self.value:
            self.best, self.value = choice.copy(), value
        return True


def _vectors(dual: Dual) -> FloatArray:
    """Return the prices (J, R) that bound states.

    What is left of the limits differs from state to state, so the best prices are scaled up and down; prices of the
    dual search itself, which lie close to the best ones, come on top.
    """
    best = dual.best.prices
    near = [p.prices for p in sorted(dual.points, key=lambda p: -p.value)[:8]]
    count = len(best)
    if count <= 2:
        factors = 2.0 ** (np.arange(-6, 7) / 2 if count == 1 else np.array([-2.5, -1.5, -0.7, 0, 0.7, 1.5, 2.5]))
        grid = np.stack(np.meshgrid(*[factors] * count, indexing="ij"), axis=-1).reshape(-1, count)
    else:
        grid = 2.0 ** np.random.default_rng(0).normal(0, 1, (64, count))
    grid = np.vstack([np.ones(count), grid, *(1 - np.eye(count))])
    return np.unique(np.vstack([best * grid, *near]), axis=0)


@dataclass
class _States:
    """Partial choices of the core: objective (S,) and limited sums (S, R), whole.

    parent, column (S,): the state that each was made of, and the candidate added. bound (S,): on the objective.
    """

    objective: IntArray
    used: IntArray
    parent: IntArray
    column: IntArray
    bound: FloatArray

    def __len__(self) -> int:
        return len(self.objective)

    def take(self, live: IntArray) -> _States:
        """Return some of the states."""
        return _States(*(getattr(self, one.name)[live] for one in fields(self)))

    @staticmethod
    def joined(parts: list[_States]) -> _States:
        """Return the states of all parts."""
        if len(parts) == 1:
            return parts[0]
        return _States(*(np.concatenate([getattr(p, one.name) for p in parts]) for one in fields(_States)))


class _Core:
    """The open groups under search, the others fixed at the best prices' choice."""

    was_cut = False
    looked = 0

    def __init__(self, search: _Search, point: Point, vectors: FloatArray, groups: IntArray, open_: BoolArray) -> None:
        self.search_, self.groups, self.fixed = search, groups, point.choice.copy()
        self.trail: list[tuple[IntArray, IntArray]] = []  # how the states of each step were reached
        instance = search.instance
        rest = _others(instance.size, groups)
        parts = [(search.oracle.objective, True), *((row, False) for row in search.oracle.limits)]
        self.scaled = [_Scaled(row, is_goal, rest, self.fixed, groups, instance.size) for row, is_goal in parts]
        self.base = search.oracle.base + self.scaled[0].rest
        # Coarse groups first: they separate the states most.
        spread = np.ptp(self.scaled[0].table, axis=1).astype(np.float64)
        self.order = np.argsort(-spread, kind="stable")
        self.columns = [np.flatnonzero(open_[group]) for group in groups[self.order].tolist()]
        self.limits = np.array([row.limit for row in self.scaled[1:]], dtype=np.int64)
        self.scaled_table = np.array([row.table for row in self.scaled[1:]])  # (R, n, K)
        self._bounds(vectors)
        self._least()

    def _bounds(self, vectors: FloatArray) -> None:
        """Prepare bound_j = objective + used @ weights_j + tail_j for each price vector j."""
        units = np.array([float(row.unit) for row in self.scaled[1:]])
        self.goal_unit = nearest_float(self.scaled[0].unit)
        prices = vectors
        self.weights = prices * units  # (J, R)
        limits = np.array([float(row.exact_limit) for row in self.scaled[1:]])
        constant = nearest_float(self.base) - prices @ limits
        tail = np.zeros((len(self.order) + 1, len(vectors)))
        sizes = np.zeros(len(vectors))  # of all that is added up, signs left out: rounding is measured against it
        self.cheapest = np.zeros((len(self.order), len(vectors)), dtype=np.int64)
        self.later_objective = np.zeros(tail.shape, dtype=np.int64)
        self.later_used = np.zeros((*tail.shape, len(self.limits)), dtype=np.int64)
        for step in range(len(self.order) - 1, -1, -1):
            self.search_.control.check()
            line, columns = self.order[step], self.columns[step]
            parts = [np.full((len(vectors), 1), self.goal_unit) * self.scaled[0].table[line, columns]]
            parts += [self.weights[:, r, None] * row.table[line, columns] for r, row in enumerate(self.scaled[1:])]
            value = sum(parts[1:], parts[0])
            sizes += sum(map(np.abs, parts[1:]), np.abs(parts[0])).max(axis=1)
            tail[step] = tail[step + 1] + value.min(axis=1)
            self.cheapest[step] = columns[value.argmin(axis=1)]
            tables = [row.table[line, self.cheapest[step]] for row in self.scaled]
            self.later_objective[step] = self.later_objective[step + 1] + tables[0]
            self.later_used[step] = self.later_used[step + 1] + np.stack(tables[1:], axis=1)
        self.tail = tail + constant
        size = sizes.max(initial=0.0) + abs(float(self.base)) + float((prices @ np.abs(limits)).max(initial=0.0))
        self.margin = (len(self.order) + 64) * 2.0**-52 * size

    def _least(self) -> None:
        """Prepare the least that the groups still to come add to each limit."""
        least = np.zeros((len(self.order) + 1, len(self.limits)), dtype=np.int64)
        for step in range(len(self.order) - 1, -1, -1):
            line, columns = self.order[step], self.columns[step]
            least[step] = least[step + 1] + [int(row.table[line, columns].min()) for row in self.scaled[1:]]
        self.least = least

    def search(self, most: int, *, cut: bool) -> list[tuple[Value, IntArray]]:
        """Return whole choices with their objective, best first; ``cut`` keeps the ``most`` promising states."""
        none = np.zeros(1, dtype=np.int64)
        states = _States(none, np.zeros((1, len(self.limits)), dtype=np.int64), none, none, np.zeros(1))
        for step, (line, columns) in enumerate(zip(self.order.tolist(), self.columns, strict=True)):
            states = self._extend(states, line, columns, step)
            if len(states) > most:
                self.was_cut = True
                if not cut:
                    most_promising = np.argsort(states.bound, kind="stable")[:_TRIAL_STATES]
                    most = _TRIAL_STATES
                    cut = True
                else:
                    most_promising = np.argpartition(states.bound, most)[:most]
                states = states.take(np.sort(most_promising))
            self.trail.append((states.parent, states.column))
        order = np.argsort(states.objective, kind="stable")[:1000]
        unit, base = self.scaled[0].unit, self.base
        found = []
        for number in order.tolist():
            value = base + int(states.objective[number]) * unit
            found.append((int(value) if self.search_.by_cost else value, self._choice(number)))
        return found

    def _extend(self, states: _States, line: int, columns: IntArray, step: int) -> _States:
        """Return the states with each of a group's candidates added, those left out that lead to no better answer."""
        objective = self.scaled[0].table[line, columns]
        used = self.scaled_table[:, line, columns].T  # (k, R)
        parts = []
        size = max(1, _BETWEEN // len(columns))
        for start in range(0, max(len(states), 1), size):
            self.search_.control.check()
            part = slice(start, start + size)
            count = len(states.objective[part])
            grown = _States(
                (states.objective[part, None] + objective).reshape(-1),
                (states.used[part, None] + used).reshape(-1, used.shape[1]),
                np.repeat(np.arange(start, start + count), len(columns)),
                np.tile(columns, count),
                np.empty(count * len(columns)),
            )
            self.looked += len(grown)
            parts.append(self._prune(grown, step + 1))
        states = _States.joined(parts)
        return states if len(parts) == 1 else states.take(_undominated(states))

    def _prune(self, states: _States, step: int) -> _States:
        fits = (states.used + self.least[step] <= self.limits).all(axis=1)
        states = states.take(np.flatnonzero(fits))
        states.bound, vector = self._bound(states, step)
        self._complete(states, vector, step)
        value = self.search_.value
        if value is not None:
            below = states.bound - self.margin
            # What overflowed is not a number, and closes nothing.
            live = ~(np.ceil(below) >= value if self.search_.by_cost else below >= nearest_float(value))
            states = states.take(np.flatnonzero(live))
        return states.take(_undominated(states))

    def _bound(self, states: _States, step: int) -> tuple[FloatArray, IntArray]:
        """Return the highest bound (S,) of each state, and the price vector (S,) that gives it."""
        best, vector = np.empty(len(states)), np.empty(len(states), dtype=np.int64)
        for start in range(0, len(best), _CHUNK):
            part = slice(start, start + _CHUNK)
            priced = states.used[part].astype(np.float64) @ self.weights.T + self.tail[step]  # (S, J)
            vector[part] = priced.argmax(axis=1)
            best[part] = np.take_along_axis(priced, vector[part, None], axis=1)[:, 0]
        return best + states.objective * self.goal_unit, vector

    def _complete(self, states: _States, vector: IntArray, step: int) -> None:
        """Complete each state with what the prices that bound it choose for the groups to come; offer the best."""
        used = states.used + self.later_used[step, vector]
        objective = states.objective + self.later_objective[step, vector]
        fits = np.flatnonzero((used <= self.limits).all(axis=1))
        if len(fits) == 0:
            return
        number = int(fits[objective[fits].argmin()])
        value = self.base + int(objective[number]) * self.scaled[0].unit
        if self.search_.value is None or value < self.search_.value:
            choice = self._choice_of(int(states.parent[number]), states.column[number], step - 1)
            choice[self.groups[self.order[step:]]] = self.cheapest[step:, vector[number]]
            self.search_.offer(choice)

    def _choice(self, number: int) -> IntArray:
        """Return the choice of a state of the last step."""
        if not self.trail:
            return self.fixed.copy()
        parent, column = self.trail[-1]
        return self._choice_of(int(parent[number]), int(column[number]), len(self.trail) - 1)

    def _choice_of(self, number: int, column: int, step: int) -> IntArray:
        """Return the choice of a state that adds ``column`` at ``step`` to state ``number`` of the step before."""
        choice = self.fixed.copy()
        choice[self.groups[self.order[step]]] = column
        for line, (parent, before) in zip(
            reversed(self.order[:step].tolist()), reversed(self.trail[:step]), strict=True
        ):
            choice[self.groups[line]] = before[number]
            number = int(parent[number])
        return choice


class _Scaled:
    """One row of the core in whole numbers of ``unit``: table (n, K), rounded down, and the limit that is left."""

    def __init__(self, row: Row, is_goal: bool, rest: IntArray, fixed: IntArray, groups: IntArray, size: int) -> None:
        table: npt.NDArray[Any] = row.table
        self.table: IntArray
        if table.dtype.kind == "i":
            self.unit = Fraction(1)
            self.rest = Fraction(exact_int_sum(table[rest, fixed[rest]]))
            self.exact_limit = row.limit - self.rest
            self.table = table[groups]
            self.limit = _clipped(math.floor(self.exact_limit))
            return
        self.rest = exact_sum(table[rest, fixed[rest]])
        self.exact_limit = row.limit - self.rest
        part = np.asarray(table[groups], dtype=np.float64)
        largest = float(part.max(axis=1).sum()) if is_goal else max(float(self.exact_limit), 1e-300)
        room = 61 - (0 if is_goal else math.ceil(math.log2(len(groups) + 2)))
        exponent = room - math.frexp(max(largest, 1e-300))[1]
        self.unit = Fraction(2) ** -exponent
        # What alone exceeds the limit is lowered to just above it: it stays out of reach.
        capped = part if is_goal else np.minimum(part, 2 * largest)
        self.table = np.floor(np.ldexp(capped, exponent)).astype(np.int64)
        self.limit = _clipped(math.floor(self.exact_limit / self.unit))


def _clipped(value: int) -> int:
    return max(min(value, UNLIMITED), -UNLIMITED)


def _undominated(states: _States) -> IntArray:
    """Return states that no other one is seen to match or beat in every sum; exact for one limit, partial for two.

    For two limits the states are put in bins of the second sum, and a state is compared with those of lower bins.
    """
    count, limits = states.used.shape
    everything = np.arange(count)
    if limits > 2 or count < 2:
        return everything
    order = np.lexsort((*(states.used[:, r] for r in range(limits - 1, -1, -1)), states.objective))
    first = states.used[order, 0]
    if limits == 1:
        best = np.minimum.accumulate(first)
        keep = np.ones(count, dtype=bool)
        keep[1:] = first[1:] < best[:-1]
        return np.sort(order[keep])
    second = states.used[order, 1]
    edges = np.unique(np.quantile(second, np.linspace(0, 1, 17)[1:-1], method="nearest"))
    bins = np.searchsorted(edges, second, side="left")
    dominated = np.zeros(count, dtype=bool)
    large = np.iinfo(np.int64).max
    for number in range(1, len(edges) + 1):
        # The least first sum among states that cost no more and lie in a lower bin.
        lowest = np.minimum.accumulate(np.where(bins < number, first, large))
        mine = bins == number
        dominated[mine] |= lowest[mine] <= first[mine]
    # Equal states: the first is enough.
    same = np.ones(count, dtype=bool)
    same[1:] = (np.diff(states.objective[order]) != 0) | (np.diff(first) != 0) | (np.diff(second) != 0)
    return np.sort(order[~dominated & same])


def _others(size: int, groups: IntArray) -> IntArray:
    inside = np.ones(size, dtype=bool)
    inside[groups] = False
    return np.flatnonzero(inside)
