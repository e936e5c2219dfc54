"""The whole trade-off: its breakpoints are optima, and exact points in between are what single solves give."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

import impq_opt
from impq_opt import Frontier, Problem, Status, frontier, solve
from impq_opt.problems.families import FAMILIES, explicit, generate


@pytest.mark.parametrize("seed", range(6))
def test_breakpoints_are_the_lower_hull_of_all_allocations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, damage = rng.integers(-20, 50, (5, 3)), rng.uniform(0, 1, (5, 3))
    hull = frontier(Problem.from_tables(cost, damage))
    rows = np.arange(5)
    every = np.array([[cost[rows, c].sum(), damage[rows, c].sum()] for c in product(range(3), repeat=5)])
    assert (np.diff(hull.cost) > 0).all()
    assert (np.diff(hull.damage) < 0).all()
    assert (np.diff(hull.price) >= 0).all()
    for place in range(len(hull)):
        choice = hull.choice(place)
        assert hull.cost[place] == cost[rows, choice].sum()
        assert hull.damage[place] == pytest.approx(damage[rows, choice].sum(), rel=1e-12)
    for price in hull.price:
        least = (every[:, 0] + price * every[:, 1]).min()
        assert (hull.cost + price * hull.damage).min() == pytest.approx(least, rel=1e-9)
    assert hull.cost[0] == every[:, 0].min()
    assert hull.damage[-1] == pytest.approx(every[:, 1].min(), rel=1e-12)


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if not f.hard])
def test_exact_points_are_single_solves(name: str) -> None:
    problem = generate(name, 400, 1)
    if name == "kernel":
        problem = explicit(problem)
    hull = frontier(problem)
    bounds = np.geomspace(hull.damage[0] * 1.1, hull.damage[-1] * 1.001, 9).tolist()
    for bound, found in zip(bounds, hull.solve(bounds), strict=True):
        single = solve(problem, bound=bound)
        assert found.status is single.status is Status.OPTIMAL
        assert found.exact_cost == single.exact_cost
        assert found.exact_damage is not None and found.exact_damage <= Fraction(bound)
        assert found.cost is not None and found.cost <= hull.cost[hull.place(bound)]
    assert hull.solve([hull.damage[-1] / 2])[0].status is Status.INFEASIBLE


def test_breakpoints_are_proved_at_their_own_damage() -> None:
    problem = generate("channel", 300, 2)
    hull = frontier(problem)
    for place in np.linspace(0, len(hull) - 1, 7).astype(int).tolist():
        exact = problem.damage.chosen(problem.candidates, hull.choice(place))
        bound = sum(map(Fraction, exact.tolist()), Fraction(0))
        found = hull.solve([bound])[0]
        assert found.status is Status.OPTIMAL
        assert found.cost == hull.cost[place]


def test_ties_pins_and_candidate_sets_hold() -> None:
    groups = [
        impq_opt.Group(f"g{i}", size=10 + i, sensitivity=1.0 + i % 7, bits=(2, 4, 8) if i % 2 else (1, 2, 4))
        for i in range(40)
    ]
    problem = Problem.declare(groups, bound=5.0, ties=[("g0", "g1"), ("g4", "g6")], pins={"g9": 8.0})
    hull = frontier(problem)
    bits = problem.candidates.bits(hull.choice(len(hull) // 2))
    assert bits[9] == 8
    assert bits[0] == bits[1]
    assert bits[4] == bits[6]
    for bound in (1.0, 5.0, 20.0):
        found, single = hull.solve([bound])[0], solve(problem, bound=bound)
        assert (found.status, found.exact_cost) == (single.status, single.exact_cost)


def test_another_cost_and_its_unit() -> None:
    problem = generate("layer", 30, 3)
    assert frontier(problem, "representational").cost[0] == problem.sizes.sum()
    costs = Problem.from_tables([[0.5, 1.25], [0.5, 2.0]], [[1.0, 0.25], [1.0, 0.5]])
    hull = frontier(costs)
    assert hull.cost.tolist() == [1.0, 1.75, 3.25]
    assert hull.price.tolist() == [1.0, 3.0]
    assert isinstance(hull, Frontier)


def test_a_place_outside_the_frontier_is_an_index_error() -> None:
    hull = frontier(generate("layer", 10, 4))
    assert (hull.choice(-1) == hull.choice(len(hull) - 1)).all()
    with pytest.raises(IndexError):
        hull.choice(len(hull))
