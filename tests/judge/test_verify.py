"""verify: what is proved is true, what is wrong is found, and no strategy is asked."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known
from strategies import bounds, restricted

import impq_opt
from impq_opt import Certificate, DamageTable, Enumeration, Group, ImpqError, Problem, Status, Verdict, solve, verify
from impq_opt.costs import TableCost
from impq_opt.groups.names import GroupNames
from impq_opt.instance.question import asked
from impq_opt.judge.recount import Outcome, prove_bound


def drawn(seed: int, count: int = 30, kinds: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem.from_sensitivities(
        rng.integers(50, 5000, count),
        np.exp(2 * rng.normal(size=count)),
        kinds=["weight", "activation"] * (count // 2) if kinds else None,
    )


def verdicts(problem: Problem, allocation: impq_opt.Allocation) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in verify(problem, allocation).checks}


@given(problem=restricted(), bound=bounds, by_budget=st.booleans(), name=st.sampled_from(["exact", "exhaustive"]))
@settings(max_examples=150, deadline=None)
def test_true_answers_are_proved(problem: Any, bound: Any, by_budget: Any, name: Any) -> None:
    goals = {"budget": Fraction(bound)} if by_budget else {"bound": bound}
    allocation = solve(problem, solver=name, **goals)
    found = verify(problem, allocation)
    assert found.ok, found
    if allocation.status in (Status.OPTIMAL, Status.INFEASIBLE):
        assert found.proved, found


@given(problem=restricted(), bound=bounds, by_budget=st.booleans(), multiplier=st.floats(0, 1e6))
@settings(max_examples=150, deadline=None)
def test_enumeration_finds_the_optimum_whatever_the_multipliers(
    problem: Any, bound: Any, by_budget: Any, multiplier: Any
) -> None:
    goals = {"budget": Fraction(bound)} if by_budget else {"bound": bound}
    truth = solve(problem, solver="exhaustive", **goals)
    if truth.choice is None or truth.status is not Status.OPTIMAL:
        return
    instance = asked(problem, truth)
    unit = instance.quantum if truth.minimizes == "cost" else Fraction(1)
    optimum = Fraction(known(truth.exact_objective)) / unit
    above = optimum + (1 if truth.minimizes == "cost" else Fraction(1, 2**1074))
    multipliers = {"budget" if by_budget else "bound": multiplier}
    if instance.size == 0:
        return
    assert prove_bound(instance, multipliers, optimum).outcome is Outcome.PROVED
    refuted = prove_bound(instance, multipliers, above)
    assert refuted.outcome is Outcome.REFUTED
    assert instance.is_feasible(known(refuted.better))


def test_a_core_too_large_stays_a_claim() -> None:
    problem = drawn(1, 200)
    allocation = solve(problem, bound=0.1)
    assert allocation.status is Status.OPTIMAL
    found = verify(problem, allocation, states=10)
    assert found.ok
    assert not found.proved
    claimed = {check.name for check in found.checks if check.verdict is Verdict.CLAIMED}
    assert claimed == {"lower bound", "status"}
    assert found.lower_bound == known(allocation.certificate).dual_bound
    assert verify(problem, allocation).proved


LIES = {
    "cost": lambda a: {"exact_cost": a.exact_cost - 1},
    "damage": lambda a: {"exact_damage": a.exact_damage * Fraction(2**60 - 1, 2**60)},
    "limits": lambda a: {"bound": a.exact_damage * Fraction(2**70 - 1, 2**70)},
    "dual bound": lambda a: {
        "certificate": dataclasses.replace(a.certificate, dual_bound=a.certificate.dual_bound + 9999)
    },
    "lower bound": lambda a: {"exact_lower_bound": a.exact_lower_bound + 1},
    "status": lambda a: {"exact_lower_bound": a.certificate.dual_bound},
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: Any) -> None:
    problem = drawn(2)
    truth = solve(problem, bound=0.5)
    assert truth.status is Status.OPTIMAL
    assert known(known(truth.certificate).dual_bound) < known(truth.exact_objective)
    assert verify(problem, truth).proved
    found = verdicts(problem, dataclasses.replace(truth, **LIES[lie](truth)))
    assert found[lie] is Verdict.WRONG


def test_a_worse_answer_called_optimal_is_found() -> None:
    problem = drawn(3)
    truth = solve(problem, bound=0.5)
    worse = solve(problem, bound=0.5, solver="uniform")
    lie = dataclasses.replace(
        worse,
        status=Status.OPTIMAL,
        exact_lower_bound=known(worse.exact_cost),
        certificate=Certificate(
            known(truth.certificate).multipliers, Fraction(1), known(truth.certificate).dual_bound, Enumeration(9, 9)
        ),
    )
    found = verify(problem, lie)
    assert not found.ok
    wrong = {check.name: check.text for check in found.checks if check.verdict is Verdict.WRONG}
    assert "can be reached" in wrong["lower bound"]


def test_infeasible_is_proved_or_refuted() -> None:
    problem = drawn(4, 6)
    truth = solve(problem, bound=1e-9)
    assert truth.status is Status.INFEASIBLE
    assert verify(problem, truth).proved
    lie = dataclasses.replace(truth, bound=Fraction(1))
    assert verdicts(problem, lie)["status"] is Verdict.WRONG


def test_infeasible_only_together_is_enumerated() -> None:
    problem = Problem.from_sensitivities([10, 10], [1.0, 1.0], bits=[1, 2]).revise(budgets={"storage": 30})
    truth = solve(problem, bound=0.2, solver="exhaustive")  # 0.125 needs 40 bits of storage
    assert truth.status is Status.INFEASIBLE
    assert truth.diagnosis is None
    assert verify(problem, truth).proved
    assert verdicts(problem, dataclasses.replace(truth, bound=Fraction(1, 2)))["status"] is Verdict.WRONG


@pytest.mark.parametrize("name", ["cost", "damage", "bound", "budget"])
@pytest.mark.parametrize("most", [1, 9], ids=["infeasible", "feasible"])
def test_a_cost_may_have_the_name_of_what_is_always_there(name: str, most: int) -> None:
    table = TableCost.from_array(np.array([[1, 3, 7], [2, 3, 5]]), name=name)
    problem = Problem.from_sensitivities([10, 20], [0.5, 0.7], bits=[2, 4, 8], costs=(table,)).revise(
        budgets={name: most}
    )
    for goals in ({"bound": 0.01}, {"bound": 1e-5}, {"budget": 100}):
        assert verify(problem, solve(problem, **goals)).proved


def test_pins_and_ties_are_checked() -> None:
    problem = drawn(5, 8).revise(pins={"group[0]": 8}, ties=[["group[1]", "group[2]"]])
    truth = solve(problem, bound=1.0)
    assert verify(problem, truth).proved
    for group in (0, 1):
        choice = known(truth.choice).copy()
        choice[group] = (choice[group] + 1) % 8
        assert verdicts(problem, dataclasses.replace(truth, choice=choice))["pins and ties"] is Verdict.WRONG


def test_a_dropped_budget_is_found() -> None:
    problem = drawn(6, 8, kinds=True).revise(budgets={"activation-memory": "3 KiB"})
    truth = solve(problem, bound=1.0, solver="milp")
    assert truth.choice is not None
    assert verify(problem, truth).ok
    loose = dataclasses.replace(truth, budgets={})
    assert verdicts(problem, loose)["budget activation-memory"] is Verdict.WRONG


def test_a_choice_out_of_range_is_found() -> None:
    problem = drawn(7, 4)
    truth = solve(problem, bound=1.0)
    choices: list[Any] = [np.array([0, 0, 0, 8]), np.array([0, 0, 0, -1]), np.array([0, 0, 0]), np.zeros(4)]
    for choice in choices:
        assert verdicts(problem, dataclasses.replace(truth, choice=choice))["choice"] is Verdict.WRONG


def test_another_problem_is_told() -> None:
    with pytest.raises(ImpqError, match="answers another problem"):
        verify(drawn(8, 4), solve(drawn(9, 4), bound=1.0))


def test_no_question_is_told() -> None:
    truth = solve(drawn(8, 4), bound=1.0)
    with pytest.raises(ImpqError, match="states no bound"):
        verify(truth.problem, dataclasses.replace(truth, bound=None))
    with pytest.raises(ImpqError, match="states no budget"):
        verify(truth.problem, dataclasses.replace(truth, minimizes="damage"))


def test_lower_bound_is_in_the_objectives_unit() -> None:
    rng = np.random.default_rng(0)
    problem = Problem.from_tables(rng.integers(0, 900, (20, 4)) / 1000, rng.random((20, 4)), unit="s")
    truth = solve(problem, bound=4.0)
    assert truth.status is Status.OPTIMAL
    found = verify(problem, truth)
    assert found.proved
    assert found.lower_bound == truth.exact_cost
    assert math.isclose(float(found.lower_bound), truth.cost)


def coupled() -> Problem:
    groups = [
        Group("a", size=40, sensitivity=0.2, macs=4000, reads="x", bits=(2, 4, 8)),
        Group("b", size=90, sensitivity=0.1, macs=9000, reads="y", bits=(2, 4, 8)),
        Group("x", size=10, sensitivity=0.1, kind="activation", bits=(2, 4, 8)),
        Group("y", size=10, sensitivity=0.3, kind="activation", bits=(2, 4, 8)),
    ]
    return Problem.declare(groups, minimize="bit-operations")


def test_coupled_costs_are_verified() -> None:
    problem = coupled()
    truth = solve(problem, bound=0.02, solver="exhaustive")
    assert truth.status is Status.OPTIMAL
    found = verify(problem, truth)
    assert found.proved, found
    unproved = verify(problem, truth, states=1)
    assert unproved.ok
    assert not unproved.proved
    lie = dataclasses.replace(truth, exact_lower_bound=known(truth.exact_cost) + 1)
    assert verdicts(problem, lie)["lower bound"] is Verdict.WRONG


def test_no_strategy_is_loaded() -> None:
    code = """
