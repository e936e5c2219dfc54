"""Why nothing is feasible: every statement of a diagnosis against looking at everything, and forged ones found out."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from known import known, law_of

from impq_opt import Diagnosis, Group, Problem, Status, solve, verify
from impq_opt.costs import LookupCost, TableCost
from impq_opt.files.allocation_record import AllocationRecord, allocation_from_record, allocation_record
from impq_opt.groups.candidates import gather_sets
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.names import GroupNames
from impq_opt.judge.check_conflict import check_conflict

SETS = ((2.0, 4.0, 8.0), (1.0, 2.0, 3.0), (2.0, 3.0), (2.0, 4.25))


def draw(seed: int) -> Any:
    """Return a small problem with many limits, and the question that is asked."""
    random = np.random.default_rng(seed)
    tensors, layers = int(random.integers(1, 3)), int(random.integers(1, 3))
    kernels = [int(k) for k in random.integers(1, 3, layers)]
    count = tensors + sum(kernels)
    names = GroupNames((*(f"a{i}" for i in range(tensors)), *(f"w{i}" for i in range(layers))),
                       ((),) * tensors + tuple((k,) for k in kernels))  # fmt: skip
    sets = [SETS[i] for i in random.permutation(len(SETS))[: random.integers(1, 3)]]
    chosen = [sets[random.integers(len(sets))] for _ in range(count)]
    width = max(map(len, chosen))
    weight = np.arange(count) >= tensors
    macs = np.where(weight, random.integers(1, 20, count), 0)
    reads = np.where(weight & (random.random(count) < 0.8), random.integers(0, tensors, count), -1)
    steps = np.array([[i, i + int(random.integers(0, 2))] if i < tensors else [-1, -1] for i in range(count)])
    tables = [
        TableCost.from_array(random.integers(0 if k else -9, 30, (count, width)), name=f"tab{k}") for k in range(2)
    ]
    problem = Problem.from_sensitivities(
        random.integers(1, 40, count),
        10.0 ** random.uniform(-3, 0, count),
        names=names,
        kinds=np.where(weight, 0, 1),
        macs=macs,
        reads=reads,
        steps=steps,
    )
    left = np.flatnonzero(reads >= 0)
    latency = LookupCost(
        np.zeros((count, width), dtype=np.int64), left, reads[left], random.integers(0, 9, (len(left), width, width))
    )
    changes: dict[str, Any] = {"candidates": gather_sets(chosen), "costs": (*tables, latency)}
    if random.random() < 0.5:
        values = random.choice([0.1, 0.2, 0.3, 1 / 3, 1e-3, 0.0, 0.7], (count, width))
        changes["damage"] = DamageTable(values)
    return replace(problem, **changes), random


def restrain(problem: Problem, random: np.random.Generator) -> Problem:
    """Return the problem with perhaps pins and ties."""
    groups = random.permutation(len(problem)).tolist()
    if random.random() < 0.6 and set(problem.candidates.of(groups[0])) & set(problem.candidates.of(groups[1])):
        problem = replace(problem, ties=(tuple(groups[:2]),))
    pins = {}
    for group in groups[: int(random.integers(0, 4))]:
        pins[group] = int(random.integers(len(problem.candidates.of(group))))
        try:
            problem = replace(problem, pins=dict(pins))
        except ValueError:
            del pins[group]
    return problem


class Everything:
    """Every choice of a problem without pins and ties, and what it costs by formulas of its own."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        sets = [problem.candidates.of(g) for g in range(len(problem))]
        self.choices = np.array(list(itertools.product(*(range(len(s)) for s in sets))))
        self.bits = np.array([[Fraction(b) for b in bits] for bits in itertools.product(*sets)], dtype=object)
        self.values = {"damage": self._damage(), "storage": self.bits @ np.where(problem.weights(), problem.sizes, 0)}
        self.values["representational"] = self.bits @ problem.sizes
        other = [self.bits[:, r] if r >= 0 else np.full(len(self.bits), Fraction(8)) for r in known(problem.reads)]
        self.values["bit-operations"] = sum(
            int(m) * self.bits[:, g] * other[g] for g, m in enumerate(known(problem.macs))
        )
        alive = [
            (known(problem.steps)[:, 0] <= s) & (s <= known(problem.steps)[:, 1]) & ~problem.weights() for s in range(4)
        ]
        peaks = np.array([self.bits @ np.where(a, problem.sizes, 0) for a in alive])
        self.values["peak-activation-memory"] = peaks.max(axis=0)
        for term in problem.costs:
            if isinstance(term, TableCost):
                columns = np.arange(len(problem))
                table = term.values[columns, self.choices].sum(axis=1)
            else:
                assert isinstance(term, LookupCost)
                place = np.arange(len(term.left))
                table = term.pair_values[place, self.choices[:, term.left], self.choices[:, term.right]].sum(axis=1)
            self.values[term.name] = np.array([int(v) * term.quantum for v in table], dtype=object)

    def _damage(self) -> Any:
        problem, total = self.problem, np.full(len(self.choices), Fraction(0))
        for g in range(len(problem)):
            row = problem.damage.at(slice(g, g + 1), problem.candidates.of(g))[0].tolist()
            total = total + np.array([Fraction(d) for d in row], dtype=object)[self.choices[:, g]]
        return total

    def kept(self, question: Any, items: Any) -> Any:
        """Return which choices meet some items of a question: (problem, bound, limits with their weights)."""
        problem, bound, limits = question
        kept = np.ones(len(self.choices), dtype=bool)
        label = [problem.names.labels[i] for i in problem.names.label_of]
        for kind, name in items:
            if kind == "bound":
                kept &= (self.values["damage"] <= bound).astype(bool)
            elif kind == "budget":
                kept &= (self.of(limits, name) <= limits[name][1]).astype(bool)
            elif kind == "pins":
                for group, column in problem.pins.items():
                    kept &= (self.choices[:, group] == column) | (label[group] != name)
            else:
                for tie in problem.ties:
                    same = (self.bits[:, list(tie)] == self.bits[:, [tie[0]]]).astype(bool).all(axis=1)
                    kept &= same | (label[tie[0]] != name)
        return kept

    def of(self, limits: Any, name: Any) -> Any:
        if name == "damage":
            return self.values["damage"]
        return sum(Fraction(weight) * self.values[one] for one, weight in limits[name][0].items())


