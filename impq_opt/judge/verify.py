"""``verify``: recompute everything that an allocation says, and tell what is proved from what is only claimed.

The judge shares sums without rounding and the compiled question with the solvers, and nothing else; it holds the
question against the problem too. What is recomputed: cost, damage, limits, pins and ties (exactly, from the problem),
the numbers that people read, the lower bound that the multipliers prove, and, where a claim rests on a solver's
enumeration, that enumeration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.errors import AllocationError
from impq_opt.exactness.sums import ceil_float, floor_float, nearest_float
from impq_opt.instance.instance import Instance
from impq_opt.instance.question import asked
from impq_opt.judge.check_conflict import check_conflict
from impq_opt.judge.checks import Check, Verdict, Verification
from impq_opt.judge.declared import Question, broken_rule, cost_of, damage_of, disagreement
from impq_opt.judge.recount import Outcome, Recount, prove_bound, prove_infeasible
from impq_opt.judge.statements import false_statements
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.plain import number
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import few
from impq_opt.types import IntArray

__all__ = ["verify"]


def verify(problem: Problem, allocation: Allocation, *, states: int = 1_000_000) -> Verification:
    """Recompute everything that ``allocation`` says about ``problem``.

    Parameters
    ----------
    problem : Problem
        What it answers; of an answer to a revision that its file states, the revised problem or the one before.
    allocation : Allocation
        Fresh from :func:`impq_opt.solve`, or read from a file: what it states is not trusted.
    states : int
        Most partial assignments to look at when an enumeration is repeated, bounds counted in as many as take about as
        long; beyond it a claim stays a claim.

    Raises
    ------
    AllocationError
        Where it answers another problem, or no question at all.

    Examples
    --------
    >>> import impq_opt
    >>> problem = impq_opt.Problem.from_sensitivities([9216, 432], [2.1531e-5, 1.64e-7], bits=[2, 4, 8])
    >>> verification = verify(problem, impq_opt.solve(problem, bound=1e-6))
    >>> verification.ok, verification.proved
    (True, True)
    """
    origin = allocation.origin
    if origin is not None and origin.digest == problem.digest:
        problem = allocation.problem
    elif allocation.problem is not problem and allocation.problem.digest != problem.digest:
        raise AllocationError(
            "answers another problem",
            where="allocation",
            value=allocation.problem.digest[:12],
            hint=f"this problem's digest is {problem.digest[:12]}",
        )
    if origin is not None and problem.weights().all():
        origin = origin.revise(weights_only=True)  # which the question tells
    instance = asked(problem, allocation)
    checks = [Check("question", Verdict.TOLD, _question(problem, allocation))]
    checks += _limits_kept(problem if origin is None else origin, allocation)
    if origin is not None:
        checks += _loosened(origin, problem)
    differs = disagreement(instance, Question.of(allocation))
    if differs:
        checks.append(
            Check("question", Verdict.WRONG, f"is not what was compiled of it: {differs}; please report this")
        )
    recomputed, broken = _choice_checks(instance, problem, allocation)
    bound_checks, lower = _bound_checks(instance, allocation, recomputed, states)
    if recomputed is not None or allocation.choice is None:  # of no choice nothing can be said
        broken += _statement_checks(allocation)
    checks += [*broken, *bound_checks, _how(allocation)]
    return Verification(tuple(checks), -math.inf if differs else lower)


# -- what was asked --------------------------------------------------------------------------------------------------


def _question(problem: Problem, allocation: Allocation) -> str:
    """Return in words what the answer says to answer."""
    cost = " + ".join(allocation.cost_weights)
    limits = [f"damage <= {nearest_float(allocation.bound):.15g}"] if allocation.bound is not None else []
    limits += [f"{name} <= {nearest_float(limit):.15g}" for name, limit in allocation.budgets.items()]
    aim = cost if allocation.minimizes == "cost" else "damage"
    rules = [f"{len(which)} {what}" for which, what in ((problem.pins, "pins"), (problem.ties, "ties")) if which]
    text = f"least {aim} with {', '.join([*limits, *rules])}"
    own = None if problem.bound is None else Fraction(problem.bound)
    if own is not None and (allocation.bound is None or allocation.bound > own):
        text += f" (the problem's own bound, {nearest_float(own):.15g}, is not asked for)"
    if allocation.origin is None:
        return text
    alone = " for its weights alone" if len(problem) != len(allocation.origin) else ""
    return f"{text}, a revision of the file's problem{alone}"


def _limits_kept(problem: Problem, allocation: Allocation) -> Iterator[Check]:
    """Yield a check for each budget of the problem that the question dropped or loosened."""
    for name, limit in problem.budgets.items():
        stated = allocation.budgets.get(name)
        if stated is None or stated > limit:
            text = (
                f"the problem's limit is {number(limit)}, the answer's {'none' if stated is None else number(stated)}"
            )
            yield Check(f"budget {name}", Verdict.WRONG, text)


def _loosened(origin: Problem, revised: Problem) -> Iterator[Check]:
    """Yield a check for each rule of a file's problem that the revision in an answer takes back.

    A revision may ask for more: fewer candidates, further pins, ties and budgets, raised damages.
    """
    for group, column in origin.pins.items():
        if origin.unmeasured is not None and origin.unmeasured[group]:
            continue  # whatever it takes, its damage is not called proved
        now = revised.pins.get(group)
        if now is None or _candidate(revised, group, now) != _candidate(origin, group, column):
            yield Check(f"pin {origin.names[group]}", Verdict.WRONG, "the answer's revision takes it back")
    if not set(origin.ties) <= set(revised.ties) and not all(
        any(set(tie) <= set(other) for other in revised.ties) for tie in origin.ties
    ):
        yield Check("ties", Verdict.WRONG, "the answer's revision takes one back")
    last = origin.candidates.counts(len(origin)) - 1
    for column in range(origin.candidates.width):
        choice = np.minimum(column, last)
        lower = _damage_at(revised, origin, choice) < origin.damage.chosen(origin.candidates, choice)
        if lower.any():
            name = origin.names[int(lower.argmax())]
            yield Check("damage", Verdict.WRONG, f"the answer's revision lowers that of {name}")
            return


def _damage_at(revised: Problem, origin: Problem, choice: IntArray) -> npt.NDArray[np.float64]:
    """Return the damage (G,) in ``revised`` of candidates (G,) of ``origin``; inf where they are none any more."""
    taken, there = np.zeros(len(choice), dtype=np.int64), np.zeros(len(choice), dtype=np.bool_)
    old, new = origin.candidates.numbers(len(choice)), revised.candidates.numbers(len(choice))
    pairs, which = np.unique(old * len(revised.candidates.sets) + new, return_inverse=True)
    for pair in range(len(pairs)):
        members = np.flatnonzero(which == pair)
        group = int(members[0])  # the others have the same candidates, before and after
        column = revised.candidates.tied(group).get(_candidate(origin, group, int(choice[group])))
        if column is not None:
            taken[members], there[members] = column, True
    return np.where(there, revised.damage.chosen(revised.candidates, taken), np.inf)


def _candidate(problem: Problem, group: int, column: int) -> tuple[float, str]:
    """Return precision and format of a candidate: formats of one width are told apart."""
    return list(problem.candidates.tied(group))[column]


# -- the choice ------------------------------------------------------------------------------------------------------


def _choice_checks(
    instance: Instance, problem: Problem, allocation: Allocation
) -> tuple[_Recomputed | None, list[Check]]:
    """Return what the choice costs and damages where it is one, and the checks of it."""
    if allocation.choice is None:
        return None, []
    choice = np.asarray(allocation.choice)
    if choice.shape != (len(problem),) or choice.dtype.kind not in "iu":
        return None, [Check("choice", Verdict.WRONG, f"must be {len(problem)} whole numbers, got {choice.shape}")]
    outside = np.flatnonzero((choice < 0) | (choice >= problem.candidates.counts(len(problem))))
    if len(outside):
        return None, [Check("choice", Verdict.WRONG, f"{problem.names[int(outside[0])]} has no such candidate")]
    choice = choice.astype(np.int64)
    broken = broken_rule(problem, choice)
    if broken:
        return None, [Check("pins and ties", Verdict.WRONG, broken)]
    recomputed = _Recomputed.of(instance, allocation, choice)
    checks = []
    if problem.pins or problem.ties:
        kept = [f"{len(which)} {what}" for which, what in ((problem.pins, "pins"), (problem.ties, "ties")) if which]
        checks.append(Check("pins and ties", Verdict.PROVED, f"{' and '.join(kept)} kept"))
    checks.append(_equal("cost", recomputed.cost, allocation.exact_cost))
    checks += _damage_checks(problem, allocation, recomputed)
    return recomputed, checks


def _damage_checks(problem: Problem, allocation: Allocation, recomputed: _Recomputed) -> Iterator[Check]:
    """Yield the checks of the damage and of the limits; a sum that lacks groups is a claim, and so is its bound."""
    damage, unknown = _equal("damage", recomputed.damage, allocation.exact_damage), allocation.unknown
    lacks = f"no damage is known of {few(problem.names, unknown)}"
    if len(unknown) and damage.verdict is Verdict.PROVED:
        damage = Check("damage", Verdict.CLAIMED, f"{damage.text} from what is declared, and {lacks}")
    yield damage
    if not recomputed.feasible:
        yield Check("limits", Verdict.WRONG, f"breaks its {' and its '.join(recomputed.broken)}")
    elif len(unknown) and allocation.bound is not None:
        yield Check("limits", Verdict.CLAIMED, f"every limit is kept by what is declared, and {lacks}")
    else:
        yield Check("limits", Verdict.PROVED, "every limit is kept, decided exactly")


@dataclass(frozen=True)
class _Recomputed:
    """What a choice costs, in the cost's unit, and damages, exactly; and which limits it breaks."""

    cost: Fraction
    damage: Fraction
    broken: tuple[str, ...]

    @classmethod
    def of(cls, instance: Instance, allocation: Allocation, choice: IntArray) -> _Recomputed:
        problem, weights = instance.problem, allocation.cost_weights
        cost, damage = cost_of(problem, weights, choice), damage_of(problem, choice)
        broken = ["bound"] if allocation.bound is not None and damage > allocation.bound else []
        for name, limit in allocation.budgets.items():
            if name == "+".join(weights) and allocation.minimizes == "damage":
                broken += ["budget"] if cost > limit else []
            elif cost_of(problem, {name: 1}, choice) > limit:
                broken.append(name)
        return cls(cost, damage, tuple(broken))

    @property
    def feasible(self) -> bool:
        return not self.broken


