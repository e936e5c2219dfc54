"""Attack: strategies of a third party that lie about everything that a strategy may say.

``solve`` must raise SolverError or say something true: no lie may become a status, a bound or a certificate that is
false, and no lie may come out as another exception. What a claim left behind must be readable, writable and verifiable.
"""

from __future__ import annotations

import decimal
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random
from typing import Any, ClassVar

import numpy as np

from attacks import draws
from attacks.core import Attack, Fault, Step
from attacks.instances import answer_faults
from attacks.lies import folder
from attacks.questions import Question
from impq_opt import Enumeration
from impq_opt.instance import Instance
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.problem.allocation import Stop

KIND = "claims"
EACH = 25
_EVERYTHING = frozenset({"damage", "budgets", "pairs", "peaks"})

Lie = Callable[[Random, Instance], Any]


class Growing(dict):  # type: ignore[type-arg]
    """A mapping that says something else each time it is read."""

    reads = 0

    def items(self) -> Any:
        Growing.reads += 1
        return {"bound": 0.0 if Growing.reads % 2 else 1e300}.items()


def attack(seed: int) -> Attack:
    """Ask the question of a seed of strategies that lie."""
    from impq_opt import ImpqError

    found, rng = Attack(seed, done=0), Random(seed)
    question = draws.question(seed)
    with Step("declaring", ImpqError) as step:
        question.problem  # noqa: B018
        question.truth  # noqa: B018
    if step.fault or step.refusal:
        found.counts["refused problems"] += 1
        return found
    what = ""
    with Step("writing into an answer", ImpqError) as step:
        what = moved(question, seed)
    if what or step.fault:
        found.faults.append(_fault(question, seed, {}, step.fault or what))
    for turn in range(EACH):
        parts = {
            name: rng.choice(sorted(lies)) for name, lies in LIES.items() if rng.random() < 0.5 or name == "choice"
        }
        if turn % 5 == 0:
            parts = {"whole": rng.choice(sorted(WHOLE))}
        found.done += 1
        what = told(question, parts, rng.randrange(1 << 30), found.counts)
        if what:  # the first is enough: a lie may have written into the problem
            found.faults.append(_fault(question, seed, parts, what))
            break
    return found


def told(question: Question, parts: dict[str, str], seed: int, counts: Counter[str]) -> str:  # noqa: PLR0911
    """Return what is wrong after a strategy told these lies."""
    from impq_opt import ImpqError, solve, verify
    from impq_opt.errors import SolverError
    from impq_opt.files import load_allocation, save_allocation

    said: list[Any] = []
    problem = replace(question).problem  # a new one: a lie may have been written into the last
    digest = replace(question).problem.digest
    with Step("solve", ImpqError) as step:
        answer = solve(problem, solver=liar(parts, seed, said), **question.asked)
    if step.fault:
        return step.fault
    if problem.digest != digest:
        return "a strategy can write into the problem"
    if step.refusal:
        counts["SolverError" if isinstance(step.refusal, SolverError) else "refused"] += 1
        return ""
    counts[answer.status.value] += 1
    with Step("judging") as step:
        wrong = list(answer_faults(question, answer, question.truth, complete=False))
    if step.fault or wrong:
        return step.fault or wrong[0]
    with Step("verify", ImpqError) as step:
        verification = verify(problem, answer)
        ok, text = verification.ok, str(verification)
    if step.fault or step.refusal or not ok:
        return step.fault or f"verify of what solve concluded: {step.refusal or text}"
    with Step("save", ImpqError) as step:
        save_allocation(answer, folder() / "claim.json")
        json.loads((folder() / "claim.json").read_text())
        load_allocation(folder() / "claim.json", problem)
    if step.fault or step.refusal:
        return step.fault or f"what was saved cannot be loaded: {step.refusal}"
    return ""


def moved(question: Question, seed: int) -> str:
    """Return what is wrong where somebody writes into the arrays of an answer, or of a claim, afterwards."""
    from impq_opt import solve

    said: list[Any] = []
    for solver in ("exact", liar({"choice": "feasible"}, seed, said)):
        answer = solve(question.problem, solver=solver, **question.asked)
        if answer.choice is None:
            continue
        before, bits = answer.choice.tolist(), answer.bits.tolist()
        for array in [*said, answer.choice, answer.bits]:
            try:
                array[...] = 0
                array[...] = np.asarray(before) + 1
            except (ValueError, TypeError):
                continue
        if answer.choice.tolist() != before or answer.bits.tolist() != bits:
            return "an answer can be written into after it was checked"
    return ""


