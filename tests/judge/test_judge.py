"""The judge: right against everything that there is, and on its own, whatever is wrong on the solvers' side."""

from __future__ import annotations

import functools
import importlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from imports import IMPORTS
from known import known

from impq_opt import Allocation, Group, ImpqError, Problem, Status, solve, verify
from impq_opt.costs import TableCost
from impq_opt.instance import Instance
from impq_opt.instance.question import make_instance
from impq_opt.judge.checks import Verdict
from impq_opt.judge.declared import cost_of, damage_of
from impq_opt.judge.recount import Outcome, prove_bound, prove_infeasible

# -- against every assignment ----------------------------------------------------------------------------------------

COSTS = {"storage": 500, "bit-operations": 1500, "activation-memory": 150, "peak-activation-memory": 150, "tab": 120}


def drawn(draw: random.Random) -> Problem:
    """Return a small problem with any of pairs, shared activations, peaks, tables, ties, pins and ragged candidates."""
    count, activations = draw.randint(1, 3), [f"x{i}" for i in range(draw.randint(0, 2))]
    bits = draw.choice([(2, 4), (2, 4, 8), (1, 2, 3)])

    def sensitivity() -> float:
        return draw.choice([0.0, 0.1, 0.3, 1e-8, draw.random() * 2])

    groups = [
        Group(
            name,
            size=draw.randint(1, 20),
            sensitivity=sensitivity(),
            kind="activation",
            bits=bits if draw.random() < 0.8 else bits[:2],
            steps=(i, i + 1),
        )
        for i, name in enumerate(activations)
    ]
    for i in range(count):
        graph: dict[str, Any] = {}
        if activations:
            graph = {"reads": draw.choice(activations), "macs": draw.randint(1, 50)}
            others = [name for name in activations if name != graph["reads"]]
            if others and draw.random() < 0.4:
                graph["also_reads"] = [(others[0], draw.randint(1, 30))]
        taken = bits if draw.random() < 0.7 else bits[-2:]
        groups.append(Group(f"w{i}", size=draw.randint(1, 40), sensitivity=sensitivity(), bits=taken, **graph))
    table = np.array([[draw.randint(-20, 50) for _ in range(3)] for _ in groups])
    costs = (TableCost.from_array(table, name="tab"),) if draw.random() < 0.3 else ()
    there = {"storage", *(["bit-operations", "peak-activation-memory", "activation-memory"] if activations else [])}
    there |= {term.name for term in costs}
    budgets = {name: draw.randint(1, most) for name, most in COSTS.items() if name in there and draw.random() < 0.35}
    return Problem.declare(
        groups,
        costs=costs,
        minimize=draw.choice(sorted(there - {"activation-memory"})),
        budgets=budgets,
        ties=[["w0", "w1"]] if count > 1 and draw.random() < 0.3 else [],
        pins={groups[-1].name: groups[-1].bits[-1]} if draw.random() < 0.2 else None,
    )


def asked(draw: random.Random, problem: Problem) -> Instance | None:
    """Return an instance of some question, or None where the problem has no such one."""
    try:
        if draw.random() < 0.7:
            return make_instance(problem, bound=draw.choice([0.01, 0.05, 0.1, 0.3, 1.0]))
        return make_instance(problem, budget=draw.randint(10, 400))
    except ImpqError:
        return None


def value(instance: Instance, choice: np.ndarray) -> int | Fraction:
    return instance.cost_of(choice) if instance.objective.whole else instance.damage_of(choice)


def optimum(instance: Instance) -> int | Fraction | None:
    every = (np.array(one, dtype=np.int64) for one in itertools.product(*map(range, instance.widths.tolist())))
    return min((value(instance, one) for one in every if instance.is_feasible(one)), default=None)