def _equal(name: str, recomputed: Fraction, stated: Fraction | None) -> Check:
    if recomputed == stated:
        return Check(name, Verdict.PROVED, f"{nearest_float(recomputed):.15g}, recomputed exactly")
    text = "nothing" if stated is None else f"{nearest_float(stated):.15g}"
    return Check(name, Verdict.WRONG, f"is {nearest_float(recomputed):.15g}, stated is {text}")


def _statement_checks(allocation: Allocation) -> Iterator[Check]:
    """Yield a check for each number for people that is false, or one for all of them."""
    wrong = [Check(name, Verdict.WRONG, text) for name, text in false_statements(allocation)]
    if allocation.choice is None:
        wrong += [
            Check(name, Verdict.WRONG, f"stated is {nearest_float(value):.15g}, of no choice")
            for name, value in (("cost", allocation.exact_cost), ("damage", allocation.exact_damage))
            if value is not None
        ]
    elif allocation.diagnosis is not None:
        wrong.append(Check("diagnosis", Verdict.WRONG, "says why there is no answer, beside one"))
    yield from wrong
    if allocation.stated and not wrong:
        names = ", ".join(allocation.stated)
        yield Check("statements", Verdict.PROVED, f"{names} follow from the exact values")


def _how(allocation: Allocation) -> Check:
    """Return what is said of how the answer came about, which proves nothing and needs no proof."""
    told = [f"solver {allocation.solver}"] if allocation.solver else []
    told += [f"{name} {value}" for name, value in allocation.options.items()]
    told += [f"seed {allocation.seed}", f"{allocation.seconds:.3g} s", f"stop: {allocation.stop.value}"]
    enumeration = allocation.certificate.enumeration if allocation.certificate else None
    if enumeration is not None:
        told.append(f"its own enumeration {enumeration.groups} groups, {enumeration.states} states")
    told += [f"statistics {', '.join(map(str, allocation.statistics))}"] if allocation.statistics else []
    return Check("how", Verdict.TOLD, f"{', '.join(told)}: told, not checked")


