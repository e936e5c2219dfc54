"""Lower bounds of an instance whose damages interact, for many domains at once.

With the damage as base + sum linear + |sum factors|^2 (:mod:`impq_opt.instance.convex`) a tangent of the square at any
point y makes it a sum over groups, so that

    sum_g min_k (rows[g, k] + 2 q <y, factors[g, k]>) - q |y|^2 - prices . rooms

is a lower bound for every y and all prices >= 0, q being the price of the damage. It is raised by coordinate descent on
the shares x (size, K) that the candidates of each group have, y = sum x factors: two candidates of a group exchange
what is best (pairwise Frank-Wolfe, one group after the other; Lacoste-Julien et al. 2013), in all domains together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.convex import Convex
from impq_opt.instance.instance import Instance
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Bounds", "Curved", "curved"]

_EPS = 2.0**-53
_TINY = 1e-300
# From so many groups on they move together, so many times a sweep.
_MANY, _FRANK_WOLFE = 150, 3


@dataclass(frozen=True, eq=False)
class Curved:
    """An instance in float64, every row in a scale of its own.

    rows (m, size, K), the objective first; rooms (m,), that of the objective less its base. The square belongs to row
    ``square``. scales (m,) turn rows back into quanta and damages. errors (m,) are what rounding may take off a row.
    allowed (size, K): the candidates that are left.
    """

    rows: FloatArray
    rooms: FloatArray
    factors: FloatArray
    square: int
    scales: FloatArray
    errors: FloatArray
    names: tuple[str, ...]
    allowed: BoolArray

    @property
    def size(self) -> int:
        """The number of groups."""
        return self.rows.shape[1]

    def values(self, choices: IntArray) -> FloatArray:
        """Return the rows (N, m) of choices (N, size), less their rooms."""
        groups = np.arange(self.size)
        sums = self.rows[:, groups, choices].sum(axis=2).T - self.rooms
        total = self.factors[groups, choices].sum(axis=1)
        sums[:, self.square] += np.einsum("nr,nr->n", total, total)
        return sums

    def narrowed(self, allowed: BoolArray) -> tuple[Curved, IntArray, IntArray]:
        """Return what is left where only ``allowed`` (size, K) are, its groups (n,), and their columns (n, k).

        Groups with one candidate become constants.
        """
        count = allowed.sum(axis=1)
        groups = np.flatnonzero(count > 1)
        order = np.argsort(~allowed, axis=1, kind="stable")[groups, : int(count.max())]
        single = np.flatnonzero(count == 1)
        taken = allowed[single].argmax(axis=1)
        rooms = self.rooms - self.rows[:, single, taken].sum(axis=1)
        fixed = self.factors[single, taken].sum(axis=0)
        place = groups[:, None], order
        rows, factors = self.rows[(slice(None), *place)].copy(), self.factors[place]
        rows[self.square] += 2 * (factors @ fixed)
        rooms[self.square] -= float(fixed @ fixed)
        part = replace(self, rows=rows, rooms=rooms, factors=factors, allowed=allowed[place])
        return part, groups, order


def curved(instance: Instance, convex: Convex) -> Curved:
    """Return an instance with its damages in convex form, in float64."""
    objective, limits = instance.objective, instance.limits
    tables, rooms, errors = [], [], []
    square = -1
    for place, row in enumerate((objective, *limits)):
        if row.whole:
            table = row.table.astype(np.float64)
            base = nearest_float(row.base)
            room = -base if row.limit is None else nearest_float(row.room)
            error = _EPS * 4 * (float(np.abs(table).max(axis=1, initial=0.0).sum()) + abs(room))
        else:
            square, table = place, convex.linear
            limit = 0.0 if row.limit is None else nearest_float(row.limit)
            room = limit - convex.base
            error = convex.slack + _EPS * 4 * (abs(limit) + abs(convex.base))
        tables.append(table)
        rooms.append(room)
        errors.append(error)
    # Of the instance, not of one of its forms: prices go from one to the other.
    sizes = [
        max(float(np.abs(row.table).max(initial=0)), abs(nearest_float(row.limit or 0)) if row.limit else 0.0, _TINY)
        for row in (objective, *limits)
    ]
    sizes = [size if np.isfinite(size) else 1.0 for size in sizes]
    # Powers of four, so that scaling rounds nothing and the square's factors have a power of two.
    scales = np.exp2(2 * np.round(np.log2(sizes) / 2))
    if objective.whole:
        scales[0] = 1.0
    widths = instance.widths
    return Curved(
        rows=np.stack(tables) / scales[:, None, None],
        rooms=np.array(rooms) / scales,
        factors=convex.factors / np.sqrt(scales[square]),
        square=square,
        scales=scales,
        errors=np.array(errors) / scales,
        names=tuple(row.name for row in limits),
        allowed=np.arange(tables[0].shape[1]) < widths[:, None],
    )


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower bounds (N,) of domains (N, size, K), and the prices (N, m) and shares (N, size, K) they were found at.

    choices (N, size) have the least reduced values there. Candidates that are in no answer of interest are out of the
    domains; a domain without an answer has a bound of inf.
    """

    lower: FloatArray
    allowed: BoolArray
    prices: FloatArray
    shares: FloatArray
    choices: IntArray


