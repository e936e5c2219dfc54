"""Damages so far apart that 64 bits cannot hold their sums: exact against every assignment, in fractions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from known import known

from impq_opt import Problem, Status, frontier, solve, verify
from impq_opt.problems.families import generate
from impq_opt.solvers import native

LEAST = 5e-324
TINY = [0.0, LEAST, 2 * LEAST, 2.0**-70, 2.0**-61, 2.0**-60, 3 * 2.0**-60, 1e-20]
BIG = [0.5, 1 - 2.0**-53, 1.0, 1 + 2.0**-52, 2.0, 0.25 + 2.0**-54]
POOLS = [TINY + BIG, TINY[:3] + BIG[2:4], [0.0, LEAST, 1.0]]


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(native, "kernel", None)
        monkeypatch.setattr(native, "core", None)
    elif native.kernel is None:
        pytest.skip("the kernel is not compiled here")


def answers(problem: Any) -> Iterator[Any]:
    """Yield cost and damage of every choice that keeps the ties."""
    cost, damage = problem.costs[0].values, problem.damage.values
    for choice in itertools.product(range(cost.shape[1]), repeat=len(cost)):
        if all(len({choice[g] for g in tie}) == 1 for tie in problem.ties):
            chosen = list(enumerate(choice))
            yield sum(int(cost[g, k]) for g, k in chosen), sum(Fraction(float(damage[g, k])) for g, k in chosen)


def check(problem: Any, *, bound: Any = None, budget: Any = None) -> None:
    found = solve(problem, bound=bound, budget=budget)
    if budget is None:
        costs = [cost for cost, damage in answers(problem) if damage <= bound]
        assert (found.status is Status.INFEASIBLE) == (not costs)
        assert not costs or (found.status is Status.OPTIMAL and found.exact_cost == min(costs))
    else:
        least = min(damage for cost, damage in answers(problem) if cost <= budget)
        assert found.status is Status.OPTIMAL
        assert float(known(found.exact_damage)) == float(least)
        assert found.exact_lower_bound <= least
    assert not [one for one in verify(problem, found).checks if one.verdict.value == "wrong"]


def test_a_difference_below_the_scale_of_a_core_decides() -> None:
    # [1, 0] fills the bound exactly; leaving the last group as it is overshoots by the least of all floats.
    check(Problem.from_tables([[0, 2], [0, 1]], [[1.0, 0.0], [LEAST, 0.0]]), bound=1.0)


def test_an_answer_that_only_exact_sums_find_feasible() -> None:
    cost = [[3, 3, 2], [2, 2, 0], [1, 1, 0], [0, 2, 3], [1, 2, 1], [1, 3, 2]]
    damage = [[0, 1, 1], [0, 1, LEAST], [0, LEAST, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]]
    check(Problem.from_tables(cost, np.array(damage, dtype=float)), bound=1.0)


def test_a_price_beyond_all_floats() -> None:
    cost = [[3, 1, 3], [2, 3, 3], [2, 0, 1], [2, 3, 3], [1, 2, 3], [3, 2, 2]]
    damage = [[LEAST, 1, 0], [1, LEAST, 0], [0, 0, LEAST], [LEAST, 1, 0], [0, LEAST, LEAST], [0, 1, 0]]
    check(Problem.from_tables(cost, np.array(damage, dtype=float)), bound=2 * LEAST)


@pytest.mark.parametrize("ties", [((0, 2), (1, 3)), ()])
def test_a_budget_that_leaves_equal_costs_only(ties: Any) -> None:
    cost = [[1, 0], [0, 1], [2, 0], [3, 2]]
    damage = [[1.0, LEAST], [1.0, 1.0], [1.0, LEAST], [LEAST, 0.0]]
    check(Problem.from_tables(cost, damage, ties=ties), budget=3)


@pytest.mark.parametrize("seed", range(120))
def test_drawn_problems(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, width = int(rng.integers(2, 7)), int(rng.integers(2, 4))
    cost = rng.integers(0, 4, (groups, width))
    damage = rng.choice(POOLS[seed % 3], (groups, width))
    if seed % 2:  # groups of equal costs, and some of equal damages
        first, second = rng.integers(groups, size=2)
        cost[first] = cost[second]
        damage[first] = damage[second] if seed % 4 == 1 else damage[first]
    pair = rng.permutation(groups)[:2].tolist()
    ties = (tuple(pair),) if seed % 5 == 0 else ()
    choice = rng.integers(0, width, groups)
    if ties:
        choice[pair] = choice[pair[0]]
    problem = Problem.from_tables(cost, damage, ties=ties)
    rows = np.arange(groups)
    bound = sum((Fraction(one) for one in damage[rows, choice].tolist()), Fraction(0))
    check(problem, bound=bound or Fraction(LEAST))
    check(problem, budget=int(cost[rows, choice].sum()) or 1)


@pytest.mark.parametrize("seed", range(60))
def test_problems_of_nothing_but_tiny_damages(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, width = int(rng.integers(2, 7)), int(rng.integers(2, 4))
    lowest, spread = [(-323, 3), (-310, 13), (-200, 40), (-165, 12)][seed % 4]
    cost = rng.integers(0, [3, 1000, 1 << 50][seed % 3], (groups, width))
    damage = 10.0 ** rng.uniform(lowest, lowest + spread, (groups, width))
    problem = Problem.from_tables(cost, damage)
    problem = problem if seed % 5 else problem.revise(pins={problem.names[0]: 0})
    choice = np.where(np.arange(groups) == 0, 0, rng.integers(0, width, groups))
    rows = np.arange(groups)
    bound = sum((Fraction(one) for one in damage[rows, choice].tolist()), Fraction(0))
    if seed % 5:
        check(problem, bound=bound)
        check(problem, budget=int(cost[rows, choice].sum()) or 1)
    found = [solve(problem, bound=bound, solver=name) for name in ("exact", "exhaustive")]
    assert found[0].status is found[1].status is Status.OPTIMAL
    assert found[0].exact_cost == found[1].exact_cost
    assert frontier(problem).solve([bound])[0].exact_cost == found[0].exact_cost


def test_many_damages_at_the_bottom_of_float64_are_proved_in_a_small_core() -> None:
    problem = generate("denormal", 1200, 0)
    found = solve(problem)
    assert found.status is Status.OPTIMAL
    least = solve(problem, budget=found.exact_cost)
    assert least.status is Status.OPTIMAL
    assert known(least.exact_damage) <= known(problem.bound)
    assert max(one.statistics["core_groups"] for one in (found, least)) < 500
    problem = generate("denormal", 400, 0)
    least = solve(problem, budget=solve(problem).exact_cost)
    assert not [one for one in verify(problem, least).checks if one.verdict.value == "wrong"]


@pytest.mark.parametrize("bound", [1.0, Fraction(10) ** 400])
def test_bounds_far_above_all_damages(bound: Any) -> None:
    rng = np.random.default_rng(0)
    for scale in (5e-324, 1e-200, 1.0):
        damage = rng.integers(0, 5, (120, 3)) * scale * (0.001 if scale == 1.0 else 1.0)
        cost = rng.integers(0, 50, (120, 3))
        problem = Problem.from_tables(cost, damage)
        found = solve(problem, bound=bound, time_limit=20)
        assert found.status is Status.OPTIMAL
        assert found.exact_cost == cost.min(axis=1).sum()
        assert frontier(problem).solve([bound], time_limit=20)[0].exact_cost == found.exact_cost
