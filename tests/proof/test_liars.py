"""Solvers that lie, each in one way: solve() or the conformance suite must catch every one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from impq_opt import Enumeration, Problem, Status, solve
from impq_opt.errors import SolverError
from impq_opt.instance import Instance
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.testing import CASES, ConformanceError, check_strategy

PROBLEM = Problem.from_tables([[1, 9], [2, 8], [3, 7]], [[0.5, 0.1], [0.4, 0.1], [0.3, 0.1]])
BOUND = 0.7  # best: 9 + 2 + 3 = 14 is 0.8: not feasible; 9 + 8 + 3 = 20 -> 0.5, 1 + 8 + 7 = 16 -> 0.7


@dataclass(frozen=True)
class Liar(Solver):
    name: ClassVar[str] = "liar"
    summary: ClassVar[str] = "lies"
    proves: ClassVar[str] = "optimal"

    def run(self, instance: Instance, control: Control) -> Claim:
        raise NotImplementedError


def liar(claim: Claim) -> Solver:
    @dataclass(frozen=True)
    class One(Liar):
        def run(self, instance: Instance, control: Control) -> Claim:
            return claim

    return One()


def choice(*columns: int) -> np.ndarray:
    return np.array(columns, dtype=np.int64)


def truth() -> float:
    return solve(PROBLEM, bound=BOUND, solver="exhaustive").objective


def test_the_truth() -> None:
    found = solve(PROBLEM, bound=BOUND)
    assert found.status is Status.OPTIMAL
    assert found.objective == truth()


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(Claim(choice(0, 0, 0), 6, enumeration=Enumeration(3, 8)), id="infeasible answer"),
        pytest.param(Claim(choice(1, 1, 1), 25, enumeration=Enumeration(3, 8)), id="bound above its own answer"),
        pytest.param(Claim(choice(0, 0)), id="wrong shape"),
        pytest.param(Claim(choice(0, 0, 2)), id="outside the candidates"),
        pytest.param(Claim(choice(0, -1, 0)), id="negative column"),
        pytest.param(Claim(np.ones(3)), id="not integers"),  # type: ignore[arg-type]
        pytest.param(Claim(choice(1, 1, 1), multipliers={"bound": -1.0}), id="negative multiplier"),
        pytest.param(Claim(choice(1, 1, 1), multipliers={"bound": math.nan}), id="multiplier that is no number"),
        pytest.param(Claim(choice(1, 1, 1), multipliers={"storage": 1.0}), id="multiplier of no limit"),
    ],
)
def test_broken_contracts_raise(claim: Claim) -> None:
    with pytest.raises(SolverError):
        solve(PROBLEM, bound=BOUND, solver=liar(claim))


def test_infeasible_answers_without_proof_are_dropped() -> None:
    found = solve(PROBLEM, bound=BOUND, solver=liar(Claim(choice(0, 0, 0))))
    assert found.status is Status.UNKNOWN
    assert found.choice is None


def test_a_bound_without_evidence_is_not_believed() -> None:
    found = solve(PROBLEM, bound=BOUND, solver=liar(Claim(choice(1, 1, 1), 24)))
    assert found.status is Status.FEASIBLE
    assert found.lower_bound == -math.inf


def test_useless_multipliers_give_a_weak_bound_not_a_wrong_one() -> None:
    for price in (0.0, 1e-300, 3.0, 1e6, 1e300):
        found = solve(PROBLEM, bound=BOUND, solver=liar(Claim(choice(1, 1, 1), 24, {"bound": price})))
        assert found.status is Status.FEASIBLE
        assert found.lower_bound <= truth()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(Claim(choice(1, 1, 1), 24, enumeration=Enumeration(3, 8)), id="worse answer called optimal"),
        pytest.param(Claim(None, math.inf, enumeration=Enumeration(3, 8)), id="feasible problem called infeasible"),
        pytest.param(Claim(None, 23, enumeration=Enumeration(3, 8)), id="bound above the optimum, no answer"),
    ],
)
def test_lies_about_enumerations_are_caught_by_the_suite(lie: Claim) -> None:
    from impq_opt.testing.cases import Case

    with pytest.raises(ConformanceError):
        check_strategy(liar(lie), Case("three groups", lambda: (PROBLEM, BOUND)))


def test_a_solver_that_changes_its_mind_is_caught() -> None:
    answers = iter([choice(1, 1, 1), choice(1, 0, 1)])

    @dataclass(frozen=True)
    class Fickle(Liar):
        proves: ClassVar[str] = "nothing"

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(next(answers))

    from impq_opt.testing.cases import Case

    with pytest.raises(ConformanceError, match="same call"):
        check_strategy(Fickle(), Case("three groups", lambda: (PROBLEM, BOUND)))


def test_a_solver_that_never_answers_keeps_the_rules_only_if_it_proves_nothing() -> None:
    @dataclass(frozen=True)
    class Silent(Liar):
        proves: ClassVar[str] = "nothing"

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim()

    for case in CASES:
        check_strategy(Silent(), case)
    with pytest.raises(ConformanceError):
        check_strategy(liar(Claim()), CASES[0])


@pytest.mark.parametrize("bound", [math.inf, np.array([1.0, 2.0])], ids=["infeasible", "no number"])
def test_who_decides_is_not_believed_either(bound: object) -> None:
    """What nobody looked into before is not infeasible because a stranger says so."""

    @dataclass(frozen=True)
    class Decider(Liar):
        decides: ClassVar[bool] = True

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(None, bound, enumeration=Enumeration(3, 8))  # type: ignore[arg-type]

    with pytest.raises(SolverError):
        solve(PROBLEM, bound=BOUND, solver=Decider())
