"""The exact strategy against an independent solver in rational arithmetic: branch and bound over fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from impq_opt import Problem, Status, solve


def rational_optimum(cost: np.ndarray, damage: np.ndarray, bound: Fraction) -> tuple[int, Fraction] | None:
    """Return the least cost under the bound, and the least damage at that cost; depth first, least-damage bound."""
    options = [
        sorted((int(c), Fraction(float(d))) for c, d in zip(row_cost, row_damage, strict=True))
        for row_cost, row_damage in zip(cost, damage, strict=True)
    ]
    options.sort(key=lambda row: row[-1][0] - row[0][0], reverse=True)
    least_cost, least_damage = [0], [Fraction(0)]
    for row in reversed(options):
        least_cost.append(least_cost[-1] + row[0][0])
        least_damage.append(least_damage[-1] + min(d for _, d in row))
    least_cost.reverse()
    least_damage.reverse()
    best: tuple[int, Fraction] | None = None

    def visit(depth: int, spent: int, done: Fraction) -> None:
        nonlocal best
        if done + least_damage[depth] > bound:
            return
        if best is not None and (spent + least_cost[depth], done + least_damage[depth]) >= best:
            return
        if depth == len(options):
            best = (spent, done)
            return
        for more, harm in options[depth]:
            visit(depth + 1, spent + more, done + harm)

    visit(0, 0, Fraction(0))
    return best


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, Fraction]:
    rng = np.random.default_rng(seed)
    groups, width = int(rng.integers(5, 12)), int(rng.integers(2, 5))
    cost = rng.integers(-20, 400, (groups, width)) * int(rng.choice([1, 7, 64]))
    damage = 10.0 ** rng.uniform(-rng.choice([1, 6, 14]), 0, (groups, width)) * 10.0 ** rng.integers(-200, 100)
    if seed % 3 == 0:  # monotone, as precisions are
        cost, damage = np.sort(cost, axis=1), -np.sort(-damage, axis=1)
    if seed % 5 == 0:  # a selection meets the bound exactly
        picked = rng.integers(0, width, groups)
        return cost, damage, sum(map(Fraction, damage[np.arange(groups), picked].tolist()), Fraction(0))
    least, most = damage.min(axis=1).sum(), damage.max(axis=1).sum()
    return cost, damage, Fraction(float(least + rng.random() ** 3 * (most - least)))


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_against_rational_branch_and_bound(start: int) -> None:
    for seed in range(start, start + 250):
        cost, damage, bound = instance(seed)
        truth = rational_optimum(cost, damage, bound)
        found = solve(Problem.from_tables(cost, damage), bound=bound)
        if truth is None:
            assert found.status is Status.INFEASIBLE, seed
            continue
        assert found.status is Status.OPTIMAL, seed
        assert found.exact_cost == truth[0], seed
        assert found.exact_damage is not None
        assert truth[1] <= found.exact_damage <= bound, seed
        # The other way: the least damage at that cost is at most what branch and bound found there.
        dual = solve(Problem.from_tables(cost, damage), budget=truth[0]) if truth[0] > 0 else None
        assert dual is None or dual.damage == float(truth[1]), seed
