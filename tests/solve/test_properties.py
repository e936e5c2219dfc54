"""Properties that hold for every problem: against exhaustive search, both directions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import bounds, restricted, tables

from impq_opt import Problem, Status, solve
from impq_opt.exactness.sums import exact_sum
from impq_opt.solvers import make_solver
from impq_opt.testing import Case, check_strategy
from impq_opt.testing.strategies import permute

# Costs below zero: a partial sum over the budget may still come back under it.
FALLING = Problem.from_tables(
    [[0, 0, 0], [0, -1, 0], [0, 0, 0], [0, 0, -1], [0, 2, 2]],
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]],
)

common = settings(max_examples=150, deadline=None)


@common
@given(problem=restricted(), bound=bounds, name=st.sampled_from(["exact", "lagrangian", "greedy", "uniform"]))
def test_strategies_keep_the_rules(problem: Problem, bound: float, name: str) -> None:
    check_strategy(make_solver(name), Case("drawn", lambda: (problem, bound)))


@common
@given(problem=restricted(), share=st.floats(0, 1), name=st.sampled_from(["exact", "lagrangian", "greedy"]))
@example(problem=FALLING, share=0.0, name="exact")
def test_least_damage_under_a_budget(problem: Problem, share: float, name: str) -> None:
    cheapest = solve(problem, bound=1e300, solver="exhaustive").cost
    budget = Fraction(max(cheapest + share * max(10, abs(cheapest)), 1e-9))
    truth = solve(problem, budget=budget, solver="exhaustive")
    found = solve(problem, budget=budget, solver=name)
    if truth.choice is None:
        assert found.choice is None
        return
    assert truth.exact_damage is not None
    assert found.exact_lower_bound <= truth.exact_damage
    assert found.exact_cost is not None and found.exact_cost <= budget
    assert found.exact_damage is not None and found.exact_damage >= truth.exact_damage
    if name == "exact":
        assert found.status is Status.OPTIMAL or found.gap < 1e-15
        assert found.damage == truth.damage


@common
@given(problem=restricted(), bounds_=st.lists(bounds, min_size=2, max_size=4))
def test_the_optimum_is_monotone_in_the_bound(problem: Problem, bounds_: list[float]) -> None:
    costs = [solve(problem, bound=b) for b in sorted(bounds_)]
    values = [a.exact_cost for a in costs if a.exact_cost is not None]
    assert values == sorted(values, reverse=True)
    assert [a.status is Status.INFEASIBLE for a in costs] == sorted(
        (a.status is Status.INFEASIBLE for a in costs), reverse=True
    )


@common
@given(problem=restricted())
def test_an_answer_is_feasible_under_its_own_damage(problem: Problem) -> None:
    first = solve(problem, bound=1e3)
    if first.choice is None:
        return
    again = solve(problem, bound=first)
    assert again.status in (Status.OPTIMAL, Status.INFEASIBLE) or first.exact_damage == 0
    if first.exact_damage:
        assert again.objective == first.objective


@common
@given(problem=tables())
def test_lifting_and_reducing_are_inverse(problem: Problem) -> None:
    from impq_opt.instance.question import make_instance

    instance = make_instance(problem, bound=1.0)
    choice = instance.widths - 1
    assert np.array_equal(instance.reduce(instance.lift(choice)), choice)


@common
@given(problem=restricted(), bound=bounds)
def test_permuting_the_groups_keeps_the_optimum(problem: Problem, bound: float) -> None:
    here, there = solve(problem, bound=bound), solve(permute(problem), bound=bound)
    assert here.status is there.status
    assert here.exact_objective == there.exact_objective


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), max_size=600)
)
def test_exact_sums_are_exact(values: list[float]) -> None:
    expected = sum((Fraction(v) for v in values), Fraction(0))
    assert exact_sum(np.array(values)) == expected