COSTS = ("storage", "bit-operations", "representational", "tab0", "tab1", "latency", "peak-activation-memory")


def ask(seed: int) -> Any:
    """Return everything, the question, and the answer of :func:`solve` to limits that are hard to meet together."""
    problem, random = draw(seed)
    every = Everything(problem)
    problem = restrain(problem, random)

    share = float(random.choice([0.02, 0.2, 0.5]))

    def low(values: Any) -> Any:
        """Return a limit at, just below or just above what a choice has, near the smallest or not."""
        found = sorted(values)[int(random.integers(0, max(1, int(len(values) * share))))]
        return max(Fraction(found) + random.choice([0, 0, Fraction(-1, 4), Fraction(1, 4)]), Fraction(1, 8))

    names = random.permutation(COSTS).tolist()
    goals: dict[str, Any] = {}
    weights = {names[0]: 1}
    if random.random() < 0.25 and names[0] != COSTS[-1] != names[1]:
        weights = {names[0]: 1, names[1]: 2}
    budgets = {name: low(every.values[name]) for name in names[2 : 2 + int(random.integers(0, 4))]}
    limits = {name: ({name: 1}, limit) for name, limit in budgets.items()}
    bound = None
    if random.random() < 0.75:
        place = int(random.integers(0, max(1, int(len(every.choices) * share))))
        bound = float(sorted(every.values["damage"])[place])
        bound = float(np.nextafter(bound, random.choice([0.0, 1.0, bound]))) or 1e-9
        goals["bound"] = bound
    else:
        cost = sum(weight * every.values[name] for name, weight in weights.items())
        goals["budget"] = low(cost)
        limits = {"+".join(weights): (weights, goals["budget"])} | limits
    problem = replace(problem, budgets=budgets)
    return (
        every,
        (problem, None if bound is None else Fraction(bound), limits),
        solve(problem, minimize=weights, **goals),
    )


