"""Damages that interact: best-first branch and bound on domains, bounded by tangents of the convex form.

1. The damage becomes a convex function that is exact at every choice (:mod:`impq_opt.instance.convex`), and a
   Lagrangian with a tangent of its square a sum over groups (:mod:`.curved`).
2. The shares of the best bound are rounded, and changed one or two groups at a time (:mod:`.descent`).
3. Candidates whose reduced value exceeds the gap are in no better answer: they leave, in every domain anew.
4. What is left is branched on, the group whose shares are most apart first, many domains at once.

Bounds are lowered by what rounding may have done, and answers are exact sums: what is proved is proved. Which bound a
stranger can recompute without the tree is that of the declared form: prices and a point of tangency.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.interactions import Factors
from impq_opt.instance.contract import Claim, Control, ExpiredError
from impq_opt.instance.convex import convex_form, places
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers._best import Incumbent
from impq_opt.solvers.exact.curved import Ascent, curved
from impq_opt.solvers.exact.descent import descend, rounded
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["solve_interacting"]

# Prices tried at once at the root, and how often, each time closer together.
_TRIED, _TIMES = 12, 5
# Domains looked at together, and sweeps over their groups.
_BATCH, _SWEEPS = 48, 3
# Groups up to which a batch is as large.
_BATCHED = 60
# Shares of the root that are rounded at each time, and sweeps for the certificate.
_ROUNDED, _CERTIFIED = 2, 30
# Bits of the number of choices of a domain that are looked at one by one.
_LEAF = 6
# And of an instance that is not searched.
_SMALL = 12
# How often a convex form that was made is made anew for what is left.
_TIGHTENED = 3


def solve_interacting(instance: Instance, control: Control, nodes: int, lattice: int = 1) -> Claim:
    """Return what can be claimed about an instance whose damages interact; costs are multiples of ``lattice`` apart.

    No more than ``nodes`` domains are looked at.
    """
    return _Search(instance, control, nodes, lattice).run()


@dataclass(order=True)
class _Node:
    lower: float
    number: int
    allowed: BoolArray
    shares: FloatArray
    prices: FloatArray


class _Search:
    def __init__(self, instance: Instance, control: Control, nodes: int, lattice: int) -> None:
        self.instance, self.control, self.most, self.lattice = instance, control, nodes, lattice
        self.best = Incumbent(instance)
        convex = convex_form(instance)
        self.form, self.made = curved(instance, convex), convex.made
        # Of the groups of ``form``: which they are in the instance, and the columns of their candidates.
        self.groups = np.arange(instance.size)
        self.columns = np.tile(np.arange(self.form.rows.shape[2]), (instance.size, 1))
        self.settled = np.zeros(instance.size, dtype=np.int64)
        self.heap: list[_Node] = []
        self.number = itertools.count()
        self.looked = 0
        self.dropped = math.inf  # the least bound of what was left before it was done
        self.prices, self.shares = np.zeros(len(self.form.names)), np.zeros(self.form.rows.shape[1:])
        # Above every objective: what has a larger bound has no answer.
        square = np.linalg.norm(self.form.factors, axis=2).max(axis=1).sum() ** 2 if self.form.square == 0 else 0.0
        top = float(self.form.rows[0].max(axis=1).sum() - self.form.rooms[0] + square)
        self.top = top + 1e-9 * (abs(top) + 1) + float(self.form.errors[0])

    def run(self) -> Claim:
        stop = Stop.COMPLETED
        lower = -math.inf
        try:
            counts = self.form.allowed.sum(axis=1)
            if np.log2(counts).sum() <= _SMALL:
                self.looked = int(counts.prod())
                self._offer(_choices(self.form.allowed, counts))
            else:
                lower = self._root()
                stop = self._tree()
            self._certify()
            lower = max(lower, self._open())
        except ExpiredError:
            stop = Stop.TIME_LIMIT
        done = stop is Stop.COMPLETED
        objective = self.instance.objective
        bound: int | Fraction | float = math.inf
        if not done or self.best.value is None:
            scale = Fraction(float(self.form.scales[0]))
            bound = math.inf if done else lower if lower == -math.inf else objective.lowest(Fraction(lower) * scale)
            if self.best.value is not None:
                bound = min(bound, self.best.value)
        else:
            bound = self.best.value
        scales = self.form.scales
        multipliers = {
            name: float(price * scales[0] / scale)
            for name, price, scale in zip(self.form.names, self.prices, scales[1:], strict=True)
        }
        return Claim(
            self.best.choice,
            bound,
            multipliers if np.isfinite(list(multipliers.values())).all() else {},
            Enumeration(self.instance.size, self.looked) if bound != -math.inf else None,
            stop,
            {"nodes": self.looked, "core": len(self.groups)},
            self._tangent(),
        )

    def _tangent(self) -> FloatArray | None:
        """Return the point of tangency in the space of the declared factors."""
        factors = self.instance.problem.interactions
        if not isinstance(factors, Factors):
            return None
        place, columns = places(self.instance)
        values = factors.values[np.arange(len(place))[:, None], columns]
        free = place >= 0
        point = np.einsum("gk,gkr->r", self.shares[place[free]], values[free]) + values[~free, 0].sum(axis=0)
        return point if np.isfinite(point).all() else None

    # -- values -------------------------------------------------------------------------------------------------------

    @property
    def target(self) -> float:
        """The objective above which nothing is of interest, in the form's scale."""
        if self.best.value is None:
            return self.top
        value = self.best.value - (self.lattice if self.instance.objective.whole else 0)
        return math.nextafter(nearest_float(value) / float(self.form.scales[0]), math.inf)

    def _lift(self, choices: IntArray) -> IntArray:
        """Return choices (N, size) of the instance for choices (N, n) of the form's groups."""
        lifted = np.tile(self.settled, (len(choices), 1))
        lifted[:, self.groups] = self.columns[np.arange(len(self.groups)), choices]
        return lifted

    def _offer(self, choices: IntArray) -> None:
        """Offer choices (N, n) of the form's groups that may keep the limits and be better, the best first."""
        if not len(choices):
            return
        values = self.form.values(choices)
        blur = 2 * self.form.errors + 1e-13 * (np.abs(self.form.rooms) + np.abs(self.form.rows).max(axis=2).sum(axis=1))
        fits = (values[:, 1:] <= blur[1:]).all(axis=1) & (values[:, 0] <= self.target + blur[0])
        for place in np.flatnonzero(fits)[np.argsort(values[fits, 0], kind="stable")].tolist():
            if values[place, 0] <= self.target + blur[0]:
                self.best.offer(self._lift(choices[place : place + 1])[0])

    def _improve(self, choice: IntArray) -> None:
        """Offer what a choice (n,) of the form's groups becomes by changing one or two groups at a time."""
        self._offer(descend(self.form, choice, self.control)[None])

    # -- root ---------------------------------------------------------------------------------------------------------

    def _root(self) -> float:
        """Look for good prices, and leave out what they show to be in no better answer; return the bound."""
        form, ascent = self.form, Ascent(self.form)
        if self.control.warm_start is not None:
            self._improve(self.control.warm_start)
        ranges = np.ptp(form.rows, axis=2).sum(axis=1)
        middle = ranges[0] / np.maximum(ranges[1:], 1e-300) if len(ranges) > 1 else np.zeros(0)
        middle, spread = np.where(middle > 0, middle, 1.0), 3.0
        rng = np.random.default_rng(self.control.seed)
        shares: FloatArray = np.repeat(form.allowed[None].astype(np.float64), _TRIED, axis=0)
        lower, allowed = -math.inf, form.allowed
        for _ in range(_TIMES):
            self.control.check()
            exponents = np.linspace(-spread, spread, _TRIED)[:, None] * np.ones(len(middle))
            if len(middle) > 1:
                exponents = rng.uniform(-spread, spread, (_TRIED, len(middle)))
                exponents[0] = 0
            prices = np.ones((_TRIED, len(form.rooms)))
            prices[:, 1:] = middle * 10.0**exponents
            tried = np.broadcast_to(allowed, (_TRIED, *allowed.shape))
            bounds = ascent.raised(tried, shares, prices, 6, self.target, step=spread < 1)
            first = int(bounds.lower.argmax())
            if np.isinf(bounds.lower[first]):
                self.prices, self.shares = bounds.prices[first, 1:], bounds.shares[first]
                return math.inf
            for place in np.argsort(-bounds.lower, kind="stable")[:_ROUNDED].tolist():
                self._improve(rounded(bounds.shares[place], allowed))
            if bounds.lower[first] > lower:
                lower, middle = float(bounds.lower[first]), bounds.prices[first, 1:]
                self.prices, self.shares = middle, bounds.shares[first]
            allowed = allowed & bounds.allowed.all(axis=0)
            if not allowed.any(axis=1).all():
                return math.inf
            shares = np.repeat(bounds.shares[first : first + 1], _TRIED, axis=0)
            spread /= 4
        prices = np.concatenate([[1.0], middle])[None]
        bounds = ascent.raised(allowed[None], shares[:1], prices, 40, self.target, step=True)
        if bounds.lower[0] > lower and np.isfinite(bounds.lower[0]):
            lower = float(bounds.lower[0])
            self.prices, self.shares = bounds.prices[0, 1:], bounds.shares[0]
        self._offer(bounds.choices)
        for _ in range(_TIGHTENED if self.made else 0):
            if np.isinf(bounds.lower[0]):
                break
            # What is left needs less curvature, and where it is wanted is known better.
            allowed, mean = bounds.allowed[0], (bounds.shares[0] + self.shares) / 2
            self.form = curved(self.instance, convex_form(self.instance, mean, allowed))
            ascent = Ascent(self.form)
            again = ascent.raised(bounds.allowed, mean[None], bounds.prices, 20, self.target, step=True)
            self._offer(again.choices)
            if np.isfinite(again.lower[0]):
                self._improve(rounded(again.shares[0], allowed))
            lower = max(lower, float(again.lower[0]))
            bounds = again
        if np.isinf(bounds.lower[0]):
            return math.inf
        self._narrow(bounds.allowed[0], bounds.shares[0], bounds.prices[0], lower)
        return lower

    def _narrow(self, allowed: BoolArray, shares: FloatArray, prices: FloatArray, lower: float) -> None:
        """Keep the candidates ``allowed`` of the form alone, and plant the tree there."""
        single = allowed.sum(axis=1) == 1
        taken = allowed.argmax(axis=1)
        self.settled[self.groups[single]] = self.columns[single, taken[single]]
        self.form, groups, order = self.form.narrowed(allowed)
        self.columns = self.columns[groups[:, None], order]
        self.groups = self.groups[groups]
        self.ascent = Ascent(self.form)
        self.batch = max(_BATCH * _BATCHED // max(len(groups), _BATCHED), 1)
        if not len(groups):
            self._offer(np.zeros((1, 0), dtype=np.int64))
            return
        shares = shares[groups[:, None], order]
        heapq.heappush(self.heap, _Node(lower, next(self.number), self.form.allowed, shares, prices))
        self._improve(rounded(shares, self.form.allowed))

    def _certify(self) -> None:
        """Better the prices and the point for who reads the answer: without the tree, all candidates allowed."""
        if not isinstance(self.instance.problem.interactions, Factors):
            return
        form = curved(self.instance, convex_form(self.instance, declared=True))
        prices = np.concatenate([[1.0], self.prices])[None]
        if not self.prices.all():
            ranges = np.ptp(form.rows, axis=2).sum(axis=1)
            prices[0, 1:] = np.where(self.prices > 0, self.prices, ranges[0] / np.maximum(ranges[1:], 1e-300))
        shares = self.shares if self.shares.any() else form.allowed.astype(np.float64)
        bounds = Ascent(form).raised(
            form.allowed[None], shares[None], prices, _CERTIFIED, self.target, step=True, whole=True
        )
        self.prices, self.shares = bounds.prices[0, 1:], bounds.shares[0]

    # -- tree ---------------------------------------------------------------------------------------------------------

    def _tree(self) -> Stop:
        while self.heap and self.heap[0].lower <= self.target:
            if self.control.expired():
                return Stop.TIME_LIMIT
            if self.looked >= self.most:
                return Stop.STATE_LIMIT
            batch: list[_Node] = []
            while self.heap and len(batch) < self.batch and self.heap[0].lower <= self.target:
                batch.append(heapq.heappop(self.heap))
            self.looked += len(batch)
            parts = self._split(batch)
            if not parts:
                continue
            lower = np.array([part.lower for part in parts])
            bounds = self.ascent.raised(
                np.stack([part.allowed for part in parts]),
                np.stack([part.shares for part in parts]),
                np.stack([part.prices for part in parts]),
                _SWEEPS,
                self.target,
                step=True,
            )
            found = np.maximum(bounds.lower, lower)
            open_ = np.flatnonzero(np.isfinite(found))
            self._offer(bounds.choices[open_])
            for place in open_.tolist():
                node = _Node(
                    float(found[place]),
                    next(self.number),
                    bounds.allowed[place],
                    bounds.shares[place],
                    bounds.prices[place],
                )
                heapq.heappush(self.heap, node)
        return Stop.COMPLETED

    def _split(self, batch: list[_Node]) -> list[_Node]:
        """Return the two domains that each node is split into; none of those whose choices are all looked at here."""
        allowed = np.stack([node.allowed for node in batch])
        counts = allowed.sum(axis=2)
        shares = np.where(allowed, np.stack([node.shares for node in batch]), 0.0)
        # The group whose candidates with shares are furthest apart.
        far = ((shares[:, :, None, :] @ self.ascent.apart)[:, :, 0] * shares).sum(axis=2) + 1e-12 * counts
        widest = np.where(counts > 1, far, -1.0).argmax(axis=1)
        few = np.log2(counts).sum(axis=1) <= _LEAF
        parts: list[_Node] = []
        for node, group, count, small in zip(batch, widest.tolist(), counts, few.tolist(), strict=True):
            if small:
                self._offer(_choices(node.allowed, count))
                continue
            columns = np.flatnonzero(node.allowed[group])
            order = columns[np.argsort(self.form.rows[0, group, columns], kind="stable")]
            weights = node.shares[group, order]
            mean = float((weights * np.arange(len(order))).sum() / max(weights.sum(), 1e-300))
            cut = min(max(math.floor(mean) + 1, 1), len(order) - 1)
            for side in (order[:cut], order[cut:]):
                own = node.allowed.copy()
                own[group] = False
                own[group, side] = True
                parts.append(_Node(node.lower, 0, own, node.shares, node.prices))
        return parts

    def _open(self) -> float:
        """Return the least bound of what was not looked at to the end."""
        return min((node.lower for node in self.heap), default=math.inf)


def _choices(allowed: BoolArray, counts: IntArray) -> IntArray:
    """Return all choices (N, n) of a domain (n, K) with so many candidates (n,) a group."""
    several = np.flatnonzero(counts > 1)
    choices = np.tile(allowed.argmax(axis=1), (int(counts.prod()), 1))
    if len(several):
        grid = np.indices(tuple(counts[several].tolist())).reshape(len(several), -1)
        for group, numbers in zip(several.tolist(), grid, strict=True):
            choices[:, group] = np.flatnonzero(allowed[group])[numbers]
    return choices