class Ascent:
    """Raises the bounds of domains of one :class:`Curved`."""

    def __init__(self, form: Curved) -> None:
        self.form = form
        self.flat = form.factors.reshape(form.factors.shape[0] * form.factors.shape[1], -1 if form.factors.size else 0)
        difference = form.factors[:, :, None] - form.factors[:, None]
        self.apart = np.einsum("gabr,gabr->gab", difference, difference)  # (size, K, K)
        self.reach = np.abs(form.rows).max(axis=2).sum(axis=1) + np.abs(form.rooms)
        self.radius = float(np.linalg.norm(form.factors, axis=2).max(axis=1).sum())
        count = sum(form.rows.shape) + form.factors.shape[2]
        self.rounding = 4 * (count + 16) * _EPS

    def spread(self, allowed: BoolArray, shares: FloatArray) -> FloatArray:
        """Return shares that are on allowed candidates alone, and 1 in each group."""
        kept = np.where(allowed, shares, 0.0)
        total = kept.sum(axis=2, keepdims=True)
        count = np.maximum(allowed.sum(axis=2, keepdims=True), 1)
        return np.where(total > 1e-9, kept / np.maximum(total, 1e-9), allowed / count)

    def priced(self, points: FloatArray, prices: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the reduced values (N, size, K) and the constants (N,), rounding taken off."""
        form, square = self.form, prices[:, self.form.square]
        shape = len(points), *form.rows.shape[1:]
        values = (prices @ form.rows.reshape(len(form.rows), -1)).reshape(shape)
        values += 2 * square[:, None, None] * (points @ self.flat.T).reshape(shape)
        length = np.einsum("nr,nr->n", points, points)
        constants = -(prices @ form.rooms) - square * length
        size = prices @ self.reach + square * (2 * np.sqrt(length) * self.radius + length)
        return values, constants - self.rounding * size - prices @ form.errors

    def raised(
        self,
        allowed: BoolArray,
        shares: FloatArray,
        prices: FloatArray,
        sweeps: int,
        target: float,
        *,
        step: bool,
        whole: bool = False,
    ) -> Bounds:
        """Return bounds after some sweeps; what exceeds ``target`` is of no interest.

        ``step`` moves the prices too, towards the target by what the shares make of each limit (Polyak 1969). With
        ``whole`` all candidates stay, so that the bounds are those of the prices and shares alone.
        """
        allowed, prices = allowed.copy(), prices.copy()
        lower = np.full(len(allowed), -np.inf)
        shares = self.spread(allowed, shares)
        found_at = prices.copy(), shares.copy(), np.zeros(allowed.shape[:2], dtype=np.int64)
        for sweep in range(sweeps + 1):
            points = shares.reshape(len(shares), -1) @ self.flat
            if sweep:
                self._sweep(allowed, shares, points, prices)
                if step:
                    self._step(shares, points, prices, np.maximum(target - lower, 0.0))
                points = shares.reshape(len(shares), -1) @ self.flat
            values, constants = self.priced(points, prices)
            values[~allowed] = np.inf
            least = values.min(axis=2)
            now = least.sum(axis=1) + constants
            better = now > lower
            for kept, of_now in zip(found_at, (prices, shares, values.argmin(axis=2)), strict=True):
                kept[better] = of_now[better]
            lower = np.maximum(lower, now)
            if whole:
                continue
            room = (target - now) + 1e-12 * (abs(target) + np.abs(now))
            allowed &= values - least[:, :, None] <= np.maximum(room, -1e-300)[:, None, None]
            dead: BoolArray = np.asarray(lower > target) | ~np.all(allowed.any(axis=2), axis=1)
            lower[dead] = np.inf
            if dead.all():
                break
            allowed[dead] = self.form.allowed  # of no matter, but no group without a candidate
            shares = self.spread(allowed, shares)
        return Bounds(lower, allowed, *found_at)

    def _sweep(self, allowed: BoolArray, shares: FloatArray, points: FloatArray, prices: FloatArray) -> None:
        """Let two candidates of each group exchange shares, in place."""
        form, square = self.form, prices[:, self.form.square]
        lines = np.arange(len(shares))
        several = (allowed.sum(axis=2) > 1).any(axis=0)
        if several.sum() > _MANY:
            self._together(allowed, shares, points, prices)
            return
        for group in np.flatnonzero(several).tolist():
            values = prices @ form.rows[:, group] + 2 * square[:, None] * (points @ form.factors[group].T)
            mine = shares[:, group]
            to = np.where(allowed[:, group], values, np.inf).argmin(axis=1)
            away = np.where(mine > 0, values, -np.inf).argmax(axis=1)
            gain = values[lines, away] - values[lines, to]
            curvature = 2 * square * self.apart[group, away, to]
            moved = np.minimum(mine[lines, away], gain / np.maximum(curvature, _TINY))
            moved = np.where(gain > 0, moved, 0.0)
            mine[lines, to] += moved
            mine[lines, away] -= moved
            points += moved[:, None] * (form.factors[group, to] - form.factors[group, away])

    def _together(self, allowed: BoolArray, shares: FloatArray, points: FloatArray, prices: FloatArray) -> None:
        """Move the shares of all groups towards their best candidates at once, in place (Frank & Wolfe 1956)."""
        groups, lines = np.arange(self.form.size), np.arange(len(shares))[:, None]
        square = prices[:, self.form.square]
        for _ in range(_FRANK_WOLFE):
            values, _ = self.priced(points, prices)
            best = np.where(allowed, values, np.inf).argmin(axis=2)
            gain = (values * shares).sum(axis=(1, 2)) - values[lines, groups, best].sum(axis=1)
            apart = self.form.factors[groups, best].sum(axis=1) - points
            curvature = 2 * square * np.einsum("nr,nr->n", apart, apart)
            length = np.clip(gain / np.maximum(curvature, _TINY), 0.0, 1.0)
            shares *= (1 - length)[:, None, None]
            shares[lines, groups, best] += length[:, None]
            points += length[:, None] * apart

    def excess(self, shares: FloatArray, points: FloatArray) -> FloatArray:
        """Return by how much the shares exceed each room (N, m)."""
        form = self.form
        above = shares.reshape(len(shares), -1) @ form.rows.reshape(len(form.rows), -1).T - form.rooms
        above[:, form.square] += np.einsum("nr,nr->n", points, points)
        return above

    def _step(self, shares: FloatArray, points: FloatArray, prices: FloatArray, gap: FloatArray) -> None:
        above = self.excess(shares, points)[:, 1:]
        weighted = above * prices[:, 1:]  # steps in proportion to the prices
        length = np.einsum("nm,nm->n", weighted, weighted)
        with np.errstate(over="ignore", invalid="ignore"):
            factor = np.clip(0.5 * (gap / np.maximum(length, _TINY))[:, None] * weighted, -0.3, 0.3)
        factor = np.where(np.isfinite(factor), factor, 0.0)
        prices[:, 1:] *= 1 + factor
