"""A bound for problems of pairs, where the convex relaxation says nothing: how many groups can pay at all.

Where every group has two choices, a better answer pays for at most as many groups as the cheapest payments allow, and
for at least as many as the largest reductions of damage need. Priced beside the damage, this closes the gap of strongly
correlated problems, whose groups all have nearly one ratio (Martello & Toth 1997, bounds from maximum cardinality).
Under a budget the same groups start from their least damage, and pay in damage for less cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import (
    UNIT_BITS,
    exact_int_sum,
    exact_sum,
    exact_units,
    floor_float,
    nearest_float,
    of_units,
)
from impq_opt.solvers.native.passes import Pool
from impq_opt.types import FloatArray, IntArray

__all__ = ["Trades", "trades_of", "trades_under_budget"]


_EPS = 2.0**-53
# Sections of the search for the price of a group; each leaves 0.62 of the interval.
_SECTIONS = 90


@dataclass(frozen=True, eq=False)
class Trades:
    """Groups with a free choice and one that pays ``cost`` (n,) to take ``damage`` (n,) off, rounded up.

    The free choices do ``excess`` more damage than is allowed, and cost ``base``.
    """

    cost: IntArray
    damage: FloatArray
    excess: Fraction
    base: int

    def bound(self, best: int) -> int:
        """Return a lower bound on the cost of any answer cheaper than ``best``; ``best`` where there is none."""
        if len(self.cost) == 0:
            return min(best, self.base) if self.excess <= 0 else best
        limit = best - self.base - 1
        most = int(np.searchsorted(np.cumsum(np.sort(self.cost)), limit, side="right"))
        # Sums of floats are off by less than this share.
        reach = np.cumsum(-np.sort(-self.damage)) * (1 + 2.0**-30)
        fewest = int(np.searchsorted(reach, floor_float(self.excess), side="left")) + 1
        if self.excess <= 0:
            fewest = 0
        if fewest > most:
            return best
        span = float(self.cost.max(initial=1))
        # A price of at least 0 goes with "at most", one of at most 0 with "at least".
        proved = max(
            self._proved(*self._prices(0.0, span, most), most), self._proved(*self._prices(-span, 0.0, fewest), fewest)
        )
        return min(best, self.base + max(0, math.ceil(proved)))

    def _prices(self, low: float, high: float, count: int) -> tuple[float, float]:
        """Return prices of damage and, in [low, high], of a group that nearly maximise the bound with ``count``."""
        golden = (math.sqrt(5) - 1) / 2
        points = [high - golden * (high - low), low + golden * (high - low)]
        values = [self._value(point, count) for point in points]
        for _ in range(_SECTIONS):
            if values[0][0] < values[1][0]:
                low = points[0]
                points, values = [points[1], low + golden * (high - low)], [values[1]]
                values.append(self._value(points[1], count))
            else:
                high = points[1]
                points, values = [high - golden * (high - low), points[0]], [values[0]]
                values.insert(0, self._value(points[0], count))
        near = (points[0] + points[1]) / 2
        # Integral data has integral prices, and hitting one exactly is worth a try.
        return max(
            (self._value(price, count)[0], self._value(price, count)[1], price) for price in (near, round(near))
        )[1:]

    def _value(self, group_price: float, count: int) -> tuple[float, float]:
        """Return the best bound for one price of a group, and the price of damage that gives it."""
        cost = self.cost + group_price
        with np.errstate(divide="ignore"):
            ratio = cost / self.damage
        order = np.argsort(ratio, kind="stable")
        taken = np.cumsum(self.damage[order])
        place = min(int(np.searchsorted(taken, nearest_float(self.excess), side="left")), len(order) - 1)
        price = max(0.0, float(ratio[order[place]]))
        value = (
            np.minimum(cost - price * self.damage, 0.0).sum() + price * nearest_float(self.excess) - group_price * count
        )
        return float(value), price

    def _proved(self, price: float, group_price: float, count: int) -> Fraction:
        """Return the bound at some prices, rounding taken off."""
        if not (math.isfinite(price) and price < 1e250):
            return Fraction(0)
        value = self.cost + group_price - price * self.damage
        value -= 8 * _EPS * (self.cost + abs(group_price) + price * self.damage)
        if not np.isfinite(value).all():
            return Fraction(0)
        total = exact_sum(np.minimum(value, 0.0))
        return total + Fraction(price) * self.excess - Fraction(group_price) * count


def trades_of(pool: Pool, capacity: int) -> Trades | None:
    """Return the groups as trades, or None where one has more than two choices that matter.

    ``capacity`` is in units of 2**-1074.
    """
    columns = _two_columns(pool)
    if columns is None:
        return None
    cost, damage, (cheap, paid) = pool.cost, pool.damage, columns
    rows = np.arange(len(cost))
    less = _rounded_up(damage[rows, cheap] - damage[rows, paid])
    useful = less > 0
    excess = exact_sum(damage[rows, cheap]) - of_units(capacity)
    return Trades(
        (cost[rows, paid] - cost[rows, cheap])[useful], less[useful], excess, exact_int_sum(cost[rows, cheap])
    )


def trades_under_budget(pool: Pool, capacity: int) -> tuple[Trades, int, int] | None:
    """Return the groups as trades that pay in damage for less cost; None where they are none, or damages too fine.

    ``capacity`` is of cost. The damage of an answer is ``base + quantum * (what Trades call cost)``, in units of
    2**-1074: both are returned. Damages have to be whole multiples of a quantum, so many that 62 bits hold their sum.
    """
    columns = _two_columns(pool)
    if columns is None:
        return None
    cost, damage, (cheap, paid) = pool.cost, pool.damage, columns
    rows = np.arange(len(cost))
    most, least = damage[rows, cheap], damage[rows, paid]
    shift = min(61 - math.frexp(float(most.sum()))[1], UNIT_BITS)
    scaled = np.ldexp(np.stack([most, least]), shift)
    if not np.isfinite(scaled).all() or (scaled != np.floor(scaled)).any():
        return None
    more = np.subtract(*scaled.astype(np.int64))
    quantum = int(np.gcd.reduce(more)) or 1
    saved = _rounded_up((cost[rows, paid] - cost[rows, cheap]).astype(np.float64))
    useful = saved > 0
    excess = Fraction(exact_int_sum(cost[rows, paid]) - capacity)
    trades = Trades(more[useful] // quantum, saved[useful], excess, 0)
    return trades, exact_units(least), quantum << (UNIT_BITS - shift)


def _two_columns(pool: Pool) -> tuple[IntArray, IntArray] | None:
    """Return each group's cheapest and least damaging choice (n,), or None where one has another that matters."""
    cost, damage = pool.cost, pool.damage
    rows = np.arange(len(cost))
    cheap = np.where(cost == cost.min(axis=1)[:, None], damage, np.inf).argmin(axis=1)
    least = damage.min(axis=1)
    paid = np.where(damage == least[:, None], cost, np.iinfo(np.int64).max).argmin(axis=1)
    between = (cost < cost[rows, paid][:, None]) & (damage < damage[rows, cheap][:, None])
    return None if between.any() else (cheap, paid)


def _rounded_up(values: FloatArray) -> FloatArray:
    """Return rounded values (n,) as at least what they were, so that paying seems to help at least as much."""
    return np.where(values > 0, np.nextafter(values, np.inf), 0.0)
