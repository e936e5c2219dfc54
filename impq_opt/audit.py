"""``verify``: recompute everything that an allocation says, and tell what is proved from what is only claimed.

No strategy is loaded. What is recomputed: cost, damage, limits, pins and ties (exactly), the lower bound that the
multipliers prove (rounding accounted for), and, where a claim rests on a solver's enumeration, that enumeration.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Allocation, Status, number
from impq_opt.diagnosis import diagnose
from impq_opt.errors import AllocationError, InputError
from impq_opt.instance import Direction, Instance
from impq_opt.problem import Problem
from impq_opt.recount import Outcome, Recount, prove_bound
from impq_opt.solver import make_instance
from impq_opt.verification import Assessment, assess, dual_bound

__all__ = ["Check", "Verdict", "Verification", "question", "verify"]

IntArray = npt.NDArray[np.int64]


class Verdict(enum.Enum):
    """What is known about one statement."""

    PROVED = "proved"  # recomputed here
    CLAIMED = "claimed"  # stated by the solver, neither proved nor refuted here
    WRONG = "wrong"


@dataclass(frozen=True)
class Check:
    """One statement of an allocation and what became of it."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found.

    Parameters
    ----------
    checks : tuple of Check
    lower_bound : Fraction or float
        What is proved here: no allocation has a smaller objective; -inf where nothing is. In the objective's unit.
    """

    checks: tuple[Check, ...]
    lower_bound: Fraction | float

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return all(check.verdict is not Verdict.WRONG for check in self.checks)

    @property
    def proved(self) -> bool:
        """Whether everything that is stated was proved here."""
        return all(check.verdict is Verdict.PROVED for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(f"{check.verdict.value:<8}{check.name}: {check.text}" for check in self.checks)


def verify(problem: Problem, allocation: Allocation, *, states: int = 1_000_000) -> Verification:
    """Recompute everything that ``allocation`` says about ``problem``.

    Parameters
    ----------
    problem : Problem
    allocation : Allocation
        Fresh from :func:`impq_opt.solve`, or read from a file: what it states is not trusted.
    states : int
        Most partial assignments to look at when an enumeration is repeated; beyond it a claim stays a claim.

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
    if allocation.problem is not problem and allocation.problem.digest != problem.digest:
        raise AllocationError(
            "answers another problem",
            where="allocation",
            value=allocation.problem.digest[:12],
            hint=f"this problem's digest is {problem.digest[:12]}",
        )
    instance = question(problem, allocation)
    checks = list(_limits_kept(problem, allocation))
    found = None
    if allocation.choice is not None:
        found, broken = _choice_checks(instance, problem, allocation)
        checks += broken
    bound_checks, lower = _bound_checks(instance, allocation, found, states)
    return Verification((*checks, *bound_checks), lower)


def question(problem: Problem, allocation: Allocation) -> Instance:
    """Return the question that the allocation says it answers, compiled anew."""
    budgets = dict(allocation.budgets)
    weights: Mapping[str, float] = allocation.cost_weights  # type: ignore[assignment]
    try:
        if allocation.minimizes == "cost":
            if allocation.bound is None:
                raise AllocationError("states no bound and no budget", where="allocation")
            return make_instance(replace(problem, budgets=budgets), bound=allocation.bound, minimize=weights)
        limit = budgets.pop("+".join(weights), None)
        if limit is None:
            raise AllocationError("states no budget for the cost it minimises under", where="allocation.budgets")
        return make_instance(replace(problem, budgets=budgets), budget=limit, minimize=weights)
    except AllocationError:
        raise
    except InputError as error:
        raise AllocationError(
            error.what, where=f"allocation: {error.where}", value=error.value, hint=error.hint
        ) from None


def _limits_kept(problem: Problem, allocation: Allocation) -> Iterator[Check]:
    """Yield a check for each budget of the problem that the question dropped or loosened."""
    for name, limit in problem.budgets.items():
        stated = allocation.budgets.get(name)
        if stated is None or stated > limit:
            text = (
                f"the problem's limit is {number(limit)}, the answer's {'none' if stated is None else number(stated)}"
            )
            yield Check(f"budget {name}", Verdict.WRONG, text)


