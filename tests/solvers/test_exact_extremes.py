"""Numbers that rounding hides from every relaxation: hundreds of decades at once, and bounds met to the last bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import impq_opt
from impq_opt import Group, Problem, Status, solve
from impq_opt.solvers.lagrange.hull import hull_edges


def drawn(seed: int) -> tuple[Problem, Fraction, int]:
    """Return a problem, a bound that a selection attains or just misses, and the cost of that selection."""
    rng = np.random.default_rng(seed)
    groups, width = int(rng.integers(2, 8)), int(rng.integers(2, 5))
    cost = rng.integers(0, 9, (groups, width)) * int(rng.choice([1, 3]))
    damage = 10.0 ** rng.uniform(-rng.choice([1, 10, 30, 300]), 0, (groups, width))
    damage[rng.random((groups, width)) < 0.2] = 0.0
    if rng.random() < 0.5:
        damage[rng.random((groups, width)) < 0.3] = rng.choice([1.0, 0.5, 2.0**-60, 2.0**-61, 1e-300])
    if rng.random() < 0.3:
        cost[1], damage[1] = cost[0], damage[0]
    chosen = np.arange(groups), rng.integers(0, width, groups)
    bound = sum(map(Fraction, damage[chosen].tolist()), Fraction(0))
    if rng.random() < 0.3:
        bound -= Fraction(1, 2 ** int(rng.integers(55, 1074)))
    return Problem.from_tables(cost, damage), max(bound, Fraction(1, 2**1074)), int(cost[chosen].sum())


@pytest.mark.parametrize("start", range(0, 1200, 400))
def test_the_last_bit_is_never_lost(start: int) -> None:
    for seed in range(start, start + 400):
        problem, bound, budget = drawn(seed)
        for limit in ({"bound": bound}, {"budget": budget}):
            found, truth = solve(problem, **limit), solve(problem, solver="exhaustive", **limit)
            assert found.status is truth.status, seed
            if found.status is Status.OPTIMAL:
                assert found.exact_objective == truth.exact_objective or found.damage == truth.damage, seed
                assert found.exact_cost == truth.exact_cost or "budget" in limit, seed
                assert impq_opt.verify(problem, found).proved, seed


@pytest.mark.parametrize("budget", [False, True])
def test_nor_with_ties_and_a_second_limit(budget: bool) -> None:
    open_ = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups, bits = int(rng.integers(3, 7)), ((1, 2, 4), (1, 2, 3, 8))[seed % 2]
        sensitivity = 10.0 ** rng.uniform(-rng.choice([1, 8, 30, 200]), 0, groups)
        sensitivity[rng.random(groups) < 0.15] = 0.0
        sizes, chosen = rng.integers(1, 30, groups), rng.integers(0, len(bits), groups)
        declared = zip(sizes.tolist(), sensitivity.tolist(), strict=True)
        members = [Group(f"g{i}", size=n, sensitivity=e, bits=bits) for i, (n, e) in enumerate(declared)]
        problem = Problem.declare(members, ties=[("g0", "g1")] if rng.random() < 0.5 else [])
        chosen[1] = chosen[0]
        damage = problem.damage.at(slice(None), bits)[np.arange(groups), chosen]
        bound = sum(map(Fraction, damage.tolist()), Fraction(0)) - int(rng.integers(0, 2)) * Fraction(1, 2**1000)
        problem = problem.revise(bound=max(bound, Fraction(1, 2**1074)))
        if budget:
            most = (sizes * np.array(bits)[rng.integers(0, len(bits), groups)]).sum()
            problem = problem.revise(budgets={"representational": int(most)})
        found, truth = solve(problem), solve(problem, solver="exhaustive")
        if budget and found.status in (Status.FEASIBLE, Status.UNKNOWN):  # an open gap is no lie
            open_ += 1
            continue
        assert (found.status, found.exact_cost) == (truth.status, truth.exact_cost), seed
    assert open_ < 6


def test_a_candidate_that_seems_to_be_no_worse_is_not_preferred() -> None:
    # The last candidate of the second group is cheaper, and does a damage that vanishes beside the bound.
    cost, damage = np.zeros((3, 4), dtype=int), np.zeros((3, 4))
    cost[1], damage[1, 3] = [1, 1, 1, 0], 7.4e-302
    cost[2], damage[2, 1] = [2, 0, 2, 2], 1.0
    found = solve(Problem.from_tables(cost, damage), bound=1.0)
    assert found.status is Status.OPTIMAL
    assert found.exact_cost == 1


def test_hulls_pass_nothing_by_that_rounding_hides() -> None:
    rng = np.random.default_rng(0)
    near = np.array([0, 1, 2, 1 << 52, (1 << 53) + 1, 1 << 59])
    for width in (2, 5, 8, 12):
        cost = rng.choice(near, (3000, width)) + rng.choice([0, 7, 1 << 56], (3000, 1))
        whole = rng.choice([0, 1, 2, (1 << 56) - 1, 1 << 56, (1 << 56) + 1, 1 << 59], (3000, width))
        real = rng.choice([0.0, 1e-300, 2e-300, 1e-17, 1.0 - 2.0**-53, 1.0], (3000, width))
        for damage in (whole, real):
            steps = hull_edges(cost, damage)
            last = steps.start.copy()
            last[steps.group] = steps.to
            rows = np.arange(3000)
            assert (damage[rows, last] == damage.min(axis=1)).all()
            cheapest = np.where(damage == damage.min(axis=1)[:, None], cost, 1 << 62).min(axis=1)
            assert (cost[rows, last] == cheapest).all()


def test_a_choice_that_needs_one_unit_less_is_reached() -> None:
    cost = [[12, 0, 0], [0, 21, 0], [6, 12, 12], [0, 24, 12], [0, 18, 18], [12, 0, 6], [12, 0, 9]]
    damage = [
        [0.5, 2.6e-20, 3.2e-6],
        [0.0, 5.5e-19, 1.1e-18],
        [0.5, 1.4e-17, 5.2e-27],
        [0.5, 0.5, 3.8e-11],
        [4.4e-13, 0.5, 1.4e-22],
        [1.5e-10, 3.6e-16, 0.5],
        [5.5e-29, 0.5, 0.0],
    ]
    problem = Problem.from_tables(cost, damage)
    for bound in (1.0, 1.0000000000004379, 0.5000000000381, Fraction(1, 2) + Fraction(3, 2**60)):
        found, truth = solve(problem, bound=bound), solve(problem, bound=bound, solver="exhaustive")
        assert (found.status, found.exact_cost) == (truth.status, truth.exact_cost)


def test_the_base_is_doubted_at_a_price_that_is_cut_off() -> None:
    # Cost per damage at the bottom of float64 is beyond the largest price, where the base is not the best choice.
    cost = [[2, 0, 2, 3, 4], [4, 0, 3, 4, 3], [5, 3, 4, 2, 0]]
    damage = [
        [1e-323, 1e-323, 2.6434393086793923e-89, 6.994252468103246e-41, 1e-323],
        [0.0, 6.6335890133e-314, 3.815417243951437e-114, 5.250554365813e-311, 1e-323],
        [1e-323, 1.0621166204424202e-104, 1.9441080903689024e-289, 0.0, 1e-323],
    ]
    problem = Problem.from_tables(cost, damage)
    bound = Fraction(1e-323) + Fraction(6.6335890133e-314)
    found, truth = solve(problem, bound=bound), solve(problem, bound=bound, solver="exhaustive")
    assert (found.status, found.exact_cost) == (truth.status, truth.exact_cost)


def test_the_base_is_doubted_where_its_choice_is_not_the_best_at_the_price() -> None:
    # The third candidate is cheaper and better than the fourth; differences of damages round to the same numbers.
    cost = [[0, 6, 6, 18], [0, 6, 6, 18], [3, 0, 3, 24]]
    damage = [
        [3.7e-251, 4.2e-170, 0.0, 1.1e-92],
        [3.7e-251, 4.2e-170, 0.0, 1.1e-92],
        [3.2e-85, 3.4e-34, 1.7e-213, 8.7e-99],
    ]
    found = solve(Problem.from_tables(cost, damage), bound=1.1e-92)
    assert found.status is Status.OPTIMAL
    assert found.exact_cost == 3
