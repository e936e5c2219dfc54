"""Exact: a bracketed multiplier settles nearly all groups, and dynamic programming the core that is left.

1. A sample brackets the multiplier, one pass settles every group that the bracket cannot change, and the rest is
   priced the same way until its hulls can be sorted (:mod:`.price`).
2. The end of the hull there is filled up greedily.
3. A choice whose reduced cost exceeds the gap is in no better answer (Ingargiola & Korsh 1979; Dyer, Kayal & Walker
   1984). The groups with another choice left, closest first, make a growing core (Pisinger 1995), solved over integers
   (:mod:`.search`, :mod:`.core`); each answer narrows the gap, until the core holds all of them.
4. Where the gap is wider than what the pass kept, one more pass at the final multiplier.

Other problems than those of single groups with one limit are enumerated first where they are small (:mod:`.small`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import ClassVar

import numpy as np

from impq_opt.errors import OptionError, UnsupportedError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError, Solver
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import is_local, without_constant, without_slack
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.registry import NO_OPTION
from impq_opt.solvers.exact.magnify import as_before, magnified
from impq_opt.solvers.exact.model import Model
from impq_opt.solvers.exact.price import OutOfReachError
from impq_opt.solvers.exact.relax import least_bytes, relax
from impq_opt.solvers.exact.scan import common_divisor
from impq_opt.solvers.exact.search import Search, statistics_of
from impq_opt.solvers.exact.small import enumerated
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.exact.whole import beyond_floats, solve_whole
from impq_opt.solvers.lagrange.hull import Hulls, Steps, hull_steps

__all__ = ["Exact", "Prepared"]


@dataclass(frozen=True)
class Exact(Solver):
    """Prove the optimum of any table shape, from a handful of groups to tens of millions.

    Prefer it always; it returns the best answer with its bound where time, memory or states run out. Strongly
    correlated or equal-ratio tables are what it finds hard, and several limits on thousands of groups, where a gap of
    about a millionth stays open. Costs that couple groups and limits on few groups are branched on (:mod:`.coupled`),
    other limits get a price each (:mod:`.budgets`), and the least of a peak is bisected (:mod:`.peak`).

    Parameters
    ----------
    states : int
        Most states of the core's dynamic programming to keep at once; beyond it the best answer so far is returned
        with the dual bound.
    """

    name: ClassVar[str] = "exact"
    summary: ClassVar[str] = "proves the optimum: dual bound, then dynamic programming over the open core"
    proves: ClassVar[str] = "optimal"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs", "peaks", "interactions"})
    decides: ClassVar[bool] = True

    states: int = 5_000_000
    # Where one way turns into another: measured, and for tests to shift.
    tuning: Tuning = field(default=Tuning(), repr=False, metadata=NO_OPTION)

    def __post_init__(self) -> None:
        if self.states < 1:
            raise OptionError("must be positive", where="exact.states", value=self.states)

    def run(self, instance: Instance, control: Control) -> Claim:
        return self._finished(instance, control, self._run)

    def prepared(self, instance: Instance, steps: Steps | None = None) -> Prepared:
        """Return what answers many bounds on the damage of one instance.

        Parameters
        ----------
        instance : Instance
            Of least cost, whose bound is of no matter.
        steps : Steps, optional
            The hull steps of its groups, best first, where they are known.

        Raises
        ------
        UnsupportedError
            Where damage is minimised, or the instance has further limits or costs that are no sum over single groups.
        """
        several = instance.budgets or instance.coupled or instance.peaks or instance.interacting
        if several or instance.objective is not instance.cost:
            raise UnsupportedError(
                "only the least cost of single groups under one bound can be prepared for many bounds"
            )
        if instance.size and magnified(instance)[1]:
            return Prepared(self, instance, None)
        steps = hull_steps(*instance.tables) if steps is None else steps
        cost = instance.cost_of(steps.start) - instance.base_cost
        damage = nearest_float(instance.damage_of(steps.start) - instance.base_damage)
        return Prepared(self, instance, Hulls(steps, cost, damage, common_divisor(instance.blocks)))

    def _finished(self, instance: Instance, control: Control, work: Callable[[Instance, Control], Claim]) -> Claim:
        """Return what ``work`` claims, enumerated where that is small and not settled, with prices for who reads it."""
        claim = Claim(stop=Stop.TIME_LIMIT)
        with suppress(ExpiredError):
            claim = work(instance, control)
            if instance.interacting:
                return claim
            if instance.size <= self.tuning.last_resort_groups and not _settled(instance, claim):
                claim = enumerated(instance, control, min(self.tuning.last_resort, self.states)) or claim
        several = instance.budgets or instance.coupled
        if claim.choice is None or claim.multipliers or not several or beyond_floats(instance):
            return claim
        from impq_opt.solvers.lagrange.dual import FEW_STEPS, dual_prices

        # An enumeration needs no prices; who reads the answer does.
        return replace(claim, multipliers=dual_prices(instance, control, FEW_STEPS))

    def _run(self, instance: Instance, control: Control) -> Claim:
        if instance.interacting:
            return self._run_interacting(instance, control)
        if instance.peaks:
            from impq_opt.solvers.exact.peak import solve_peak

            return solve_peak(instance, control, self._run_limited, self.tuning.enumerated)
        return self._run_limited(instance, control)

    def _run_interacting(self, instance: Instance, control: Control) -> Claim:
        if instance.peaks or instance.coupled:
            raise UnsupportedError(
                "damages that interact are not solved beside costs that couple groups, nor for the least of a peak; "
                "solver exhaustive does both where there are few groups"
            )
        from impq_opt.solvers.exact.interacting import solve_interacting

        # Objectives differ by multiples of that, so that an answer is better by one of them.
        lattice = max(common_divisor(instance.blocks), 1) if instance.objective.whole else 1
        return solve_interacting(instance, control, min(self.states, self.tuning.domains), lattice)

    def _run_limited(self, instance: Instance, control: Control, enough: int | Fraction | None = None) -> Claim:
        """Solve an instance whose objective is a sum; with ``enough``, only find out whether that can be met."""
        # Whether something can be met is found in the search over groups that limits hold together, so they stay.
        known = without_slack(instance) if enough is None else without_constant(instance)
        if known is None:
            return Claim(lower_bound=math.inf, enumeration=Enumeration(0, 0))
        tuning = self.tuning
        try:
            if (known.coupled or known.budgets) and beyond_floats(known):
                most = min(self.states, tuning.whole_states)
                return enumerated(known, control, tuning.enumerated) or solve_whole(known, control, most)
            if not known.coupled and not any(map(is_local, known.budgets)):
                return self._run_single_groups(known, control)
            from impq_opt.solvers.exact.coupled import solve_coupled

            return enumerated(known, control, tuning.enumerated) or solve_coupled(
                known, control, self._run_limited, joined=tuning.joined, enough=enough
            )
        except ExpiredError:  # before there was any answer
            return Claim(stop=Stop.TIME_LIMIT)

    def _run_single_groups(self, instance: Instance, control: Control) -> Claim:
        """Solve an instance without costs that couple groups."""
        if not instance.budgets:
            return self._run_one_limit(instance, control)
        from impq_opt.solvers.exact.budgets import solve_budgets

        most = min(self.states, self.tuning.budget_states)
        return enumerated(instance, control, self.tuning.enumerated) or solve_budgets(instance, control, most)

    def _run_one_limit(self, instance: Instance, control: Control) -> Claim:
        """Solve an instance of single groups with one limit."""
        larger, shift = magnified(instance)
        return as_before(self._search(larger, control), instance, shift)

    def _search(
        self, instance: Instance, control: Control, hulls: Hulls | None = None, depth: int | None = None
    ) -> Claim:
        """Relax, with the ``hulls`` where they are known, and search.

        A group that outweighs the others is branched on, ``depth`` times at most.
        """
        depth = self.tuning.deepest if depth is None else depth
        if control.memory_limit is not None and least_bytes(instance, self.tuning) > control.memory_limit:
            return Claim(stop=Stop.MEMORY_LIMIT, statistics=statistics_of())
        search: Search | None = None
        try:
            # What overflows or is undefined on the way counts as nothing known.
            with np.errstate(over="ignore", invalid="ignore"):
                lattice = None if hulls is None else hulls.lattice
                relaxed = relax(Model(instance), hulls, self.tuning)
                search = Search(relaxed, control, self.states, self.tuning, lattice=lattice, branches=depth > 0)
                del relaxed  # what is near the base is the search's to let go of
                search.run()
            if search.outweighing is not None:
                from impq_opt.solvers.exact.branch import branch

                deeper = partial(self._search, control=control, depth=depth - 1)
                return branch(instance, *search.outweighing, search.claim(), deeper)
        except OutOfReachError:
            return Claim(lower_bound=math.inf, enumeration=Enumeration(0, 0), statistics=statistics_of())
        except KeyboardInterrupt:
            if search is None:
                return Claim(stop=Stop.INTERRUPTED, statistics=statistics_of())
            search.stop = Stop.INTERRUPTED
        return search.claim()


@dataclass(frozen=True, eq=False)
class Prepared:
    """One instance, and what was worked out of its tables once: bound after bound is answered from that.

    Parameters
    ----------
    strategy : Exact
    instance : Instance
    hulls : Hulls or None
        The sorted hull steps of its groups, and what divides all differences of their costs; None where its damages are
        so small that they are magnified for each bound.
    """

    strategy: Exact
    instance: Instance
    hulls: Hulls | None

    def run(self, instance: Instance, control: Control) -> Claim:
        """Return what the strategy claims about ``instance``, the prepared one with any bound."""
        strategy = self.strategy
        if self.hulls is None:
            return strategy._finished(instance, control, strategy._run_one_limit)
        return strategy._finished(instance, control, partial(strategy._search, hulls=self.hulls))


def _settled(instance: Instance, claim: Claim) -> bool:
    """Return whether nothing is left to find out, or no time or memory to do so.

    A search over many decades can end without: 64 bits then do not tell apart what it compares.
    """
    if claim.stop not in (Stop.COMPLETED, Stop.STATE_LIMIT):
        return True
    if claim.enumeration is None or claim.choice is None:
        return claim.enumeration is not None and claim.lower_bound == math.inf
    if not (instance.budgets or instance.coupled or instance.peaks):
        return True  # one limit: what is searched to the end is settled
    return instance.objective.closes(claim.lower_bound, instance.objective_of(claim.choice))
