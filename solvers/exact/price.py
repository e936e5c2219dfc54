"""The best multiplier without a global sort.

A sample brackets it, a pass settles most groups, and the rest is the same problem again, until few enough are left to
sort the steps of their hulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from impq_opt.exactness.sums import exact_int_sum, exact_units, float_of, float_units
from impq_opt.instance.instance import Block
from impq_opt.solvers.exact.scan import gather, scan
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.lagrange.hull import Hulls, Steps, hull_steps
from impq_opt.solvers.native import ColumnArray, column_type
from impq_opt.solvers.native.passes import LARGEST_PRICE, Pool, Scan, Total, second_choices
from impq_opt.types import FloatArray

__all__ = ["Goal", "Guess", "Known", "OutOfReachError", "Priced", "Sample", "find_price", "narrow"]


# Ends of brackets are moved outwards by this factor, so that ties at an end lie inside.
_NUDGE = 1.0 + 2.0**-40


class Goal(NamedTuple):
    """What the groups at hand may use up: damage (in units of 2**-1074) where cost is minimised, else cost."""

    by_cost: bool
    capacity: int

    def less(self, total: Total) -> Goal:
        """Return the goal of the other groups when some have this total."""
        return Goal(self.by_cost, self.capacity - self.used(total))

    def used(self, total: Total) -> int:
        """Return what some groups use up."""
        return total.damage if self.by_cost else total.cost

    def as_float(self, used: int) -> float:
        """Return what is used up as the float64 nearest to it, in damage or cost."""
        return float_of(used) if self.by_cost else float(used)


class Priced(NamedTuple):
    """A multiplier (cost per damage) and the end of the convex hull there that keeps within the capacity.

    columns (n,): that allocation; where even the least demanding one does not fit, that one.
    """

    price: float
    columns: ColumnArray


def find_price(pool: Pool, goal: Goal, tuning: Tuning, outer: Scan | None = None) -> Priced:
    """Return the multiplier at which the groups of ``pool``, found by the pass ``outer`` if any, just meet ``goal``."""
    if len(pool) <= tuning.sorted_at_once:
        return _by_sorting(pool, goal)
    guess: Guess | None = None if outer is None else Between.of(outer, goal, tuning)
    guess = Sample.draw([pool.block], len(pool), goal, tuning) if guess is None else guess
    inside, _ = narrow([pool.block], len(pool), goal, guess)
    rest = inside.pool
    if len(rest) > 0.7 * len(pool):  # many equal ratios: narrowing does not help
        return _by_sorting(pool, goal)
    inner = find_price(rest, goal.less(inside.settled), tuning, inside)
    columns = inside.columns
    columns[rest.places] = inner.columns
    return Priced(inner.price, columns)


def _by_sorting(pool: Pool, goal: Goal) -> Priced:
    steps = hull_steps(pool.cost, pool.damage)
    count = _break_count(pool, goal, steps)
    columns = steps.choice(count).astype(column_type(pool.cost.shape[1]))
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
    return min(float(steps.cost[number]) / float(steps.damage[number]), LARGEST_PRICE)


def _break_count(pool: Pool, goal: Goal, steps: Steps) -> int:
    """Return the number of leading steps whose end keeps within the capacity: the fewest for damage, the most for cost.

    A float sum finds the place; exact sums settle it.
    """
    start_cost, start_damage = pool.chosen(steps.start)
    if not goal.by_cost:
        left = max(min(goal.capacity - exact_int_sum(start_cost), 1 << 62), -1)
        return int(np.searchsorted(steps.cost_so_far, left, side="right"))
    start = exact_units(start_damage)
    if start <= goal.capacity:
        return 0
    over, reached = float_of(start - goal.capacity), steps.damage_so_far
    count = int(np.searchsorted(reached, over, side="left")) + 1
    # Roundings of the sums are far below this share of them: only where one comes so close do exact sums have to tell.
    near = reached[max(count - 2, 0) : count].tolist()
    if count <= len(reached) and min(abs(taken - over) for taken in near) > 2.0**-30 * float_of(start):
        return count

    def fits(number: int) -> bool:
        return exact_units(pool.chosen(steps.choice(number))[1]) <= goal.capacity

    count = min(count, len(steps.group))
    while count and fits(count - 1):
        count -= 1
    while count < len(steps.group) and not fits(count):
        count += 1
    return count


class OutOfReachError(Exception):
    """No allocation meets the goal, so that no multiplier does."""


class Guess(Protocol):
    """Where the best multiplier is likely to be."""

    def bracket(self) -> tuple[float, float]:
        """Return multipliers between which it lies, most likely."""

    def bracket_from(self, at: float, used: float) -> tuple[float, float]:
        """Return another bracket when ``at``, an end of the last one where all groups use up ``used``, has missed."""


def narrow(
    blocks: Sequence[Block],
    size: int,
    goal: Goal,
    guess: Guess,
    threshold: float = 0.0,
    reachable: Callable[[], bool] = lambda: True,
) -> tuple[Scan, int]:
    """Settle all groups that no multiplier in a bracket around the best one changes; also return the passes taken.

    Parameters
    ----------
    guess : Guess
    threshold : float
        Open the groups too whose second candidate comes so close.
    reachable : callable
        Whether any allocation meets the goal; asked where the first bracket does not.

    Raises
    ------
    OutOfReachError
        Where none does.
    """
    low, high = guess.bracket()
    passes = 0
    for _ in range(64):
        passes += 1
        passed = scan(blocks, size, low, high, threshold)
        at_low, at_high = (goal.used(passed.settled.plus(end)) for end in (passed.at_low, passed.at_high))
        # Larger multipliers mean less damage and more cost.
        too_low, too_high = (at_high > goal.capacity, at_low < goal.capacity)
        if not goal.by_cost:
            too_low, too_high = at_high < goal.capacity, at_low > goal.capacity
        if too_low and goal.by_cost and passes == 1 and not reachable():
            raise OutOfReachError
        if too_low and high < LARGEST_PRICE:
            low, (_, high) = high, guess.bracket_from(high, goal.as_float(at_high))
        elif too_high and low > 0:
            high, (low, _) = low, guess.bracket_from(low, goal.as_float(at_low))
        else:
            break
    return passed, passes


class Known:
    """The steps of all hulls, best first, say where the multiplier is, but for the rounding of their sums."""

    def __init__(self, hulls: Hulls, goal: Goal, tuning: Tuning) -> None:
        self.steps, self.goal, self.near, self.reach = hulls.steps, goal, tuning.near_steps, 2
        capacity = goal.as_float(goal.capacity)
        if goal.by_cost:
            self.count = int(self.steps.damage_so_far.searchsorted(hulls.start_damage - capacity, side="left"))
        else:
            self.count = int(self.steps.cost_so_far.searchsorted(capacity - hulls.start_cost, side="right"))

    def bracket(self) -> tuple[float, float]:
        low, high = (_price(self.steps, self.count + way * self.reach) for way in (-1, 1))
        return low / _NUDGE, min(high * _NUDGE, LARGEST_PRICE)

    def bracket_from(self, at: float, used: float) -> tuple[float, float]:
        self.reach *= 8
        low, high = self.bracket()
        return min(low, at), max(high, at)

    def priced(self, passed: Scan) -> Priced | None:
        """Return the end of the hull in the bracket of a pass, by the known steps in it; None where they miss it."""
        steps, pool = self.steps, passed.pool
        if not self.goal.by_cost or len(pool) == 0:
            return None
        first = max(self.count - self.reach, 0)
        while first > 0 and self.count - first < self.near and _price(steps, first - 1) >= passed.low:
            first -= 1
        part = slice(first, self.count + self.reach)
        rows = np.minimum(pool.places.searchsorted(steps.group[part]), len(pool) - 1)
        if (pool.places[rows] != steps.group[part]).any():
            return None
        columns, taken = passed.columns[pool.places], -1
        used = passed.settled.damage + passed.at_low.damage
        for number, (row, to) in enumerate(zip(rows.tolist(), steps.to[part].tolist(), strict=True), first):
            if used <= self.goal.capacity:
                break
            here = int(columns[row])
            if pool.cost[row, to] - pool.cost[row, here] != steps.cost[number]:
                return None
            used -= float_units(float(pool.damage[row, here])) - float_units(float(pool.damage[row, to]))
            columns[row], taken = to, number
        return Priced(_price(steps, taken), columns) if taken >= 0 and used <= self.goal.capacity else None

    def threshold(self) -> float:
        """Return the cost within which half of the nearest steps on either side come at the best multiplier."""
        price = _price(self.steps, min(self.count, len(self.steps.group) - 1))
        near = slice(max(self.count - self.near, 0), self.count + self.near)
        behind = np.abs(self.steps.cost[near] - price * self.steps.damage[near])
        if len(behind) == 0:
            return 0.0
        behind.partition(len(behind) // 2)
        middle = float(behind[len(behind) // 2])
        return max(middle, 0.0) if math.isfinite(middle) else 0.0


class Between:
    """Where the multiplier must be between two that are known to be too low and too high: almost on a line.

    What groups use up is nearly linear in the logarithm of the multiplier over a narrow bracket.
    """

    def __init__(self, goal: Goal, ends: list[tuple[float, float]], width: float) -> None:
        self.target, self.ends, self.width = goal.as_float(goal.capacity), ends, width

    @classmethod
    def of(cls, outer: Scan, goal: Goal, tuning: Tuning) -> Between | None:
        """Return the guess inside the bracket of a pass that left some groups open; None where it is wide."""
        if not 0 < outer.low <= outer.high < outer.low * tuning.narrow:
            return None
        ends = [
            (math.log(at), goal.as_float(goal.used(total)))
            for at, total in ((outer.low, outer.at_low), (outer.high, outer.at_high))
        ]
        # As many random steps stray from a line by about half a root of their number; and lines from curves.
        return cls(goal, ends, tuning.stray / math.sqrt(len(outer.pool)) + tuning.bend)

    def bracket(self) -> tuple[float, float]:
        """Return multipliers between which the best one lies, most likely."""
        (low, at_low), (high, at_high) = self.ends
        share = (at_low - self.target) / (at_low - at_high) if at_low != at_high else 0.5
        shares = [min(max(share + way * self.width, 0.0), 1.0) for way in (-1, 1)]
        below, above = (math.exp(low + part * (high - low)) for part in shares)
        return below / _NUDGE, above * _NUDGE

    def bracket_from(self, at: float, used: float) -> tuple[float, float]:
        """Return another bracket when the multiplier ``at``, an end of the last one, has turned out to miss."""
        at_low = self.ends[0][1]
        too_low = (used > self.target) == (at_low > self.target)
        self.ends[0 if too_low else 1] = (math.log(at), used)
        self.width *= 2.0
        return self.bracket()


class Sample:
    """A stratified sample of the groups, its hull steps, and what they say about the whole."""

    def __init__(self, pool: Pool, size: int, goal: Goal, sigmas: float) -> None:
        self.pool, self.size, self.goal, self.sigmas = pool, size, goal, sigmas
        self.steps = hull_steps(pool.cost, pool.damage)
        start_cost, start_damage = pool.chosen(self.steps.start)
        if goal.by_cost:
            self.used = np.concatenate([[start_damage.sum()], start_damage.sum() - np.cumsum(self.steps.damage)])
        else:
            self.used = np.concatenate([[0], np.cumsum(self.steps.cost)]) + float(start_cost.sum())
        self.widen = 1.0

    @classmethod
    def draw(cls, blocks: Sequence[Block], size: int, goal: Goal, tuning: Tuning) -> Sample:
        """Return a random sample of the groups, the same one every time."""
        count = min(tuning.sample if size <= tuning.many else 4 * tuning.sample, size // 4)
        # One random group in each of `count` equal stretches: neighbours are alike, so strata lower the variance.
        edges = np.arange(count + 1) * size // count
        places = edges[:-1] + (np.random.default_rng(0).random(count) * np.diff(edges)).astype(np.int64)
        return cls(gather(blocks, size, places), size, goal, tuning.sigmas)

    @property
    def _scale(self) -> float:
        return len(self.pool) / self.size

    @property
    def _target(self) -> float:
        return self.goal.as_float(self.goal.capacity) * self._scale

    def bracket(self) -> tuple[float, float]:
        """Return multipliers between which the best one lies, almost surely."""
        return self._bracket(self._target, 0.0)

    def bracket_from(self, at: float, used: float) -> tuple[float, float]:
        """Return another bracket when the multiplier ``at``, an end of the last one, has turned out to miss.

        What all groups use up there is known: the sample then has to tell only the difference from there, of which
        groups that dominate the sum but do not change are no part.
        """
        reference = self._amounts(self._count_at(at))
        self.widen *= 4.0  # each miss trusts the sample less
        low, high = self._bracket(self._target + float(reference.sum()) - used * self._scale, reference)
        return min(low, at / self.widen), max(high, at * self.widen)

    def _bracket(self, target: float, reference: FloatArray | float) -> tuple[float, float]:
        count = self._count(target)
        amounts = self._amounts(count) - reference
        # Half the mean squared difference of neighbours: the variance inside the strata.
        spread = math.sqrt(float(np.square(np.diff(amounts)).sum()) / 2)
        spread = self.sigmas * self.widen * spread
        below, above = sorted((self._count(target - spread), self._count(target + spread)))
        low, high = _price(self.steps, below - 2), _price(self.steps, above + 1)
        if above + 1 >= len(self.steps.group):
            last = _price(self.steps, len(self.steps.group) - 1)
            high = min(max(last, 1e-280) * 16.0 ** min(self.widen, 200.0), LARGEST_PRICE)
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
        count = self._count(self._target)
        columns = self.steps.choice(max(count, 0)).astype(column_type(self.pool.cost.shape[1]))
        _, behind, _, _ = second_choices(self.pool, _price(self.steps, count), columns)
        place = min(int(share * len(behind)), len(behind) - 1)
        there = float(np.partition(behind, place)[place])
        return max(there, 0.0) if math.isfinite(there) else 0.0
