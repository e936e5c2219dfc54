"""verify, where damages interact: true answers hold, and every lie about one is caught."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from impq_opt import Allocation, Factors, Pairs, Problem, Status, Verdict, solve, verify
from impq_opt.judge.declared import cost_of


def made(by_pairs: bool, count: int = 6) -> Problem:
    rng = np.random.default_rng(4)
    factors = rng.normal(size=(count, 3, 3)) * np.array([1.0, 0.5, 0.2])[:, None]
    ends = np.array([(i, j) for i in range(count) for j in range(i)])
    interactions: Any = Pairs(ends, rng.normal(size=(len(ends), 3, 3)) / 5) if by_pairs else Factors(factors)
    cost = rng.integers(1, 40, (count, 3)).cumsum(axis=1)
    names = [f"g{g}" for g in range(count)]
    problem = Problem.from_tables(cost, np.square(factors).sum(axis=2), names=names, interactions=interactions)
    return problem.revise(ties=[("g1", "g2")], pins={"g0": 1})


def verdicts(problem: Problem, allocation: Allocation) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in verify(problem, allocation).checks}


QUESTIONS: list[dict[str, Any]] = [{"bound": Fraction(4)}, {"budget": 150}]


@pytest.mark.parametrize("by_pairs", [False, True], ids=["factors", "pairs"])
@pytest.mark.parametrize("question", QUESTIONS, ids=["bound", "budget"])
def test_small_answers_are_proved_whole(by_pairs: bool, question: dict[str, Any]) -> None:
    problem = made(by_pairs)
    answer = solve(problem, **question)
    assert answer.status is Status.OPTIMAL
    found = verify(problem, answer)
    assert found.proved, found


@pytest.mark.parametrize("question", QUESTIONS, ids=["bound", "budget"])
def test_what_is_large_is_proved_as_far_as_its_tangent_goes(question: dict[str, Any]) -> None:
    problem = made(False, 14)
    answer = solve(problem, **{name: value * 3 for name, value in question.items()})
    found = {check.name: check.verdict for check in verify(problem, answer, states=1000).checks}
    assert found["dual bound"] is Verdict.PROVED
    assert found["status"] in (Verdict.CLAIMED, Verdict.PROVED)
    assert Verdict.WRONG not in found.values()


@pytest.mark.parametrize("by_pairs", [False, True], ids=["factors", "pairs"])
@pytest.mark.parametrize("question", QUESTIONS, ids=["bound", "budget"])
def test_lies_are_caught(by_pairs: bool, question: dict[str, Any]) -> None:
    problem = made(by_pairs)
    answer = solve(problem, **question)
    assert answer.choice is not None and answer.exact_damage is not None and answer.certificate is not None
    table = problem.damage.chosen(problem.candidates, answer.choice)
    alone = sum((Fraction(value) for value in table.tolist()), Fraction(0))
    assert alone != answer.exact_damage
    lie = dataclasses.replace(answer, exact_damage=alone)  # as if nothing interacted
    assert verdicts(problem, lie)["damage"] is Verdict.WRONG

    objective = answer.exact_objective
    assert objective is not None
    worse = dataclasses.replace(answer, exact_lower_bound=objective + 1)
    assert verdicts(problem, worse)["lower bound"] is Verdict.WRONG

    other = answer.choice.copy()
    other[3] = (other[3] + 1) % 3
    cost = cost_of(problem, {"cost": 1}, other)
    moved = dataclasses.replace(answer, choice=other, exact_cost=cost, exact_damage=problem.total_damage(other))
    found = verdicts(problem, moved)
    assert Verdict.WRONG in (found["limits"], found["status"], found["lower bound"])

    none = dataclasses.replace(answer, status=Status.INFEASIBLE, choice=None, exact_cost=None, exact_damage=None)
    assert verdicts(problem, none)["status"] is Verdict.WRONG


@pytest.mark.parametrize("question", QUESTIONS, ids=["bound", "budget"])
def test_a_bound_that_its_tangent_does_not_prove_is_wrong(question: dict[str, Any]) -> None:
    problem = made(False)
    answer = solve(problem, **question)
    certificate = answer.certificate
    assert certificate is not None and certificate.tangent is not None and answer.exact_objective is not None
    assert isinstance(certificate.dual_bound, Fraction)
    assert verdicts(problem, answer)["dual bound"] is Verdict.PROVED
    lies = [
        dataclasses.replace(certificate, dual_bound=answer.exact_objective + 1),
        dataclasses.replace(certificate, tangent=certificate.tangent + 100.0),
        dataclasses.replace(certificate, tangent=None),
        dataclasses.replace(certificate, tangent=certificate.tangent[:1]),
        dataclasses.replace(certificate, tangent=np.full(3, np.nan)),
        dataclasses.replace(certificate, multipliers=dict.fromkeys(certificate.multipliers, 1e9)),
    ]
    for lie in lies:
        assert verdicts(problem, dataclasses.replace(answer, certificate=lie))["dual bound"] is Verdict.WRONG


def test_nothing_feasible_is_proved_by_enumeration_and_lies_about_its_reason_are_caught() -> None:
    problem = made(False)
    least = solve(problem, budget=10**6).exact_damage
    assert least is not None and least > 0
    bound = least * Fraction(99, 100)
    answer = solve(problem, bound=bound)
    assert answer.status is Status.INFEASIBLE and answer.diagnosis is not None
    assert answer.diagnosis.smallest == pytest.approx(float(least)) and answer.diagnosis.attained
    found = verdicts(problem, answer)
    assert found["status"] is Verdict.PROVED
    assert found["diagnosis"] is Verdict.CLAIMED
    for change in ({"smallest": 0.0}, {"allowed": 77.0}, {"conflict": (("bound", ""),)}):
        lie = dataclasses.replace(answer, diagnosis=dataclasses.replace(answer.diagnosis, **change))
        assert verdicts(problem, lie)["diagnosis"] is Verdict.WRONG
    nothing = solve(problem, budget=1)
    assert nothing.status is Status.INFEASIBLE
    assert verify(problem, nothing).ok


def test_a_bug_in_the_declared_sums_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge adds up cross terms by itself."""
    problem = made(False)
    honest = Factors.total
    monkeypatch.setattr(Factors, "total", lambda self, choice: honest(self, choice) / 2)
    answer = solve(problem, bound=Fraction(4))
    assert verdicts(problem, answer)["damage"] is Verdict.WRONG