# -- bounds ----------------------------------------------------------------------------------------------------------


def _bound_checks(
    instance: Instance, allocation: Allocation, recomputed: _Recomputed | None, states: int
) -> tuple[list[Check], Fraction | float]:
    checks: list[Check] = []
    given = dict(allocation.certificate.multipliers) if allocation.certificate else {}
    multipliers = {name: value for name, value in given.items() if 0 <= value < math.inf}
    tangent = allocation.certificate.tangent if allocation.certificate else None
    if len(multipliers) < len(given):
        checks.append(Check("multipliers", Verdict.WRONG, "must be finite and not negative"))
    unknown = given.keys() - instance.multiplier_names
    if unknown:
        checks.append(Check("multipliers", Verdict.WRONG, f"no such limit: {', '.join(sorted(unknown))}"))
    if allocation.certificate is not None and allocation.certificate.quantum != instance.quantum:
        text = f"is {instance.quantum}, stated is {allocation.certificate.quantum}"
        checks.append(Check("quantum", Verdict.WRONG, text))
    counted = allocation.certificate.enumeration if allocation.certificate else None
    if counted is not None and not (0 <= counted.groups <= len(instance.problem) and counted.states >= 0):
        text = f"of {counted.groups} groups and {counted.states} states, where there are {len(instance.problem)} groups"
        checks.append(Check("enumeration", Verdict.WRONG, text))
    if allocation.status is Status.INFEASIBLE:
        return [*checks, *_infeasible(instance, allocation, states)], -math.inf
    lower: Fraction | float = -math.inf
    for name, claimed in (
        ("dual bound", allocation.certificate.dual_bound if allocation.certificate else -math.inf),
        ("lower bound", allocation.exact_lower_bound),
    ):
        if claimed == -math.inf:
            continue
        if claimed == math.inf:
            checks.append(Check(name, Verdict.WRONG, "is infinite, which is to say that nothing is feasible"))
            continue
        few = states if name == "lower bound" else 0
        recount = prove_bound(
            instance, multipliers, Fraction(claimed) / instance.objective.quantum, states=few, tangent=tangent
        )
        checks.append(_bound_check(name, Fraction(claimed), recount, instance))
        if recount.outcome is Outcome.PROVED:
            lower = max(lower, Fraction(claimed))
    checks.append(_status_check(allocation, recomputed, lower))
    return checks, lower


