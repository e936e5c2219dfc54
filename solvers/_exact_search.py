"""One run of the exact strategy: relax, fill, and search growing cores until the gap is closed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Enumeration, Stop
from impq_opt.arithmetic import exact_units, float_of, of_units, units_within
from impq_opt.contract import Claim, Control
from impq_opt.diagnosis import smallest_damage
from impq_opt.instance import Instance
from impq_opt.solvers._exact_cardinality import Pairs, pairs_of
from impq_opt.solvers._exact_core import Found, search
from impq_opt.solvers._exact_fill import fill
from impq_opt.solvers._exact_model import Model, RelativeCore
from impq_opt.solvers._exact_price import Goal, Guess, Known, OutOfReachError, Sample, find_price, narrow
from impq_opt.solvers._exact_scan import (
    GUARD,
    LARGEST_PRICE,
    PROHIBITIVE,
    Pool,
    Total,
    block_width,
    common_divisor,
    everything,
    scan,
    two_best,
    values_at,
)
from impq_opt.solvers._hull import Hulls

__all__ = ["Search"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Up to this many groups no pass is needed: all of them are priced and kept.
_SMALL = 16384
# Up to this many groups the search of the core, which completes every state, is as quick to use up the capacity.
_TINY = 96
# Groups that the first pass keeps because a second choice comes close: about this many, and at least this share.
_KEPT = 15_000
_SHARE = 0.0015
_FIRST_CORE, _GROWTH = 48, 4
# From so many open groups on, settling one that outweighs the others is worth a search of its own for each candidate.
_OPEN = 1024
# Such a share of the open groups must span less than the gap: it is then none of theirs.
_ORDINARY = 0.99
# States of a core that is only one step of the growth.
_TRIAL_STATES = 200_000
_FILL_GROUPS = 2048


class Search:
    """One run: the base allocation, the best answer, and what is left of the gap.

    ``gap`` is an upper bound on best - dual bound, in cost: where damage is minimised, damage times the price. Damages
    are integers in units of 2**-1074 throughout, so that all sums and comparisons are exact and quick.
    """

    def __init__(
        self, instance: Instance, control: Control, states: int, hulls: Hulls | None = None, branches: bool = True
    ) -> None:
        self.instance, self.control, self.states, self.hulls = instance, control, states, hulls
        self.model = Model(instance)
        self.by_cost, self.branches = self.model.by_cost, branches
        self.goal = Goal(self.by_cost, self.model.capacity)
        # The best answer: the base with other columns at some places.
        self.best: tuple[IntArray, IntArray] | None = None
        self.better = 0  # how far the best answer's objective is below the base's
        self.price: float | None = None
        self.proved: int | None = None  # lower bound minus the base's objective
        self.infeasible = False
        self.outweighing: tuple[int, list[int]] | None = None  # a group to branch on, and its candidates
        self.lattice = None if hulls is None else hulls.lattice  # divides all differences of costs
        self.pool_lattice: int | None = None  # divides those of the pool
        self.stop = Stop.COMPLETED
        self.statistics: dict[str, Any] = {"core_groups": 0, "states": 0, "passes": 0}

    # -- the relaxation ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Relax, fill and search; what overflows or is undefined on the way counts as nothing known."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._run()

    def _run(self) -> None:
        limit = self.control.memory_limit
        if limit is not None and self._least_bytes() > limit:
            self.stop = Stop.MEMORY_LIMIT
            return
        try:
            self._relax()
        except OutOfReachError:
            self.infeasible = True
            return
        if self.best is None and not self._reachable():
            self.infeasible = True
            return
        self._fill()
        self._grow()

    def _least_bytes(self) -> int:
        """Return what relaxing and answering take: the base, the answer, and the pool with its work arrays."""
        size, width = self.instance.size, max(block_width(block) for block in self.instance.blocks)
        pool = size if size <= _SMALL else size // 16 + _SMALL
        return 10 * size + pool * (8 * width + 48)

    def _relax(self) -> None:
        """Find the price, the base, and the pool of groups that may differ from it."""
        size = self.instance.size
        if size <= (_SMALL if self.hulls is None else _TINY):
            pool, threshold = everything(self.instance.blocks, size), math.inf
            base, low, high = np.empty(size, dtype=np.uint16), 0.0, LARGEST_PRICE
            settled, found = Total(), None
        else:
            guess, threshold = self._guess()
            found, passes = narrow(self.instance.blocks, size, self.goal, guess, threshold, self._reachable)
            pool, base, settled, low, high = found.pool, found.columns, found.settled, found.low, found.high
            self.statistics["passes"] += passes
        priced = find_price(pool, self.goal.less(settled), found)
        self.price = min(max(priced.price, low), high)
        base[pool.places] = priced.columns
        self.base = base
        own = self._set_pool(pool, threshold)
        chosen_cost, chosen_damage = pool.chosen(priced.columns)
        self.base_cost = settled.cost + int(chosen_cost.sum())
        if self.instance.ties:
            whole = self.instance.damage_of(base.astype(np.int64)) - self.instance.base_damage
            self.base_damage = units_within(whole)
        else:
            self.base_damage = settled.damage + exact_units(chosen_damage)
        self.slack = self.goal.capacity - (self.base_damage if self.by_cost else self.base_cost)
        if self.slack >= 0:
            self.best = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        self._measure_gap(own)

    def _guess(self) -> tuple[Guess, float]:
        """Return where the price is likely to be, and how close second choices have to be kept."""
        if self.hulls is not None:
            known = Known(self.hulls, self.goal)
            return known, known.threshold()
        size = self.instance.size
        sample = Sample.draw(self.instance.blocks, size, self.goal)
        return sample, sample.threshold(max(_SHARE, min(_KEPT / size, 10 * _SHARE)))

    def _set_pool(self, pool: Pool, threshold: float) -> FloatArray:
        """Keep the pool: all groups with a second choice within ``threshold`` of the best at the price, or more.

        Return the values (n,) of the base's choices there.
        """
        assert self.price is not None
        self.pool, self.threshold, self.pool_lattice = pool, threshold, None
        base = self.base[pool.places]
        first, second, own = two_best(pool, self.price, base)
        self.first = first
        self.behind = second * GUARD - first
        if math.isnan(self.behind.sum()):  # infinite values tell nothing
            self.behind[np.isnan(self.behind)] = -1.0
        # Where rounding, or the largest price, made the base take another choice than the best, a better one differs.
        self.behind[own * GUARD > first] = -1.0
        self.base_columns = base.astype(np.int64)
        return own

    def _measure_gap(self, value: FloatArray) -> None:
        """Set the base's objective minus the dual bound, in cost, rounding taken off the bound.

        ``value`` (n,) is the base's in the pool; the settled groups have no reduced cost.
        """
        assert self.price is not None
        excess = float((value - self.first).sum() + 2.0**-48 * value.sum())
        excess = math.inf if math.isnan(excess) else excess
        slack = float_of(self.slack) * self.price if self.by_cost else float(self.slack)
        self.base_gap = excess + slack + 2.0**-48 * abs(slack)

    @property
    def gap(self) -> float:
        """The best answer's objective minus the dual bound, in cost, at most; inf where there is none."""
        if self.best is None:
            return math.inf
        assert self.price is not None
        better = float(self.better) if self.by_cost else float_of(self.better) * self.price
        return self.base_gap - better + 2.0**-48 * (self.base_gap + better)

    def _reachable(self) -> bool:
        """Return whether the relaxation has any answer: no rounding of tied sums hides that it has none."""
        if not self.by_cost:
            return False  # the base is the cheapest allocation
        return self.instance.bound is None or smallest_damage(self.instance) <= self.instance.bound

    # -- the answer ----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Use up what the base leaves of the capacity, with the groups whose choice is closest."""
        if self.best is None or self.gap <= 0 or len(self.pool) <= _TINY:
            return
        assert self.price is not None
        rows = self._closest(self.gap, _FILL_GROUPS)
        pool = self.pool.take(rows)
        columns = fill(pool, self.base_columns[rows], self.by_cost, self.slack)
        self._adopt(rows, columns)

    def _closest(self, limit: float, most: int) -> IntArray:
        """Return at most ``most`` rows of the pool, those with the closest second choice within ``limit``."""
        rows = np.flatnonzero(self.behind <= limit)
        if len(rows) > most:
            behind = self.behind[rows]
            farthest = np.partition(behind, most - 1)[most - 1]
            nearer = behind < farthest
            nearer[np.flatnonzero(behind == farthest)[: most - int(nearer.sum())]] = True
            rows = rows[nearer]
        return rows

    def _adopt(self, rows: IntArray, columns: IntArray) -> bool:
        """Take the base with other ``columns`` in some rows of the pool if that is feasible and better."""
        base = self.base_columns[rows]
        changed = rows[columns != base]
        columns, base = columns[columns != base], base[columns != base]
        part, places = self.pool.take(changed), self.pool.places[changed]
        saved = int((part.chosen(base)[0] - part.chosen(columns)[0]).sum())
        less = self.model.damage_of(places, part, base) - self.model.damage_of(places, part, columns)
        fits = self.slack + (less if self.by_cost else saved) >= 0
        better = saved if self.by_cost else less
        if not fits or (self.best is not None and better <= self.better):
            return False
        self.better = better
        self.best = (places, columns)
        return True

    # -- the proof -----------------------------------------------------------------------------------------------

    def _limit(self, lattice: int = 1) -> float:
        """Return the reduced cost that no choice of a better answer exceeds.

        ``lattice`` divides the cost of every such answer less the base's.
        """
        if not self.by_cost or self.best is None:
            return self.gap
        return self.gap - (lattice - self.better % lattice)

    def _limit_on_lattice(self) -> float:
        """Return the limit, with the lattice of the groups within it where the pool holds all of those."""
        limit = self._limit()
        if not self.by_cost or self.best is None or limit < 0:
            return limit
        if limit > self.threshold:
            # The lattice of all groups takes half a pass: look at it where that of the pool would make the difference.
            if self.lattice is None:
                if self.pool_lattice is None:
                    self.pool_lattice = common_divisor([self.pool.block])
                if self._limit(self.pool_lattice or 1 << 60) > self.threshold:
                    return limit
                self.lattice = common_divisor(self.instance.blocks)
            limit = self._limit(self.lattice)
        while 0 <= limit <= self.threshold:
            rows = self._closest(limit, len(self.pool))
            tighter = self._limit(common_divisor([self.pool.take(rows).block]) or 1 << 60) if len(rows) else -1.0
            if tighter >= limit:
                break
            limit = tighter
        return limit

    def _grow(self) -> None:
        """Solve growing cores until one holds every group that a better answer could change."""
        size = _FIRST_CORE
        while True:
            limit = self._limit_on_lattice()
            if self.control.expired():
                self.stop = Stop.TIME_LIMIT
                return
            if (limit < 0) if self.by_cost else (self.gap <= 0 and not self._worthless):
                self.proved = -self.better
                return
            complete = limit <= self.threshold
            rows = self._closest(limit, len(self.pool))
            if not complete and size >= len(rows):
                self._pass_again(limit)
                continue
            if len(rows) == 0:  # no choice but the base's is left to a better answer
                self.proved = -self.better
                return
            whole = complete and len(rows) <= size + size // 2
            if size > _FIRST_CORE and self.branches and len(rows) > _OPEN:
                self.outweighing = self._largest(rows, limit)
                if self.outweighing is not None:
                    return
            if not whole:
                rows = self._closest(limit, size)
            found, core = self._solve_core(rows, limit, self.states if whole else min(_TRIAL_STATES, self.states))
            # Counting takes some hundred sorts: it is for what trial cores do not settle.
            if (found.stop is Stop.STATE_LIMIT or size > _FIRST_CORE) and self._counted():
                return
            if whole or self.stop is not Stop.COMPLETED:
                self._finish(rows, limit, found, core)
                return
            size *= _GROWTH

    def _largest(self, rows: IntArray, limit: float) -> tuple[int, list[int]] | None:
        """Return the group that the relaxation splits, and its candidates, where hardly another opens such a gap."""
        assert self.price is not None
        if self.instance.ties or not math.isfinite(limit):
            return None
        split = rows[self.behind[rows] <= 2.0**-20 * limit]
        if len(split) == 0 or np.quantile(self._spans(rows, limit), _ORDINARY) > limit:
            return None
        place = split[self._spans(split, limit).argmax()]
        part = self._core_of(np.array([place]), limit)
        values = values_at(part.pool.cost, part.pool.damage, self.price)[0]
        columns = np.flatnonzero(part.kept[0])
        return int(part.places[0]), columns[np.argsort(values[columns], kind="stable")].tolist()

    def _spans(self, rows: IntArray, limit: float) -> IntArray:
        """Return by how much the choices within ``limit`` of some groups of the pool differ in cost (n,)."""
        part = self._core_of(rows, limit)
        own = part.pool.cost[np.arange(len(rows)), part.base]
        spans: IntArray = np.ptp(np.where(part.kept, part.pool.cost, own[:, None]), axis=1)
        return spans

    def _counted(self) -> bool:
        """Return whether counting the groups that pay proves the best answer, and set the bound that it gives."""
        if not self.by_cost or self.best is None or self.threshold != math.inf or self.instance.ties:
            return False
        best = self.base_cost - self.better
        if self._pairs is None or self._pairs.bound(best) < best:
            return False
        self.proved = -self.better
        return True

    @cached_property
    def _pairs(self) -> Pairs | None:
        return pairs_of(self.pool, self.goal.capacity)

    @property
    def _worthless(self) -> bool:
        """Whether damage has no price: the budget leaves equal costs only, whose tied damages are rounded."""
        return not self.price and bool(self.instance.ties)

    def _pass_again(self, limit: float) -> None:
        assert self.price is not None
        found = scan(self.instance.blocks, self.instance.size, self.price, self.price, limit)
        self.statistics["passes"] += 1
        self._set_pool(found.pool, limit)

    def _core_of(self, rows: IntArray, limit: float) -> _Rows:
        """Return some groups of the pool with the choices within ``limit``."""
        assert self.price is not None
        pool = self.pool.take(rows)
        values = values_at(pool.cost, pool.damage, self.price)
        kept = ~(values * GUARD - self.first[rows][:, None] > limit)
        kept &= pool.cost - pool.cost.min(axis=1)[:, None] < PROHIBITIVE
        return _Rows(self.pool.places[rows], pool, self.base_columns[rows], kept)

    def _solve_core(
        self, rows: IntArray, limit: float, states: int, *, refine: bool = False
    ) -> tuple[Found, RelativeCore]:
        """Search the core of some groups, and take its answers if they are better."""
        part = self._core_of(rows, limit)
        better, most = self.better if self.best is not None else None, self.goal.capacity
        if not self.by_cost:
            most = self.base_damage - self.better
        core = self.model.core(part.places, part.pool, part.base, part.kept, self.slack, better, most, refine=refine)
        found = search(core.core, states, self.control, refine=refine)
        self.statistics["core_groups"] = len(rows)
        self.statistics["states"] += found.states
        if found.stop in (Stop.TIME_LIMIT, Stop.MEMORY_LIMIT):
            self.stop = found.stop
        # A choice that is ruled out has the numbers of the base's.
        index = np.arange(len(rows))
        if found.columns is not None:
            self._adopt(rows, np.where(core.kept[index, found.columns], found.columns, part.base))
        for _, columns in found.doubtful:
            adopted = self._adopt(rows, np.where(core.kept[index, columns], columns, part.base))
            if adopted and self.by_cost:
                break
        return found, core

    def _finish(self, rows: IntArray, limit: float, found: Found, core: RelativeCore) -> None:
        """Draw the conclusion from a search of the whole core."""
        if found.stop is not Stop.COMPLETED:
            self.stop = found.stop
            return
        if self._settled(found, core):
            return
        # 64 bits cannot tell some assignments apart: keep them all, and compare them exactly.
        limit = min(limit, self._limit() + 1.0) if self.by_cost else min(limit, self.gap)
        found, _ = self._solve_core(rows[self.behind[rows] <= limit], limit, self.states, refine=True)
        if found.stop is Stop.COMPLETED:
            self.proved = -self.better
        else:
            self.stop = found.stop

    def _settled(self, found: Found, core: RelativeCore) -> bool:
        """Set what a complete search proves, and return whether that closes the gap."""
        least = found.doubtful[0][0] if found.doubtful else found.gain
        if least is None:
            self.proved = -self.better
            return True
        if self.by_cost:
            self.proved = least
            return self.best is not None and least == -self.better
        self.proved = min(core.offset + (least << core.coarser), -self.better)
        base = of_units(self.base_damage) + self.instance.base_damage
        return float(base + of_units(self.proved)) == float(base - of_units(self.better))

    # -- the claim -----------------------------------------------------------------------------------------------

    def claim(self) -> Claim:
        """Return what was found and proved."""
        done = Enumeration(self.statistics["core_groups"], self.statistics["states"])
        if self.infeasible or (self.best is None and self.proved is not None):
            return Claim(lower_bound=math.inf, enumeration=done, statistics=self.statistics)
        choice = None
        if self.best is not None:
            self.__dict__.pop("pool", None)  # what it holds is not needed any more
            choice = self.base.astype(np.int64)
            choice[self.best[0]] = self.best[1]
        lower: Fraction | float = -math.inf
        if self.proved is not None:
            lower = (
                Fraction(self.base_cost + self.instance.base_cost + self.proved)
                if self.by_cost
                else of_units(self.base_damage + self.proved) + self.instance.base_damage
            )
        return Claim(
            choice,
            lower,
            self._multipliers(),
            None if self.proved is None else done,
            self.stop,
            self.statistics,
        )

    def _multipliers(self) -> dict[str, float]:
        if self.price is None:
            return {}
        if self.by_cost:
            return {} if self.instance.bound is None else {"bound": self.price}
        return {"budget": 0.0 if self.price >= LARGEST_PRICE else 1.0 / max(self.price, 1.0 / LARGEST_PRICE)}


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some groups of the pool.

    places (n,) in the instance, tables, base (n,), and the choices (n, K) that are kept.
    """

    places: IntArray
    pool: Pool
    base: IntArray
    kept: npt.NDArray[np.bool_]