def _choice_checks(
    instance: Instance, problem: Problem, allocation: Allocation
) -> tuple[Assessment | None, list[Check]]:
    choice = np.asarray(allocation.choice)
    if choice.shape != (len(problem),) or choice.dtype.kind not in "iu":
        return None, [Check("choice", Verdict.WRONG, f"must be {len(problem)} whole numbers, got {choice.shape}")]
    outside = np.flatnonzero((choice < 0) | (choice >= problem.candidates.counts(len(problem))))
    if len(outside):
        return None, [Check("choice", Verdict.WRONG, f"{problem.names[int(outside[0])]} has no such candidate")]
    choice = choice.astype(np.int64)
    broken = _broken_rules(instance, problem, choice)
    if broken:
        return None, [Check("pins and ties", Verdict.WRONG, broken)]
    found = assess(instance, instance.reduce(choice))
    checks = []
    if problem.pins or problem.ties:
        kept = [f"{len(which)} {what}" for which, what in ((problem.pins, "pins"), (problem.ties, "ties")) if which]
        checks.append(Check("pins and ties", Verdict.PROVED, f"{' and '.join(kept)} kept"))
    checks.append(_equal("cost", found.cost * instance.quantum, allocation.exact_cost))
    checks.append(_equal("damage", found.damage, allocation.exact_damage))
    if found.feasible:
        checks.append(Check("limits", Verdict.PROVED, "every limit is kept, decided exactly"))
    else:
        checks.append(Check("limits", Verdict.WRONG, f"breaks its {' and its '.join(found.broken)}"))
    return found, checks


def _broken_rules(instance: Instance, problem: Problem, choice: IntArray) -> str:
    for group, column in problem.pins.items():
        if choice[group] != column:
            return f"{problem.names[group]} is not at its pin"
    for tie in problem.ties:
        bits = {problem.candidates.of(g)[int(choice[g])] for g in tie}
        if len(bits) > 1:
            return f"{problem.names[tie[0]]} and its ties differ: {', '.join(f'{b:g}' for b in sorted(bits))} bits"
    again = instance.lift(instance.reduce(choice))
    differs = np.flatnonzero(again != choice)
    return (
        f"{problem.names[int(differs[0])]} has a candidate that it may not take, or another format than its ties"
        if len(differs)
        else ""
    )


def _equal(name: str, found: Fraction, stated: Fraction | None) -> Check:
    if found == stated:
        return Check(name, Verdict.PROVED, f"{number(found):.15g}, recomputed exactly")
    text = "nothing" if stated is None else f"{number(stated):.15g}"
    return Check(name, Verdict.WRONG, f"is {number(found):.15g}, stated is {text}")


# -- bounds ------------------------------------------------------------------------------------------------------


def _bound_checks(
    instance: Instance, allocation: Allocation, found: Assessment | None, states: int
) -> tuple[list[Check], Fraction | float]:
    if allocation.status is Status.INFEASIBLE:
        return [_infeasible(instance, allocation, states)], -math.inf
    by_cost = instance.direction is Direction.COST
    unit = instance.quantum if by_cost else Fraction(1)
    stated, checks = allocation.exact_lower_bound, []
    given = dict(allocation.certificate.multipliers) if allocation.certificate else {}
    known = {"bound", "budget"} | {budget.name for budget in (*instance.budgets, *instance.peaks)}
    multipliers = {name: value for name, value in given.items() if name in known}
    if given.keys() - known:
        checks.append(Check("multipliers", Verdict.WRONG, f"no such limit: {', '.join(sorted(given.keys() - known))}"))
    below = _dual(instance, multipliers)
    claimed_dual = allocation.certificate.dual_bound if allocation.certificate else -math.inf
    if claimed_dual != -math.inf:
        checks.append(_dual_check(below, claimed_dual, unit))
    lower, recount = below, None
    if stated != -math.inf:
        target = Fraction(stated) / unit
        if below < target:
            recount = prove_bound(instance, multipliers, target, states=states)
            lower = target if recount.outcome is Outcome.PROVED else below
        checks.append(_lower_check(stated, below, unit, recount, instance))
    if allocation.choice is not None:
        checks.append(_status_check(allocation, instance, found, lower))
    return checks, lower if lower == -math.inf else lower * unit


def _dual(instance: Instance, multipliers: Mapping[str, float]) -> Fraction | float:
    """Return the bound in quanta, rounded up to a whole one, or in damage, which is never negative."""
    below = dual_bound(instance, multipliers) if multipliers else -math.inf
    if instance.direction is Direction.DAMAGE:
        return max(Fraction(0), Fraction(below)) if below != -math.inf else Fraction(0)
    return Fraction(math.ceil(below)) if below != -math.inf else below