def _bound_check(name: str, claimed: Fraction, recount: Recount, instance: Instance) -> Check:
    text = f"{nearest_float(claimed):.15g}"
    if recount.outcome is Outcome.PROVED and recount.states == 0:
        return Check(name, Verdict.PROVED, f"{text} follows from {_shown(instance)} alone")
    if name == "dual bound":
        return Check(name, Verdict.WRONG, f"{text} does not follow from {_shown(instance)}")
    where = f"a core of {recount.groups} groups, {recount.states:,} partial assignments"
    if recount.outcome is Outcome.PROVED:
        return Check(name, Verdict.PROVED, f"{text}: nothing is below it; enumerated again, {where}")
    if recount.outcome is Outcome.REFUTED:
        assert recount.better is not None
        choice, problem = instance.lift(recount.better), instance.problem
        whole = instance.objective.whole
        value = cost_of(problem, instance.row.weights, choice) if whole else damage_of(problem, choice)
        return Check(name, Verdict.WRONG, f"{text}, and {nearest_float(value):.15g} can be reached; {where}")
    return Check(name, Verdict.CLAIMED, f"{text} rests on the solver's enumeration, too large to repeat here ({where})")


def _shown(instance: Instance) -> str:
    return "the multipliers and the tangent" if instance.interacting else "the multipliers"


