"""Costs that couple groups: best-first branch and bound over the core, each settled core closed by a separable solver.

The core (activations, mostly) is what the Lagrangian leaves to choose once every leaf follows its centre. A node is a
domain of the core; its bound is the best Lagrangian over the domain. With the core settled the rest is a problem of
single groups, which another solver closes. Where no more than one group hangs on a centre there is no need to branch:
such clusters become groups with a candidate for each combination.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError
from impq_opt.instance.idle import idle_groups, least_damage
from impq_opt.instance.instance import Instance
from impq_opt.instance.join import components, join
from impq_opt.instance.local import is_local
from impq_opt.instance.row import Value
from impq_opt.instance.settle import settle
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.proof.bound import dual_bound
from impq_opt.solvers._best import Incumbent
from impq_opt.solvers.lagrange.dual import Dual, maximize_dual
from impq_opt.solvers.lagrange.oracle import Domain, Oracle, Point
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["solve_coupled"]

Inner = Callable[[Instance, Control], Claim]


def solve_coupled(
    instance: Instance,
    control: Control,
    inner: Inner,
    *,
    joined: int,
    enough: Value | None = None,
    nodes: int = 100_000,
) -> Claim:
    """Return what can be claimed about an instance with pairs or limits on few groups; ``inner`` solves those without.

    Clusters of up to ``joined`` combinations become one group each. With ``enough`` the question is only whether an
    answer has an objective at most that: the first such answer ends the search, and a lower bound above it does.
    """
    idle = idle_groups(instance)
    if len(idle):
        claim = _without(instance, idle, control, inner, joined, enough, nodes)
        if claim is not None:
            return claim
    clusters = [part for part in map(partial(_small, instance, joined), components(instance)) if len(part)]
    control.check()
    if not clusters:
        return _Search(instance, control, inner, enough, nodes).run()
    control.check()
    merged = join(instance, clusters)
    control.check()
    search = merged.coupled or any(map(is_local, merged.budgets))
    claim = _Search(merged, control, inner, enough, nodes).run() if search else _solve_joined(merged, control, inner)
    if claim.choice is None:
        return claim
    statistics = dict(claim.statistics) | {"joined_clusters": sum(map(len, clusters))}
    return Claim(
        instance.reduce(merged.lift(claim.choice)),
        claim.lower_bound,
        claim.multipliers,
        claim.enumeration,
        claim.stop,
        statistics,
    )


def _without(
    instance: Instance, idle: IntArray, control: Control, inner: Inner, joined: int, enough: Value | None, nodes: int
) -> Claim | None:
    """Settle the idle groups at their least damage, and solve the rest; None where that does not answer it."""
    columns = least_damage(instance, idle)
    if columns is None:
        return Claim(lower_bound=math.inf, enumeration=Enumeration(len(idle), 0))
    if len(columns) < len(idle):
        return None
    choice = np.zeros(instance.size, dtype=np.int64)
    choice[idle] = columns
    rest = settle(instance, idle, columns)
    if rest.size == 0:
        value = instance.objective_of(choice)
        claim = Claim(np.empty(0, dtype=np.int64), value, enumeration=Enumeration(len(idle), 0))
    elif rest.coupled or any(map(is_local, rest.budgets)):
        claim = solve_coupled(rest, control, inner, joined=joined, enough=enough, nodes=nodes)
    else:
        claim = inner(rest, control)
    if claim.choice is None:
        return claim
    others = np.ones(instance.size, dtype=bool)
    others[idle] = False
    choice[others] = claim.choice
    # The damage of ties is rounded down in the tables: what keeps a limit there may still break it.
    return replace(claim, choice=choice) if instance.is_feasible(choice) else None


def _solve_joined(joined: Instance, control: Control, inner: Inner) -> Claim:
    """Solve an instance of joined groups, with the damages of its tables first.

    Those are sums rounded down: an answer that meets the bound exactly is as good as any. Sums that are exact take
    longer, and are for the rare answer that does not.
    """
    if joined.objective.whole and not joined.budgets:
        claim = inner(replace(joined, ties=()), control)
        if claim.choice is None or joined.is_feasible(claim.choice):
            return claim
    return inner(joined, control)


def _small(instance: Instance, most: int, clusters: IntArray) -> IntArray:
    """Return those of some clusters (T, m) that have at most so many combinations."""
    combinations = np.log2(instance.widths[clusters]).sum(axis=1)
    return clusters[combinations < math.log2(most + 0.5)]


@dataclass(order=True)
class _Node:
    bound: float
    number: int
    allowed: BoolArray = field(compare=False)
    prices: FloatArray = field(compare=False)


class _Search:
    def __init__(self, instance: Instance, control: Control, inner: Inner, enough: Value | None, nodes: int) -> None:
        self.instance, self.control, self.inner, self.most = instance, control, inner, nodes
        self.enough = enough
        self.oracle = Oracle(instance, control.check)
        self.objective, self.best = instance.objective, Incumbent(instance)
        self.closed: list[Value | float] = []  # lower bounds of the domains that are done with
        self.heap: list[_Node] = []
        self.count = itertools.count()
        self.looked = self.states = self.leaves = 0
        self.proved, self.stop = True, Stop.COMPLETED
        self.floor = math.inf

    def run(self) -> Claim:
        root = maximize_dual(self.oracle, self.control)
        if root.infeasible:
            prices = self.oracle.prices(root.best)
            return Claim(None, math.inf, prices, Enumeration(0, 0), statistics={"nodes": 0})
        for point in (*root.ends, root.best):
            self._offer_point(point)
        try:
            if self._pruned(root.best.value - root.best.margin) or self._enough_found:
                self.closed.append(self.objective.lowest(root.best.value - root.best.margin))
            else:
                self._expand(self.oracle.everything, root)
            stop = self._branch()
        except (ExpiredError, KeyboardInterrupt) as error:
            stop = Stop.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Stop.TIME_LIMIT
            self.closed.append(root.best.value - root.best.margin)  # a domain was left half way
        lower = self._lower()
        if stop is Stop.COMPLETED and self.floor < math.inf and lower != self.best.value:
            stop = Stop.STATE_LIMIT
        statistics = {"core": len(self.oracle.core), "nodes": self.looked, "settled": self.leaves}
        # The domains cover everything, so what they prove together holds however far the search came.
        return Claim(
            self.best.choice,
            lower if self.proved else -math.inf,
            self.oracle.prices(root.best),
            Enumeration(len(self.oracle.core), self.looked + self.states) if self.proved else None,
            stop,
            statistics,
        )

    def _branch(self) -> Stop:
        # A settled domain that could not be closed holds the lower bound down: what lies above it need not be searched.
        while self.heap and not self._pruned(self.heap[0].bound) and self.heap[0].bound < self.floor:
            if self._enough_found:
                break
            if self.control.expired():
                return Stop.TIME_LIMIT
            if self.looked >= self.most:
                return Stop.STATE_LIMIT
            if self.stop is Stop.INTERRUPTED:
                break
            self._visit(heapq.heappop(self.heap))
        return self.stop

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _visit(self, node: _Node) -> None:
        domain = Domain(node.allowed)
        self.looked += 1
        above = math.inf if self._most is None else nearest_float(self._most)
        dual = maximize_dual(self.oracle, self.control, domain, node.prices, above)
        bound = max(dual.best.value - dual.best.margin, node.bound)
        if dual.infeasible:
            self.closed.append(math.inf)
            return
        for point in dual.ends:
            self._offer_point(point)
        if self._pruned(bound):
            self.closed.append(self.objective.lowest(bound))
        elif domain.single:
            self._settle(domain, dual.best)
        else:
            self._expand(domain, dual)

    def _expand(self, domain: Domain, dual: Dual) -> None:
        """Split the domain by a core vector: it alone, and for each core group what first departs from it there."""
        point = dual.best
        bound = point.value - point.margin
        vector = point.choice[self.oracle.core]
        # The vector itself first: its answer prunes the others.
        alone = np.zeros_like(domain.allowed)
        alone[np.arange(len(vector)), vector] = True
        self._visit(_Node(bound, next(self.count), alone, point.prices))
        bounds = bound + np.maximum(self.oracle.departures(point) - 2 * point.margin, 0.0)
        prefix = domain.allowed & ~self._closed_by(bounds)
        # Groups that the two sides of the crossing disagree about first: their children are close to the bound.
        spread = np.array([np.ptp([p.choice[g] for p in dual.ends]) for g in self.oracle.core]) if dual.ends else 0
        for group in np.argsort(-np.broadcast_to(spread, len(vector)), kind="stable").tolist():
            others = prefix[group].copy()
            others[vector[group]] = False
            if others.any():
                self._push(prefix, group, others, float(bounds[group][others].min()), point)
            prefix[group] = False
            prefix[group, vector[group]] = True

    def _closed_by(self, bounds: FloatArray) -> BoolArray:
        """Return which candidates (C, K) of core groups, of the given lower bounds, are in no answer of interest."""
        most = self._most
        if most is None:
            return np.zeros(bounds.shape, dtype=bool)
        closed = bounds > np.nextafter(nearest_float(most), math.inf)
        finite = bounds[closed & np.isfinite(bounds)]
        if finite.size:
            self.closed.append(self.objective.lowest(float(finite.min())))
        return np.asarray(closed)

    def _push(self, prefix: BoolArray, group: int, others: BoolArray, bound: float, point: Point) -> None:
        if self._pruned(bound):
            self.closed.append(self.objective.lowest(bound))
            return
        allowed = prefix.copy()
        allowed[group] = others
        heapq.heappush(self.heap, _Node(bound, next(self.count), allowed, point.prices))

    def _settle(self, domain: Domain, point: Point) -> None:
        """Close a domain of one core vector with the separable solver."""
        self.control.check()
        self.leaves += 1
        choice = np.zeros(self.instance.size, dtype=np.int64)
        choice[self.oracle.core] = domain.columns[:, 0]
        settled = np.concatenate([self.oracle.core, self._decided(point, choice)])
        rest = settle(self.instance, settled, choice[settled])
        if rest.size == 0:
            fits = self.best.offer(choice)
            self.closed.append(self.instance.objective_of(choice) if fits else math.inf)
            return
        claim = self.inner(rest, self.control)
        if claim.stop is not Stop.COMPLETED:
            self.stop = claim.stop
        if claim.choice is not None:
            others = np.ones(self.instance.size, dtype=bool)
            others[settled] = False
            choice[others] = claim.choice
            self.best.offer(choice)
        self.states += claim.enumeration.states if claim.enumeration is not None else 0
        if claim.enumeration is not None:
            self.closed.append(claim.lower_bound)
            return
        below = dual_bound(rest, claim.multipliers) if claim.multipliers else -math.inf
        below = max(below, self.objective.lowest(point.value - point.margin))
        self.closed.append(self.objective.lowest(below))
        self.floor = min(self.floor, nearest_float(below))

    def _decided(self, point: Point, choice: IntArray) -> IntArray:
        """Return the leaves whose other candidates all cost more than the gap, and set their candidate in ``choice``.

        No answer of the domain that is better than the best so far takes another candidate of theirs.
        """
        if self.best.value is None:
            return np.empty(0, dtype=np.int64)
        core = choice[self.oracle.core]
        reduced = self.oracle.reduced(point, core)
        # A little wider than the gap, so that rounding in the reduced costs decides no leaf too early.
        gap = max(nearest_float(self.best.value) - point.value, 0.0) * (1 + 1e-9) + 2 * point.margin
        count = (reduced <= gap).sum(axis=0) - (self._padding & (reduced <= gap)).sum(axis=0)
        decided = np.flatnonzero(count == 1)
        leaves = self.oracle.leaf[decided]
        choice[leaves] = reduced[:, decided].argmin(axis=0)
        return leaves

    @cached_property
    def _padding(self) -> BoolArray:
        """Columns (K, L) past the end of a leaf's candidates."""
        width = self.instance.tables[0].shape[1]
        return np.arange(width)[:, None] >= self.instance.widths[self.oracle.leaf]

    # -- values -------------------------------------------------------------------------------------------------------

    def _offer_point(self, point: Point) -> None:
        """Offer a point's choice, unless its sums say clearly enough that it is not feasible or not better."""
        if (point.slope > 1e-9 * np.abs(self.oracle.limit_values)).any():
            return
        objective = point.value - float(np.dot(point.prices, point.slope))
        if self.best.value is None or objective - 2 * point.margin < nearest_float(self.best.value):
            self.best.offer(point.choice)

    @property
    def _most(self) -> Value | None:
        """The objective above which nothing is of interest."""
        known = [value for value in (self.enough, self.best.value) if value is not None]
        return min(known, default=None)

    @property
    def _enough_found(self) -> bool:
        return self.enough is not None and self.best.value is not None and self.best.value <= self.enough

    def _pruned(self, bound: float) -> bool:
        if self.enough is not None and self.objective.lowest(bound) > self.enough:
            return True
        if self.best.value is None:
            return bound == math.inf
        lowest = self.objective.lowest(bound)
        return lowest >= (self.best.value if self.objective.whole else nearest_float(self.best.value))

    def _lower(self) -> Value | float:
        """Return a lower bound that the domains together prove."""
        every = [*self.closed, *(self.objective.lowest(node.bound) for node in self.heap)]
        lower = min(every, default=math.inf)
        if self.best.value is not None:
            lower = min(lower, self.best.value)
        return lower
