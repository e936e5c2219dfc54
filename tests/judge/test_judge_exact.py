"""The judge to the last unit: limits that an assignment meets exactly, costs on a lattice, sums that rounding hides."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from known import known
from test_judge import asked, drawn, optimum, value

from impq_opt import Group, Problem
from impq_opt.costs import LookupCost, TableCost
from impq_opt.instance import Instance
from impq_opt.instance.question import make_instance
from impq_opt.judge.declared import Question
from impq_opt.judge.recount import Outcome, prove_bound, prove_infeasible
from impq_opt.judge.together import Case


def held_to_the_truth(instance: Instance, multipliers: dict[str, float], best: int | Fraction | None = None) -> None:
    """Nothing is below the best; something is below what lies one unit above it."""
    best = optimum(instance) if best is None else best
    assert prove_infeasible(instance, multipliers).outcome is (Outcome.PROVED if best is None else Outcome.REFUTED)
    if best is None:
        return
    unit = 1 if instance.objective.whole else Fraction(1, 2**1074)
    assert prove_bound(instance, multipliers, best).outcome is Outcome.PROVED
    found = prove_bound(instance, multipliers, best + unit)
    assert found.outcome is Outcome.REFUTED
    assert found.better is not None
    assert value(instance, found.better) == best
    # And that it is a unit above what may be, nobody proves.
    assert prove_bound(instance, multipliers, best + unit, states=0).outcome is not Outcome.PROVED


@pytest.mark.parametrize("seed", range(1000, 1300))
def test_limits_that_an_assignment_meets_exactly(seed: int) -> None:
    draw = random.Random(seed)
    instance = asked(draw, drawn(draw))
    if instance is None or instance.size == 0:
        return
    choice = np.array([draw.randrange(width) for width in instance.widths.tolist()], dtype=np.int64)
    short = draw.choice([0, 0, 1])  # by a unit of one limit
    names = ["bound", "budget", *(budget.name for budget in (*instance.budgets, *instance.peaks))]
    budgets = tuple(replace(b, limit=instance.value_of(b, choice)) for b in instance.budgets)
    if budgets and short:
        budgets = (replace(budgets[0], limit=known(budgets[0].limit) - 1), *budgets[1:])
    met = replace(
        instance,
        bound=None if instance.bound is None else instance.damage_of(choice),
        limit=None if instance.limit is None else instance.cost_of(choice),
        budgets=budgets,
    )
    prices = [0.0, 1.0, draw.random(), 10 ** draw.uniform(-3, 5)]
    held_to_the_truth(met, {name: draw.choice(prices) for name in names if draw.random() < 0.7})
    held_to_the_truth(met, {})


@pytest.mark.parametrize("seed", range(60))
def test_costs_on_a_lattice_that_does_not_go_through_zero(seed: int) -> None:
    """All costs differ by multiples of 6, tables of pairs, pins and single groups alike."""
    draw = random.Random(seed)
    bits = (2, 4, 8)
    groups = [Group("x", size=1, sensitivity=0.3, kind="activation", bits=bits)]
    groups += [Group(f"w{i}", size=1, sensitivity=draw.random(), bits=bits, reads="x", macs=1) for i in range(3)]

    def costs() -> int:
        return draw.choice([-1, 5, 11, 17, 23])

    pairs = {
        name: {(Fraction(b), Fraction(a)): Fraction(costs()) for b in bits for a in bits} for name in ("w0", "w1", "w2")
    }
    layout = Problem.declare(groups)
    table = np.array([[6 * draw.randrange(9) + offset for _ in bits] for offset in (1, 2, 0, 3)])
    terms = (LookupCost.from_table(pairs, layout), TableCost.from_array(table, name="tab"))
    objective = draw.choice([{"latency": 1}, {"tab": 1}, {"latency": 1, "tab": 1}])
    problem = Problem.declare(groups, costs=terms, minimize=objective, pins={"w2": 4} if draw.random() < 0.5 else None)
    held_to_the_truth(make_instance(problem, bound=0.05), draw.choice([{}, {"bound": 100.0}]))


def test_of_candidates_that_rounding_makes_equal_the_least_is_found() -> None:
    # Priced at 1 they come to 1 + 2**-60, which is no float64, and to 1.
    instance = make_instance(Problem.from_tables([[1, 0]], [[2.0**-60, 1.0]]), bound=1.0)
    held_to_the_truth(instance, {"bound": 1.0}, 0)


def test_priced_entries_beyond_float64_are_looked_at() -> None:
    instance = make_instance(Problem.from_tables([[5, 1]], [[1e300, 1e308]]), bound=1e308)
    held_to_the_truth(instance, {"bound": 1e10}, 1)


@pytest.mark.parametrize("damage", [(0.1, 0.2), (0.1, 0.7), (1e16, 1.0), (1.0, 2.0**-60)])
def test_sums_of_ties_are_exact(damage: tuple[float, float]) -> None:
    groups = [Group(f"g{i}", size=10, damage=(d, d / 2), bits=(2, 4)) for i, d in enumerate(damage)]
    groups.append(Group("other", size=1, damage=(0.5, 0.25), bits=(2, 4)))
    problem = Problem.declare(groups, ties=[["g0", "g1"]])
    exact = sum(map(Fraction, damage), Fraction(0)) + Fraction(1, 2)
    for price in (0.0, 1.0, 1e-3, 1e3):
        held_to_the_truth(make_instance(problem, bound=exact), {"bound": price}, 2 * 21)
        short = make_instance(problem, bound=exact - Fraction(1, 2**1074))
        held_to_the_truth(short, {"bound": price}, 2 * 20 + 4)


@pytest.mark.parametrize("seed", range(100))
def test_two_lines_of_a_core_are_completed_in_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, damage = rng.integers(0, 12, (5, 3)), rng.integers(0, 9, (5, 3)).astype(float)
    bound = int(damage[np.arange(5), rng.integers(0, 3, 5)].sum()) or 1
    held_to_the_truth(make_instance(Problem.from_tables(cost, damage), bound=bound), {"bound": 1e-12})


@pytest.mark.parametrize("seed", range(100))
def test_limits_on_few_of_many_groups_and_pairs_below_zero(seed: int) -> None:
    """A limit on two weights that share pairs with what they read, where a third one always has the same of it."""
    draw = random.Random(seed)
    bits = (2, 4)
    reads = ["x", "y", "x", "x"]
    groups = [Group(n, size=1, sensitivity=draw.random(), kind="activation", bits=bits) for n in "xy"]
    groups += [
        Group(f"w{i}", size=1, sensitivity=draw.random(), bits=bits, reads=r, macs=1) for i, r in enumerate(reads)
    ]
    pairs = {
        f"w{i}": {(Fraction(b), Fraction(a)): Fraction(draw.randint(-20, 9)) for b in bits for a in bits}
        for i in range(4)
    }
    table = [[0, 0], [0, 0], [draw.randint(-9, 9) for _ in bits], [draw.randint(-9, 9) for _ in bits], [5, 5], [0, 0]]
    terms = (LookupCost.from_table(pairs, Problem.declare(groups)), TableCost.from_array(np.array(table), name="few"))
    problem = Problem.declare(groups, costs=terms, minimize="latency", budgets={"few": draw.randint(1, 20)})
    instance = make_instance(problem, bound=draw.choice([0.05, 0.2, 0.5]))
    held_to_the_truth(instance, draw.choice([{}, {"bound": 10.0}, {"bound": 1e3}]))


def case(problem: Problem, bound: float, limits: Mapping[str, Fraction | int]) -> Case:
    budgets, costs = {name: Fraction(most) for name, most in limits.items()}, {name: {name: 1} for name in limits}
    return Case(problem, Question("cost", problem.objective, Fraction(bound), budgets, costs), 9999)


def test_limits_that_are_met_together_at_one_price_alone() -> None:
    used = TableCost.from_array(np.array([[3, 0], [1, 0]]), name="used")
    problem = Problem.from_tables([[1, 1], [1, 1]], [[0.0, 1.0], [0.0, 3.0]], costs=(used,))
    met = case(problem, 1, {"used": 1})
    assert met.decide(frozenset(met.items)).feasible is True
    below = TableCost.from_array(np.array([[3, 0], [1, 0], [-5, 0]]), name="used")  # and what is pinned counts
    less = Problem.from_tables([[1, 1]] * 3, [[0.0, 1.0], [0.0, 3.0], [0.0, 0.0]], costs=(below,))
    met = case(less.revise(pins={"group[2]": 0}), 1, {"used": -4})
    assert met.decide(frozenset(met.items)).feasible is True
    for short in (case(problem, 1 - 2.0**-50, {"used": 1}), case(problem, 1, {"used": 0})):
        assert short.decide(frozenset(short.items)).feasible is False


def test_the_dearest_assignment_of_all_may_be_the_only_one() -> None:
    bits = (4, 8)
    groups = [Group("x", size=1, damage=(0.5, 0.5), kind="activation", bits=bits)]
    groups.append(Group("w", size=1, damage=(0.5, 0.5), bits=bits, reads="x", macs=1))
    times = {"w": {(Fraction(b), Fraction(a)): Fraction(1 if a == b == 8 else 9) for b in bits for a in bits}}
    latency = LookupCost.from_table(times, Problem.declare(groups))
    problem = Problem.declare(groups, costs=(latency,))
    for limit, feasible in ((Fraction(1), True), (Fraction(1, 2), False)):
        found = case(problem, 1, {"latency": limit})
        assert found.decide(frozenset(found.items)).feasible is feasible
