"""Partial choices under several limits, extended group by group.

One is dropped when it cannot meet a limit, when the bound of any of several price vectors reaches the best answer, or
when another is at least as good in every sum. Sums are whole numbers: costs are, and damages are floored to a fixed
point, which relaxes their limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np

from impq_opt.exactness.limits import clamped
from impq_opt.exactness.sums import exact_int_sum, exact_sum, nearest_float
from impq_opt.instance.contract import Control
from impq_opt.instance.row import Row, Value
from impq_opt.solvers._best import Incumbent
from impq_opt.solvers.lagrange.oracle import Oracle, Point
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["BETWEEN", "TRIAL_STATES", "LimitedCore", "States", "undominated"]

# States that a core on the way may keep.
TRIAL_STATES = 2_000
# States between two looks at the clock.
BETWEEN = 1 << 16
# States a chunk: the matrix of their bounds stays in the cache.
_CHUNK = 1 << 12


@dataclass
class States:
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

    def take(self, live: IntArray) -> States:
        """Return some of the states."""
        return States(*(getattr(self, field.name)[live] for field in fields(self)))

    @staticmethod
    def joined(parts: list[States]) -> States:
        """Return the states of all parts."""
        if len(parts) == 1:
            return parts[0]
        return States(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(States)))


class LimitedCore:
    """The open groups under search, the others fixed at the choice of ``point``.

    Parameters
    ----------
    best : Incumbent
        Takes better answers, and says which states are of no interest.
    point : Point
        At the best prices.
    vectors : ndarray (J, R)
        Prices that bound states.
    groups : ndarray of int64 (n,)
    open_ : ndarray of bool (size, K)
        The candidates that are left to each group.
    """

    was_cut = False
    looked = 0

    def __init__(
        self,
        oracle: Oracle,
        control: Control,
        best: Incumbent,
        point: Point,
        vectors: FloatArray,
        groups: IntArray,
        open_: BoolArray,
    ) -> None:
        self.control, self.best, self.groups, self.fixed = control, best, groups, point.choice.copy()
        self.whole = oracle.objective.whole
        self.trail: list[tuple[IntArray, IntArray]] = []  # how the states of each step were reached
        rest = _others(oracle.instance.size, groups)
        rows = [oracle.objective, *oracle.limits]
        self.scaled = [_Scaled(row, rest, self.fixed, groups) for row in rows]
        self.base = oracle.base + self.scaled[0].rest
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
            self.control.check()
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
        states = States(none, np.zeros((1, len(self.limits)), dtype=np.int64), none, none, np.zeros(1))
        for step, (line, columns) in enumerate(zip(self.order.tolist(), self.columns, strict=True)):
            states = self._extend(states, line, columns, step)
            if len(states) > most:
                self.was_cut = True
                if not cut:
                    most_promising = np.argsort(states.bound, kind="stable")[:TRIAL_STATES]
                    most = TRIAL_STATES
                    cut = True
                else:
                    most_promising = np.argpartition(states.bound, most)[:most]
                states = states.take(np.sort(most_promising))
            self.trail.append((states.parent, states.column))
        order = np.argsort(states.objective, kind="stable")[:1000]
        unit, base = self.scaled[0].unit, self.base
        choices = []
        for number in order.tolist():
            value = base + int(states.objective[number]) * unit
            choices.append((int(value) if self.whole else value, self._choice(number)))
        return choices

    def _extend(self, states: States, line: int, columns: IntArray, step: int) -> States:
        """Return the states with each of a group's candidates added, those left out that lead to no better answer."""
        objective = self.scaled[0].table[line, columns]
        used = self.scaled_table[:, line, columns].T  # (k, R)
        parts = []
        size = max(1, BETWEEN // len(columns))
        for start in range(0, max(len(states), 1), size):
            self.control.check()
            part = slice(start, start + size)
            count = len(states.objective[part])
            grown = States(
                (states.objective[part, None] + objective).reshape(-1),
                (states.used[part, None] + used).reshape(-1, used.shape[1]),
                np.repeat(np.arange(start, start + count), len(columns)),
                np.tile(columns, count),
                np.empty(count * len(columns)),
            )
            self.looked += len(grown)
            parts.append(self._prune(grown, step + 1))
        states = States.joined(parts)
        return states if len(parts) == 1 else states.take(undominated(states))

    def _prune(self, states: States, step: int) -> States:
        fits = (states.used + self.least[step] <= self.limits).all(axis=1)
        states = states.take(np.flatnonzero(fits))
        states.bound, vector = self._bound(states, step)
        self._complete(states, vector, step)
        value = self.best.value
        if value is not None:
            below = states.bound - self.margin
            # What overflowed is not a number, and closes nothing.
            live = ~(np.ceil(below) >= value if self.whole else below >= nearest_float(value))
            states = states.take(np.flatnonzero(live))
        return states.take(undominated(states))

    def _bound(self, states: States, step: int) -> tuple[FloatArray, IntArray]:
        """Return the highest bound (S,) of each state, and the price vector (S,) that gives it."""
        best, vector = np.empty(len(states)), np.empty(len(states), dtype=np.int64)
        for start in range(0, len(best), _CHUNK):
            part = slice(start, start + _CHUNK)
            priced = states.used[part].astype(np.float64) @ self.weights.T + self.tail[step]  # (S, J)
            vector[part] = priced.argmax(axis=1)
            best[part] = np.take_along_axis(priced, vector[part, None], axis=1)[:, 0]
        return best + states.objective * self.goal_unit, vector

    def _complete(self, states: States, vector: IntArray, step: int) -> None:
        """Complete each state with what the prices that bound it choose for the groups to come; offer the best."""
        used = states.used + self.later_used[step, vector]
        objective = states.objective + self.later_objective[step, vector]
        fits = np.flatnonzero((used <= self.limits).all(axis=1))
        if len(fits) == 0:
            return
        number = int(fits[objective[fits].argmin()])
        value = self.base + int(objective[number]) * self.scaled[0].unit
        if self.best.value is None or value < self.best.value:
            choice = self._choice_of(int(states.parent[number]), states.column[number], step - 1)
            choice[self.groups[self.order[step:]]] = self.cheapest[step:, vector[number]]
            self.best.offer(choice)

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
    """One row of the core in whole numbers of ``unit``: table (n, K), rounded down, and the room that is left."""

    def __init__(self, row: Row, rest: IntArray, fixed: IntArray, groups: IntArray) -> None:
        table, is_goal = row.table, row.limit is None
        self.table: IntArray
        room = Fraction(0 if is_goal else row.room)
        if row.whole:
            self.unit = Fraction(1)
            self.rest = Fraction(exact_int_sum(table[rest, fixed[rest]]))
            self.exact_limit = room - self.rest
            self.table = np.asarray(table[groups], dtype=np.int64)
            self.limit = clamped(math.floor(self.exact_limit))
            return
        self.rest = exact_sum(table[rest, fixed[rest]])
        self.exact_limit = room - self.rest
        part = np.asarray(table[groups], dtype=np.float64)
        largest = float(part.max(axis=1).sum()) if is_goal else max(float(self.exact_limit), 1e-300)
        places = 61 - (0 if is_goal else math.ceil(math.log2(len(groups) + 2)))
        exponent = places - math.frexp(max(largest, 1e-300))[1]
        self.unit = Fraction(2) ** -exponent
        # What alone exceeds the limit is lowered to just above it: it stays out of reach.
        capped = part if is_goal else np.minimum(part, 2 * largest)
        self.table = np.floor(np.ldexp(capped, exponent)).astype(np.int64)
        self.limit = clamped(math.floor(self.exact_limit / self.unit))


def undominated(states: States) -> IntArray:
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
