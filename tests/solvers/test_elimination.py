"""Least sums by elimination against looking at every assignment, and limits that cannot be broken."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from impq_opt import Group, Problem, Status, solve
from impq_opt.instance.elimination import Factor, least_by_value, least_sum
from impq_opt.instance.local import without_slack
from impq_opt.instance.question import make_instance


def random_factors(seed: int) -> tuple[list[int], list[Factor]]:
    """Return the number of values of each variable, and functions of one to three of them, infinite in places."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 4, random.integers(1, 7)).tolist()
    factors: list[Factor] = [
        ((variable,), random.integers(0, 50, count).astype(float)) for variable, count in enumerate(counts)
    ]
    for _ in range(random.integers(0, 6)):
        scope = tuple(random.permutation(len(counts))[: random.integers(1, 4)].tolist())
        table = random.integers(-20, 50, [counts[variable] for variable in scope]).astype(float)
        table[random.random(table.shape) < 0.15] = np.inf
        factors.append((scope, table))
    return counts, factors


@pytest.mark.parametrize("seed", range(60))
def test_the_least_sum_with_each_variable_at_each_value(seed: int) -> None:
    counts, factors = random_factors(seed)
    expected = [np.full(count, np.inf) for count in counts]
    for assignment in itertools.product(*map(range, counts)):
        total = sum(table[tuple(assignment[variable] for variable in scope)] for scope, table in factors)
        for variable, value in enumerate(assignment):
            expected[variable][value] = min(expected[variable][value], total)
    assert least_sum(factors)[0] == expected[0].min()
    if expected[0].min() == np.inf:
        return
    found = least_by_value(factors)
    assert found is not None
    for variable, values in enumerate(expected):
        np.testing.assert_array_equal(found[variable], values)


def test_limits_that_every_choice_keeps_are_left_out() -> None:
    groups = []
    for number, size in enumerate((100, 100, 10, 10, 10, 10)):
        name, steps = f"a{number}", (number, number + 1)
        groups.append(Group(name, size, 0.5, bits=(2, 4, 8), kind="activation", steps=steps))
        macs = 900 * (number + 1)
        groups.append(Group(f"w{number}", 9, 0.1 * (number + 1), bits=(2, 4, 8), reads=name, macs=macs, length=9))
    problem = Problem.declare(groups).revise(bound=0.5, minimize="mpic-cycles")
    for most, left in ((1600, 0), (1599, 1), (800, 2), (100, None)):
        instance = make_instance(problem.revise(budgets={"peak-activation-memory": most}))
        known = without_slack(instance)
        assert (None if known is None else len(known.budgets)) == left
    tight = problem.revise(budgets={"peak-activation-memory": 1200, "storage": 300})
    found, held = solve(tight), solve(tight, solver="milp")
    assert found.status is held.status is Status.OPTIMAL
    assert found.exact_cost == held.exact_cost
