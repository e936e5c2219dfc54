"""The best multiplier without a global sort.

A sample brackets it, a pass settles most groups, and the rest is the same problem again, until few enough are left to
sort the steps of their hulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum, exact_units, float_of
from impq_opt.instance import Block
from impq_opt.solvers._exact_scan import LARGEST_PRICE, Pool, Scan, gather, scan, values_at
from impq_opt.solvers._hull import Steps, hull_steps

__all__ = ["Goal", "OutOfReachError", "Priced", "find_price", "narrow"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ColumnArray = npt.NDArray[np.uint16]

# Few enough groups to sort the steps of their hulls at once.
_FEW = 4096
_SAMPLE = 8192
# From here on a larger sample pays: it leaves fewer groups open.
_MANY = 1 << 21
# Half-width of the bracket that a sample gives, in standard errors: it fails once in some thousands, and is checked.
_SIGMAS = 3.5
# Ends of brackets are moved outwards by this factor, so that ties at an end lie inside.
_NUDGE = 1.0 + 2.0**-40


@dataclass(frozen=True)
class Goal:
    """What the groups at hand may use up: damage (in units of 2**-1074) where cost is minimised, else cost."""

    by_cost: bool
    capacity: int

    def less(self, cost: int, damage: int) -> Goal:
        """Return the goal of the other groups when some use up ``cost`` and ``damage``."""
        return Goal(self.by_cost, self.capacity - (damage if self.by_cost else cost))

    def used(self, cost: IntArray, damage: FloatArray) -> int:
        """Return what some candidates use up, exactly."""
        return exact_units(damage) if self.by_cost else exact_int_sum(cost)

    def as_float(self, used: int) -> float:
        """Return what is used up as the float64 nearest to it, in damage or cost."""
        return float_of(used) if self.by_cost else float(used)


@dataclass(frozen=True, eq=False)
class Priced:
    """A multiplier (cost per damage) and the end of the convex hull there that keeps within the capacity.

    columns (n,): that allocation; where even the least demanding one does not fit, that one.
    """

    price: float
    columns: ColumnArray


def find_price(pool: Pool, goal: Goal, rng: np.random.Generator, steps: Steps | None = None) -> Priced:
    """Return the multiplier at which the groups of ``pool`` just meet ``goal``; ``steps``: their hulls, if known."""
    if len(pool) <= _FEW or steps is not None:
        return _by_sorting(pool, goal, steps)
    found, _ = narrow([pool.block], len(pool), goal, 0.0, rng)
    rest = found.pool
    if len(rest) > 0.7 * len(pool):  # many equal ratios: narrowing does not help
        return _by_sorting(pool, goal)
    inner = find_price(rest, goal.less(found.cost, found.damage), rng)
    columns = found.columns
    columns[rest.places] = inner.columns
    return Priced(inner.price, columns)


def _by_sorting(pool: Pool, goal: Goal, steps: Steps | None = None) -> Priced:
    steps = hull_steps(pool.cost, pool.damage) if steps is None else steps
    count = _break_count(pool, goal, steps)
    columns = steps.choice(count).astype(np.uint16)
    edge = count - 1 if goal.by_cost else count
    if edge < 0:
        return Priced(0.0, columns)
    if edge >= len(steps.group):
        return Priced(_price(steps, len(steps.group) - 1), columns)
    return Priced(_price(steps, edge), columns)


def _price(steps: Steps, number: int) -> float:
    """Return the multiplier at which a step begins to pay."""
    if not 0 <= number < len(steps.group):
        return 0.0 if number < 0 else LARGEST_PRICE
    with np.errstate(over="ignore"):
        return min(float(steps.cost[number] / steps.damage[number]), LARGEST_PRICE)


def _break_count(pool: Pool, goal: Goal, steps: Steps) -> int:
    """Return the number of leading steps whose end keeps within the capacity: the fewest for damage, the most for cost.

    A float sum finds the place; exact sums settle it.
    """
    start_cost, start_damage = pool.chosen(steps.start)
    if not goal.by_cost:
        left = max(min(goal.capacity - exact_int_sum(start_cost), 1 << 62), -1)
        return int(np.searchsorted(steps.cost_so_far, left, side="right"))
    start = exact_units(start_damage)
    count = int(np.searchsorted(steps.damage_so_far, float_of(start - goal.capacity), side="left")) + 1

    def fits(number: int) -> bool:
        return goal.used(*pool.chosen(steps.choice(number))) <= goal.capacity

    if start <= goal.capacity:
        return 0
    count = min(count, len(steps.group))
    while count and fits(count - 1):
        count -= 1
    while count < len(steps.group) and not fits(count):
        count += 1
    return count


class OutOfReachError(Exception):
    """No allocation meets the goal, so that no multiplier does."""


def narrow(
    blocks: Sequence[Block],
    size: int,
    goal: Goal,
    share: float,
    rng: np.random.Generator,
    reachable: Callable[[], bool] = lambda: True,
) -> tuple[Scan, int]:
    """Settle all groups that no multiplier in a bracket around the best one changes; also return the passes taken.

    Parameters
    ----------
    share : float
        Open about this share of the groups on top, those whose second candidate comes closest; the ``threshold``
        of the result says how close that is.
    reachable : callable
        Whether any allocation meets the goal; asked where the first bracket does not.
    """
    sample = _Sample.draw(blocks, size, goal, rng)
    low, high = sample.bracket(0.0, None)
    threshold = sample.threshold(share) if share else 0.0
    passes = 0
    for _ in range(64):
        passes += 1
        found = scan(blocks, size, low, high, threshold)
        at_low, at_high = _used_at_ends(found, goal)
        # Larger multipliers mean less damage and more cost.
        too_low, too_high = (at_high > goal.capacity, at_low < goal.capacity)
        if not goal.by_cost:
            too_low, too_high = at_high < goal.capacity, at_low > goal.capacity
        if too_low and goal.by_cost and passes == 1 and not reachable():
            raise OutOfReachError
        if too_low and high < LARGEST_PRICE:
            low, (_, high) = high, sample.bracket(goal.as_float(at_high), high)
        elif too_high and low > 0:
            high, (low, _) = low, sample.bracket(goal.as_float(at_low), low)
        else:
            break
    return found, passes


def _used_at_ends(found: Scan, goal: Goal) -> tuple[int, int]:
    """Return what all groups use up at the two ends of the bracket."""
    settled = found.damage if goal.by_cost else found.cost
    low = goal.used(*found.pool.chosen(found.columns[found.pool.places]))
    return settled + low, settled + goal.used(*found.pool.chosen(found.at_high))


class _Sample:
    """A stratified sample of the groups, its hull steps, and what they say about the whole."""

    def __init__(self, pool: Pool, size: int, goal: Goal) -> None:
        self.pool, self.size, self.goal = pool, size, goal
        self.steps = hull_steps(pool.cost, pool.damage)
        start_cost, start_damage = pool.chosen(self.steps.start)
        if goal.by_cost:
            self.used = np.concatenate([[start_damage.sum()], start_damage.sum() - np.cumsum(self.steps.damage)])
        else:
            self.used = np.concatenate([[0], np.cumsum(self.steps.cost)]) + float(start_cost.sum())
        self.widen = 1.0

    @classmethod
    def draw(cls, blocks: Sequence[Block], size: int, goal: Goal, rng: np.random.Generator) -> _Sample:
        count = min(_SAMPLE if size <= _MANY else 4 * _SAMPLE, size // 4)
        # One random group in each of `count` equal stretches: neighbours are alike, so strata lower the variance.
        edges = np.arange(count + 1) * size // count
        places = edges[:-1] + (rng.random(count) * np.diff(edges)).astype(np.int64)
        return cls(gather(blocks, size, places), size, goal)

    def bracket(self, known: float, at: float | None) -> tuple[float, float]:
        """Return multipliers between which the best one lies, almost surely.

        ``known`` is what all groups use up at the multiplier ``at``: the sample then has to tell only the
        difference from there, of which groups that dominate the sum but do not change are no part.
        """
        scale = len(self.pool) / self.size
        target = self.goal.as_float(self.goal.capacity) * scale
        reference: FloatArray | float = 0.0
        if at is not None:
            number = self._count_at(at)
            reference = self._amounts(number)
            target += float(reference.sum()) - known * scale
            self.widen *= 4.0  # each miss trusts the sample less
        count = self._count(target)
        amounts = self._amounts(count) - reference
        # Half the mean squared difference of neighbours: the variance inside the strata.
        spread = math.sqrt(float(np.square(np.diff(amounts)).sum()) / 2)
        spread = _SIGMAS * self.widen * spread
        below, above = sorted((self._count(target - spread), self._count(target + spread)))
        low, high = _price(self.steps, below - 2), _price(self.steps, above + 1)
        if above + 1 >= len(self.steps.group):
            last = _price(self.steps, len(self.steps.group) - 1)
            high = min(max(last, 1e-280) * 16.0 ** min(self.widen, 200.0), LARGEST_PRICE)
        if at is not None:
            low, high = min(low, at / self.widen), max(high, at * self.widen)
        return low / _NUDGE, min(high * _NUDGE, LARGEST_PRICE)

    def _count(self, target: float) -> int:
        """Return the number of steps at which the sample uses up ``target``."""
        if self.goal.by_cost:
            return int(np.searchsorted(-self.used, -target, side="left"))
        return int(np.searchsorted(self.used, target, side="right")) - 1

    def _count_at(self, price: float) -> int:
        """Return the number of steps that pay at ``price``."""
        with np.errstate(over="ignore"):
            prices = self.steps.cost / self.steps.damage
        return int((prices <= price).sum())

    def _amounts(self, count: int) -> FloatArray:
        cost, damage = self.pool.chosen(self.steps.choice(max(count, 0)))
        return damage if self.goal.by_cost else cost.astype(np.float64)

    def threshold(self, share: float) -> float:
        """Return the cost within which ``share`` of the groups have a second candidate at the best multiplier."""
        price = _price(self.steps, self._count(self.goal.as_float(self.goal.capacity) * len(self.pool) / self.size))
        values = values_at(self.pool.cost, self.pool.damage, price)
        if values.shape[1] < 2:
            return 0.0
        lowest = np.partition(values, 1, axis=1)
        behind = np.sort(lowest[:, 1] - lowest[:, 0])
        found = float(behind[int(share * len(behind))])
        return found if math.isfinite(found) else 0.0
