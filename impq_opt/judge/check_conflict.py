"""Checking why nothing is feasible, without trusting whoever says so: exact sums and an enumeration, no solver.

Of a diagnosis three things are checked, each by itself: with nothing but its conflict the problem is infeasible, with
any part of the conflict left out it is feasible, and the value that it states is the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from impq_opt.exactness.sums import ceil_float, nearest_float
from impq_opt.judge.together import BOUND, Case, Decision, Item, MiscompiledError, Verdict
from impq_opt.problem.allocation import Allocation, Diagnosis
from impq_opt.problem.problem import Problem

__all__ = ["Finding", "check_conflict"]

# More than a weight of as many digits as are read, times any sum of costs.
_BEYOND = Fraction(1 << 14_000)


class Finding(NamedTuple):
    """What became of one statement."""

    what: str
    verdict: Verdict
    text: str


def check_conflict(problem: Problem, allocation: Allocation, states: int = 1_000_000) -> list[Finding]:
    """Say what is proved of an allocation's claim that nothing is feasible, and of its diagnosis.

    Parameters
    ----------
    problem : Problem
    allocation : Allocation
        Its limits are the question; its status and diagnosis are not trusted.
    states : int
        Most partial assignments to look at for each statement; beyond it a claim stays a claim.

    Returns
    -------
    list of Finding
        The first is about the status: whether nothing is feasible under all limits, pins and ties.
    """
    try:
        return _findings(Case.of(problem, allocation, states), allocation.diagnosis)
    except MiscompiledError as error:
        text = f"is in part not what was compiled of it: {error}; please report this"
        return [_status(Decision(None)), Finding("question", "wrong", text)]


def _findings(case: Case, diagnosis: Diagnosis | None) -> list[Finding]:
    if diagnosis is None:
        return [_status(case.decide(frozenset(case.items)))]
    wrong = list(_misstated(case, diagnosis) if diagnosis.conflict else _without_conflict(case, diagnosis))
    if wrong:
        return [_status(case.decide(frozenset(case.items))), *wrong]
    return _check(case, diagnosis)


def _status(decision: Decision) -> Finding:
    if decision.feasible is None:
        return Finding("status", "claimed", "infeasible is claimed by the solver, not proved again here")
    if decision.feasible:
        return Finding("status", "wrong", "infeasible, and there is an answer that keeps every limit")
    return Finding("status", "proved", f"infeasible: {decision.how}")


def _check(case: Case, diagnosis: Diagnosis) -> list[Finding]:
    conflict = frozenset(diagnosis.conflict)
    whole = case.decide(conflict)
    named = " and ".join(map(case.name, diagnosis.conflict))
    if whole.feasible is False:
        status, first = _status(whole), Finding("conflict", "proved", f"{named} cannot be met: {whole.how}")
    else:
        status = _status(case.decide(frozenset(case.items)))
        text = "can be met" if whole.feasible else "is claimed by the solver to be out of reach, not proved again here"
        first = Finding("conflict", "wrong" if whole.feasible else "claimed", f"{named} {text}")
    findings = [status, first]
    if diagnosis.minimal:
        findings.append(_each_needed(case, diagnosis))
    findings.append(_smallest(case, diagnosis))
    if diagnosis.without is not None:
        subject = _subject(case, diagnosis)
        low, high = _standing_for(diagnosis.without, subject, -math.inf)
        verdict, text = case.least(subject, frozenset(), low, high)
        findings.append(Finding("without the rest", verdict, f"{diagnosis.without:.15g} {text}"))
    return findings


def _each_needed(case: Case, diagnosis: Diagnosis) -> Finding:
    open_ = []
    for item in diagnosis.conflict:
        decision = case.decide(frozenset(diagnosis.conflict) - {item})
        if decision.feasible is False:
            return Finding("each is needed", "wrong", f"without {case.name(item)} the others still cannot be met")
        if decision.feasible is None:
            open_.append(case.name(item))
    if open_:
        text = f"that without {open_[0]} there is an answer is claimed by the solver, not shown again here"
        return Finding("each is needed", "claimed", text)
    return Finding("each is needed", "proved", "without any one of them there is an answer")


def _smallest(case: Case, diagnosis: Diagnosis) -> Finding:
    subject = _subject(case, diagnosis)
    rest = frozenset(diagnosis.conflict) - {subject}
    low, high = _standing_for(diagnosis.smallest, subject, math.inf)
    verdict, text = case.least(subject, rest, low, high if diagnosis.attained else None)
    return Finding("smallest reachable", verdict, f"{diagnosis.limit} {diagnosis.smallest:.15g} {text}")


def _without_conflict(case: Case, diagnosis: Diagnosis) -> Iterator[Finding]:
    """Yield what can be said of a diagnosis that names no conflict."""
    subject = _subject(case, diagnosis)
    if not _finite(diagnosis):
        yield Finding("diagnosis", "wrong", "states numbers that are not finite")
    elif subject not in case.items:
        # Files of old call the limit of the cost that is minimised under "cost", and may name a step of a peak.
        yield Finding("diagnosis", "claimed", f"names no limit {diagnosis.limit} that could be checked")
    elif diagnosis.allowed not in (ceil_float(case.most(subject)), most := nearest_float(case.most(subject))):
        yield Finding("diagnosis", "wrong", f"the limit on {diagnosis.limit} is {most:.15g}")
    elif diagnosis.smallest < diagnosis.allowed and not math.isclose(
        diagnosis.smallest, diagnosis.allowed, rel_tol=2.0**-50
    ):
        yield Finding("diagnosis", "wrong", f"{diagnosis.limit} of {diagnosis.smallest:.15g} is within its limit")
    else:
        yield Finding("diagnosis", "claimed", "names no conflict that could be checked")


def _misstated(case: Case, diagnosis: Diagnosis) -> Iterator[Finding]:
    """Yield what a diagnosis says that is not even about this question."""
    conflict, subject = diagnosis.conflict, _subject(case, diagnosis)
    if not _finite(diagnosis):
        yield Finding("diagnosis", "wrong", "states numbers that are not finite")
        return
    unknown = [item for item in conflict if item not in case.items]
    if unknown or len(set(conflict)) < len(conflict):
        text = f"no such {unknown[0][0]}: {unknown[0][1]}" if unknown else "names the same twice"
        yield Finding("conflict", "wrong", text)
        return
    if subject not in conflict:
        yield Finding("conflict", "wrong", f"the limit on {diagnosis.limit} is not part of it")
        return
    most_exact = case.most(subject)
    most = ceil_float(most_exact)
    if diagnosis.allowed != most:
        yield Finding("allowed", "wrong", f"the limit on {diagnosis.limit} is {most:.15g}")
    # What it stands for was rounded down, and may be above the limit where the float64 is not.
    if diagnosis.smallest < diagnosis.allowed and _standing_for(diagnosis.smallest, subject, math.inf)[1] <= most_exact:
        text = f"{diagnosis.limit} of {diagnosis.smallest:.15g} is within {diagnosis.allowed:.15g}"
        yield Finding("smallest reachable", "wrong", text)
    others = [item for item in conflict if item != subject]
    if diagnosis.without is not None and not others:
        yield Finding("without the rest", "wrong", "there is no rest")
    said = diagnosis.held_by[: len(others)]
    matches = len(said) == len(others) and all(map(case.says, said, others))
    more = diagnosis.held_by[len(others) :]
    plain = subject == BOUND and all(kind in ("pins", "ties") for kind, _ in others)
    if not matches or (more and not (plain and list(more) == case.largest(frozenset(others)))):
        yield Finding("held by", "wrong", f"says {'; '.join(diagnosis.held_by) or 'nothing'}, and that is not so")


def _finite(diagnosis: Diagnosis) -> bool:
    # A limit beyond float64 is rounded up to infinity.
    allowed = 0.0 if diagnosis.allowed == math.inf else diagnosis.allowed
    return all(map(math.isfinite, (diagnosis.smallest, allowed, diagnosis.without or 0.0)))


def _subject(case: Case, diagnosis: Diagnosis) -> Item:
    """Return the limit that a diagnosis is about; of the bound and a budget on a cost called damage the one it says."""
    budget = ("budget", diagnosis.limit)
    meant = [item for item in ((BOUND, budget) if diagnosis.limit == "damage" else (budget,)) if item in case.items]
    return max(
        meant,
        key=lambda item: (item in diagnosis.conflict, ceil_float(case.most(item)) == diagnosis.allowed),
        default=budget,
    )


def _standing_for(stated: float, subject: Item, towards: float) -> tuple[Fraction, Fraction]:
    """Return the numbers between which is what a float64 stands for that was rounded away from ``towards``."""
    beside = math.nextafter(stated, towards)
    if subject == BOUND:  # the least damage is proved but for the last bit of its float64
        beside = math.nextafter(beside, towards)
    low, high = sorted((stated, beside))
    # The largest float64 stands for all that is above it.
    return Fraction(low), _BEYOND if high == math.inf else Fraction(high)
