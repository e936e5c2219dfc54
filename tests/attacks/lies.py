"""What can be made false in a saved answer: each forgery changes the document and returns whether it could.

What a forgery leaves behind is false by construction, or because the truth of the question says so.
"""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from attacks.instances import reported
from attacks.questions import Column, Question

Document = dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """An answer, true, with the document that it was saved as."""

    question: Question
    found: Any
    truth: Fraction | None
    document: Document
    rng: Random

    @property
    def answered(self) -> bool:
        return self.found.choice is not None


@cache
def folder() -> Path:
    """Return a folder of this process; it goes when the process ends."""
    made = tempfile.mkdtemp(prefix="attack-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


# Files that differ from what was saved in nothing that they state.
TRUE: dict[str, Callable[[Document], str]] = {
    "as it was saved": lambda d: json.dumps(d, indent=2),
    "keys in another order": lambda d: json.dumps(dict(reversed(d.items()))),
    "bits with a point": lambda d: json.dumps(
        d | {"bits": d["bits"] and {name: float(bits) for name, bits in d["bits"].items()}}
    ),
}


def _number(key: str, change: Callable[[Any], Any]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        before = document.get(key)
        if before is None or not saved.answered:
            return False
        document[key] = change(before)
        return bool(document[key] != before)

    return forge


def _exact(key: str, change: Callable[[Fraction], Fraction]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        if document["exact"][key] is None:
            return False
        document["exact"][key] = str(change(Fraction(document["exact"][key])))
        return True

    return forge


def _effective(kind: str) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        before = document["effective_bits"][kind]
        document["effective_bits"][kind] = 3.0 if before is None else before + 1
        return saved.answered

    return forge


def _bound_read(document: Document, saved: Saved) -> bool:
    if document["bound"] is None:
        return False
    document["bound"] = document["bound"] * 2 + 1e-9
    return True


def _lower_read(document: Document, saved: Saved) -> bool:
    if saved.truth is None or document["lower_bound"] is None:
        return False
    document["lower_bound"] = reported(saved.truth) * 2 + 10 if saved.truth > 0 else 10
    return math.isfinite(document["lower_bound"])


def _lower_exact(document: Document, saved: Saved) -> bool:
    if saved.truth is None or document["exact"]["lower_bound"] is None:
        return False
    step = saved.question.row.unit if saved.found.minimizes == "cost" else Fraction(1, 3)
    above = saved.truth + step
    document["exact"]["lower_bound"], document["lower_bound"] = str(above), reported(above)
    return math.isfinite(reported(above))


def _loose_bound(document: Document, saved: Saved) -> bool:
    """Say that it is the optimum under a larger bound, where there is a better answer."""
    question, truth = saved.question, saved.truth
    if truth is None or question.budget is not None:
        return False
    for times in (2, 100, 10**9):
        larger = Fraction(question.bound) * times  # type: ignore[arg-type]
        if replace(question, bound=larger).truth != truth and math.isfinite(reported(larger)):
            document["bound"], document["exact"]["bound"] = float(larger), str(larger)
            return True
    return False


def _tight_bound(document: Document, saved: Saved) -> bool:
    if not saved.answered or saved.question.budget is not None or saved.found.exact_damage == 0:
        return False
    below = saved.found.exact_damage * Fraction(2**80 - 1, 2**80)
    document["bound"], document["exact"]["bound"] = reported(below), str(below)
    return math.isfinite(reported(below))


def _status(status: str, bits: bool) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        if not saved.answered:
            return False
        document["status"] = status
        if not bits:
            document["bits"] = document["formats"] = None
            document.update(objective=None, cost=None, damage=None, gap=None, compression_ratio=None)
            document["effective_bits"] = {"weight": None, "activation": None}
            document["exact"].update(cost=None, damage=None, lower_bound=None)
            document.update(lower_bound=None, certificate=None)
        return True

    return forge


def _without_bits(document: Document, saved: Saved) -> bool:
    document["bits"] = document["formats"] = None
    return saved.answered


def _infeasible_called_optimal(document: Document, saved: Saved) -> bool:
    document["status"] = saved.rng.choice(["optimal", "feasible"])
    return not saved.answered


def _other_bits(document: Document, saved: Saved) -> bool:
    """Change the bits of one group, where that changes the cost or the damage."""
    return _exchanged(document, saved, lambda name, bits, _: document["bits"].update({name: bits}))


def _bits_beside_formats(document: Document, saved: Saved) -> bool:
    if not saved.answered or saved.question.numbered:
        return False
    document["formats"] = {name: f"{bits:g}" for name, bits in document["bits"].items()}
    return _exchanged(document, saved, lambda name, bits, _: document["bits"].update({name: bits}))


def _exchanged(document: Document, saved: Saved, put: Callable[[str, float, Column], object]) -> bool:
    if not saved.answered:
        return False
    question, choice = saved.question, tuple(saved.found.choice.tolist())
    for g in saved.rng.sample(range(len(choice)), len(choice)):
        part = question.parts[g]
        for k in range(len(part.bits)):
            other = (*choice[:g], k, *choice[g + 1 :])
            if k == choice[g] or question.damages[g][k] is None:
                continue
            same = question.row.at(other) == question.row.at(choice)
            if not (same and question.damage(other) == question.damage(choice)):
                put(part.name, part.bits[k], other)
                return True
    return False


def _worse(document: Document, saved: Saved) -> bool:
    """Tell a consistent story of a worse answer: every number in the file fits it."""
    question, truth, certificate = saved.question, saved.truth, saved.found.certificate
    if truth is None:
        return False
    worse = [c for c in question.assignments() if question.keeps(c)]
    worse = [c for c in worse if reported(question.value(c)) > reported(truth)]
    if certificate is not None:
        certificate = saved.rng.choice([None, replace(certificate, dual_bound=truth)])
    return _story(document, saved, worse, "optimal", certificate)


def _breaks(document: Document, saved: Saved) -> bool:
    """Tell a consistent story of a choice that breaks a limit."""
    breaking = [c for c in saved.question.assignments() if not saved.question.keeps(c)]
    breaking = [c for c in breaking if math.isfinite(reported(Fraction(saved.question.damage(c), 1 << 1074)))]
    return _story(document, saved, breaking, saved.rng.choice(["optimal", "feasible"]), None)


def _story(document: Document, saved: Saved, choices: list[Column], status: str, certificate: Any) -> bool:
    """Save one of some choices with a status as if it were the answer, its value being its lower bound."""
    from impq_opt.files import save_allocation
    from impq_opt.problem.allocation import Status

    if not choices:
        return False
    question, choice = saved.question, saved.rng.choice(choices)
    lie = replace(
        saved.found,
        status=Status(status),
        choice=np.array(choice),
        exact_cost=question.row.at(choice) * question.row.unit,
        exact_damage=Fraction(question.damage(choice), 1 << 1074),
        exact_lower_bound=question.value(choice),
        certificate=certificate,
        diagnosis=None,
    )
    save_allocation(lie, folder() / "lie.json")
    document.clear()
    document.update(json.loads((folder() / "lie.json").read_text()))
    return True


def _dual_above(document: Document, saved: Saved) -> bool:
    certificate = document["certificate"]
    if saved.truth is None or certificate is None:
        return False
    certificate["dual_bound"] = str(saved.truth + abs(saved.truth) + saved.question.row.unit)
    return True


def _no_price(document: Document, saved: Saved) -> bool:
    """Set all multipliers to zero: then the dual bound is at most the least that is not limited at all."""
    certificate, question = document["certificate"], saved.question
    if certificate is None or certificate["dual_bound"] is None or question.budgets or not certificate["multipliers"]:
        return False
    certificate["multipliers"] = dict.fromkeys(certificate["multipliers"], 0.0)
    return bool(Fraction(certificate["dual_bound"]) > min(question.value(c) for c in question.assignments()))


def _certificate(change: Callable[[Document, Saved], object]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        if document["certificate"] is None:
            return False
        change(document["certificate"], saved)
        return True

    return forge


def _enumeration(key: str, value: Callable[[Saved], int]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        certificate = document["certificate"]
        if certificate is None or certificate["enumeration"] is None:
            return False
        certificate["enumeration"][key] = value(saved)
        return True

    return forge


def _diagnosis(change: Callable[[Document, Saved], object]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        if document["diagnosis"] is None:
            return False
        change(document["diagnosis"], saved)
        return True

    return forge


def _diagnosis_of_nothing(document: Document, saved: Saved) -> bool:
    document["diagnosis"] = {"limit": "damage", "smallest": 9.0, "allowed": 1.0, "held_by": []}
    return saved.answered


def _budget(change: Callable[[Fraction], Fraction]) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        if not saved.question.budgets:
            return False
        name = saved.rng.choice(sorted(saved.question.budgets))
        if name not in document["budgets"] or name == "+".join(saved.question.objective):
            return False
        document["budgets"][name] = str(change(saved.question.budgets[name]))
        return True

    return forge


def _dropped_budget(document: Document, saved: Saved) -> bool:
    names = [n for n in saved.question.budgets if n in document["budgets"] and n != "+".join(saved.question.objective)]
    if not names:
        return False
    del document["budgets"][saved.rng.choice(names)]
    return True


def _loosened_by_revision(document: Document, saved: Saved) -> bool:
    """Answer a problem whose budget is looser, and say so in a revision of the file's own."""
    from impq_opt import ImpqError, solve
    from impq_opt.files import Revision, save_allocation

    question = saved.question
    if not question.budgets or question.budget is not None:
        return False
    name = saved.rng.choice(sorted(question.budgets))
    loose = question.budgets[name] * 100 + 1000
    loosened = replace(question, budgets=dict(question.budgets) | {name: Fraction(math.ceil(loose))})
    if loosened.truth in (None, saved.truth):
        return False
    revision = Revision(budgets={name: str(math.ceil(loose))})
    try:
        revised = revision.apply(question.problem)
        found = solve(revised, **question.asked)
        save_allocation(found, folder() / "loose.json", base=question.problem, revision=revision)
    except ImpqError:
        return False
    document.clear()
    document.update(json.loads((folder() / "loose.json").read_text()))
    return True


def _weights(document: Document, saved: Saved) -> bool:
    name = next(iter(document["minimize"]))
    document["minimize"] = dict(document["minimize"]) | {name: "7/2"}
    return saved.answered and saved.found.exact_cost != 0


def _set(**values: Any) -> Callable[[Document, Saved], bool]:
    def forge(document: Document, saved: Saved) -> bool:
        before = {key: document.get(key) for key in values}
        document.update(values)
        return before != values

    return forge


def _up(value: float) -> float:
    return math.nextafter(value, math.inf)


FORGERIES: dict[str, Callable[[Document, Saved], bool]] = {
    "objective, as read, one less": _number("objective", lambda v: v - max(1, abs(v) / 8)),
    "objective, as read, 1": _number("objective", lambda v: 1),
    "cost, as read": _number("cost", lambda v: v + max(1, abs(v) / 8)),
    "damage, as read, 0": _number("damage", lambda v: 0.0),
    "damage, as read, by its last bit": _number("damage", _up),
    "gap, as read": _number("gap", lambda v: 0.5),
    "compression ratio": _number("compression_ratio", lambda v: v * 2),
    "effective bits of weights": _effective("weight"),
    "effective bits of activations": _effective("activation"),
    "bound, as read": _bound_read,
    "lower bound, as read": _lower_read,
    "exact cost": _exact("cost", lambda v: v + Fraction(1, 10**9)),
    "exact damage": _exact("damage", lambda v: v + Fraction(1, 2**1074)),
    "lower bound above the optimum": _lower_exact,
    "optimal under a larger bound": _loose_bound,
    "a bound that is broken": _tight_bound,
    "infeasible beside bits": _status("infeasible", True),
    "infeasible, and all else taken out": _status("infeasible", False),
    "unknown beside bits": _status("unknown", True),
    "optimal, and all else taken out": _status("optimal", False),
    "feasible, and all else taken out": _status("feasible", False),
    "no bits": _without_bits,
    "infeasible, called an answer": _infeasible_called_optimal,
    "other bits": _other_bits,
    "false bits beside formats": _bits_beside_formats,
    "a worse answer called optimal": _worse,
    "an answer that breaks a limit": _breaks,
    "dual bound above the optimum": _dual_above,
    "multipliers of zero": _no_price,
    "multiplier below zero": _certificate(lambda c, s: c["multipliers"].update(bound=-1.0)),
    "multiplier of no limit": _certificate(lambda c, s: c["multipliers"].update(nothing=1.0)),
    "quantum": _certificate(lambda c, s: c.update(quantum=str(Fraction(c["quantum"]) * 2))),
    "quantum of zero": _certificate(lambda c, s: c.update(quantum="0")),
    "more groups enumerated than there are": _enumeration("groups", lambda s: len(s.question.parts) + 1),
    "groups enumerated below zero": _enumeration("groups", lambda s: -1),
    "states below zero": _enumeration("states", lambda s: -5),
    "smallest of the diagnosis": _diagnosis(lambda d, s: d.update(smallest=d["smallest"] * 2 + 1)),
    "allowed of the diagnosis": _diagnosis(lambda d, s: d.update(allowed=(d["allowed"] or 0) / 2 - 1)),
    "limit of the diagnosis": _diagnosis(lambda d, s: d.update(limit="the weather")),
    "causes of the diagnosis": _diagnosis(lambda d, s: d.update(held_by=[*d["held_by"], "the pins of nobody"])),
    "a diagnosis of what is feasible": _diagnosis_of_nothing,
    "budget loosened": _budget(lambda v: v * 100 + 1000),
    "budget dropped": _dropped_budget,
    "budget loosened by a revision": _loosened_by_revision,
    "weights of the objective": _weights,
    "stop": _set(stop="because it is perfect"),
    "status that is none": _set(status="perfect"),
    "digest of another problem": _set(problem_digest="0" * 64),
    "a later format": _set(format_version=2),
    "unknown statement": _set(guarantee="lifetime"),
}