@pytest.mark.parametrize("seed", range(200))
def test_the_judge_is_right_whatever_the_multipliers(seed: int) -> None:
    draw = random.Random(seed)
    instance = asked(draw, drawn(draw))
    if instance is None or instance.size == 0:
        return
    best = optimum(instance)
    names = ["bound", "budget", *(budget.name for budget in (*instance.budgets, *instance.peaks))]
    prices = [0.0, draw.random(), 10 ** draw.uniform(-3, 5)]
    multipliers = {name: draw.choice(prices) for name in names if draw.random() < 0.6}
    found = prove_infeasible(instance, multipliers)
    assert found.outcome is (Outcome.PROVED if best is None else Outcome.REFUTED)
    if best is None:
        return
    above = best + (1 if instance.objective.whole else Fraction(1, 2**1074))
    assert prove_bound(instance, multipliers, best).outcome is Outcome.PROVED
    refuted = prove_bound(instance, multipliers, above)
    assert refuted.outcome is Outcome.REFUTED
    assert refuted.better is not None
    assert instance.is_feasible(refuted.better)
    assert value(instance, refuted.better) == best
    # What is said to follow from the multipliers alone is never above the truth.
    assert prove_bound(instance, multipliers, above, states=0).outcome is not Outcome.PROVED


@pytest.mark.parametrize("most", [1, 3, 10])
def test_cases_and_merged_parts_come_to_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.judge.recount._TRIED", most)  # hubs are gone through one by one
    monkeypatch.setattr("impq_opt.judge.recount._FEW", 0)  # and prices are searched
    tried = 0
    for seed in range(60):
        draw = random.Random(seed)
        instance = asked(draw, drawn(draw))
        best = None if instance is None or instance.size == 0 else optimum(instance)
        if instance is None or best is None:
            continue
        tried += 1
        assert prove_bound(instance, {}, best).outcome is Outcome.PROVED
        above = best + (1 if instance.objective.whole else Fraction(1, 2**1074))
        assert prove_bound(instance, {}, above).outcome is Outcome.REFUTED
    assert tried > 20


