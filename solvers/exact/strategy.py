"""Exact: a bracketed multiplier settles nearly all groups, and dynamic programming the core that is left.

1. A sample brackets the multiplier, one pass settles every group that the bracket cannot change, and the rest is
   priced the same way until its hulls can be sorted (:mod:`._exact_price`).
2. The end of the hull there is filled up greedily.
3. A choice whose reduced cost exceeds the gap is in no better answer (Ingargiola & Korsh 1979; Dyer, Kayal & Walker
   1984). The groups with another choice left, closest first, make a growing core (Pisinger 1995), solved over integers
   (:mod:`._exact_search`, :mod:`._exact_core`); each answer narrows the gap, until the core holds all of them.
4. Where the gap is wider than what the pass kept, one more pass at the final multiplier.

Other problems than those of single groups with one limit are enumerated first where they are small (:mod:`._small`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import ClassVar

from impq_opt.errors import OptionError
from impq_opt.instance.contract import Claim, Control, ExpiredError, Solver
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import is_local, without_constant
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers.exact.magnify import as_before, magnified
from impq_opt.solvers.exact.search import Search
from impq_opt.solvers.exact.small import enumerated
from impq_opt.solvers.exact.whole import beyond_floats, solve_whole
from impq_opt.solvers.lagrange.hull import Hulls

__all__ = ["Exact"]

# Assignments, and groups, that are enumerated where nothing else settles them.
_LAST_RESORT, _LARGEST_SMALL = 1 << 18, 64
# Groups that are branched on one inside the other.
_DEEPEST = 3
# Partial choices in Python's whole numbers, which take some hundred bytes each.
_MOST_WHOLE = 400_000


@dataclass(frozen=True)
class Exact(Solver):
    """Prove the optimum of any table shape, from a handful of groups to tens of millions.

    Prefer it always; it returns the best answer with its bound where time, memory or states run out. Strongly
    correlated or equal-ratio tables are what it finds hard, and several limits on thousands of groups, where a gap of
    about a millionth stays open. Costs that couple groups and limits on few groups are branched on (:mod:`._coupled`),
    other limits get a price each (:mod:`._budgets`), and the least of a peak is bisected (:mod:`._peak`).

    Parameters
    ----------
    states : int
        Most states of the core's dynamic programming to keep at once; beyond it the best answer so far is returned
        with the dual bound.
    """

    name: ClassVar[str] = "exact"
    summary: ClassVar[str] = "proves the optimum: dual bound, then dynamic programming over the open core"
    proves: ClassVar[str] = "optimal"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs", "peaks"})
    decides: ClassVar[bool] = True

    _hulls: ClassVar[Hulls | None] = None

    states: int = 5_000_000

    def __post_init__(self) -> None:
        if self.states < 1:
            raise OptionError("must be positive", where="exact.states", value=self.states)

    def with_hulls(self, hulls: Hulls) -> Exact:
        """Return the strategy for many bounds on one problem, whose hulls are known."""
        found = replace(self)
        object.__setattr__(found, "_hulls", hulls)
        return found

    def run(self, instance: Instance, control: Control) -> Claim:
        claim = Claim(stop=Stop.TIME_LIMIT)
        with suppress(ExpiredError):
            claim = self._run(instance, control)
            if instance.size <= _LARGEST_SMALL and not _settled(instance, claim):
                claim = enumerated(instance, control, min(_LAST_RESORT, self.states)) or claim
        several = instance.budgets or instance.coupled
        if claim.choice is None or claim.multipliers or not several or beyond_floats(instance):
            return claim
        from impq_opt.solvers.lagrange.dual import FEW_STEPS, dual_prices

        # An enumeration needs no prices; who reads the answer does.
        return replace(claim, multipliers=dual_prices(instance, control, FEW_STEPS))

    def _run(self, instance: Instance, control: Control) -> Claim:
        if instance.peaks:
            from impq_opt.solvers.exact.peak import solve_peak

            return solve_peak(instance, control, self._run_limited)
        return self._run_limited(instance, control)

    def _run_limited(self, instance: Instance, control: Control, enough: int | Fraction | None = None) -> Claim:
        """Solve an instance whose objective is a sum; with ``enough``, only find out whether that can be met."""
        known = without_constant(instance)
        if known is None:
            return Claim(lower_bound=math.inf, enumeration=Enumeration(0, 0))
        try:
            if (known.coupled or known.budgets) and beyond_floats(known):
                return enumerated(known, control) or solve_whole(known, control, min(self.states, _MOST_WHOLE))
            if not known.coupled and not any(map(is_local, known.budgets)):
                return self._run_single_groups(known, control)
            from impq_opt.solvers.exact.coupled import solve_coupled

            return enumerated(known, control) or solve_coupled(known, control, self._run_limited, enough=enough)
        except ExpiredError:  # before there was any answer
            return Claim(stop=Stop.TIME_LIMIT)

    def _run_single_groups(self, instance: Instance, control: Control) -> Claim:
        """Solve an instance without costs that couple groups."""
        if instance.budgets:
            from impq_opt.solvers.exact.budgets import solve_budgets

            return enumerated(instance, control) or solve_budgets(instance, control, min(self.states, 400_000))
        larger, shift = magnified(instance)
        hulls = None if shift else self._hulls  # they are those of the instance as it was
        return as_before(self._search(larger, control, hulls, _DEEPEST), instance, shift)

    def _search(self, instance: Instance, control: Control, hulls: Hulls | None, depth: int) -> Claim:
        search = Search(instance, control, self.states, hulls, branches=depth > 0)
        try:
            search.run()
            if search.outweighing is not None:
                from impq_opt.solvers.exact.branch import branch

                deeper = partial(self._search, control=control, hulls=None, depth=depth - 1)
                return branch(instance, *search.outweighing, search.claim(), deeper)
        except KeyboardInterrupt:
            search.stop = Stop.INTERRUPTED
        return search.claim()


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
