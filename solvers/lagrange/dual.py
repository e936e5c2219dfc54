"""The best prices: the maximum of the concave, piecewise linear Lagrangian dual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from impq_opt.instance.contract import Control, ExpiredError
from impq_opt.instance.instance import Instance
from impq_opt.solvers.exact.whole import beyond_floats
from impq_opt.solvers.lagrange.oracle import Domain, Oracle, Point
from impq_opt.types import FloatArray

__all__ = ["FEW_STEPS", "Dual", "dual_prices", "maximize_dual"]


# Prices are not looked for beyond this.
_FAR = 1e250
# Relative width of the interval that the dual's maximum is known to lie in at which the search stops.
_CLOSE = 1e-9
# The same with several limits, where planes close in slowly.
_CLOSE_ENOUGH = 1e-8
# Steps of the search with several limits, and of one for prices that no proof rests on.
_STEPS, FEW_STEPS = 400, 40


@dataclass(frozen=True, eq=False)
class Dual:
    """What the search found.

    best : Point
        With the highest value.
    ends : tuple of Point
        Points whose choices meet at the maximum; for one limit the two sides of the crossing, for more the cuts that
        are active there.
    infeasible : bool
        Proved: the value exceeds every objective, so no choice in the domain meets the limits.
    points : tuple of Point
        All that were looked at.
    """

    best: Point
    ends: tuple[Point, ...]
    infeasible: bool
    points: tuple[Point, ...]


def maximize_dual(
    oracle: Oracle,
    control: Control,
    domain: Domain | None = None,
    start: FloatArray | None = None,
    above: float = math.inf,
    steps: int = _STEPS,
) -> Dual:
    """Return nearly the best prices for the core inside ``domain``.

    The search stops early once the value exceeds ``above``, the best answer's: the domain then holds no better one.
    With one limit it also stops once no price can get there.
    """
    search = _Search(oracle, control, domain, above)
    guess = guess_prices(oracle) if start is None else start
    if not len(oracle.limits):
        point = search.at(np.empty(0))
        return Dual(point, (point,), False, (point,))
    if len(oracle.limits) == 1:
        # A node's best price is close to its parent's.
        return search.one_price(float(guess[0]), 2.0 if start is None else 1.02)
    return search.several_prices(guess, steps)


def dual_prices(instance: Instance, control: Control, steps: int = _STEPS) -> dict[str, float]:
    """Return the best prices found, as multipliers; none without time for any, or where damages are too large."""
    if beyond_floats(instance):
        return {}
    try:
        oracle = Oracle(instance, control.check)
        return oracle.prices(maximize_dual(oracle, control, steps=steps).best)
    except ExpiredError:
        return {}


def guess_prices(oracle: Oracle) -> FloatArray:
    """Return the order of magnitude of the prices: what the objective spans, by what each limit allows."""
    spans = [part.span for part in oracle.parts]
    if oracle.parts[0].coefficient is not None and oracle.leaf_levels is not None:
        spans[0] += float((oracle.parts[0].coefficient * oracle.leaf_levels.max(axis=0)).sum())
    spans[0] = spans[0] or 1.0
    limits = zip(oracle.limit_values.tolist(), spans[1:], strict=True)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        guesses = np.array([spans[0] / (abs(limit) or span or 1.0) for limit, span in limits])
    # Neither 0 nor infinity leads anywhere when multiplied or divided.
    return np.clip(np.nan_to_num(guesses, nan=1.0), 1.0 / _FAR, _FAR)


class _Search:
    def __init__(self, oracle: Oracle, control: Control, domain: Domain | None, above: float) -> None:
        self.oracle, self.control, self.domain, self.above = oracle, control, domain, above
        self.points: list[Point] = []
        self.best: Point | None = None

    def at(self, prices: FloatArray) -> Point:
        point = self.oracle.evaluate(prices, self.domain)
        self.points.append(point)
        if self.best is None or point.value > self.best.value:
            self.best = point
        return point

    @property
    def infeasible(self) -> bool:
        assert self.best is not None
        return self.best.value - self.best.margin > self.oracle.ceiling

    @property
    def stopped(self) -> bool:
        assert self.best is not None
        return self.infeasible or self.best.value - self.best.margin > self.above or self.control.expired()

    def result(self, *ends: Point) -> Dual:
        assert self.best is not None
        return Dual(self.best, ends, self.infeasible, tuple(self.points))

    # -- one limit: bracket the crossing, then tangents ---------------------------------------------------------------

    def one_price(self, guess: float, factor: float) -> Dual:
        low, high = self._bracket(guess, factor)
        if low is None or high is None:
            return self.result(*(point for point in (low, high) if point is not None))
        for _ in range(60):
            price = self._between(low, high)
            if price is None or self.stopped:
                break
            point = self.at(np.array([price]))
            tangent = low.value + low.slope[0] * (price - low.prices[0])
            touches = point.value >= tangent - self._tolerance()
            if point.slope[0] > 0:
                low = point
            else:
                high = point
            if touches:
                break
        return self.result(low, high)

    def _tolerance(self) -> float:
        assert self.best is not None
        close = _CLOSE if len(self.oracle.limits) == 1 else _CLOSE_ENOUGH
        return max(close * abs(self.best.value), self.best.margin)

    def _bracket(self, guess: float, factor: float) -> tuple[Point | None, Point | None]:
        """Return points that exceed the limit and that meet it; None for the one that does not exist."""
        point = self.at(np.array([guess]))
        low = high = None
        price = guess
        while True:
            if point.slope[0] > 0:
                low = point
            else:
                high = point
            if (low is not None and high is not None) or self.stopped:
                break
            if point.slope[0] > 0:
                # No factor raises a price of 0.
                price = price * factor or max(float(guess_prices(self.oracle)[0]), 1e-300)
            else:
                price = price / factor if price > guess * 1e-18 else 0.0
            factor = min(factor * factor, 1e12)
            if price > _FAR or (high is not None and high.prices[0] == 0.0):
                break
            point = self.at(np.array([price]))
        return low, high

    def _between(self, low: Point, high: Point) -> float | None:
        """Return the next price, or None where the maximum is known closely enough."""
        first, last = float(low.prices[0]), float(high.prices[0])
        rise, fall = float(low.slope[0]), float(high.slope[0])
        meet = (high.value - fall * last - low.value + rise * first) / (rise - fall)
        ceiling = low.value + rise * (meet - first)
        assert self.best is not None
        if not first < meet < last or ceiling - self.best.value <= self._tolerance():
            return None
        if ceiling < self.above < math.inf:
            return None
        if first > 0 and last > 1.5 * first:
            # Far apart the limited sum is nearly a power of the price (damage falls by 4 a bit): interpolate the logs.
            limit = float(self.oracle.limit_values[0])
            used = rise + limit, fall + limit
            if limit > 0 and used[1] > 0:
                share = math.log(used[0] / limit) / math.log(used[0] / used[1])
                return first * (last / first) ** min(max(share, 0.02), 0.98)
        return meet

    # -- several limits: cutting planes in a box that moves with the best point ---------------------------------------

    def several_prices(self, guess: FloatArray, steps: int) -> Dual:
        scale = np.where(guess > 0, guess, 1.0)
        centre = self.at(guess)
        radius = 3.0
        for _ in range(steps):
            if self.stopped:
                break
            low = np.maximum(centre.prices / scale - radius, 0.0)
            high = centre.prices / scale + radius
            top = self._master(scale, low, high)
            if top is None:
                break
            prices, ceiling = top
            assert self.best is not None
            promised = ceiling - centre.value
            at_edge = bool(((prices >= high * (1 - 1e-12)) | ((prices <= low) & (low > 0))).any())
            if promised <= self._tolerance() and not at_edge:
                break
            if (prices * scale).max() > _FAR:
                break
            point = self.at(prices * scale)
            if point.value > centre.value:
                gained = (point.value - centre.value) / promised if promised > 0 else 0.0
                centre = point
                if at_edge and gained > 0.1:
                    radius *= 4.0
            else:
                radius = max(radius / 2.0, 1e-9) if not at_edge else radius / 4.0
            if promised <= self._tolerance() and radius < 1e-9:
                break
        return self.result(*self._active(centre.prices))

    def _master(self, scale: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, float] | None:
        """Return the prices, in ``scale``, where the cuts' minimum is highest inside the box, and its height there."""
        from scipy.optimize import linprog  # takes a quarter of a second to load, and one limit does without

        points = self.points[-80:]
        assert self.best is not None
        if self.best not in points:
            points = [self.best, *points]
        unit = max(abs(self.best.value), 1e-300)
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = np.array([p.slope * scale for p in points]) / unit
            heights = np.array([p.value - float(np.dot(p.slope, p.prices)) - self.best.value for p in points]) / unit
        if not (np.isfinite(slopes).all() and np.isfinite(heights).all()):
            return None  # more decades than float64 has
        # t <= height + slope @ x, everything in units of the best value
        rows = np.hstack([-slopes, np.ones((len(points), 1))])
        solution = linprog(
            np.append(np.zeros(len(scale)), -1.0),
            A_ub=rows,
            b_ub=heights,
            bounds=[*zip(low.tolist(), high.tolist(), strict=True), (None, None)],
            method="highs",
        )
        if solution.status != 0:
            return None
        return np.asarray(solution.x[:-1]), self.best.value + float(solution.x[-1]) * unit

    def _active(self, prices: FloatArray) -> list[Point]:
        """Return the points whose cuts are lowest at ``prices``."""
        heights = [p.value + float(np.dot(p.slope, prices - p.prices)) for p in self.points]
        order = np.argsort(heights, kind="stable")[: 2 * len(prices) + 2]
        return [self.points[i] for i in order.tolist()]