def _status_check(allocation: Allocation, recomputed: _Recomputed | None, lower: Fraction | float) -> Check:
    stated = allocation.status.value
    if recomputed is None or not recomputed.feasible:
        if allocation.status is Status.UNKNOWN and allocation.choice is None:
            return Check("status", Verdict.CLAIMED, "unknown: no answer is given, and none is ruled out")
        why = "there is no choice that is one" if recomputed is None else "the choice keeps not every limit"
        return Check("status", Verdict.WRONG, f"{stated}, and {why}")
    if allocation.status is Status.OPTIMAL:
        return Check("status", *_optimal(allocation, recomputed, lower))
    if allocation.status is Status.FEASIBLE:
        return Check("status", Verdict.PROVED, "feasible")
    return Check("status", Verdict.WRONG, f"{stated}, and there is an answer that keeps every limit")


def _optimal(allocation: Allocation, recomputed: _Recomputed, lower: Fraction | float) -> tuple[Verdict, str]:
    by_cost = allocation.minimizes == "cost"
    objective = recomputed.cost if by_cost else recomputed.damage
    # Damages are compared as they are reported, rounded once to a float64.
    if _reaches(lower, objective, by_cost):
        return Verdict.PROVED, "optimal: the proved lower bound meets the objective"
    if not _reaches(allocation.exact_lower_bound, objective, by_cost):
        return Verdict.WRONG, "optimal, and the stated lower bound leaves a gap"
    return Verdict.CLAIMED, "optimal is claimed by the solver, not proved again here"


def _reaches(bound: Fraction | float, objective: Fraction, exactly: bool) -> bool:
    if exactly or not isinstance(bound, Fraction):
        return bound >= objective
    reported = nearest_float(objective)
    return reported <= nearest_float(bound) if math.isfinite(reported) else objective <= bound


def _infeasible(instance: Instance, allocation: Allocation, states: int) -> list[Check]:
    if allocation.choice is not None:
        return [Check("status", Verdict.WRONG, "infeasible, beside a choice")]
    problem = instance.problem
    if instance.interacting and instance.bound is not None:
        return list(_infeasible_together(instance, allocation, states))
    if problem.interactions is not None:  # costs alone are limited
        problem = replace(problem, interactions=None)
    findings = check_conflict(problem, allocation, states)
    return [Check(finding.what, Verdict(finding.verdict), finding.text) for finding in findings]


def _infeasible_together(instance: Instance, allocation: Allocation, states: int) -> Iterator[Check]:
    """Yield what is known of a claim that nothing is feasible, and of its reason, where damages interact."""
    recount = prove_infeasible(instance, states=states)
    if recount.outcome is Outcome.REFUTED:
        yield Check("status", Verdict.WRONG, "infeasible, and there is an answer that keeps every limit")
    elif recount.outcome is Outcome.PROVED:
        yield Check("status", Verdict.PROVED, f"infeasible: enumerated again, {recount.states:,} assignments")
    else:
        yield Check("status", Verdict.CLAIMED, "infeasible is claimed by the solver, not proved again here")
    diagnosis, bound = allocation.diagnosis, instance.bound
    if diagnosis is None or bound is None:
        return
    if diagnosis.limit != "damage" or diagnosis.conflict or diagnosis.held_by or diagnosis.without is not None:
        yield Check("diagnosis", Verdict.WRONG, "names a conflict, which nobody looks for where damages interact")
    elif diagnosis.allowed != ceil_float(bound):
        yield Check("diagnosis", Verdict.WRONG, f"the limit on damage is {ceil_float(bound):.15g}")
    elif diagnosis.smallest < floor_float(bound):
        yield Check("diagnosis", Verdict.WRONG, f"damage of {diagnosis.smallest:.15g} is within its limit")
    else:
        text = (
            f"the smallest reachable damage {diagnosis.smallest:.15g} is claimed by the solver, not proved again here"
        )
        yield Check("diagnosis", Verdict.CLAIMED, text)