def liar(parts: dict[str, str], seed: int, said: list[Any]) -> Solver:
    """Return a strategy that tells these lies; arrays that it keeps a hand on go to ``said``."""

    @dataclass(frozen=True)
    class Liar(Solver):
        name: ClassVar[str] = "exact" if seed % 3 == 0 else "liar"
        summary: ClassVar[str] = "lies"
        proves: ClassVar[str] = "optimal"
        supports: ClassVar[frozenset[str]] = _EVERYTHING
        decides: ClassVar[bool] = seed % 2 == 0

        def run(self, instance: Instance, control: Control) -> Claim:
            rng = Random(seed)
            if "whole" in parts:
                return WHOLE[parts["whole"]](rng, instance)
            claim = Claim(**{name: LIES[name][lie](rng, instance) for name, lie in parts.items()})
            said.extend([claim.choice] if isinstance(claim.choice, np.ndarray) else [])
            return claim

    return Liar()


def _fault(question: Question, seed: int, parts: dict[str, str], what: str) -> Fault:
    lines = ["# a strategy whose claim has " + ", ".join(f"{name}: {lie}" for name, lie in parts.items())]
    lines += [f"solve(problem, {question.goal()}, solver=liar)", f"# attacks.claims.attack({seed})"]
    return Fault(KIND, seed, f"{what} [{'; '.join(f'{n}: {v}' for n, v in parts.items())}]", question.program(*lines))


# -- what is said --------------------------------------------------------------------------------------------------


def _random_choice(rng: Random, instance: Instance) -> np.ndarray:
    return np.array([rng.randrange(w) for w in instance.widths.tolist()], dtype=np.int64)


def _feasible(rng: Random, instance: Instance) -> np.ndarray:
    """Return a choice that keeps the limits, perhaps a bad one, where some draws find one."""
    choice = _random_choice(rng, instance)
    for _ in range(30):
        if instance.is_feasible(choice):
            break
        choice = _random_choice(rng, instance)
    return choice


def _last(rng: Random, instance: Instance) -> np.ndarray:
    return np.asarray(instance.widths - 1)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _strided(rng: Random, instance: Instance) -> np.ndarray:
    return np.repeat(_feasible(rng, instance), 2)[::2]


def _own(rng: Random, instance: Instance) -> int | Fraction:
    """Return the objective of a feasible choice: a bound that would close the gap."""
    choice = _feasible(Random(0), instance)
    return instance.cost_of(choice) if instance.objective.whole else instance.damage_of(choice)


