"""Bounds by counting, and the hard families that need them."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from known import known

from impq_opt import Problem, Status, solve
from impq_opt.exactness.sums import of_units, units_within
from impq_opt.instance.contract import Control
from impq_opt.instance.question import make_instance
from impq_opt.problems.families import generate
from impq_opt.solvers.exact.cardinality import trades_of, trades_under_budget
from impq_opt.solvers.exact.model import Model
from impq_opt.solvers.exact.relax import relax
from impq_opt.solvers.exact.search import Search
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.native.passes import Pool


def optimum(cost: np.ndarray, damage: np.ndarray, bound: Fraction) -> int | None:
    rows = np.arange(len(cost))
    fits = [
        int(cost[rows, columns].sum())
        for columns in product(range(2), repeat=len(cost))
        if sum(map(Fraction, damage[rows, columns].tolist()), Fraction(0)) <= bound
    ]
    return min(fits, default=None)


@pytest.mark.parametrize("seed", range(60))
def test_no_bound_is_above_an_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, largest = int(rng.integers(1, 9)), int(rng.choice([10, 1000, 10**6]))
    weight = rng.integers(1, largest, count)
    extra = int(rng.choice([0, largest // 10, largest, -1])) if seed % 2 else rng.integers(0, largest, count)
    saved = np.maximum(weight + extra, 0) * float(rng.choice([1.0, 1 / 7, 1e-9]))
    cost = np.stack([np.zeros_like(weight), weight], axis=1) + rng.integers(-5, 5, (count, 1))
    damage = np.stack([saved, np.zeros(count)], axis=1)
    bound = Fraction(float(damage.sum())) * Fraction(int(rng.integers(0, 100)), 100)
    best = optimum(cost, damage, bound)
    assert best is not None
    pairs = trades_of(Pool(np.arange(count), cost, damage), units_within(bound))
    assert pairs is not None
    for above in (1, 2, largest // 7 + 1, int(cost.max(axis=1).sum()) - best + 1):
        if above > 0:
            assert pairs.bound(best + above) <= best, "an answer that is better exists"
    assert pairs.bound(best) <= best


@pytest.mark.parametrize("seed", range(60))
def test_no_bound_under_a_budget_is_above_an_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, largest = int(rng.integers(1, 9)), int(rng.choice([10, 1000, 10**6]))
    weight = rng.integers(1, largest, count)
    extra = int(rng.choice([0, largest // 10, largest, -1])) if seed % 2 else rng.integers(0, largest, count)
    cost = np.stack([np.zeros_like(weight), weight], axis=1) + rng.integers(-5, 5, (count, 1))
    damage = np.stack([np.maximum(weight + extra, 0), np.zeros(count)], axis=1) * float(
        rng.choice([1.0, 3.0, 2.0**-40])
    )
    damage += rng.integers(0, 5, (count, 1))
    budget = int(cost.min(axis=1).sum() + rng.integers(0, max(1, int(np.ptp(cost, axis=1).sum()))))
    rows = np.arange(count)
    reachable = [
        units_within(sum(map(Fraction, damage[rows, columns].tolist()), Fraction(0)))
        for columns in product(range(2), repeat=count)
        if cost[rows, columns].sum() <= budget
    ]
    found = trades_under_budget(Pool(rows, cost, damage), budget)
    assert found is not None
    pairs, base, quantum = found
    least = min(reachable) - base
    assert least % quantum == 0
    best = least // quantum
    for above in (1, 2, largest // 7 + 1):
        assert pairs.bound(best + above) <= best, "an answer that is better exists"
    assert pairs.bound(best) <= best


def test_groups_that_have_nothing_to_choose() -> None:
    pool = Pool(np.arange(2), np.array([[3, 3], [1, 2]]), np.array([[1.0, 1.0], [2.0, 2.0]]))
    assert [known(trades_of(pool, units_within(Fraction(limit)))).bound(9) for limit in (3, 2)] == [4, 9]
    found = [known(trades_under_budget(pool, limit)) for limit in (5, 3)]
    assert [pairs.bound(9) for pairs, _, _ in found] == [0, 9]


@pytest.mark.parametrize("dual", [False, True])
def test_groups_with_nothing_to_choose_are_not_counted(dual: bool) -> None:
    """Their cost may be below 0, and a pool that was passed over does not hold them."""
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 1000, 130)
    cost = np.stack([np.zeros_like(weight), weight], axis=1)
    damage = np.stack([weight + 100.0, np.zeros(130)], axis=1)
    cost, damage = np.insert(cost, 60, [-20_000, 0], axis=0), np.insert(damage, 60, [500.0, 0.0], axis=0)
    bits = [[0.0] if group == 60 else [0.0, 1.0] for group in range(131)]
    problem = Problem.from_tables(cost, damage, bits=bits)
    bound = float(damage[:, 0].sum() / 2)
    best = solve(problem, bound=bound)
    assert best.status is Status.OPTIMAL
    instance = make_instance(problem, budget=best.exact_cost) if dual else make_instance(problem, bound=bound)
    search = Search(relax(Model(instance), None, Tuning()), Control(), 10**6, Tuning())
    search.near = search.base.near(np.inf)
    assert len(search.near.pool) == 130
    search.best = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    least = solve(problem, budget=best.exact_cost).exact_damage if dual else best.exact_cost
    assert least is not None
    objective = of_units(search.base.damage) if dual else search.base.cost
    # Only an answer that is as good as the best may pass for it.
    for worse in (1, 10, 1000, 15_000):
        search.better = int(objective - least - worse) << (1074 if dual else 0)
        assert not search._counted()
    search.better = int(objective - least) << (1074 if dual else 0)
    search._counted()
    pairs, base, quantum = known(search._trades)
    taken = search.near.taken.damage if dual else search.near.taken.cost
    assert pairs.bound((taken - search.better - base) // quantum) <= (taken - search.better - base) // quantum


def test_damages_too_fine_for_whole_numbers_are_no_trades_under_a_budget() -> None:
    pool = Pool(np.arange(2), np.array([[0, 1], [0, 3]]), np.array([[1.0, 0.0], [1e-30, 0.0]]))
    assert trades_under_budget(pool, 2) is None


def test_three_choices_are_no_pair() -> None:
    cost, damage = np.array([[0, 1, 2]]), np.array([[2.0, 1.0, 0.0]])
    assert trades_of(Pool(np.arange(1), cost, damage), 1 << 1074) is None
    assert trades_of(Pool(np.arange(1), cost, np.array([[2.0, 2.0, 0.0]])), 1 << 1074) is not None


@pytest.mark.parametrize("name", ["correlated-1e3", "correlated-1e6"])
@pytest.mark.parametrize("groups", [100, 1000])
def test_strongly_correlated_pairs_are_proved(name: str, groups: int) -> None:
    for seed in range(3):
        problem = generate(name, groups, seed)
        found = solve(problem, time_limit=60)
        assert found.status is Status.OPTIMAL, seed
        least = solve(problem, budget=found.exact_cost, time_limit=60)
        assert least.status is Status.OPTIMAL, seed
