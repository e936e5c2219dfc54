"""The two directions of the exact strategy: the least cost within some damage, and the least damage within some cost.

Damages are counted in units of 2**-1074. Larger multipliers (cost per damage) mean less damage and more cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from impq_opt.exactness.sums import exact_int_sum, exact_units, float_above, float_of
from impq_opt.instance.instance import Instance
from impq_opt.proof.infeasible import smallest_damage
from impq_opt.solvers.lagrange.hull import Hulls, Steps
from impq_opt.solvers.native.passes import Pool, Total
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Goal", "LeastCost", "LeastDamage"]


class Goal(ABC):
    """What the groups at hand may use up of what is limited: ``capacity``."""

    __slots__ = ("capacity",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    def less(self, total: Total) -> Goal:
        """Return the goal of the other groups when some have this total."""
        return type(self)(self.capacity - self.used(total))

    # -- totals

    @abstractmethod
    def used(self, total: Total) -> int:
        """Return what some groups use up."""

    @abstractmethod
    def objective(self, total: Total) -> int:
        """Return what is minimised."""

    @abstractmethod
    def as_float(self, used: int) -> float:
        """Return what is used up as the float64 nearest to it, in damage or cost."""

    @abstractmethod
    def unused(self, slack: int, price: float) -> float:
        """Return what ``slack`` of the capacity is worth at the price, in cost."""

    @abstractmethod
    def reachable(self, instance: Instance) -> bool:
        """Return whether the relaxation has any answer where its base has none.

        No rounding of tied sums hides that it has none.
        """

    # -- brackets and the steps of hulls

    @abstractmethod
    def missed(self, at_low: int, at_high: int) -> tuple[bool, bool]:
        """Return whether a bracket lies too low, or too high, by what is used up at its ends."""

    @abstractmethod
    def short(self, at_high: int) -> bool:
        """Return whether a larger multiplier is all that may keep within the capacity."""

    @abstractmethod
    def edge(self, count: int) -> int:
        """Return the step whose multiplier is the price where the first ``count`` steps are taken."""

    @abstractmethod
    def steps_taken(self, pool: Pool, steps: Steps) -> int:
        """Return the number of leading steps whose end keeps within the capacity: exactly, so many as are best."""

    @abstractmethod
    def steps_about(self, hulls: Hulls) -> int:
        """Return that number, but for the rounding of the sums."""

    @abstractmethod
    def curve(self, steps: Steps, cost: IntArray, damage: FloatArray) -> FloatArray:
        """Return what is used up after each number of steps, of groups that start at cost and damage (n,)."""

    @abstractmethod
    def steps_at(self, curve: FloatArray, target: float) -> int:
        """Return the number of steps at which a curve comes to ``target``."""

    @abstractmethod
    def amounts(self, cost: IntArray, damage: FloatArray) -> FloatArray:
        """Return what each group uses up."""

    # -- single changes

    @abstractmethod
    def changes(self, saved: IntArray, added: FloatArray) -> tuple[FloatArray | IntArray, FloatArray | IntArray]:
        """Return what changes gain and need that save so much cost and add so much damage."""

    @abstractmethod
    def may_fit(self, need: FloatArray | IntArray, slack: int) -> BoolArray:
        """Return which needs may be within ``slack``: all that are, exactly."""

    @abstractmethod
    def needed(self, pool: Pool, row: int, at: int, to: int) -> int:
        """Return exactly what one group needs to go from one column to another."""


class LeastCost(Goal):
    """Damage is limited."""

    __slots__ = ()

    def used(self, total: Total) -> int:
        return total.damage

    def objective(self, total: Total) -> int:
        return total.cost

    def as_float(self, used: int) -> float:
        return float_of(used)

    def unused(self, slack: int, price: float) -> float:
        # Where damage has no price, nor has what is left of any bound.
        return 0.0 if not price else float_of(slack) * price

    def reachable(self, instance: Instance) -> bool:
        return instance.bound is None or smallest_damage(instance) <= instance.bound

    def missed(self, at_low: int, at_high: int) -> tuple[bool, bool]:
        return at_high > self.capacity, at_low < self.capacity

    def short(self, at_high: int) -> bool:
        return at_high > self.capacity

    def edge(self, count: int) -> int:
        return count - 1

    def steps_taken(self, pool: Pool, steps: Steps) -> int:
        # A float sum finds the place; exact sums settle it.
        start = exact_units(pool.chosen(steps.start)[1])
        if start <= self.capacity:
            return 0
        over, reached = float_of(start - self.capacity), steps.damage_so_far
        count = int(np.searchsorted(reached, over, side="left")) + 1
        # Roundings of the sums are far below this share: only where one comes so close do exact sums have to tell.
        near = reached[max(count - 2, 0) : count].tolist()
        if count <= len(reached) and min(abs(taken - over) for taken in near) > 2.0**-30 * float_of(start):
            return count

        def fits(number: int) -> bool:
            return exact_units(pool.chosen(steps.choice(number))[1]) <= self.capacity

        count = min(count, len(steps.group))
        while count and fits(count - 1):
            count -= 1
        while count < len(steps.group) and not fits(count):
            count += 1
        return count

    def steps_about(self, hulls: Hulls) -> int:
        over = hulls.start_damage - float_of(self.capacity)
        return int(hulls.steps.damage_so_far.searchsorted(over, side="left"))

    def curve(self, steps: Steps, cost: IntArray, damage: FloatArray) -> FloatArray:
        return np.concatenate([[damage.sum()], damage.sum() - np.cumsum(steps.damage)])

    def steps_at(self, curve: FloatArray, target: float) -> int:
        return int(np.searchsorted(-curve, -target, side="left"))

    def amounts(self, cost: IntArray, damage: FloatArray) -> FloatArray:
        return damage

    def changes(self, saved: IntArray, added: FloatArray) -> tuple[FloatArray | IntArray, FloatArray | IntArray]:
        return saved, added

    def may_fit(self, need: FloatArray | IntArray, slack: int) -> BoolArray:
        # Differences of damages are rounded: none that fits is rounded above the slack rounded up.
        return np.asarray(need <= float_above(slack))

    def needed(self, pool: Pool, row: int, at: int, to: int) -> int:
        return exact_units(pool.damage[row, to : to + 1]) - exact_units(pool.damage[row, at : at + 1])


class LeastDamage(Goal):
    """Cost is limited."""

    __slots__ = ()

    def used(self, total: Total) -> int:
        return total.cost

    def objective(self, total: Total) -> int:
        return total.damage

    def as_float(self, used: int) -> float:
        return float(used)

    def unused(self, slack: int, price: float) -> float:
        return float(slack)

    def reachable(self, instance: Instance) -> bool:
        return False  # the base is the cheapest allocation

    def missed(self, at_low: int, at_high: int) -> tuple[bool, bool]:
        return at_high < self.capacity, at_low > self.capacity

    def short(self, at_high: int) -> bool:
        return False  # smaller multipliers cost less

    def edge(self, count: int) -> int:
        return count

    def steps_taken(self, pool: Pool, steps: Steps) -> int:
        left = max(min(self.capacity - exact_int_sum(pool.chosen(steps.start)[0]), 1 << 62), -1)
        return int(np.searchsorted(steps.cost_so_far, left, side="right"))

    def steps_about(self, hulls: Hulls) -> int:
        return int(hulls.steps.cost_so_far.searchsorted(float(self.capacity) - hulls.start_cost, side="right"))

    def curve(self, steps: Steps, cost: IntArray, damage: FloatArray) -> FloatArray:
        return np.concatenate([[0], np.cumsum(steps.cost)]) + float(cost.sum())

    def steps_at(self, curve: FloatArray, target: float) -> int:
        return int(np.searchsorted(curve, target, side="right")) - 1

    def amounts(self, cost: IntArray, damage: FloatArray) -> FloatArray:
        return cost.astype(np.float64)

    def changes(self, saved: IntArray, added: FloatArray) -> tuple[FloatArray | IntArray, FloatArray | IntArray]:
        return -added, -saved

    def may_fit(self, need: FloatArray | IntArray, slack: int) -> BoolArray:
        return np.asarray(need <= slack)

    def needed(self, pool: Pool, row: int, at: int, to: int) -> int:
        return int(pool.cost[row, to]) - int(pool.cost[row, at])