import sys, impq_opt, dataclasses
from fractions import Fraction
problem = impq_opt.Problem.from_sensitivities([9, 5], [1.0, 2.0])
answer = impq_opt.Allocation(
    problem=problem, status=impq_opt.Status.OPTIMAL, choice=__import__("numpy").array([3, 3]), minimizes="cost",
    cost_weights={"storage": 1}, exact_cost=Fraction(56), exact_damage=Fraction(3, 256),
    exact_lower_bound=Fraction(56), bound=Fraction(3, 256), budgets={})
print(impq_opt.verify(problem, answer))
assert impq_opt.verify(problem, answer).proved
loaded = [name for name in sys.modules if name.startswith(("impq_opt.solvers.", "scipy", "pulp", "torch"))]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("column", [1, 3])
def test_a_pin_holds_from_both_sides(column: int) -> None:
    problem = drawn(5, 8).revise(pins={"group[0]": 3})
    truth = solve(problem, bound=1.0)
    choice = known(truth.choice).copy()
    choice[0] = column
    assert verdicts(problem, dataclasses.replace(truth, choice=choice))["pins and ties"] is Verdict.WRONG


def test_tied_formats_of_one_width_may_not_differ() -> None:
    groups = [Group(name, size=10, damage=(1.0, 1.0), bits=(4, 4), formats=("x", "y")) for name in "ab"]
    problem = Problem.declare(groups, ties=[["a", "b"]])
    truth = solve(problem, bound=5.0)
    assert verify(problem, truth).proved
    found = verify(problem, dataclasses.replace(truth, choice=np.array([0, 1])))
    assert {check.name for check in found.checks if check.verdict is Verdict.WRONG} == {"pins and ties", "status"}