def all_items(question: Any) -> Any:
    problem, bound, limits = question
    label = [problem.names.labels[i] for i in problem.names.label_of]
    return {
        *([("bound", "")] if bound is not None else []),
        *(("budget", name) for name in limits),
        *(("pins", label[g]) for g in problem.pins),
        *(("ties", label[tie[0]]) for tie in problem.ties),
    }


def rounds_to(value: Fraction, stated: float, name: str, *, up: bool = False) -> bool:
    """Whether ``stated`` is ``value`` rounded down (or up), damages within two of the last place."""
    beyond = stated
    for _ in range(2 if name == "damage" else 1):
        beyond = math.nextafter(beyond, -math.inf if up else math.inf)
    return Fraction(beyond) < value <= stated if up else stated <= value < Fraction(beyond)


def judge(every: Everything, question: Any, found: Diagnosis) -> None:
    """Assert everything that a diagnosis says."""
    _, bound, limits = question
    conflict = set(found.conflict)
    assert conflict <= all_items(question)
    assert len(conflict) == len(found.conflict)
    assert not every.kept(question, conflict).any(), "it can be met"
    assert found.minimal
    assert found.attained
    for item in conflict:
        assert every.kept(question, conflict - {item}).any(), f"{item} is not needed"
    items = all_items(question)
    if len(items) <= 5:
        for size in range(1, len(conflict)):
            for some in itertools.combinations(items, size):
                assert every.kept(question, some).any(), f"{some} is smaller"
    subject = ("bound", "") if found.limit == "damage" else ("budget", found.limit)
    most = bound if found.limit == "damage" else limits[found.limit][1]
    rest = conflict - {subject}
    values = every.of(limits, found.limit)
    assert rounds_to(min(values[every.kept(question, rest)]), found.smallest, found.limit)
    # A limit on a cost is given in whole quanta of it.
    assert most <= found.allowed or not any(found.allowed < value <= most for value in values)
    assert found.allowed <= math.nextafter(float(most), math.inf)
    assert found.smallest >= found.allowed
    assert (found.without is not None) == bool(rest)
    if rest:
        assert rounds_to(min(values), known(found.without), found.limit, up=True)
    others = [name for item in found.conflict if item != subject for name in [item[1] or "the bound"]]
    assert all(name in text for name, text in zip(others, found.held_by, strict=False))
    assert len(found.held_by) == len(others) or found.limit == "damage"
    text = str(found)
    if found.smallest > found.allowed:
        shown, allowed = text.split(" is ")[1].split(";", maxsplit=1)[0].split(", above ")
        assert float(allowed) >= found.allowed
        assert float(allowed) < float(shown) <= found.smallest


