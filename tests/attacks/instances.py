"""Attack: a question at random, solved by ``exact`` and one further strategy, and verified; all against the truth."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from attacks import draws
from attacks.core import Attack, Fault, Step
from attacks.questions import Question

KIND = "instances"
_LARGEST = 1.7976931348623157e308
# Strategies in turn with the seed; those that start a process of their own come seldom.
_OTHERS = ("lagrangian", "greedy", "exhaustive", "uniform", "iterative", "noise-equalization")
_SELDOM = {0: "milp", 50: "ilp"}


def attack(seed: int) -> Attack:
    """Solve, verify and judge the question of a seed."""
    found = Attack(seed)
    question = draws.question(seed)
    wrong, digest = check(question, strategies(seed), found.counts)
    found.digest = digest
    if wrong:
        strategy, what = wrong[0]
        small, what = shrunk(question, strategy, what)
        lines = [f"found = solve(problem, {small.goal()}, solver={strategy!r})", "print(found, found.diagnosis)"]
        found.faults = [
            Fault(KIND, seed, f"{strategy}: {what}", small.program(*lines, "print(verify(problem, found))"))
        ]
    return found


def strategies(seed: int) -> list[str]:
    """Return ``exact``, and what is run beside it."""
    from impq_opt.solvers import solver_class, solver_names

    names = [name for name in solver_names() if not solver_class(name).slow]
    names = [name for name in names if name not in (*_OTHERS, *_SELDOM.values(), "exact")]
    turn = [*_OTHERS, *names]  # a strategy that is new here gets its turn
    return ["exact", _SELDOM.get(seed % 100, turn[seed % len(turn)])]


def check(question: Question, names: list[str], counts: Any) -> tuple[list[tuple[str, str]], str]:
    """Return (strategy, fault) of all that is wrong, and a digest of the answers."""
    from impq_opt import ImpqError

    with Step("declaring the problem", ImpqError) as step:
        problem = question.problem
    if step.fault or step.refusal:
        counts["refused problems"] += bool(step.refusal)
        return ([("exact", step.fault)] if step.fault else []), f"refused {step.refusal}"
    with Step("reading a table") as step:
        truth = question.truth
    if step.fault:
        return [("exact", step.fault)], ""
    wrong: list[tuple[str, str]] = []
    digests = []
    for name in names:
        faults, digest = _judged(question, problem, truth, name, counts)
        wrong += [(name, what) for what in faults]
        digests.append(digest)
    return wrong, hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _judged(question: Question, problem: Any, truth: Fraction | None, name: str, counts: Any) -> tuple[list[str], str]:
    from impq_opt import ImpqError, solve, verify

    with Step("solve", ImpqError) as step:
        found = solve(problem, solver=name, **question.asked)
    if step.fault:
        return [step.fault], step.fault
    if step.refusal:
        counts[f"{name} refused"] += 1
        # A SolverError is the package's own strategy breaking its contract.
        own = type(step.refusal).__name__ == "SolverError"
        return ([f"solve raised {step.refusal!r}"] if own else []), f"{step.refusal}"
    counts[f"{name} {found.status.value}"] += 1
    with Step("judging the answer") as step:
        wrong = list(answer_faults(question, found, truth, complete=name in ("exact", "exhaustive")))
    wrong += [step.fault] if step.fault else []
    with Step("verify", ImpqError) as step:
        verification = verify(problem, found)
        text = "\n".join(f"{one.verdict} {one.name} {one.text}" for one in verification.checks if one.name != "how")
    if step.fault or step.refusal:
        return [*wrong, step.fault or f"verify refused a true answer: {step.refusal}"], "verify"
    if not wrong:  # a false answer is told once
        wrong += verification_faults(verification, found, truth)
    certificate = found.certificate
    return wrong, repr(
        (
            name,
            found.status,
            None if found.choice is None else found.choice.tolist(),
            found.exact_lower_bound,
            found.diagnosis,
            certificate and (dict(certificate.multipliers), certificate.dual_bound),
            text if "enumerated" not in text else verification.proved,
        )
    )


def answer_faults(question: Question, found: Any, truth: Fraction | None, *, complete: bool) -> Iterator[str]:
    """Yield everything in an answer that is not so; a ``complete`` strategy must also have closed it."""
    status = found.status.value
    if truth is None and status in ("optimal", "feasible"):
        yield f"{status}, and nothing keeps every limit"
    if truth is not None and status == "infeasible":
        yield f"infeasible, and {truth} can be reached"
    below = found.exact_lower_bound
    if truth is not None and below > truth:
        yield f"the lower bound {float(below)!r} is above the optimum {float(truth)!r}"
    if found.certificate is not None and truth is not None and found.certificate.dual_bound > truth:
        yield f"the dual bound {float(found.certificate.dual_bound)!r} is above the optimum {float(truth)!r}"
    if (found.choice is None) != (status in ("infeasible", "unknown")):
        yield f"{status}, and the choice is {found.choice}"
    if found.choice is not None and truth is not None:
        yield from _choice_faults(question, found, truth)
    if complete and status in ("feasible", "unknown") and not _hair(found, truth):
        yield f"left {status}: {found}"
    if found.diagnosis is not None:
        yield from diagnosis_faults(question, found.diagnosis)


def _hair(found: Any, truth: Fraction | None) -> bool:
    """Return whether least damage is open by less than the rounding of what it is reported as."""
    return found.minimizes == "damage" and truth is not None and found.choice is not None and found.gap < 1e-15


def _choice_faults(question: Question, found: Any, truth: Fraction) -> Iterator[str]:
    choice = tuple(found.choice.tolist())
    if any(not 0 <= k < len(p.bits) for k, p in zip(choice, question.parts, strict=True)):
        yield f"the choice {choice} is outside the candidates"
        return
    if any(question.damages[g][k] is None for g, k in enumerate(choice)):
        yield f"the choice {choice} takes what is not allowed"
        return
    if any(choice[g] != k for g, k in question.pins.items()):
        yield f"the choice {choice} breaks a pin"
    if any(len({question.parts[g].bits[choice[g]] for g in tie}) > 1 for tie in question.ties):
        yield f"the choice {choice} breaks a tie"
    if not question.keeps(choice):
        yield f"the choice {choice} breaks a limit"
    if found.exact_cost != question.row.at(choice) * question.row.unit:
        yield f"the cost is {question.row.at(choice) * question.row.unit}, stated is {found.exact_cost}"
    if found.exact_damage != Fraction(question.damage(choice), 1 << 1074):
        yield f"the damage is stated as {found.exact_damage}"
    value = question.value(choice)
    best = value == truth or (found.minimizes == "damage" and reported(value) == reported(truth))
    if found.status.value == "optimal" and not best:
        yield f"called optimal: {float(value)!r}, the optimum is {float(truth)!r}"


def reported(damage: Fraction) -> float:
    """Return a damage as it is reported, rounded once."""
    try:
        return float(damage)
    except OverflowError:
        return math.inf


def diagnosis_faults(question: Question, diagnosis: Any) -> Iterator[str]:
    """Yield what is false in the reason of an infeasibility.

    The smallest reachable value must be that under the rest of the conflict, and above what is allowed.
    """
    names = {name for name, _, _ in question.limits}
    subject = {"cost": "budget"}.get(diagnosis.limit, diagnosis.limit)
    if subject == "+".join(question.objective) and subject not in names and "budget" in names:
        subject = "budget"
    if subject != "damage" and subject not in names:
        yield f"the diagnosis speaks of {diagnosis.limit!r}, which is not limited"
        return
    allowed = question.bound if subject == "damage" else next(v for n, _, v in question.limits if n == subject)
    assert allowed is not None
    if not _allowed(question, subject, Fraction(allowed), float(diagnosis.allowed)):
        yield f"the diagnosis says that {diagnosis.allowed!r} is allowed, and it is {reported(Fraction(allowed))!r}"
    least = question.least(subject, *_conditions(question, subject, diagnosis.conflict))
    smallest = float(diagnosis.smallest)
    if least is None:
        yield f"the diagnosis speaks of {diagnosis.limit}, and the rest of it conflicts already ({diagnosis})"
    elif not math.isclose(smallest, min(reported(least), _LARGEST), rel_tol=1e-9) and (
        diagnosis.attained or smallest > least
    ):
        yield f"the diagnosis says that {smallest!r} is the smallest, and it is {reported(least)!r} ({diagnosis})"
    elif least <= allowed:
        yield f"the diagnosis is no conflict: {diagnosis}"
    # Rounded down the one, up the other: what is above may seem level.
    elif smallest < diagnosis.allowed < math.inf and not math.isclose(smallest, diagnosis.allowed, rel_tol=1e-15):
        yield f"the diagnosis explains nothing: {diagnosis}"


def _allowed(question: Question, subject: str, limit: Fraction, told: float) -> bool:
    """Return whether a limit may be told like this: rounded up to a float64, or down to what nothing lies above."""
    if told == math.inf or Fraction(told) >= limit:
        return limit > Fraction(math.nextafter(told, -math.inf))
    if subject == "damage":
        return False
    row = next(row for name, row, _ in question.limits if name == subject)  # told in whole quanta
    return not any(told < row.at(choice) * row.unit <= limit for choice in question.assignments({}, ()))


def _conditions(
    question: Question, subject: str, conflict: Iterable[tuple[str, str]]
) -> tuple[frozenset[str], dict[int, int], tuple[tuple[int, ...], ...]]:
    """Return the limits, pins and ties of a conflict without its subject."""
    named = set(conflict)
    names = {name: "+".join(question.objective) if name == "budget" else name for name, _, _ in question.limits}
    limits = {name for name, called in names.items() if ("budget", called) in named and name != subject}
    limits |= {"damage"} if ("bound", "") in named and subject != "damage" else set()
    # Labels of tables without names stand for all of their groups.
    pins = {g: k for g, k in question.pins.items() if ("pins", question.parts[g].name) in named}
    ties = tuple(tie for tie in question.ties if ("ties", question.parts[tie[0]].name) in named)
    return frozenset(limits), pins, ties


def verification_faults(verification: Any, found: Any, truth: Fraction | None) -> list[str]:
    """Return what is wrong with the verification of an answer that is true."""
    wrong = []
    if not verification.ok:
        wrong.append(f"verify calls a true answer wrong: {verification}")
    elif found.status.value in ("optimal", "infeasible") and not verification.proved:
        wrong.append(f"verify proves no {found.status.value}: {verification}")
    if truth is not None and verification.lower_bound > truth:
        wrong.append(f"verify proves a lower bound of {verification.lower_bound} above the optimum {truth}")
    return wrong


# -- a smaller one that is wrong in the same way -------------------------------------------------------------------


def shrunk(question: Question, strategy: str, what: str, seconds: float = 5.0) -> tuple[Question, str]:
    """Return a smaller question with a fault of the same kind, and its fault."""
    if "broken off" in what or " took " in what:
        return question, what
    head, started = what[:16], time.monotonic()
    progress = True
    while progress and time.monotonic() < started + seconds:
        progress = False
        for smaller in _smaller(question):
            if time.monotonic() > started + seconds:
                break
            text = _fault(smaller, strategy, head)
            if text:
                question, what, progress = smaller, text, True
                break
    return question, what


def _fault(question: Question, strategy: str, head: str) -> str:
    from collections import Counter

    try:
        wrong, _ = check(question, [strategy], Counter())
    except Exception:  # the smaller one is no question
        return ""
    return next((what for _, what in wrong if what[:16] == head), "")


def _smaller(question: Question) -> Iterator[Question]:
    for name in question.budgets:
        yield replace(question, budgets={n: v for n, v in question.budgets.items() if n != name})
    for g in question.pins:
        yield replace(question, pins={h: k for h, k in question.pins.items() if h != g})
    if question.ties:
        yield replace(question, ties=())
    for table in question.tables:
        if table.name not in (*question.objective, *question.budgets):
            yield replace(question, tables=tuple(t for t in question.tables if t is not table))
    for g, part in enumerate(question.parts):
        if len(question.parts) > 1 and not any(part.name in (p.reads, *dict(p.also_reads)) for p in question.parts):
            yield _without(question, g)
    for g, part in enumerate(question.parts):
        if len(part.bits) > 1 and not question.numbered and not question.tables and g not in question.pins:
            for k in range(len(part.bits)):
                yield _replaced(question, g, partial(_without_column, column=k))


def _without_column(row: tuple[Any, ...], column: int) -> tuple[Any, ...]:
    return row[:column] + row[column + 1 :]


def _without(question: Question, group: int) -> Question:
    def moved(g: int) -> int:
        return g - (g > group)

    return replace(
        question,
        parts=question.parts[:group] + question.parts[group + 1 :],
        tables=tuple(
            replace(t, values=t.values[:group] + t.values[group + 1 :])
            if t.lookup is None
            else replace(t, lookup={n: v for n, v in t.lookup.items() if n != question.parts[group].name})
            for t in question.tables
        ),
        pins={moved(g): k for g, k in question.pins.items() if g != group},
        ties=tuple(tuple(map(moved, tie)) for tie in question.ties if group not in tie),
    )


def _replaced(question: Question, group: int, take: Callable[[Any], Any]) -> Question:
    part = question.parts[group]
    part = replace(part, bits=take(part.bits), damage=None if part.damage is None else take(part.damage))
    return replace(question, parts=(*question.parts[:group], part, *question.parts[group + 1 :]))
