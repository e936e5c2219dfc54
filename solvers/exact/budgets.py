"""Several limits at once: one price each, then an enumeration of the choices that the prices leave open.

1. The Lagrangian dual over all prices gives a lower bound and, along the way, choices near the optimum.
2. A choice whose reduced cost exceeds the gap is in no better answer. Groups with another choice left, closest first,
   make a core; the others keep their choice at the best prices.
3. The core's partial choices are extended group by group (:mod:`.states`).
4. While the core grows it is a search for better answers, cut to the most promising states; once it holds every open
   group and nothing was cut, it is a proof.

There damages are rounded down, which relaxes their limit: an answer of the relaxation that meets the limits exactly is
therefore optimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError
from impq_opt.instance.instance import Instance
from impq_opt.instance.row import Value
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers._best import Incumbent
from impq_opt.solvers.exact.states import TRIAL_STATES, LimitedCore
from impq_opt.solvers.exact.swaps import swap
from impq_opt.solvers.lagrange.dual import Dual, maximize_dual
from impq_opt.solvers.lagrange.oracle import Oracle, Point
from impq_opt.types import FloatArray, IntArray

__all__ = ["solve_budgets"]

# Candidates beside the chosen ones in the first core, and how they grow.
_FIRST_CORE, _GROWTH = 32, 2
# Groups that are searched for better answers alone.
_LARGEST_TRIAL = 512
# Groups that are searched for any answer at all.
_LARGEST_SEARCH = 1 << 13
# Where the gap is below a millionth and more groups than this are open, larger cores are not worth their time.
_SMALL_GAP, _LARGEST_CORE = 1e-6, 150
# Sums of limits that all states together may hold.
_MOST_SUMS = 1 << 21


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
        self.best = Incumbent(instance)
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
            self.best.offer(self.control.warm_start)
        for point in dual.points:
            self._offer_point(point)
        self._close(dual)

    def claim(self) -> Claim:
        """Return what was found and proved."""
        lower, enumeration = (-math.inf, None) if self.proved is None else self.proved
        statistics = {"evaluations": self.evaluations, "states": self.looked, "core_groups": self.core_groups}
        return Claim(self.best.choice, lower, self.prices, enumeration, self.stop, statistics)

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
            if whole and self.best.value is not None and not len(groups):
                self.proved = self.best.value, Enumeration(0, self.looked)
                return
            if len(groups) > (_LARGEST_TRIAL if self.best.value is not None else _LARGEST_SEARCH):
                self.stop = Stop.STATE_LIMIT
                return
            core = LimitedCore(self.oracle, self.control, self.best, point, vectors, groups, open_)
            self.core_groups = len(groups)
            choices = core.search(self.most if whole else TRIAL_STATES, cut=not whole)
            self.looked += core.looked
            lower = self._take(choices)
            if whole and not core.was_cut:
                self.proved = lower, Enumeration(len(groups), self.looked)
            if self.proved is None or lower != self.best.value:
                self._swap(reduced, point)
            if self.proved is not None:
                return
            if whole or self._hopeless(point):
                self.stop = Stop.STATE_LIMIT
                return
            count *= _GROWTH

    def _hopeless(self, point: Point) -> bool:
        """Return whether the gap is already small and would still leave too many groups open to close it."""
        if self.best.value is None:
            return False
        reached = nearest_float(self.best.value)
        if reached - point.value > _SMALL_GAP * abs(reached):
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
        if self.best.value is None:
            return math.inf
        # A little wider than the gap, so that rounding in the reduced costs closes no candidate too early.
        return max(nearest_float(self.best.value) - point.value, 0.0) * (1 + 1e-9) + 2 * point.margin

    def _take(self, choices: Iterable[tuple[Value, IntArray]]) -> Value | float:
        """Offer the core's whole choices, best first, until one is feasible; return what the core proves."""
        lower: Value | float | None = None
        for number, (value, choice) in enumerate(choices):
            self.control.check()
            if self.best.value is not None and value >= self.best.value:
                break
            lower = value if lower is None else lower
            self.best.offer(choice)
            if number > 1000:
                break
        if self.best.value is None:
            return math.inf if lower is None else lower
        return self.best.value if lower is None else min(lower, self.best.value)

    def _swap(self, reduced: FloatArray, point: Point) -> None:
        if self.best.choice is not None:
            near = partial(self._gap, point)
            swap(self.rows, reduced, self.best.choice, self._slack, self.best.offer, near, self.control.check)

    def _slack(self, choice: IntArray) -> FloatArray:
        used = [part.total(choice) for part in self.oracle.parts[1:]]
        return self.oracle.limit_values - np.array(used)

    def _offer_point(self, point: Point) -> None:
        """Offer a point's choice, unless its sums say clearly enough that it is not feasible."""
        if (point.slope <= 1e-9 * np.abs(self.oracle.limit_values)).all():
            if self.best.value is not None:
                self.control.check()
            self.best.offer(point.choice)


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