def forged(answer: Any, question: Any, random: np.random.Generator) -> Iterator[Any]:
    """Yield diagnoses that state something false, and what that is."""
    found, (problem, _, limits) = answer.diagnosis, question
    subject = ("bound", "") if found.limit == "damage" else ("budget", found.limit)
    others = [item for item in found.conflict if item != subject]
    more = sorted(all_items(question) - set(found.conflict))
    if others:
        k = int(random.integers(len(others)))
        fewer = tuple(item for item in found.conflict if item != others[k])
        said = found.held_by[:k] + found.held_by[k + 1 :]
        yield "missing item", replace(found, conflict=fewer, held_by=said, without=found.without if said else None)
        yield "missing words", replace(found, held_by=said)
        yield "without", replace(found, without=found.without - 0.5)
        yield "without", replace(found, without=found.without + 0.5)
    if more:
        item = more[int(random.integers(len(more)))]
        text = f"the {item[0]} of {item[1]}"
        if item[0] == "budget":
            text = (
                f"the budget {item[1]} of {float(answer.budgets[item[1]])!r} {unit(problem, limits, item[1])}".rstrip()
            )
        if item[0] != "bound":
            held = (*found.held_by[: len(others)], text)
            yield "needless item", replace(found, conflict=(*found.conflict, item), held_by=held)
    yield "no such item", replace(found, conflict=(*found.conflict, ("pins", "nothing")))
    yield "twice", replace(found, conflict=(*found.conflict, found.conflict[0]))
    yield "more words", replace(found, held_by=(*found.held_by, "the weather"))
    yield "larger", replace(found, smallest=found.smallest + 1)
    yield "larger", replace(found, smallest=found.smallest + 1, attained=False)
    between = (found.smallest + found.allowed) / 2
    if found.allowed < between < found.smallest - 1e-9:
        yield "smaller", replace(found, smallest=between)
    yield "within", replace(found, smallest=found.allowed / 2)
    yield "allowed", replace(found, allowed=found.allowed - 0.25)
    yield "another limit", replace(found, limit="slides")
    for k, text in enumerate(found.held_by[: len(others)]):
        if text.startswith("the budget"):
            told = list(found.held_by)
            told[k] = f"the budget {others[k][1]} of 123456 {unit(problem, limits, others[k][1])}".rstrip()
            yield "another value", replace(found, held_by=tuple(told))


def unit(problem: Any, limits: Any, name: Any) -> Any:
    units = {problem.cost(one).unit for one in limits[name][0]}
    return units.pop() if len(units) == 1 else ""


@pytest.mark.parametrize("block", range(6))
def test_what_a_diagnosis_says_is_so_and_its_judge_knows(block: int) -> None:
    told = []
    for seed in range(block * 30, block * 30 + 30):
        every, question, answer = ask(seed)
        feasible = every.kept(question, all_items(question)).any()
        assert feasible == (answer.status is not Status.INFEASIBLE), seed
        if feasible:
            continue
        assert answer.diagnosis is not None, seed
        judge(every, question, answer.diagnosis)
        findings = check_conflict(question[0], answer)
        assert {one.verdict for one in findings} == {"proved"}, (seed, answer.diagnosis, findings)
        told.append(len(answer.diagnosis.conflict))
        random = np.random.default_rng([seed, 7])
        for what, lie in forged(answer, question, random):
            found = check_conflict(question[0], replace(answer, diagnosis=lie))
            assert any(one.verdict == "wrong" for one in found), (seed, what, lie, found)
    assert len(told) >= 8
    assert max(told) >= 2


def pair(**goals: Any) -> Problem:
    """Return a problem whose bit operations are 40 where the table is 100, and at least 80 where it is 1."""
    groups = [
        Group("act", size=1, sensitivity=1.0, bits=(2, 4), kind="activation"),
        Group("w", size=10, sensitivity=1.0, bits=(2, 4), macs=10, reads="act"),
    ]
    table = TableCost.from_array(np.array([[0, 0], [100, 1]]), name="tab")
    return Problem.declare(groups, costs=(table,), minimize="storage", **goals)


def test_the_other_limit_is_named_and_what_is_reached_without_it() -> None:
    problem = pair(budgets={"bit-operations": 70, "tab": 10}, bound=100)
    found = solve(problem)
    assert known(found.diagnosis).conflict == (("budget", "bit-operations"), ("budget", "tab"))
    said = "the smallest reachable bit-operations is 80, above 70; held there by the budget tab of 10 (without it 40)"
    assert str(found.diagnosis) == said
    assert verify(problem, found).proved


@pytest.mark.parametrize("limit, status", [(79, "infeasible"), (80, "optimal"), (81, "optimal")])
def test_one_below_what_is_smallest_is_infeasible(limit: int, status: str) -> None:
    found = solve(pair(budgets={"bit-operations": limit, "tab": 10}, bound=100))
    assert found.status.value == status


