"""The Lagrangian of an instance at given prices, exactly minimised where the graph of its costs is a forest of stars.

Limits are priced; what is left is a sum over groups and pairs of groups. Groups with one neighbour (leaves) are
minimised for each candidate of that neighbour, all at once; the others (the core: activations, mostly) then choose,
each alone where no two of them share a cost, by elimination otherwise. Limits on few groups are not priced but kept:
their groups belong to the core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.elimination import Factor, least_by_value, least_sum
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import local_limits
from impq_opt.solvers.lagrange.part import Part
from impq_opt.solvers.lagrange.scaled import priced_limits
from impq_opt.solvers.lagrange.stars import Stars
from impq_opt.solvers.native.leaves import Leaves, choices, minima
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Domain", "Oracle", "Point"]


# Prices are kept where no sum of products overflows: an infinite Lagrangian would mean that nothing is feasible.
_FAR = 1e290
# Above all multipliers that matter, in an answer.
_LARGEST_MULTIPLIER = 1e250


@dataclass(frozen=True, eq=False)
class Point:
    """The Lagrangian at some prices.

    value : float
        Lower bound on the objective but for rounding, which ``margin`` covers; inf where no choice of the domain keeps
        the limits on few groups.
    prices, slope : ndarray (R,)
        Of the limits; the slope is what the choice exceeds each limit by.
    choice : ndarray of int64 (size,)
        A minimiser.
    stars : ndarray (C, K)
        Least value of each core group's star at each of its candidates; inf outside the domain.
    """

    value: float
    margin: float
    prices: FloatArray
    slope: FloatArray
    choice: IntArray
    stars: FloatArray


class Domain:
    """Which candidates (C, K) each core group may still take."""

    def __init__(self, allowed: BoolArray) -> None:
        self.allowed = allowed

    @cached_property
    def counts(self) -> IntArray:
        return np.asarray(self.allowed.sum(axis=1), dtype=np.int64)

    @cached_property
    def columns(self) -> IntArray:
        """Allowed candidates (C, K), first ones first."""
        return np.argsort(~self.allowed, axis=1, kind="stable")

    @property
    def single(self) -> bool:
        """Whether every core group is settled."""
        return bool((self.counts == 1).all())

    @property
    def empty(self) -> bool:
        return bool((self.counts == 0).any())


class Oracle:
    """Minimises the Lagrangian of one instance; see the module. ``check`` may raise where time is over."""

    def __init__(self, instance: Instance, check: Callable[[], None] | None = None) -> None:
        self.instance, self.check = instance, check
        self.objective = instance.objective
        limits = priced_limits(instance)
        self.limits, self.shifts = [limit.row for limit in limits], [limit.shift for limit in limits]
        self.base = Fraction(self.objective.base)
        rows = [self.objective, *self.limits]
        couplings = [row.pairs for row in rows if row.pairs is not None]
        local = local_limits(instance)
        graph = Stars(instance.size, couplings, local)
        self.alone, self.leaf, self.core = graph.alone, graph.leaf, graph.core
        self.owner, self.inner = graph.owner, graph.ends
        # 0 where a limit on few groups is kept, inf elsewhere.
        self.local: list[Factor] = [
            (tuple(graph.place[limit.groups].tolist()), np.where(limit.kept, 0.0, np.inf)) for limit in local
        ]
        width = instance.tables[0].shape[1]
        self.leaves = np.empty((len(rows), width, len(self.leaf)))  # one piece, which compiled code reads
        self.parts = []
        for row, leaves in zip(rows, self.leaves, strict=True):
            if check is not None:
                check()
            self.parts.append(Part(row, graph, leaves))
        slopes = [part.coefficient for part in self.parts if part.coefficient is not None]
        self.coefficients = np.array(slopes).reshape(len(slopes), len(self.leaf))
        self.leaf_levels = self.core_levels = None
        if couplings and any(part.coefficient is not None for part in self.parts):
            self.leaf_levels = np.ascontiguousarray(couplings[0].levels[self.leaf].T.astype(np.float64))
            self.core_levels = couplings[0].levels[self.core].astype(np.float64)
        self.limit_values = np.array([float(row.room) for row in self.limits])
        sizes = np.maximum([part.size for part in self.parts[1:]], np.abs(self.limit_values))
        self.most_prices = _FAR / np.maximum(sizes, 1.0) / (len(rows) + 1)
        self.everything = Domain(np.arange(width) < instance.widths[self.core, None])

    @cached_property
    def ceiling(self) -> float:
        """A number that no objective exceeds: a Lagrangian above it proves that nothing is feasible."""
        total = self.parts[0].largest
        pairs = self.objective.pairs
        if pairs is not None and pairs.coefficient is not None:
            most = pairs.levels.max(axis=1)
            total += float((pairs.coefficient.astype(np.float64) * most[pairs.left] * most[pairs.right]).sum())
        elif pairs is not None:
            total += float(pairs.dense().max(axis=(1, 2)).astype(np.float64).sum())
        # A sum of n floats is within n 2^-53 of the exact one.
        return (total + nearest_float(self.base)) + (self.instance.size + 64) * 2.0**-52 * (
            abs(total) + abs(nearest_float(self.base))
        )

    @property
    def separate(self) -> bool:
        """Whether the core groups choose each for itself."""
        return not len(self.inner[0]) and not self.local

    @property
    def names(self) -> list[str]:
        """The limits' names."""
        return [row.name for row in self.limits]

    def prices(self, point: Point) -> dict[str, float]:
        """Return the prices as multipliers that can be checked (:func:`impq_opt.proof.bound.dual_bound`)."""
        with np.errstate(over="ignore"):
            prices = np.ldexp(point.prices, -np.array(self.shifts, dtype=np.int64))
        # A cut may leave a price below 0 by a rounding; any price of 0 or more is valid.
        return dict(zip(self.names, np.clip(prices, 0.0, _LARGEST_MULTIPLIER).tolist(), strict=True))

    def evaluate(self, prices: FloatArray, domain: Domain | None = None) -> Point:
        """Return the Lagrangian at ``prices`` (R,) >= 0 with the core inside ``domain``."""
        domain = self.everything if domain is None else domain
        prices = np.minimum(prices, self.most_prices)
        weights = [1.0, *prices.tolist()]
        leaves = _Leaves(self, weights)
        values = _weighted([part.core for part in self.parts], weights) + leaves.minima(domain)
        values[~domain.allowed] = np.inf
        core = self._choose(values, weights)
        alone = _weighted([part.alone for part in self.parts], weights)
        choice = np.zeros(self.instance.size, dtype=np.int64)
        choice[self.core] = core
        choice[self.alone] = alone.argmin(axis=1)
        choice[self.leaf] = leaves.choice(core)
        total = float(alone.min(axis=1).sum()) + self._core_value
        used = np.array([part.total(choice) for part in self.parts[1:]])
        constant = float(self.base) - float(np.dot(prices, self.limit_values))
        negative = 2 * float(np.dot(weights, [part.negative for part in self.parts]))
        size = abs(total) + negative + abs(float(self.base)) + float(np.dot(prices, np.abs(self.limit_values)))
        # Sums of n terms in any order are within n 2^-53 of the sum of their sizes; products and limits add a few.
        margin = (self.instance.size + 64) * 2.0**-53 * size
        slope = used - self.limit_values
        if total == math.inf:
            constant = margin = 0.0
        return Point(total + constant, margin, prices, slope, choice, values)

    def reduced(self, point: Point, core: IntArray) -> FloatArray:
        """Return the reduced costs (K, L) of the leaves at a point's prices, for the core's choice (C,)."""
        values = _Leaves(self, [1.0, *point.prices.tolist()]).at(core)
        return values - values.min(axis=0)

    def departures(self, point: Point) -> FloatArray:
        """Return how far above a point's value the Lagrangian is at least, by core group and its candidate (C, K).

        Inf outside the point's domain; exact but for rounding, which twice the point's margin covers.
        """
        if self.separate:
            return np.asarray(point.stars - point.stars.min(axis=1)[:, None])
        least = least_by_value(self._factors(point.stars, [1.0, *point.prices.tolist()]), self.check)
        if least is None:
            return np.where(np.isfinite(point.stars), 0.0, np.inf)
        by_group = np.array([least[place] for place in range(len(point.stars))]).reshape(point.stars.shape)
        return np.asarray(by_group - by_group.min(axis=1)[:, None])

    def _choose(self, values: FloatArray, weights: Sequence[float]) -> IntArray:
        if self.separate:
            self._core_value = float(values.min(axis=1).sum())
            return np.asarray(values.argmin(axis=1), dtype=np.int64)
        value, columns, _ = least_sum(self._factors(values, weights), self.check)
        self._core_value = nearest_float(value)
        return np.array([columns[i] for i in range(len(values))], dtype=np.int64)

    def _factors(self, values: FloatArray, weights: Sequence[float]) -> list[Factor]:
        """Return what the core groups' choice costs beyond what each of them does: a sum of small tables."""
        tables = _weighted([part.inner for part in self.parts], weights)
        factors: list[Factor] = [((i,), row) for i, row in enumerate(values)]
        ends = zip(self.inner[0].tolist(), self.inner[1].tolist(), tables, strict=True)
        return [*factors, *(((a, b), table) for a, b, table in ends), *self.local]