def _dual_check(below: Fraction | float, claimed: Fraction | float, unit: Fraction) -> Check:
    if below != -math.inf and below * unit >= claimed:
        return Check("dual bound", Verdict.PROVED, f"{number(claimed):.15g} follows from the multipliers alone")
    text = f"the multipliers prove {number(below if below == -math.inf else below * unit):.15g}"
    return Check("dual bound", Verdict.WRONG, f"{text}, stated is {number(claimed):.15g}")


def _lower_check(
    stated: Fraction | float, below: Fraction | float, unit: Fraction, recount: Recount | None, instance: Instance
) -> Check:
    text = f"{number(stated):.15g}"
    if recount is None:
        return Check("lower bound", Verdict.PROVED, f"{text} follows from the multipliers alone")
    if recount.outcome is Outcome.PROVED and recount.groups == 0:
        return Check(
            "lower bound", Verdict.PROVED, f"{text}: no objective lies between it and what the multipliers prove"
        )
    where = f"a core of {recount.groups} groups, {recount.states:,} partial assignments"
    if recount.outcome is Outcome.PROVED:
        return Check("lower bound", Verdict.PROVED, f"{text}: nothing is below it; enumerated again, {where}")
    if recount.outcome is Outcome.REFUTED:
        assert recount.better is not None
        better = assess(instance, recount.better)
        value = better.cost * unit if instance.direction is Direction.COST else better.damage
        return Check("lower bound", Verdict.WRONG, f"{text}, and {number(value):.15g} can be reached; {where}")
    proved = "nothing" if below == -math.inf else f"{number(below * unit):.15g}"
    return Check(
        "lower bound",
        Verdict.CLAIMED,
        f"{text} rests on the solver's enumeration, too large to repeat here ({where}); the multipliers prove {proved}",
    )


def _status_check(
    allocation: Allocation, instance: Instance, found: Assessment | None, lower: Fraction | float
) -> Check:
    name, stated = "status", allocation.status.value
    if found is None or not found.feasible:
        return Check(name, Verdict.WRONG, f"{stated}, and the choice keeps not every limit")
    if allocation.status is Status.FEASIBLE:
        return Check(name, Verdict.PROVED, "feasible")
    if allocation.status is not Status.OPTIMAL:
        return Check(name, Verdict.WRONG, f"{stated}, and there is an answer that keeps every limit")
    if instance.direction is Direction.COST:
        closed = lower >= found.cost
        open_gap = allocation.exact_lower_bound < found.cost * instance.quantum
    else:  # damages are compared as they are reported
        closed = float(lower) >= float(found.damage)
        open_gap = float(allocation.exact_lower_bound) < float(found.damage)
    if closed:
        return Check(name, Verdict.PROVED, "optimal: the proved lower bound meets the objective")
    if open_gap:
        return Check(name, Verdict.WRONG, "optimal, and the stated lower bound leaves a gap")
    return Check(name, Verdict.CLAIMED, "optimal is claimed by the solver, not proved again here")


def _infeasible(instance: Instance, allocation: Allocation, states: int) -> Check:
    diagnosis = diagnose(instance)
    if diagnosis is not None:
        return Check("status", Verdict.PROVED, f"infeasible: {diagnosis}")
    if instance.size == 0:
        feasible = assess(instance, np.empty(0, dtype=np.int64)).feasible
        return Check("status", Verdict.WRONG if feasible else Verdict.PROVED, "infeasible: everything is pinned")
    # Any objective is below this one.
    cost, damage = instance.tables
    if instance.direction is Direction.COST:
        worst = Fraction(instance.base_cost + sum(cost.max(axis=1).tolist()) + 1)
    else:
        worst = instance.base_damage + sum((Fraction(d) for d in damage.max(axis=1).tolist()), Fraction(1))
    recount = prove_bound(instance, {}, worst, states=states)
    if recount.outcome is Outcome.PROVED:
        return Check("status", Verdict.PROVED, f"infeasible: enumerated again, {recount.states:,} partial assignments")
    if recount.outcome is Outcome.REFUTED:
        return Check("status", Verdict.WRONG, "infeasible, and there is an answer that keeps every limit")
    return Check("status", Verdict.CLAIMED, "infeasible is claimed by the solver, not proved again here")