def test_a_pin_and_a_tie_that_conflict_only_together() -> None:
    groups = [Group(name, size=10, sensitivity=1.0, bits=(2, 8)) for name in "abc"]
    problem = Problem.declare(groups, budgets={"storage": 239}, bound=100, pins={"a": 8}, ties=[("a", "b", "c")])
    found = solve(problem)
    assert known(found.diagnosis).conflict == (("budget", "storage"), ("pins", "a"), ("ties", "a"))
    held = "held there by the pins of a; the ties of a (without them 60)"
    assert str(found.diagnosis) == f"the smallest reachable storage is 240, above 239; {held}"
    assert verify(problem, found).proved
    assert solve(replace(problem, ties=())).status is solve(replace(problem, pins={})).status is Status.OPTIMAL
    assert known(solve(replace(problem, budgets={"storage": Fraction(59)})).diagnosis).held_by == ()


def test_every_strategy_tells_the_same() -> None:
    alone = replace(pair(bound=0.01), costs=())
    both = pair(budgets={"bit-operations": 30, "tab": 10}, bound=100)
    assert solve(both, solver="milp").diagnosis == solve(both).diagnosis
    for solver in ("greedy", "lagrangian", "uniform", "milp"):
        assert solve(alone, solver=solver).diagnosis == solve(alone).diagnosis


def test_weighted_costs_are_limited_by_their_sum() -> None:
    problem = pair(budgets={"tab": 10})
    found = solve(problem, budget=100, minimize={"bit-operations": 1, "storage": 1})
    assert str(found.diagnosis) == (
        "the smallest reachable bit-operations+storage is 120, above 100; "
        "held there by the budget tab of 10 (without it 60)"
    )
    assert verify(problem, found).proved


def test_a_diagnosis_survives_its_file_and_old_files_have_none() -> None:
    problem = pair(budgets={"bit-operations": 70, "tab": 10}, bound=100)
    found = solve(problem)
    document = allocation_record(found)
    read = allocation_from_record(msgspec.convert(document, AllocationRecord), problem)
    assert read.diagnosis == found.diagnosis
    for name in ("conflict", "minimal", "attained", "without"):
        del document["diagnosis"][name]
    old = allocation_from_record(msgspec.convert(document, AllocationRecord), problem)
    assert known(old.diagnosis).conflict == ()
    checks = {check.name: check.verdict.value for check in verify(problem, old).checks}
    assert (checks["status"], checks["diagnosis"]) == ("proved", "claimed")
    for lie in (replace(known(old.diagnosis), smallest=60.0), replace(known(old.diagnosis), allowed=60.0)):
        assert not verify(problem, replace(old, diagnosis=lie)).ok


def test_a_feasible_problem_called_infeasible_is_found_wrong() -> None:
    problem = pair(budgets={"bit-operations": 80, "tab": 10}, bound=100)
    honest = solve(pair(budgets={"bit-operations": 70, "tab": 10}, bound=100))
    for diagnosis in (None, honest.diagnosis, replace(known(honest.diagnosis), allowed=80.0, smallest=81.0)):
        lie = replace(solve(problem), status=Status.INFEASIBLE, choice=None, diagnosis=diagnosis)
        assert check_conflict(problem, lie)[0].verdict == "wrong"


