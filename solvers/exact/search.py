"""One run of the exact strategy after its relaxation: fill, and search growing cores until the gap is closed."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from impq_opt.exactness.sums import float_of, of_units, reported_as_low
from impq_opt.instance.contract import Claim, Control
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers.exact.cardinality import Trades, trades_of, trades_under_budget
from impq_opt.solvers.exact.core import search
from impq_opt.solvers.exact.fill import fill
from impq_opt.solvers.exact.model import RelativeCore
from impq_opt.solvers.exact.relax import Relaxed
from impq_opt.solvers.exact.scan import common_divisor
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.native.cores import closest, within
from impq_opt.solvers.native.passes import LARGEST_PRICE, Pool, Total, values_at
from impq_opt.solvers.native.program import CoreResult
from impq_opt.types import BoolArray, IntArray

__all__ = ["Search", "statistics_of"]


class Search:
    """The best answer near the base of a relaxation, and what is left of the gap.

    Parameters
    ----------
    relaxed : Relaxed
    control : Control
    states : int
        Most states of a core to keep at once.
    tuning : Tuning
    lattice : int, optional
        What divides all differences of costs inside a group, where it is known.
    branches : bool
        Whether one group that outweighs the others may be left to a search of its own for each candidate.
    """

    def __init__(
        self,
        relaxed: Relaxed,
        control: Control,
        states: int,
        tuning: Tuning,
        *,
        lattice: int | None = None,
        branches: bool = True,
    ) -> None:
        self.base, self.near, self.passes = relaxed.base, relaxed.near, relaxed.passes
        self.model, self.instance, self.by_cost = self.base.model, self.base.model.instance, self.base.model.by_cost
        self.control, self.states, self.tuning, self.branches = control, states, tuning, branches
        # The best answer: the base with other columns at some places.
        self.best: tuple[IntArray, IntArray] | None = None
        self.better = 0  # how far the best answer's objective is below the base's
        self.proved: int | None = None  # lower bound minus the base's objective
        self.infeasible = False
        self.outweighing: tuple[int, list[int]] | None = None  # a group to branch on, and its candidates
        self.lattice = lattice
        self.pool_lattice: int | None = None  # divides the differences of costs of the groups near the base
        self.stop = Stop.COMPLETED
        self.core_groups = self.looked = 0

    def run(self) -> None:
        """Fill and search."""
        if self.base.slack >= 0:
            self.best = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        elif not self.base.goal.reachable(self.instance):
            self.infeasible = True
            return
        self._fill()
        self._grow()

    @property
    def gap(self) -> float:
        """The best answer's objective minus the dual bound, in cost, at most; inf where there is none.

        Where damage is minimised, it is damage times the price.
        """
        if self.best is None:
            return math.inf
        better = float(self.better) if self.by_cost else float_of(self.better) * self.base.price
        gap = self.base.gap - better + 2.0**-48 * (self.base.gap + better)
        return math.inf if math.isnan(gap) else gap  # both overflow: nothing is known

    # -- the answer ----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Use up what the base leaves of the capacity, with the groups whose choice is closest."""
        if self.best is None or self.gap <= 0:
            return
        if len(self.near.pool) <= self.tuning.tiny:  # the core's search, which completes every state, is as quick
            return
        rows, _ = closest(self.near.behind, self.gap, self.tuning.fill_groups)
        pool = self.near.pool.take(rows)
        changes = self.tuning.fill_changes
        self._adopt(rows, fill(pool, self.near.columns[rows], self.base.goal, self.base.slack, changes))

    def _adopt(self, rows: IntArray, columns: IntArray, kept: BoolArray | None = None) -> bool:
        """Take the base with other ``columns`` in some rows of the pool if that is feasible and better.

        A column that is not ``kept`` (n, K) stands for the base's.
        """
        near = self.near
        rows, columns, saved, less = self.model.exchange(near.pool, rows, near.columns[rows], columns, kept)
        goal, gained = self.base.goal, Total(saved, less)
        fits = self.base.slack + goal.used(gained) >= 0
        better = goal.objective(gained)
        if not fits or (self.best is not None and better <= self.better):
            return False
        self.better = better
        self.best = (near.pool.places[rows], columns)
        return True

    # -- the proof -----------------------------------------------------------------------------------------------

    def _limit(self, lattice: int = 1) -> float:
        """Return the reduced cost that no choice of a better answer exceeds.

        ``lattice`` divides the cost of every such answer less the base's; 0 where no costs differ.
        """
        if not self.by_cost or self.best is None:
            return self.gap
        if lattice == 0:
            return -math.inf
        return self.gap - (lattice - self.better % lattice)

    def _limit_on_lattice(self) -> float:
        """Return the limit, with the lattice of the groups within it where the pool holds all of those."""
        limit = self._limit()
        if not self.by_cost or self.best is None or limit < 0:
            return limit
        if limit > self.near.threshold:
            # The lattice of all groups takes half a pass: look at it where that of the pool would make the difference.
            if self.lattice is None:
                if self.pool_lattice is None:
                    self.pool_lattice = common_divisor([self.near.pool.block])
                if self._limit(self.pool_lattice) > self.near.threshold:
                    return limit
                self.lattice = common_divisor(self.instance.blocks)
            limit = self._limit(self.lattice)
        while 0 <= limit <= self.near.threshold:
            rows, _ = closest(self.near.behind, limit, len(self.near.pool))
            tighter = self._limit(common_divisor([self.near.pool.take(rows).block]) if len(rows) else 0)
            if tighter >= limit:
                break
            limit = tighter
        return limit

    def _grow(self) -> None:
        """Solve growing cores until one holds every group that a better answer could change."""
        size = self.tuning.first_core
        while True:
            limit = self._limit_on_lattice()
            if self.control.expired():
                self.stop = Stop.TIME_LIMIT
                return
            if (limit < 0) if self.by_cost else (self.gap <= 0 and not self._worthless):
                self.proved = -self.better
                return
            complete = limit <= self.near.threshold
            rows, count = closest(self.near.behind, limit, size)
            if not complete and size >= count:
                self.near = self.base.near(limit)
                self.passes += 1
                self.pool_lattice = None
                continue
            if count == 0:  # no choice but the base's is left to a better answer
                self.proved = -self.better
                return
            if size > self.tuning.first_core and self.branches and count > self.tuning.open_groups:
                self.outweighing = self._largest(closest(self.near.behind, limit, count)[0], limit)
                if self.outweighing is not None:
                    return
            whole = complete and count <= size + size // 2
            if whole and count > size:
                rows, _ = closest(self.near.behind, limit, count)
            result, core = self._solve_core(
                rows, limit, self.states if whole else min(self.tuning.trial_states, self.states)
            )
            # Counting takes some hundred sorts: it is for what trial cores do not settle.
            if (result.stop is Stop.STATE_LIMIT or size > self.tuning.first_core) and self._counted():
                return
            if whole or self.stop is not Stop.COMPLETED:
                self._finish(rows, limit, result, core)
                return
            size *= self.tuning.growth

    def _largest(self, rows: IntArray, limit: float) -> tuple[int, list[int]] | None:
        """Return the group that the relaxation splits, and its candidates, where hardly another opens such a gap."""
        if self.instance.ties or not math.isfinite(limit):
            return None
        split = rows[self.near.behind[rows] <= 2.0**-20 * limit]
        if len(split) == 0 or np.quantile(self._spans(rows, limit), self.tuning.ordinary) > limit:
            return None
        place = split[self._spans(split, limit).argmax()]
        part = self._core_of(np.array([place]), limit)
        values = values_at(part.pool.cost, part.pool.damage, self.base.price)[0]
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
        if not self.tuning.counting or self.best is None or self.near.threshold != math.inf:
            return False
        if self.instance.ties or self._trades is None:
            return False
        trades, base, quantum = self._trades
        best = (self.base.goal.objective(self.near.taken) - self.better - base) // quantum
        if trades.bound(best) < best:
            return False
        self.proved = -self.better
        return True

    @cached_property
    def _trades(self) -> tuple[Trades, int, int] | None:
        """The pool as trades, and how their costs add up to its objective: a base, and what one is worth."""
        # Groups with nothing to choose are in no pool: what they cost and damage is no matter of it.
        capacity = self.base.slack + self.base.goal.used(self.near.taken)
        if not self.by_cost:
            return trades_under_budget(self.near.pool, capacity)
        trades = trades_of(self.near.pool, capacity)
        return None if trades is None else (trades, 0, 1)

    @property
    def _worthless(self) -> bool:
        """Whether damage has no price: the budget leaves equal costs only, whose tied damages are rounded."""
        return not self.base.price and bool(self.instance.ties)

    def _core_of(self, rows: IntArray, limit: float) -> _Rows:
        """Return some groups of the pool with the choices within ``limit``."""
        pool, kept = within(self.near.pool, rows, self.near.first, self.base.price, limit)
        return _Rows(self.near.pool.places[rows], pool, self.near.columns[rows], kept)

    def _solve_core(
        self, rows: IntArray, limit: float, states: int, *, refine: bool = False
    ) -> tuple[CoreResult, RelativeCore]:
        """Search the core of some groups, and take its answers if they are better."""
        part = self._core_of(rows, limit)
        better, most = self.better if self.best is not None else None, self.base.goal.capacity
        if not self.by_cost:
            most = self.base.damage - self.better
        core = self.model.core(
            part.places, part.pool, part.base, part.kept, self.base.slack, better, most, refine=refine
        )
        result = search(core.core, states, self.control, self.tuning, refine=refine)
        self.core_groups = len(rows)
        self.looked += result.states
        if result.stop in (Stop.TIME_LIMIT, Stop.MEMORY_LIMIT):
            self.stop = result.stop
        if result.columns is not None:
            self._adopt(rows, result.columns, core.kept)
        for _, columns in result.doubtful:
            adopted = self._adopt(rows, columns, core.kept)
            if adopted and self.by_cost:
                break
        return result, core

    def _finish(self, rows: IntArray, limit: float, result: CoreResult, core: RelativeCore) -> None:
        """Draw the conclusion from a search of the whole core."""
        if result.stop is not Stop.COMPLETED:
            self.stop = result.stop
            return
        if self._settled(result, core):
            return
        # 64 bits cannot tell some assignments apart: keep them all, and compare them exactly.
        limit = min(limit, self._limit() + 1.0) if self.by_cost else min(limit, self.gap)
        result, _ = self._solve_core(rows[self.near.behind[rows] <= limit], limit, self.states, refine=True)
        if result.stop is Stop.COMPLETED:
            self.proved = -self.better
        else:
            self.stop = result.stop

    def _settled(self, result: CoreResult, core: RelativeCore) -> bool:
        """Set what a complete search proves, and return whether that closes the gap."""
        least = result.doubtful[0][0] if result.doubtful else result.gain
        if least is None:
            self.proved = -self.better
            return True
        if self.by_cost:
            self.proved = least
            return self.best is not None and least == -self.better
        self.proved = min(core.offset + (least << core.coarser), -self.better)
        base = of_units(self.base.damage) + self.instance.base_damage
        return reported_as_low(base - of_units(self.better), base + of_units(self.proved))

    # -- the claim -----------------------------------------------------------------------------------------------

    def claim(self) -> Claim:
        """Return what was found and proved."""
        done = Enumeration(self.core_groups, self.looked)
        statistics = statistics_of(self.core_groups, self.looked, self.passes)
        if self.infeasible or (self.best is None and self.proved is not None):
            return Claim(lower_bound=math.inf, enumeration=done, statistics=statistics)
        choice = None
        if self.best is not None:
            self.__dict__.pop("near", None)  # what it holds is not needed any more
            choice = self.base.columns.astype(np.int64)
            choice[self.best[0]] = self.best[1]
        enumeration = None if self.proved is None else done
        return Claim(choice, self._lower(), self._multipliers(), enumeration, self.stop, statistics)

    def _lower(self) -> int | Fraction | float:
        """Return what is proved to be a lower bound on the objective, pinned groups included."""
        if self.proved is None:
            return -math.inf
        if self.by_cost:
            return self.base.cost + self.instance.base_cost + self.proved
        return of_units(self.base.damage + self.proved) + self.instance.base_damage

    def _multipliers(self) -> dict[str, float]:
        if self.by_cost:
            return {} if self.instance.bound is None else {"bound": self.base.price}
        price = self.base.price
        return {"budget": 0.0 if price >= LARGEST_PRICE else 1.0 / max(price, 1.0 / LARGEST_PRICE)}


def statistics_of(groups: int = 0, states: int = 0, passes: int = 0) -> dict[str, Any]:
    """Return what a run tells of itself: groups of its last core, states of all, passes over the tables."""
    return {"core_groups": groups, "states": states, "passes": passes}


class _Rows(NamedTuple):
    """Some groups of the pool.

    places (n,) in the instance, tables, base (n,), and the choices (n, K) that are kept.
    """

    places: IntArray
    pool: Pool
    base: IntArray
    kept: BoolArray
