"""The relaxation of the exact strategy: the price, the base allocation there, and who may differ from it."""

from __future__ import annotations

import math

import numpy as np

from impq_opt.exactness.sums import float_of, units_within
from impq_opt.instance.instance import Instance
from impq_opt.proof.infeasible import smallest_damage
from impq_opt.solvers.exact.model import Model
from impq_opt.solvers.exact.price import Goal, Guess, Known, Sample, find_price, narrow
from impq_opt.solvers.exact.scan import LARGEST_PRICE, Pool, Total, block_width, everything, scan, second_choices
from impq_opt.solvers.lagrange.hull import Hulls
from impq_opt.solvers.native import ColumnArray, column_type
from impq_opt.types import FloatArray

__all__ = ["TINY", "Relaxation"]


# Up to this many groups no pass is needed: all of them are priced and kept.
_SMALL = 16384
# So few groups are searched as soon as passed over.
TINY = 96
# Groups that the first pass keeps because a second choice comes close: about this many, and at least this share.
_KEPT = 15_000
_SHARE = 0.0015


class Relaxation:
    """What the linear relaxation says of an instance.

    Damages are integers in units of 2**-1074 throughout, so that all sums and comparisons are exact and quick.

    price : float
        Cost per damage at which groups are best served by the ``base``, (size,) columns that use up nearly the capacity
        and leave ``slack`` of it; negative where even the least demanding ones do not fit.
    pool : Pool
        The groups with a second choice within ``threshold`` of cost of the best at the price; ``first`` (n,) is the
        value of the best, ``behind`` (n,) by how much the second is more, ``base_columns`` (n,) what the base takes,
        ``taken`` what that costs and damages.
    base_gap : float
        The base's objective minus the dual bound, in cost, at most.
    """

    def __init__(self, instance: Instance, hulls: Hulls | None) -> None:
        self.instance, self.hulls = instance, hulls
        self.model = Model(instance)
        self.by_cost = self.model.by_cost
        self.goal = Goal(self.by_cost, self.model.capacity)
        self.price: float | None = None
        self.passes = 0

    def least_bytes(self) -> int:
        """Return what relaxing and answering take: the base, the answer, and the pool with its work arrays."""
        size, width = self.instance.size, max(block_width(block) for block in self.instance.blocks)
        pool = size if size <= _SMALL else size // 16 + _SMALL
        return 10 * size + pool * (8 * width + 48)

    def relax(self) -> None:
        """Find the price, the base, and the pool; raise OutOfReachError where no allocation meets the goal."""
        size = self.instance.size
        if size <= (_SMALL if self.hulls is None else TINY):
            pool, threshold = everything(self.instance.blocks, size), math.inf
            base, low, high = np.empty(size, dtype=column_type(pool.cost.shape[1])), 0.0, LARGEST_PRICE
            settled, found, priced = Total(), None, None
        else:
            guess, threshold = self._guess()
            found, passes = narrow(self.instance.blocks, size, self.goal, guess, threshold, self.reachable)
            pool, base, settled, low, high = found.pool, found.columns, found.settled, found.low, found.high
            self.passes += passes
            priced = guess.priced(found) if isinstance(guess, Known) else None
        if priced is None:
            priced = find_price(pool, self.goal.less(settled), found)
        self.price = min(max(priced.price, low), high)
        base[pool.places] = priced.columns
        self.base = base
        own = self._set_pool(pool, threshold, priced.columns)
        self.base_cost = settled.cost + self.taken.cost
        if self.instance.ties:
            whole = self.instance.damage_of(base.astype(np.int64)) - self.instance.base_damage
            self.base_damage = units_within(whole)
        else:
            self.base_damage = settled.damage + self.taken.damage
        self.slack = self.goal.capacity - (self.base_damage if self.by_cost else self.base_cost)
        self._measure_gap(own)

    def _guess(self) -> tuple[Guess, float]:
        """Return where the price is likely to be, and how close second choices have to be kept."""
        if self.hulls is not None:
            known = Known(self.hulls, self.goal)
            return known, known.threshold()
        size = self.instance.size
        sample = Sample.draw(self.instance.blocks, size, self.goal)
        return sample, sample.threshold(max(_SHARE, min(_KEPT / size, 10 * _SHARE)))

    def _set_pool(self, pool: Pool, threshold: float, base: ColumnArray) -> FloatArray:
        """Keep the pool: all groups with a second choice within ``threshold`` of the best at the price, or more.

        Return the values (n,) of the choices that the ``base`` (n,) makes there.
        """
        assert self.price is not None
        self.pool, self.threshold = pool, threshold
        self.first, self.behind, own, self.taken = second_choices(pool, self.price, base)
        self.base_columns = base.astype(np.int64)
        return own

    def _measure_gap(self, value: FloatArray) -> None:
        """Set the base's objective minus the dual bound, in cost, rounding taken off the bound.

        ``value`` (n,) is the base's in the pool; the settled groups have no reduced cost.
        """
        assert self.price is not None
        excess = float((value - self.first).sum() + 2.0**-48 * value.sum())
        excess = math.inf if math.isnan(excess) else excess
        # Where damage has no price, nor has what is left of any bound.
        left = 0.0 if not self.price else float_of(self.slack) * self.price
        slack = left if self.by_cost else float(self.slack)
        self.base_gap = excess + slack + 2.0**-48 * abs(slack)

    def pass_again(self, limit: float) -> None:
        """Keep the groups with a second choice within ``limit`` of the best at the price."""
        assert self.price is not None
        found = scan(self.instance.blocks, self.instance.size, self.price, self.price, limit)
        self.passes += 1
        self._set_pool(found.pool, limit, self.base[found.pool.places])

    def reachable(self) -> bool:
        """Return whether the relaxation has any answer: no rounding of tied sums hides that it has none."""
        if not self.by_cost:
            return False  # the base is the cheapest allocation
        return self.instance.bound is None or smallest_damage(self.instance) <= self.instance.bound