@pytest.mark.parametrize(
    "lie",
    [
        {"smallest": math.inf},
        {"smallest": math.nan},
        {"allowed": -math.inf},
        {"without": math.inf},
        {"held_by": ("the budget tab of 1e999999999",)},
        {"held_by": ("the budget tab of " + "9" * 5000,)},
        {"held_by": ("the budget tab of ",)},
        {"held_by": ()},
        {"conflict": (("budget", "bit-operations"), ("candidates", "w"))},
        {"conflict": (("bound", ""),)},
        {"conflict": (("pins", ""), ("ties", ""))},
        {"limit": "damage"},
        {"limit": ""},
        {"conflict": (), "smallest": math.nan},
    ],
    ids=str,
)
def test_nonsense_is_found_wrong_without_a_traceback(lie: Any) -> None:
    problem = pair(budgets={"bit-operations": 70, "tab": 10}, bound=100)
    found = solve(problem)
    verification = verify(problem, replace(found, diagnosis=replace(known(found.diagnosis), **lie)))
    assert not verification.ok
    assert str(replace(known(found.diagnosis), **lie))
    status = next(check for check in verification.checks if check.name == "status")
    assert status.verdict.value == "proved"  # that nothing is feasible stays true


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_what_could_not_be_told_in_time_is_not_claimed(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.proof.infeasible._SECONDS", seconds)
    unsure = 0
    for seed in range(60):
        every, question, answer = ask(seed)
        if answer.status is not Status.INFEASIBLE:
            continue
        found = answer.diagnosis
        conflict = set(found.conflict)
        assert not every.kept(question, conflict).any(), seed
        if found.minimal:
            assert all(every.kept(question, conflict - {item}).any() for item in conflict), seed
        else:
            assert "could not be shown" in str(found)
        subject = ("bound", "") if found.limit == "damage" else ("budget", found.limit)
        within = every.of(question[2], found.limit)[every.kept(question, conflict - {subject})]
        assert all(value >= found.smallest for value in within), seed
        if not found.attained:
            assert "is at least" in str(found) or " is above" in str(found)
        unsure += not (found.minimal and found.attained)
        assert all(one.verdict != "wrong" for one in check_conflict(question[0], answer)), seed
    assert unsure or seconds


def test_a_judge_that_may_look_at_little_claims_no_more_than_it_saw() -> None:
    verdicts = set()
    for seed in range(60):
        _, question, answer = ask(seed)
        if answer.status is Status.INFEASIBLE:
            findings = check_conflict(question[0], answer, states=1)
            assert all(one.verdict != "wrong" for one in findings), seed
            verdicts |= {one.verdict for one in findings}
            for what, lie in forged(answer, question, np.random.default_rng(seed)):
                told = check_conflict(question[0], replace(answer, diagnosis=lie), states=1)
                assert any(one.verdict != "proved" for one in told), (seed, what)
    assert verdicts == {"proved", "claimed"}


def test_many_groups_and_pins_are_quick() -> None:
    random = np.random.default_rng(0)
    names = GroupNames(tuple(f"layer{i}" for i in range(200)), ((1000,),) * 200)
    problem = Problem.from_sensitivities(random.integers(1, 99, 200_000), random.random(200_000), names=names)
    pinned = replace(problem, pins=dict.fromkeys(range(0, 200_000, 500), 0))
    bound = float(sum(law_of(problem).sensitivity) * 4.0**-8 * 1.01)
    started = time.perf_counter()
    found = solve(pinned, bound=bound)
    assert time.perf_counter() - started < 30
    assert known(found.diagnosis).minimal
    assert known(found.diagnosis).attained
    assert known(found.diagnosis).conflict[0] == ("bound", "")
    assert {kind for kind, _ in known(found.diagnosis).conflict[1:]} == {"pins"}
    checks = verify(pinned, found)
    assert checks.proved, checks


def test_what_was_not_found_out_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    from impq_opt.judge.together import Case, Decision

    problem = Problem.from_sensitivities([10, 10], [1.0, 1.0], bits=[1, 2]).revise(budgets={"storage": 30})
    answer = solve(problem, bound=0.2)  # 0.125 needs 40 bits of storage
    assert answer.diagnosis is not None
    assert {one.verdict for one in check_conflict(problem, answer)} == {"proved"}
    monkeypatch.setattr(Case, "decide", lambda *_: Decision(None))
    found = {one.what: one.verdict for one in check_conflict(problem, answer)}
    assert {found[what] for what in ("status", "conflict", "each is needed")} == {"claimed"}
