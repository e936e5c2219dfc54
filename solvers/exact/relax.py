"""The relaxation of the exact strategy: the price, the base allocation there, and who may differ from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from impq_opt.exactness.sums import float_of, units_within
from impq_opt.instance.instance import Instance
from impq_opt.proof.infeasible import smallest_damage
from impq_opt.solvers.exact.model import Model
from impq_opt.solvers.exact.price import Goal, Guess, Known, Priced, Sample, find_price, narrow
from impq_opt.solvers.exact.scan import everything, scan
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.lagrange.hull import Hulls
from impq_opt.solvers.native import ColumnArray, column_type
from impq_opt.solvers.native.passes import LARGEST_PRICE, Pool, Scan, Total, block_width, second_choices
from impq_opt.types import FloatArray, IntArray

__all__ = ["Base", "Near", "Relaxed", "least_bytes", "reachable", "relax"]


class Base(NamedTuple):
    """The allocation that the price leads to.

    Damages are whole numbers of 2**-1074, so that all sums and comparisons are exact and quick.

    model : Model
    goal : Goal
        What all groups may use up.
    price : float
        Cost per damage at which groups are best served by ``columns`` (size,), which use up nearly the capacity and
        leave ``slack`` of it; negative where even the least demanding ones do not fit.
    cost, damage : int
        What the base costs and damages, pinned groups left out.
    gap : float
        The base's objective minus the dual bound, in cost, at most.
    """

    model: Model
    goal: Goal
    price: float
    columns: ColumnArray
    cost: int
    damage: int
    slack: int
    gap: float

    def near(self, limit: float) -> Near:
        """Pass over all groups, and return those with a second choice within ``limit`` of the best at the price."""
        instance = self.model.instance
        passed = scan(instance.blocks, instance.size, self.price, self.price, limit)
        return Near.of(passed.pool, limit, self.price, self.columns[passed.pool.places])[0]


class Near(NamedTuple):
    """The groups with a second choice within ``threshold`` of cost of the best at the price.

    ``first`` (n,) is the value of the best, ``behind`` (n,) by how much the second is more, ``columns`` (n,) what the
    base takes, ``taken`` what that costs and damages.
    """

    pool: Pool
    threshold: float
    first: FloatArray
    behind: FloatArray
    columns: IntArray
    taken: Total

    @classmethod
    def of(cls, pool: Pool, threshold: float, price: float, base: ColumnArray) -> tuple[Near, FloatArray]:
        """Return the groups of ``pool``, and the values (n,) of the choices that the ``base`` (n,) makes there."""
        first, behind, own, taken = second_choices(pool, price, base)
        return cls(pool, threshold, first, behind, base.astype(np.int64), taken), own


class Relaxed(NamedTuple):
    """What the linear relaxation says of an instance: the base, the groups near it, and the passes that it took."""

    base: Base
    near: Near
    passes: int


def least_bytes(instance: Instance, tuning: Tuning) -> int:
    """Return what relaxing and answering take: the base, the answer, and the pool with its work arrays."""
    size, width = instance.size, max(block_width(block) for block in instance.blocks)
    pool = size if size <= tuning.all_kept else size // 16 + tuning.all_kept
    return 10 * size + pool * (8 * width + 48)


def reachable(instance: Instance, *, by_cost: bool) -> bool:
    """Return whether the relaxation has any answer: no rounding of tied sums hides that it has none."""
    if not by_cost:
        return False  # the base is the cheapest allocation
    return instance.bound is None or smallest_damage(instance) <= instance.bound


def relax(model: Model, hulls: Hulls | None, tuning: Tuning) -> Relaxed:
    """Find the price, the base, and the groups near it.

    Raises
    ------
    OutOfReachError
        Where no allocation meets the goal.
    """
    instance, size = model.instance, model.instance.size
    goal = Goal(model.by_cost, model.capacity)
    outer: Scan | None = None
    priced: Priced | None = None
    passes = 0
    if size <= (tuning.all_kept if hulls is None else tuning.tiny):
        pool, threshold = everything(instance.blocks, size), math.inf
        columns, low, high = np.empty(size, dtype=column_type(pool.cost.shape[1])), 0.0, LARGEST_PRICE
        settled = Total()
    else:
        guess, threshold = _guess(instance, goal, hulls, tuning)
        outer, passes = narrow(
            instance.blocks, size, goal, guess, threshold, lambda: reachable(instance, by_cost=model.by_cost)
        )
        pool, columns, settled, low, high = outer.pool, outer.columns, outer.settled, outer.low, outer.high
        priced = guess.priced(outer) if isinstance(guess, Known) else None
    if priced is None:
        priced = find_price(pool, goal.less(settled), tuning, outer)
    price = min(max(priced.price, low), high)
    columns[pool.places] = priced.columns
    near, own = Near.of(pool, threshold, price, priced.columns)
    cost, damage = settled.cost + near.taken.cost, settled.damage + near.taken.damage
    if instance.ties:
        damage = units_within(instance.damage_of(columns.astype(np.int64)) - instance.base_damage)
    slack = goal.capacity - (damage if model.by_cost else cost)
    gap = _gap(model.by_cost, price, slack, near.first, own)
    return Relaxed(Base(model, goal, price, columns, cost, damage, slack, gap), near, passes)


def _guess(instance: Instance, goal: Goal, hulls: Hulls | None, tuning: Tuning) -> tuple[Guess, float]:
    """Return where the price is likely to be, and how close second choices have to be kept."""
    if hulls is not None:
        known = Known(hulls, goal, tuning)
        return known, known.threshold()
    sample = Sample.draw(instance.blocks, instance.size, goal, tuning)
    share = max(tuning.close_share, min(tuning.close_groups / instance.size, 10 * tuning.close_share))
    return sample, sample.threshold(share)


def _gap(by_cost: bool, price: float, slack: int, first: FloatArray, own: FloatArray) -> float:
    """Return the base's objective minus the dual bound, in cost, rounding taken off the bound.

    ``own`` (n,) are the base's values in the pool, ``first`` (n,) the best; settled groups have no reduced cost.
    """
    excess = float((own - first).sum() + 2.0**-48 * own.sum())
    excess = math.inf if math.isnan(excess) else excess
    # Where damage has no price, nor has what is left of any bound.
    left = 0.0 if not price else float_of(slack) * price
    unused = left if by_cost else float(slack)
    return excess + unused + 2.0**-48 * abs(unused)