def test_costs_beyond_float64_are_told_apart() -> None:
    """2**53 + 1 is no float64: neither a bound nor a number for people may be off by one there."""
    problem = Problem.from_tables([[2**53 + 2, 2**53 + 1]], [[0.5, 1.0]])
    truth = solve(problem, bound=1.0)
    assert truth.exact_cost == 2**53 + 1
    assert verify(problem, truth).proved
    assert not verify(problem, dataclasses.replace(truth, stated={"cost": 2**53})).ok
    below = dataclasses.replace(known(truth.certificate), dual_bound=Fraction(2**53), multipliers={})
    lie = dataclasses.replace(truth, exact_lower_bound=Fraction(2**53), certificate=below)
    assert not verify(problem, lie).proved
    assert verdicts(problem, lie)["status"] is Verdict.WRONG


def test_a_revision_may_not_lower_the_damage_of_one_group() -> None:
    from impq_opt.judge.verify import _loosened

    cost, damage = [[1, 2], [3, 4]], np.array([[0.5, 0.25], [0.5, 0.25]])
    origin = Problem.from_tables(cost, damage)
    for place in np.ndindex(2, 2):
        other = damage.copy()
        other[place] *= 0.5
        assert [check.name for check in _loosened(origin, Problem.from_tables(cost, other))] == ["damage"]
        other[place] *= 8
        assert not list(_loosened(origin, Problem.from_tables(cost, other)))


def test_a_revision_of_formats_of_one_width_is_no_lower_damage() -> None:
    """q4_0 and q4_k may have equal bits: each is compared with itself, wherever it stands in what is left."""
    from impq_opt.judge.verify import _loosened

    bits, formats = (4.0, 4.0, 8.0), ("q40", "q4k", "q80")
    damage = np.array([[1.0, 0.1, 0.01], [2.0, 0.2, 0.02]])
    candidates = impq_opt.Candidates((bits,), formats=(formats,))
    origin = Problem(
        names=GroupNames.explicit(["a", "b"]), candidates=candidates, damage=DamageTable(damage), sizes=np.array([9, 9])
    )
    answer = dataclasses.replace(solve(origin.revise(pins={"a": "q80"}), bound=0.5), origin=origin)
    verification = verify(origin, answer)
    assert verification.proved, verification
    pinned = origin.revise(pins={"a": "q4k"})
    for taken_back in (origin, origin.revise(pins={"a": "q40"})):
        assert [check.name for check in _loosened(pinned, taken_back)] == ["pin a"]
    for place in np.ndindex(2, 3):
        other = damage.copy()
        other[place] *= 0.5
        assert [check.name for check in _loosened(origin, dataclasses.replace(origin, damage=DamageTable(other)))]


@pytest.mark.parametrize("price", [-1.0, -5e-324, math.inf, math.nan])
def test_multipliers_that_are_none_are_found(price: Any) -> None:
    problem = drawn(2)
    truth = solve(problem, bound=0.5)
    certificate = dataclasses.replace(known(truth.certificate), multipliers={"bound": price})
    found = verdicts(problem, dataclasses.replace(truth, certificate=certificate))
    assert found["multipliers"] is Verdict.WRONG
