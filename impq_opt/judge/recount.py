"""Proving again that nothing better exists: whole numbers, an enumeration of one's own, nothing shared with a solver.

For prices w >= 0 every assignment x that keeps all lines (:mod:`impq_opt.judge.lines`) has
sum_r w_r line_r(x) <= sum_r w_r limit_r. Where even the least priced sum is above that, there is none (Everett 1963).
Otherwise only choices whose excess over the least is within the room between the two can be part of one. They are few:
all their combinations are tried here, without those that another one beats in every line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from impq_opt.instance.instance import Instance
from impq_opt.judge.entries import Entries
from impq_opt.judge.enumeration import Bound, Enumerator, TooMany
from impq_opt.judge.hubs import Hubs, Open
from impq_opt.judge.interacting import prove_interacting
from impq_opt.judge.lines import Line, lines_of
from impq_opt.judge.outcome import Outcome, Recount
from impq_opt.judge.prices import is_priced, searched
from impq_opt.types import FloatArray, IntArray

__all__ = ["Outcome", "Recount", "prove_bound", "prove_infeasible"]

# States of an enumeration before hubs are gone through case by case.
_TRIED = 100_000
# Assignments that are tried sooner than prices are found.
_FEW = 4096


def prove_bound(
    instance: Instance,
    multipliers: Mapping[str, float],
    target: Fraction | int,
    *,
    states: int = 1_000_000,
    tangent: FloatArray | None = None,
) -> Recount:
    """Say whether any assignment that keeps the limits has an objective below ``target``.

    Parameters
    ----------
    multipliers : mapping
        As in a certificate; they need not be good, but good ones leave little to enumerate. Without any, some are
        searched for.
    target : Fraction or int
        In quanta where cost is minimised, in damage otherwise.
    states : int
        Most partial assignments to look at, bounds of cases counted in as many as take about as long; with 0 only what
        follows from the multipliers is proved.
    tangent : ndarray (r,), optional
        That of a certificate, where damages interact.
    """
    if instance.interacting:
        return prove_interacting(instance, multipliers, target, states, tangent)
    return _prove(instance, lines_of(instance, multipliers, target), states)


def prove_infeasible(
    instance: Instance, multipliers: Mapping[str, float] | None = None, *, states: int = 1_000_000
) -> Recount:
    """Say whether any assignment keeps the limits; parameters as for :func:`prove_bound`."""
    if instance.interacting:
        return prove_interacting(instance, {}, None, states, None)
    return _prove(instance, lines_of(instance, multipliers or {}, None), states)


def _prove(instance: Instance, lines: list[Line], states: int) -> Recount:
    every = np.arange(instance.size)
    if any(line.base + line.least(every) + line.least_pairs() > line.limit for line in lines):
        return Recount(Outcome.PROVED, 0, 0)
    if not lines:
        return Recount(Outcome.REFUTED, 0, 1, np.zeros(instance.size, dtype=np.int64))
    return _Branching(instance, Entries(lines, Hubs.of(instance, lines)), states).result(lines)


class _Branching:
    """Case by case: where one enumeration would take too many states, a hub's columns are gone through one by one.

    Each case has prices of its own, which leave it less room than those of the whole. What is ``spent`` are the partial
    assignments that were ``looked`` at and, in as many as take about as long, the bounds.
    """

    def __init__(self, instance: Instance, entries: Entries, states: int) -> None:
        self.instance, self.entries, self.states = instance, entries, states
        self.looked = self.spent = 0
        self.groups: set[int] = set()

    def result(self, lines: list[Line]) -> Recount:
        """Return what becomes of the statement that nothing keeps all lines."""
        open_ = [list(range(width)) for width in self.entries.hubs.widths]
        bound = self._bound(lines, open_)
        if (
            bound.room >= 0
            and not is_priced(lines, self.entries.hubs.held)
            and math.prod(self.instance.widths.tolist()) > _FEW
            and self.states
        ):
            bound = self._priced(lines, open_)
        if bound.room < 0:
            return Recount(Outcome.PROVED, 0, 0)
        self.spent = 0  # what is done once has an end
        try:
            better = self._visit(bound)
        except TooMany:
            return Recount(Outcome.OPEN, len(self.groups) or self.instance.size, self.looked)
        outcome = Outcome.PROVED if better is None else Outcome.REFUTED
        return Recount(outcome, len(self.groups), self.looked, better)

    def _priced(self, lines: Sequence[Line], open_: Open) -> Bound:
        """Return the bound at prices that leave little room; those of ``lines`` are where the search begins."""
        best = searched(lines, self.entries.hubs.held, lambda priced: self._bound(priced, open_).room)
        return self._bound(best, open_)

    def _bound(self, lines: Sequence[Line], open_: Open) -> Bound:
        bound = Bound(self.instance, lines, self.entries, open_)
        self.spent += bound.effort
        return bound

    def _visit(self, bound: Bound) -> IntArray | None:
        """Return an assignment that keeps all lines, or None where there is none."""
        if self.spent >= self.states:
            raise TooMany
        self.spent += bound.to_go.effort * sum(map(len, bound.open))
        excesses = [bound.excesses(place) for place in range(len(bound.open))]
        if not all(excesses):  # a hub has no column left
            return None
        if any(len(some) < len(open_) for some, open_ in zip(excesses, bound.open, strict=True)):
            bound = self._bound(bound.lines, list(map(sorted, excesses)))
        several = [place for place, some in enumerate(excesses) if len(some) > 1]
        left = max(self.states - self.spent, 1)
        enumerator = Enumerator(bound, min(left, _TRIED) if several else left)
        try:
            return enumerator.result()
        except TooMany:
            if not several:
                raise
        finally:
            self.looked += enumerator.looked
            self.spent += enumerator.looked
            self.groups |= enumerator.groups
        # The hub of which two columns are closest to each other is what the prices cannot decide.
        hub = min(several, key=lambda place: sorted(excesses[place].values())[1])
        for column in sorted(excesses[hub], key=lambda column: (excesses[hub][column], column)):
            open_ = [[column] if p == hub else sorted(some) for p, some in enumerate(excesses)]
            case = self._priced(bound.lines, open_)
            assignment = None if case.room < 0 else self._visit(case)
            if assignment is not None:
                return assignment
        return None
