"""One run of the exact strategy: relax, fill, and search growing cores until the gap is closed."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import float_of, of_units, reported_as_low
from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers.exact.cardinality import Pairs, pairs_of, pairs_under_budget
from impq_opt.solvers.exact.core import Found, search
from impq_opt.solvers.exact.fill import fill
from impq_opt.solvers.exact.model import RelativeCore
from impq_opt.solvers.exact.price import OutOfReachError
from impq_opt.solvers.exact.relax import TINY, Relaxation
from impq_opt.solvers.exact.scan import LARGEST_PRICE, Pool, closest, common_divisor, values_at, within
from impq_opt.solvers.lagrange.hull import Hulls
from impq_opt.types import IntArray

__all__ = ["Search"]


_FIRST_CORE, _GROWTH = 48, 4
# From so many open groups on, settling one that outweighs the others is worth a search of its own for each candidate.
_OPEN = 1024
# Such a share of the open groups must span less than the gap: it is then none of theirs.
_ORDINARY = 0.99
# States of a core that is only one step of the growth.
_TRIAL_STATES = 200_000
_FILL_GROUPS = 2048


class Search(Relaxation):
    """One run: the relaxation, the best answer, and what is left of the gap.

    ``gap`` is an upper bound on best - dual bound, in cost: where damage is minimised, damage times the price.
    """

    def __init__(
        self, instance: Instance, control: Control, states: int, hulls: Hulls | None = None, branches: bool = True
    ) -> None:
        super().__init__(instance, hulls)
        self.control, self.states, self.branches = control, states, branches
        # The best answer: the base with other columns at some places.
        self.best: tuple[IntArray, IntArray] | None = None
        self.better = 0  # how far the best answer's objective is below the base's
        self.proved: int | None = None  # lower bound minus the base's objective
        self.infeasible = False
        self.outweighing: tuple[int, list[int]] | None = None  # a group to branch on, and its candidates
        self.lattice = None if hulls is None else hulls.lattice  # divides all differences of costs
        self.pool_lattice: int | None = None  # divides those of the pool
        self.stop = Stop.COMPLETED
        self.statistics: dict[str, Any] = {"core_groups": 0, "states": 0}

    def run(self) -> None:
        """Relax, fill and search; what overflows or is undefined on the way counts as nothing known."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._run()

    def _run(self) -> None:
        limit = self.control.memory_limit
        if limit is not None and self.least_bytes() > limit:
            self.stop = Stop.MEMORY_LIMIT
            return
        try:
            self.relax()
        except OutOfReachError:
            self.infeasible = True
            return
        if self.slack >= 0:
            self.best = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        elif not self.reachable():
            self.infeasible = True
            return
        self._fill()
        self._grow()

    @property
    def gap(self) -> float:
        """The best answer's objective minus the dual bound, in cost, at most; inf where there is none."""
        if self.best is None:
            return math.inf
        assert self.price is not None
        better = float(self.better) if self.by_cost else float_of(self.better) * self.price
        found = self.base_gap - better + 2.0**-48 * (self.base_gap + better)
        return math.inf if math.isnan(found) else found  # both overflow: nothing is known

    # -- the answer ----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Use up what the base leaves of the capacity, with the groups whose choice is closest."""
        if self.best is None or self.gap <= 0:
            return
        if len(self.pool) <= TINY:  # the core's search, which completes every state, is as quick
            return
        assert self.price is not None
        rows, _ = closest(self.behind, self.gap, _FILL_GROUPS)
        pool = self.pool.take(rows)
        columns = fill(pool, self.base_columns[rows], self.by_cost, self.slack)
        self._adopt(rows, columns)

    def _adopt(self, rows: IntArray, columns: IntArray, kept: npt.NDArray[np.bool_] | None = None) -> bool:
        """Take the base with other ``columns`` in some rows of the pool if that is feasible and better.

        A column that is not ``kept`` (n, K) stands for the base's.
        """
        rows, columns, saved, less = self.model.exchange(self.pool, rows, self.base_columns[rows], columns, kept)
        fits = self.slack + (less if self.by_cost else saved) >= 0
        better = saved if self.by_cost else less
        if not fits or (self.best is not None and better <= self.better):
            return False
        self.better = better
        self.best = (self.pool.places[rows], columns)
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
        if limit > self.threshold:
            # The lattice of all groups takes half a pass: look at it where that of the pool would make the difference.
            if self.lattice is None:
                if self.pool_lattice is None:
                    self.pool_lattice = common_divisor([self.pool.block])
                if self._limit(self.pool_lattice) > self.threshold:
                    return limit
                self.lattice = common_divisor(self.instance.blocks)
            limit = self._limit(self.lattice)
        while 0 <= limit <= self.threshold:
            rows, _ = closest(self.behind, limit, len(self.pool))
            tighter = self._limit(common_divisor([self.pool.take(rows).block]) if len(rows) else 0)
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
            rows, count = closest(self.behind, limit, size)
            if not complete and size >= count:
                self.pass_again(limit)
                self.pool_lattice = None
                continue
            if count == 0:  # no choice but the base's is left to a better answer
                self.proved = -self.better
                return
            if size > _FIRST_CORE and self.branches and count > _OPEN:
                self.outweighing = self._largest(closest(self.behind, limit, count)[0], limit)
                if self.outweighing is not None:
                    return
            whole = complete and count <= size + size // 2
            if whole and count > size:
                rows, _ = closest(self.behind, limit, count)
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
        if self.best is None or self.threshold != math.inf or self.instance.ties or self._pairs is None:
            return False
        pairs, base, quantum = self._pairs
        best = ((self.taken.cost if self.by_cost else self.taken.damage) - self.better - base) // quantum
        if pairs.bound(best) < best:
            return False
        self.proved = -self.better
        return True

    @cached_property
    def _pairs(self) -> tuple[Pairs, int, int] | None:
        """The pool as pairs, and how their costs add up to its objective: a base, and what one is worth."""
        # Groups with nothing to choose are in no pool: what they cost and damage is no matter of it.
        capacity = self.slack + self.goal.used(self.taken)
        if not self.by_cost:
            return pairs_under_budget(self.pool, capacity)
        found = pairs_of(self.pool, capacity)
        return None if found is None else (found, 0, 1)

    @property
    def _worthless(self) -> bool:
        """Whether damage has no price: the budget leaves equal costs only, whose tied damages are rounded."""
        return not self.price and bool(self.instance.ties)

    def _core_of(self, rows: IntArray, limit: float) -> _Rows:
        """Return some groups of the pool with the choices within ``limit``."""
        assert self.price is not None
        pool, kept = within(self.pool, rows, self.first, self.price, limit)
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
        if found.columns is not None:
            self._adopt(rows, found.columns, core.kept)
        for _, columns in found.doubtful:
            adopted = self._adopt(rows, columns, core.kept)
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
        return reported_as_low(base - of_units(self.better), base + of_units(self.proved))

    # -- the claim -----------------------------------------------------------------------------------------------

    def claim(self) -> Claim:
        """Return what was found and proved."""
        self.statistics["passes"] = self.passes
        done = Enumeration(self.statistics["core_groups"], self.statistics["states"])
        if self.infeasible or (self.best is None and self.proved is not None):
            return Claim(lower_bound=math.inf, enumeration=done, statistics=self.statistics)
        choice = None
        if self.best is not None:
            self.__dict__.pop("pool", None)  # what it holds is not needed any more
            choice = self.base.astype(np.int64)
            choice[self.best[0]] = self.best[1]
        lower: int | Fraction | float = -math.inf
        if self.proved is not None:
            lower = (
                self.base_cost + self.instance.base_cost + self.proved
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


class _Rows(NamedTuple):
    """Some groups of the pool.

    places (n,) in the instance, tables, base (n,), and the choices (n, K) that are kept.
    """

    places: IntArray
    pool: Pool
    base: IntArray
    kept: npt.NDArray[np.bool_]