def test_bits_operations_of_a_thousand_kernels_are_proved() -> None:
    rng = np.random.default_rng(3)
    kernels, tensors = 1000, 10
    reads = np.repeat(np.arange(kernels, kernels + tensors), kernels // tensors)
    problem = Problem.from_sensitivities(
        rng.integers(9, 500, kernels + tensors),
        np.exp(rng.normal(size=kernels + tensors)) * 1e-3,
        bits=(2, 3, 4, 5, 6, 8),
        kinds=["weight"] * kernels + ["activation"] * tensors,
        macs=np.r_[rng.integers(100, 900, kernels), np.zeros(tensors, dtype=np.int64)],
        reads=np.r_[reads, np.full(tensors, -1)],
        objective={"bit-operations": 1},
    )
    answer = solve(problem, bound=0.01)
    assert answer.status is Status.OPTIMAL
    found = verify(problem, answer)
    assert found.proved, found


def test_damages_are_compared_by_the_judge_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.from_sensitivities([100, 200, 150, 120], [0.9, 0.5, 0.7, 0.3])
    for module in ("exactness.sums", "instance.row"):
        monkeypatch.setattr(f"impq_opt.{module}.reported_as_low", lambda *_: True)
    answer = solve(problem, budget=1999, solver="lagrangian")
    assert answer.status is Status.OPTIMAL
    assert not verify(problem, answer).proved


@pytest.mark.parametrize("pinned", [False, True])
def test_tied_formats_of_one_width_are_told_apart(pinned: bool) -> None:
    """Both at the second format is the only answer: it has the width of the first, and half of its damage."""
    groups = [
        Group(name, size=10, damage=(1.0, 0.5), bits=(4, 4), formats=formats)
        for name, formats in (("a", ("x", "y")), ("b", ("x", "y")))
    ]
    groups.append(Group("c", size=10, damage=(0.5, 1.0), bits=(4, 4), formats=("y", "x")))
    problem = Problem.declare(groups, ties=[["a", "b", "c"]], pins={"c": "y"} if pinned else None)
    for solver in ("exact", "exhaustive"):
        answer = solve(problem, bound=1.5, solver=solver)
        assert answer.status is Status.OPTIMAL
        assert answer.exact_damage == Fraction(3, 2)
        assert verify(problem, answer).proved
    answer = solve(problem, bound=1.4999)
    assert answer.status is Status.INFEASIBLE
    assert verify(problem, answer).proved


# -- the wall --------------------------------------------------------------------------------------------------------

# All that the judge may share with whoever solves: names, numbers, the declared problem, the instance of a question.
SHARED = {"text", "errors", "types", "registry", "exactness", "documents", "groups", "costs", "problem"}
OF_INSTANCE = {
    f"instance.{part}" for part in ("instance", "blocks", "row", "cost_row", "ties", "coupling", "compile", "question")
}


def shared(name: str) -> bool:
    """Whether a module is one that the judge may share."""
    return name.split(".", maxsplit=1)[0] in SHARED or name in OF_INSTANCE


def judges(name: str) -> bool:
    """Whether a module belongs to the judge."""
    return name.split(".", maxsplit=1)[0] == "judge"


def reached(start: str) -> set[str]:
    """Return all modules that a module imports, directly or through others."""
    found: set[str] = set()
    open_ = [start]
    while open_:
        for other in IMPORTS[open_.pop()] - found:
            found.add(other)
            open_.append(other)
    return found


def test_the_judge_shares_sums_and_the_question_and_nothing_else() -> None:
    used = reached("judge.verify")
    assert all(shared(name) or judges(name) for name in used), sorted(
        n for n in used if not shared(n) and not judges(n)
    )
    # A third party's enumeration is repeated before it is believed; no strategy asks the judge for more.
    solving = set().union(*(reached(name) for name in IMPORTS if name.startswith("solvers.")))
    assert not any(map(judges, solving)), sorted(filter(judges, solving))


# -- planted bugs ----------------------------------------------------------------------------------------------------


def _off_by_one_column(choice: Any) -> Any:
    return None if choice is None or not len(choice) else np.maximum(choice - 1, 0)


def _looser(limits: Any) -> Any:
    from dataclasses import replace

    return [
        replace(
            one, kept=np.zeros_like(one.kept) | (np.arange(one.kept.size) == one.kept.size - 1).reshape(one.kept.shape)
        )
        for one in limits
    ]


def _raised(bound: Any) -> Any:
    return Fraction(bound) + abs(Fraction(bound)) / 4 + 1 if isinstance(bound, int | Fraction) else bound


def _dearer(tables: Any) -> Any:
    cost, damage = tables
    cost = cost.copy()
    cost[:, 2] -= 60
    return cost, damage


def _doubled(total: Any) -> Any:
    return total * 2


def _replaced(one: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(one, **changes)


def _fewer_pairs(pairs: Any) -> Any:
    return None if pairs is None else _replaced(pairs, left=pairs.left[1:], right=pairs.right[1:])


def _steeper(row: Any) -> Any:
    return row if row.slope is None else _replaced(row, slope=row.slope + 2)


def _fewer_columns(tie: Any) -> Any:
    return _replaced(tie, columns=tie.columns[:, 4:])


def _pinned(found: Any) -> Any:
    fixed, is_free, ties = found
    if is_free is not None:
        is_free[3], fixed[3] = False, 7
    return fixed, is_free, ties


def _cheaper(block: Any) -> Any:
    return _replaced(block, cost=block.cost * 2, damage=block.damage * 2)


def _tighter(row: Any) -> Any:
    return _replaced(row, limit=row.limit and (row.limit * 3 // 4 if row.whole else row.limit * Fraction(3, 4)))


def _tightened(instance: Instance) -> Instance:
    return _replaced(instance, bound=instance.bound and instance.bound * Fraction(3, 4))


# Module, function, what is done to what it returns.
PLANTED: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("instance.idle", "least_damage", _off_by_one_column),
    ("instance.local", "local_limits", _looser),
    ("proof.pricing", "least_priced", _raised),
    ("proof.bound", "dual_bound", _raised),
    ("instance.elimination", "least_sum", lambda found: (found[0] + (1 << 58), *found[1:])),
    ("instance.settle", "settle", lambda rest: _with_base(rest, 7)),
    ("instance.compile", "compile_instance", lambda instance: _with_base(instance, 5)),
    ("instance.blocks", "Block.tables", _dearer),
    ("instance.cost_row", "CostRow.total", lambda total: total - 11),
    ("instance.coupling", "Coupling.dense", _doubled),
    ("instance.coupling", "Coupling.at", _doubled),
    ("exactness.sums", "exact_sum", lambda total: total * Fraction(3, 4)),
    ("exactness.sums", "exact_int_sum", lambda total: total + 11),
    ("exactness.sums", "sum_rows_down", _doubled),
    ("instance.instance", "Instance.lift", _off_by_one_column),
    ("instance.instance", "Instance._own_rows", lambda rows: (_replaced(rows[0], base=rows[0].base + 5), rows[1])),
    ("instance.instance", "Instance._own_rows", lambda rows: tuple(map(_tighter, rows))),
    ("instance.instance", "Instance._own_rows", lambda rows: tuple(_replaced(row, limit=None) for row in rows)),
    ("instance.row", "Row.room", lambda room: room * Fraction(3, 4)),
    ("instance.row", "Row.table", _doubled),
    ("instance.row", "Row.ends", lambda ends: (ends[0], ends[1] - 2000)),
    ("instance.row", "Row.broken_by", lambda broken: True),
    ("instance.blocks", "Tables.both", lambda tables: (tables[0] + 3, tables[1])),
    ("instance.blocks", "Tables.both", lambda tables: (tables[0], tables[1] * 1.5)),
    ("instance.blocks", "Tables.widths", lambda widths: np.maximum(widths - 5, 1)),
    ("instance.blocks", "RankOne.dense", lambda table: table * 2),
    ("instance.ties", "member_damages", _doubled),
    ("instance.coupling", "couple", lambda found: (found[0], found[1], found[2] + 7)),
    ("instance.coupling", "couple", lambda found: (found[0], _fewer_pairs(found[1]), found[2])),
    ("instance.coupling", "couple", lambda found: (_steeper(found[0]), *found[1:])),
    ("instance.cost_row", "CostRow.chosen", lambda row: row + 9),
    ("instance.cost_row", "CostRow.dense", lambda rows: rows[:, ::-1]),
    ("instance.cost_row", "CostRow.levels", _doubled),
    ("instance.cost_row", "budget_rows", lambda rows: [(name, _steeper(row)) for name, row in rows]),
    ("instance.cost_row", "budget_rows", lambda rows: []),
    ("groups.candidates", "Candidates.bits", lambda bits: bits + 1),
    ("groups.candidates", "Candidates.counts", lambda counts: np.maximum(counts - 5, 1)),
    ("groups.damage", "PowerLaw.scale", _doubled),
    ("groups.damage", "PowerLaw.at", _doubled),
    ("groups.damage", "PowerLaw.chosen", lambda damage: damage * 0.5),
    ("instance.compile", "_place_ties", lambda ties: tuple(_fewer_columns(tie) for tie in ties)),
    ("instance.compile", "_reduce", _pinned),
    ("instance.compile", "_merged_block", _cheaper),
    ("instance.compile", "_budget", lambda budget: _replaced(budget, limit=budget.limit * 3 // 4)),
    ("instance.compile", "_budget", lambda budget: _replaced(budget, entries=budget.table + 3)),
    ("instance.compile", "compile_instance", _tightened),
    ("instance.question", "_quanta", lambda quanta: quanta * 3 // 4),
]


def _with_base(instance: Instance, more: int) -> Instance:
    from dataclasses import replace

    return replace(instance, base_cost=instance.base_cost + more)


def plant(monkeypatch: pytest.MonkeyPatch, module: str, name: str, change: Callable[[Any], Any]) -> None:
    """Put a bug into a function or method, wherever it was imported."""
    owner: Any = importlib.import_module(f"impq_opt.{module}")
    *classes, last = name.split(".")
    for one in classes:
        owner = getattr(owner, one)
    right = getattr(owner, last)
    if isinstance(right, functools.cached_property | property):
        read: Any = right.func if isinstance(right, functools.cached_property) else right.fget
        monkeypatch.setattr(owner, last, property(lambda one: change(read(one))))
        return

    def wrong(*args: Any, **keywords: Any) -> Any:
        return change(right(*args, **keywords))

    monkeypatch.setattr(owner, last, wrong)
    if not classes:
        for other in list(sys.modules.values()):
            if (
                other is not owner
                and getattr(other, "__name__", "").startswith("impq_opt")
                and getattr(other, last, None) is right
            ):
                monkeypatch.setattr(other, last, wrong)


def questions() -> Iterator[tuple[Problem, dict[str, Any]]]:
    """Yield questions that take every way through the solvers: pairs, peaks, several budgets, ties, least damage."""
    sizes, sensitivities = [100, 200, 150, 120, 64, 64, 32, 32], [0.9, 0.5, 0.7, 0.3, 0.4, 0.2, 0.3, 0.1]
    problem = Problem.from_sensitivities(
        sizes,
        sensitivities,
        kinds=["weight"] * 4 + ["activation"] * 4,
        macs=np.array([100, 110, 120, 130, 0, 0, 0, 0]),
        reads=np.array([4, 5, 6, 7, -1, -1, -1, -1]),
    )
    yield problem.revise(budgets={"peak-activation-memory": 520}), {"bound": 0.05}
    yield problem, {"bound": 0.05, "minimize": "bit-operations"}
    yield problem.revise(budgets={"bit-operations": 4100}), {"bound": 0.05}
    yield problem.revise(ties=[["group[0]", "group[1]"]], pins={"group[2]": 4}), {"bound": 0.05}
    yield problem, {"budget": 2000}
    yield problem.revise(budgets={"storage": 2000}), {"bound": 0.05, "minimize": "peak-activation-memory"}
    rng = np.random.default_rng(7)
    tables = [TableCost.from_array(rng.integers(1, 99, (8, 8)), name=name) for name in ("time", "energy")]
    problem = Problem.from_sensitivities(sizes, sensitivities, costs=tables, objective={"time": 1})
    yield problem.revise(budgets={"energy": 240}), {"bound": 0.05}
    yield problem.revise(budgets={"energy": 240}), {"budget": 250}


@functools.cache
def truths() -> tuple[Allocation, ...]:
    """Return the right answers, each of them proved."""
    answers = tuple(solve(problem, **goals) for problem, goals in questions())
    assert all(answer.status is Status.OPTIMAL for answer in answers)
    assert all(verify(answer.problem, answer).proved for answer in answers)
    return answers


@pytest.mark.parametrize(
    ("module", "name", "change"), PLANTED, ids=[f"{i} {m}.{n}" for i, (m, n, _) in enumerate(PLANTED)]
)
def test_a_bug_on_the_solvers_side_is_not_proved(
    module: str, name: str, change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = truths()
    # Rows and what is made of them are kept with a problem: the bug has to be met anew.
    asked = list(questions())
    plant(monkeypatch, module, name, change)
    noticed = 0
    for (problem, goals), truth in zip(asked, right, strict=True):
        try:
            answer = solve(problem, **goals, time_limit=3)  # what is wrong may also run on
        except Exception:  # caught before there was an answer
            noticed += 1
            continue
        false = answer.status is Status.INFEASIBLE or (
            answer.choice is not None
            and (answer.status is Status.OPTIMAL or answer.exact_lower_bound > known(truth.exact_objective))
            and (
                answer.exact_objective != truth.exact_objective
                or answer.exact_lower_bound > known(truth.exact_objective)
            )
        )
        if false:
            noticed += 1
            try:
                found = verify(problem, answer)
            except Exception:
                continue
            assert not found.proved, f"{answer}\n{found}"
    assert noticed, "the planted bug did nothing"


def test_a_limit_that_the_solvers_side_adds_up_wrongly_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list(questions())
    plant(monkeypatch, "instance.row", "Row.at", lambda total: total - 600)
    broken = 0
    for problem, goals in (asked[0], asked[6]):
        for solver in ("iterative", "noise-equalization"):
            answer = solve(problem, **goals, solver=solver)
            if answer.choice is not None and any(
                cost_of(problem, {name: 1}, answer.choice) > limit for name, limit in answer.budgets.items()
            ):
                broken += 1
                assert not verify(problem, answer).ok
    assert broken, "the planted bug did nothing"


@pytest.mark.parametrize("goals", [{"budget": 2000}, {"bound": 0.05}])
def test_what_is_minimised_is_what_was_asked(goals: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against another objective, a false bound would follow from the limits."""
    problem, _ = next(itertools.islice(questions(), 1, None))
    truth = solve(problem, **goals)
    # Everybody at the most bits, under a budget at the least.
    column = 0 if "budget" in goals else 7
    choice = np.full(len(problem), column)
    cost, damage = cost_of(problem, truth.cost_weights, choice), damage_of(problem, choice)
    value = damage if "budget" in goals else cost
    lie = _replaced(
        truth, choice=choice, exact_cost=cost, exact_damage=damage, exact_lower_bound=value, certificate=None
    )
    assert not verify(problem, lie).proved
    other = "cost" if "budget" in goals else "damage"
    monkeypatch.setattr(Instance, "objectives", property(lambda instance: (getattr(instance, other),)))
    assert not verify(problem, lie).proved


def _dearest_first(instance: Instance) -> Instance:
    blocks = (_replaced(block, damage=np.asarray(block.damage)[:, ::-1]) for block in instance.blocks)
    return _replaced(instance, blocks=tuple(blocks))


# Which instances of parts of a question have the bug, and what is done to them.
IN_PARTS: dict[str, tuple[Callable[[Instance], bool], Callable[[Instance], Instance]]] = {
    "a budget alone": (lambda part: part.bound is None, lambda part: _with_base(part, 1 << 20)),
    "the bound alone": (lambda part: not part.budgets, _dearest_first),
    "both, without the objective": (
        lambda part: "representational" in part.row.weights and bool(part.budgets),
        lambda part: _replaced(part, budgets=tuple(map(_tighter, part.budgets))),
    ),
}


@pytest.mark.parametrize("where", IN_PARTS)
@pytest.mark.parametrize("budgets", [{"tab": 6}, {"peak-activation-memory": 16}], ids=["sum", "peak"])
def test_a_bug_in_what_is_compiled_of_a_part_of_a_conflict_proves_nothing(
    where: str, budgets: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole question is compiled right, so that only comparing the parts finds it."""
    groups = [
        Group(name, size=2, kind="activation", damage=(2.0, 0.5, 0.0), bits=(2, 4, 8), steps=(0, 1)) for name in "xy"
    ]
    tab = TableCost.from_array(np.array([[1, 3, 9]] * 2), name="tab")
    problem = Problem.declare(groups, costs=(tab,), minimize="activation-memory", budgets=budgets)
    truth = solve(problem, bound=1.0)
    lie = _replaced(truth, status=Status.INFEASIBLE, choice=None, diagnosis=None)
    assert {check.name: check.text for check in verify(problem, lie).checks}["status"].endswith("keeps every limit")
    is_part, change = IN_PARTS[where]
    plant(monkeypatch, "instance.compile", "compile_instance", lambda part: change(part) if is_part(part) else part)
    checks = {check.name: check for check in verify(problem, lie).checks}
    assert checks["status"].verdict is not Verdict.PROVED
    assert checks["question"].verdict is Verdict.WRONG