LIES: dict[str, dict[str, Lie]] = {
    "choice": {
        "none": lambda r, i: None,
        "any": _random_choice,
        "feasible": _feasible,
        "last candidates": _last,
        "read-only": lambda r, i: _read_only(_feasible(r, i)),
        "strided": _strided,
        "a list": lambda r, i: _feasible(r, i).tolist(),
        "a tuple": lambda r, i: tuple(_feasible(r, i).tolist()),
        "floats": lambda r, i: _feasible(r, i).astype(float),
        "half columns": lambda r, i: _feasible(r, i) + 0.5,
        "NaN": lambda r, i: np.full(i.size, math.nan),
        "booleans": lambda r, i: _feasible(r, i) > 0,
        "int8": lambda r, i: _feasible(r, i).astype(np.int8),
        "uint64": lambda r, i: _feasible(r, i).astype(np.uint64),
        "uint64 that wraps": lambda r, i: np.full(i.size, 2**64 - 1, dtype=np.uint64),
        "objects": lambda r, i: _feasible(r, i).astype(object),
        "huge objects": lambda r, i: np.array([10**30] * i.size, dtype=object),
        "texts": lambda r, i: _feasible(r, i).astype(str),
        "complex": lambda r, i: _feasible(r, i).astype(complex),
        "byte order": lambda r, i: _feasible(r, i).astype(">i8"),
        "below": lambda r, i: _feasible(r, i) - 1,
        "beyond": lambda r, i: _last(r, i) + 1,
        "far beyond": lambda r, i: np.full(i.size, 2**62),
        "too long": lambda r, i: np.append(_feasible(r, i), 0),
        "too short": lambda r, i: _feasible(r, i)[:-1],
        "a column": lambda r, i: _feasible(r, i)[:, None],
        "a number": lambda r, i: 0,
        "an array of no shape": lambda r, i: np.array(0),
        "masked": lambda r, i: np.ma.masked_array(_feasible(r, i), mask=True),
        "a word": lambda r, i: "optimal",
    },
    "lower_bound": {
        "its own value": _own,
        "one more": lambda r, i: _own(r, i) + 1,
        "infinite": lambda r, i: math.inf,
        "minus infinite": lambda r, i: -math.inf,
        "NaN": lambda r, i: math.nan,
        "huge": lambda r, i: 10**400,
        "a float": lambda r, i: float(own) if -(10**300) < (own := _own(r, i)) < 10**300 else 1e300,
        "a fraction": lambda r, i: Fraction(1, 3),
        "NumPy's int": lambda r, i: np.int64(5),
        "NumPy's float": lambda r, i: np.float64(1e9),
        "NumPy's float32": lambda r, i: np.float32(1e9),
        "a truth": lambda r, i: True,
        "a decimal": lambda r, i: decimal.Decimal("1e9"),
        "decimal NaN": lambda r, i: decimal.Decimal("NaN"),
        "a word": lambda r, i: "12",
        "nothing": lambda r, i: None,
        "complex": lambda r, i: 1 + 2j,
        "an array": lambda r, i: np.array([1.0, 2.0]),
    },
    "multipliers": {
        "none": lambda r, i: {},
        "fair": lambda r, i: {"bound" if i.objective.whole else "budget": 10.0 ** r.uniform(-20, 20)},
        "of the other direction": lambda r, i: {"budget" if i.objective.whole else "bound": 1.0},
        "of all": lambda r, i: {"bound": 1.0, "budget": 1.0} | {b.name: r.random() for b in i.budgets},
        "huge": lambda r, i: {"bound": 1.7e308},
        "tiny": lambda r, i: {"bound": 5e-324},
        "negative": lambda r, i: {"bound": -1.0},
        "minus zero": lambda r, i: {"bound": -0.0},
        "NaN": lambda r, i: {"bound": math.nan},
        "infinite": lambda r, i: {"bound": math.inf},
        "of no limit": lambda r, i: {"weather": 1.0},
        "a whole number": lambda r, i: {"bound": 3},
        "a huge whole number": lambda r, i: {"bound": 10**400},
        "a fraction": lambda r, i: {"bound": Fraction(1, 3)},
        "a text": lambda r, i: {"bound": "1.0"},
        "nothing": lambda r, i: {"bound": None},
        "a truth": lambda r, i: {"bound": True},
        "an array": lambda r, i: {"bound": np.array([1.0, 2.0])},
        "a name that is none": lambda r, i: {7: 1.0},
        "no mapping": lambda r, i: [("bound", 1.0)],
        "not there": lambda r, i: None,
        "another each time": lambda r, i: Growing(bound=1.0),
    },
    "enumeration": {
        "claimed": lambda r, i: Enumeration(i.size, 10),
        "of nothing": lambda r, i: Enumeration(0, 0),
        "below zero": lambda r, i: Enumeration(-1, -1),
        "of words": lambda r, i: Enumeration("all", "many"),  # type: ignore[arg-type]
        "of floats": lambda r, i: Enumeration(1.5, math.nan),  # type: ignore[arg-type]
        "huge": lambda r, i: Enumeration(10**30, 10**30),
        "a pair": lambda r, i: (1, 2),
        "a truth": lambda r, i: True,
        "a word": lambda r, i: "complete",
    },
    "stop": {
        "time limit": lambda r, i: Stop.TIME_LIMIT,
        "a word": lambda r, i: "completed",
        "nothing": lambda r, i: None,
        "a number": lambda r, i: 7,
    },
    "statistics": {
        "an object": lambda r, i: {"what": object()},
        "NaN": lambda r, i: {"what": math.nan, "more": [math.inf, np.float32("nan")]},
        "deep": lambda r, i: {"what": _deep()},
        "itself": lambda r, i: _circle(),
        "numbers as names": lambda r, i: {1: 2, None: 3, (1, 2): 4},
        "huge": lambda r, i: {"what": 10**5000},
        "bytes and sets": lambda r, i: {"what": b"\xff", "more": {1, 2}, "text": "\ud800"},
        "no mapping": lambda r, i: [1, 2],
        "not there": lambda r, i: None,
    },
}


def _deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(5000):
        found = [found]
    return found


def _circle() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["itself"] = found
    return found


def _written(rng: Random, instance: Instance) -> Claim:
    """Write into everything that the instance hands out, then claim what would be optimal of it."""
    choice, groups = _random_choice(rng, instance), instance.size
    for array in _arrays(instance):
        try:
            array[...] = 0
        except (ValueError, TypeError):
            continue
    return Claim(choice, 0, enumeration=Enumeration(groups, 1))


def _arrays(instance: Instance) -> Iterator[np.ndarray]:
    yield instance.widths
    if not instance.coupled or instance.size < 64:
        yield from instance.tables
    for block in instance.blocks:
        for table in (block.cost, block.damage):
            yield from (table,) if isinstance(table, np.ndarray) else (table.left, table.right)
    for budget in instance.budgets:
        yield budget.table
    damage = instance.problem.damage
    yield damage.values if hasattr(damage, "values") else damage.sensitivity
    yield instance.problem.sizes


WHOLE: dict[str, Lie] = {
    "nothing": lambda r, i: None,
    "a mapping": lambda r, i: {"choice": _feasible(r, i)},
    "a choice": _feasible,
    "the class": lambda r, i: Claim,
    "a word": lambda r, i: "optimal",
    "infeasible": lambda r, i: Claim(None, math.inf, enumeration=Enumeration(i.size, 10**6)),
    "optimal": lambda r, i: Claim(_feasible(Random(0), i), _own(r, i), enumeration=Enumeration(i.size, 10**6)),
    "written into": _written,
}
