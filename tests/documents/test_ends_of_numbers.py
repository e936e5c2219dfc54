"""Where float64 and 64 bits end: nothing false is said there, nothing ends in a traceback, and files read back."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from impq_opt import Group, ImpqError, Problem, solve, verify
from impq_opt.costs import TableCost
from impq_opt.errors import SolverError
from impq_opt.exactness import native
from impq_opt.files import load_allocation, load_problem, save_allocation, save_problem
from impq_opt.instance import Instance
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.question import make_instance
from impq_opt.judge.recount import Outcome, prove_bound
from impq_opt.problem.allocation import Enumeration, Status
from impq_opt.proof.pricing import least_priced

SMALLEST = Fraction(1, 2**1074)


@pytest.fixture(autouse=True)
def _strict() -> None:
    warnings.simplefilter("error", RuntimeWarning)


@pytest.mark.parametrize("pinned", [6.650795861932699e159, 1.7e308, 1e-300])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_pin_far_above_tiny_damages(pinned: float, beside: int) -> None:
    damage = (6.34e-321, 1.9265363472098353e-253, 3.1695448492930557e-262)
    groups = [
        Group("free", size=1, bits=(1, 2, 4), damage=damage),
        Group("held", size=1, bits=(1, 5), damage=(0.0, pinned)),
    ]
    problem = Problem.declare(groups, pins={"held": 5})
    bound = Fraction(pinned) + Fraction(damage[0]) + beside * SMALLEST
    found = solve(problem, bound=bound)
    assert found.status is (Status.INFEASIBLE if beside < 0 else Status.OPTIMAL)
    assert beside < 0 or found.exact_cost == 6
    assert verify(problem, found).proved


@pytest.mark.parametrize("share", [Fraction(199, 100), Fraction(17, 10)])
def test_why_nothing_is_feasible_beyond_float64(share: Fraction, tmp_path: Path) -> None:
    problem = Problem.declare([Group(name, size=1, bits=(4,), damage=(1e308,)) for name in "ab"])
    found = solve(problem, bound=share * Fraction(1e308))
    assert found.status is Status.INFEASIBLE
    assert verify(problem, found).proved
    save_allocation(found, tmp_path / "a.json")
    again = load_allocation(tmp_path / "a.json", problem)
    assert again.diagnosis == found.diagnosis
    assert verify(problem, again).proved
    document = json.loads((tmp_path / "a.json").read_text())
    document["diagnosis"]["allowed"] = None if document["diagnosis"]["allowed"] else 1e308
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert not verify(problem, load_allocation(tmp_path / "a.json", problem)).ok


@pytest.mark.parametrize("budgets", [{}, {"storage": 150}])
def test_coupled_damages_whose_sums_leave_float64(budgets: dict[str, int]) -> None:
    damage = (1.7e308, 1.2e308, 1e307)
    groups = [Group(f"a{i}", size=5, bits=(2, 4, 8), damage=damage, kind="activation") for i in range(2)]
    groups += [
        Group(f"w{i}", size=7 + i, bits=(2, 4, 8), damage=damage, macs=7 + i, reads=f"a{i % 2}") for i in range(3)
    ]
    problem = Problem.declare(groups, minimize="bit-operations", budgets=budgets)
    found = solve(problem, budget=500)
    best = min(
        sum(Fraction(damage[k]) for k in choice)
        for choice in itertools.product(range(3), repeat=5)
        if sum((7 + i) * (2, 4, 8)[choice[2 + i]] * (2, 4, 8)[choice[i % 2]] for i in range(3)) <= 500
        and (not budgets or sum((7 + i) * (2, 4, 8)[choice[2 + i]] for i in range(3)) <= 150)
    )
    assert found.status is Status.OPTIMAL
    assert found.exact_damage == best
    assert verify(problem, found).proved


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("price", [1e250, 1e300, 1.7976931348623157e308])
def test_prices_that_overflow_leave_a_level_of_0_at_0(
    price: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "library", None)
    groups = [Group("a", size=1, sensitivity=0.0, bits=(0, 8), kind="activation")]
    groups += [Group(f"w{i}", size=9, sensitivity=0.0, bits=(0, 8), macs=1 << 40, reads="a") for i in range(3)]
    instance = make_instance(Problem.declare(groups, minimize="bit-operations"), budget=1)
    with np.errstate(over="ignore"):
        assert -1 < least_priced(instance, [(instance.cost, price), (instance.damage, 1.0)]) <= 0


def test_a_group_counts_once_in_an_enumeration() -> None:
    groups = [
        Group("a0", size=18, sensitivity=5.551115123125783e-17, bits=(2, 4.25, 8), kind="activation"),
        Group("w0", size=8, sensitivity=0.2, bits=(2, 4.25, 8), macs=10, reads="a0"),
        Group("w1", size=3, sensitivity=0.3, bits=(2, 4.25, 8), macs=36, reads="a0"),
    ]
    problem = Problem.declare(groups, minimize="bit-operations")
    for budget in range(200, 2000, 150):
        found = solve(problem, budget=budget)
        if found.exact_damage is not None:
            again = prove_bound(make_instance(problem, budget=budget), {}, found.exact_damage)
            assert again.outcome is Outcome.PROVED
            assert again.groups <= 3


@pytest.mark.parametrize("bound", [10**400, Fraction(10**400, 3)])
def test_a_claimed_bound_beyond_float64_is_refused(bound: int | Fraction) -> None:
    @dataclass(frozen=True)
    class Liar(Solver):
        name = "liar"
        summary = "claims more than there is"
        supports = frozenset({"damage"})

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(np.zeros(instance.size, dtype=np.int64), bound, enumeration=Enumeration(0, 0))

    problem = Problem.from_tables([[1, 2], [1, 2]], [[2.0, 1.0], [2.0, 1.0]])
    with pytest.raises(SolverError):
        solve(problem, bound=4, solver=Liar())


@pytest.mark.parametrize("weight", [1e23, 1.7e308, 2**53 + 2, 0.1, np.float32(0.1), np.int64(3), 10**400])
def test_a_weight_is_read_one_way(weight: float, tmp_path: Path) -> None:
    groups = [Group("a", size=10, sensitivity=1.0, bits=(2, 4)), Group("b", size=7, sensitivity=0.5, bits=(2, 4))]
    problem = Problem.declare(groups, minimize={"storage": weight})
    save_problem(problem, tmp_path / "p.toml")
    again = load_problem(tmp_path / "p.toml")
    assert again.digest == problem.digest
    for asked in ({"bound": 0.05}, {"budget": 100}, {"budget": 10**30}):
        found = solve(problem, **asked)
        assert verify(problem, found).proved
        save_allocation(found, tmp_path / "a.json")
        assert verify(again, load_allocation(tmp_path / "a.json", again)).proved


@pytest.mark.parametrize(
    ("change", "where"),
    [(("bits = [1, 2]", "bits = [1, 1" + "0" * 400 + "]"), "bits"), (('file = "p.safetensors"', 'file = ""'), "file")],
)
def test_files_by_array_with_numbers_and_names_out_of_range(
    change: tuple[str, str], where: str, tmp_path: Path
) -> None:
    problem = Problem.from_tables([[1, 2], [1, 2]], [[2.0, 1.0], [2.0, 1.0]], bits=(1, 2), bound=3)
    save_problem(problem, tmp_path / "p.toml")
    text = (tmp_path / "p.toml").read_text()
    assert change[0] in text
    (tmp_path / "p.toml").write_text(text.replace(*change))
    with pytest.raises(ImpqError, match=where):
        load_problem(tmp_path / "p.toml")


@pytest.mark.parametrize("field", ["cost", "lower_bound", "objective"])
def test_a_statement_of_hundreds_of_digits_is_wrong(field: str, tmp_path: Path) -> None:
    problem = Problem.declare([Group("a", size=10, sensitivity=1.0, bits=(2, 4))])
    save_allocation(solve(problem, bound=0.05), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    document[field] = 10**400
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert not verify(problem, load_allocation(tmp_path / "a.json", problem)).ok


@pytest.mark.parametrize("field", ["cost", "damage"])
def test_bits_without_their_exact_values_are_refused(field: str, tmp_path: Path) -> None:
    problem = Problem.declare([Group("a", size=10, sensitivity=1.0, bits=(2, 4))])
    save_allocation(solve(problem, bound=0.05), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    document["exact"][field] = None
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ImpqError, match=rf"exact\.{field}"):
        load_allocation(tmp_path / "a.json", problem)


GROUPS = [Group("a", size=10, sensitivity=1.0, bits=(2, 4)), Group("b", size=7, sensitivity=0.5, bits=(2, 4))]


@pytest.mark.parametrize(
    "asked",
    [
        {"time_limit": "1"}, {"time_limit": 1j}, {"time_limit": math.nan}, {"time_limit": True}, {"seed": "1"},
        {"seed": -1}, {"seed": 0.5}, {"seed": 10**400}, {"memory_limit": "1"}, {"memory_limit": 0},
    ],
)  # fmt: skip
def test_options_of_a_wrong_kind_are_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ImpqError):
        solve(Problem.declare(GROUPS), bound=0.05, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [{"time_limit": math.inf}, {"time_limit": 10**400}, {"seed": np.int64(3)}])
def test_options_of_any_size_are_taken(asked: dict[str, object], tmp_path: Path) -> None:
    problem = Problem.declare(GROUPS)
    found = solve(problem, bound=0.05, **asked)  # type: ignore[arg-type]
    save_allocation(found, tmp_path / "a.json")
    assert verify(problem, load_allocation(tmp_path / "a.json", problem)).proved


@pytest.mark.parametrize("wrong", [0, 1.5, None, True, Fraction(10**5000), Fraction(1, 3), 1j])
def test_names_and_precisions_of_a_wrong_kind_are_refused(wrong: object) -> None:
    problem = Problem.declare(GROUPS)
    for changes in ({"pins": {wrong: 2}}, {"ties": [("a", wrong)]}, {"pins": {"a": wrong}}):
        with pytest.raises(ImpqError):
            problem.revise(**changes)


@pytest.mark.parametrize("wrong", [np.array(0.1), [1], 1j, 10**400, "x"])
def test_numbers_of_a_group_of_a_wrong_kind_are_refused(wrong: object) -> None:
    for fields in ({"bits": (2, wrong)}, {"bits": (2, 4), "damage": (1.0, wrong)}):
        if isinstance(wrong, np.ndarray) and "damage" in fields:
            continue  # a number
        with pytest.raises(ImpqError):
            Problem.declare([Group("a", size=10, sensitivity=None if "damage" in fields else 1.0, **fields)])


def test_a_table_of_huge_quanta_is_shown() -> None:
    table = TableCost.from_array([[1, 2], [3, 1]], name="t")
    problem = Problem.declare(GROUPS, costs=(table,), minimize={"t": 10**400}, budgets={"t": 3})
    found = solve(problem, bound=0.7)
    assert str(found)
    assert verify(problem, found).proved


@pytest.mark.parametrize("budget", [-Fraction(1, 2**70), Fraction(0), Fraction(10**400), 0])
def test_a_limit_of_one_huge_quantum_less_is_a_limit(budget: Fraction, tmp_path: Path) -> None:
    problem = Problem.from_tables([[1e307, 0.0, 1.7e308], [-1e300, 0.0, 0.0]], [[0.5, 0.0, 0.5], [1.0, 2.0, 3.0]])
    found = solve(problem, budget=budget)
    assert verify(problem, found).proved
    save_allocation(found, tmp_path / "a.json")
    assert verify(problem, load_allocation(tmp_path / "a.json", problem)).proved