class _Leaves:
    """The leaves at one set of prices."""

    def __init__(self, oracle: Oracle, weights: Sequence[float]) -> None:
        self.oracle, self.weights = oracle, weights
        parts = list(zip(oracle.parts, weights, strict=True))
        self.slopes = [(part.coefficient, weight) for part, weight in parts if part.coefficient is not None]
        self.tables = [(part.tables, weight) for part, weight in parts if part.tables is not None]
        self.plain: Leaves | None = None
        if self.slopes and not self.tables and oracle.leaf_levels is not None and oracle.core_levels is not None:
            self.plain = Leaves(
                oracle.leaves, oracle.coefficients, oracle.leaf_levels, oracle.owner, oracle.core_levels
            )
        self.slope_weights = [weight for _, weight in self.slopes]

    def minima(self, domain: Domain) -> FloatArray:
        """Return the sum (C, K) of the leaves' least values for each candidate that the domain allows."""
        if self.plain is not None:
            compiled = minima(self.plain, list(self.weights), self.slope_weights, domain.allowed)
            if compiled is not None:
                return compiled
        sums = np.zeros(domain.allowed.shape)
        owner = self.oracle.owner
        for turn in range(int(domain.counts.max(initial=0))):
            active = domain.counts > turn
            leaves: slice | IntArray = slice(None) if active.all() else np.flatnonzero(active[owner])
            mine = owner[leaves]
            if len(mine):
                least = self._at(leaves, domain.columns[mine, turn]).min(axis=0)
                groups: IntArray = np.flatnonzero(active)
                sums[groups, domain.columns[groups, turn]] = np.bincount(mine, least, len(active))[groups]
        return sums

    def choice(self, core: IntArray) -> IntArray:
        """Return each leaf's candidate (L,) for the core's choice (C,)."""
        if self.plain is not None:
            compiled = choices(self.plain, list(self.weights), self.slope_weights, core)
            if compiled is not None:
                return compiled
        if not len(self.oracle.leaf):
            return np.empty(0, dtype=np.int64)
        return np.asarray(self._at(slice(None), core[self.oracle.owner]).argmin(axis=0), dtype=np.int64)

    def at(self, core: IntArray) -> FloatArray:
        """Return the leaves' values (K, L) for the core's choice (C,)."""
        return self._at(slice(None), core[self.oracle.owner])

    def _at(self, leaves: slice | IntArray, columns: IntArray) -> FloatArray:
        """Return the values (K, n) of some leaves whose centres take ``columns`` (n,)."""
        values = self._single[:, leaves]
        if self._rising is not None:
            assert self.oracle.core_levels is not None
            values = values + self._rising[:, leaves] * self.oracle.core_levels[self.oracle.owner[leaves], columns]
        if self.tables:
            places = np.arange(len(self.oracle.leaf))[leaves]
            values = values + self._priced_tables[columns, :, places].T
        return values

    @cached_property
    def _single(self) -> FloatArray:
        return _weighted([part.leaves for part in self.oracle.parts], self.weights)  # (K, L)

    @cached_property
    def _rising(self) -> FloatArray | None:
        if not self.slopes or self.oracle.leaf_levels is None:
            return None
        return _weighted([s for s, _ in self.slopes], [w for _, w in self.slopes]) * self.oracle.leaf_levels

    @cached_property
    def _priced_tables(self) -> FloatArray:
        return _weighted([t for t, _ in self.tables], [w for _, w in self.tables])


def _weighted(arrays: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    total = arrays[0] * weights[0]
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        if weight:
            total += array * weight
    return total
