"""HAQ's walk: its trace against sweeps written out, where it ends, and the units that it walks over."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from agent_world import network

from impq_opt import GroupNames, Problem, problems
from impq_opt.agent import Limit, Units, walk
from impq_opt.instance.question import make_instance
from impq_opt.problems.mobilenet import microcontroller

COUPLED = ("bit-operations", "adders", "mpic-cycles")


def swept(units: Units, levels: Any, cost: Any, most: Any) -> tuple[list[int], list[int]]:
    """Return levels and trace of the sweeps by the paper, the cost counted anew for every step."""
    now, trace = list(levels), []
    while cost(now) > most and any(now):
        for unit in reversed(range(len(now))):
            if now[unit] > 0:
                lower = [*now[:unit], now[unit] - 1, *now[unit + 1 :]]
                if cost(lower) < cost(now):  # what has no share in the cost stays
                    now = lower
                    trace.append(unit)
            if cost(now) <= most:
                break
        else:
            if cost(now) == cost([0] * len(now)):
                break
    return now, trace


@pytest.mark.parametrize("term", ["storage", "representational", *COUPLED])
@pytest.mark.parametrize("seed", range(4))
def test_the_walk_is_the_papers_sweeps(term: str, seed: int) -> None:
    problem = network()
    start = np.random.default_rng(seed).integers(1, 3, 5).tolist()
    lowest = make_instance(problem, budget=1, minimize=term)
    units = Units(lowest)

    def cost(levels: list[int]) -> Fraction:
        return lowest.cost_of(units.choice(levels)) * lowest.quantum

    low, high = cost([0] * len(units)), cost(start)
    for share in (Fraction(0), Fraction(1, 3), Fraction(4, 5), Fraction(1), Fraction(-1)):
        most = low + share * (high - low)
        if most <= 0:
            continue
        instance = make_instance(problem, budget=most, minimize=term)
        found = Units(instance).within(start)
        levels, trace = swept(units, start, cost, most)
        assert (list(found.levels), list(found.trace)) == (levels, trace)
        assert found.holds == instance.is_feasible(units.choice(found.levels)) == (share >= 0)


def test_an_activation_loses_a_bit_before_the_weights_from_the_last_layer_on() -> None:
    problem = network()
    instance = make_instance(problem, budget=1, minimize="representational")
    found = Units(instance).within([2] * 5)
    # conv1, conv2 and what it reads, conv3 and what it reads: 0, 1 and 2, 3 and 4.
    assert found.trace == (4, 3, 2, 1, 0) * 2
    assert found.levels == (0,) * 5 and not found.holds
    units = Units(instance)
    groups = [problem.names[int(np.flatnonzero(units.of == unit)[0])] for unit in range(5)]
    assert groups == ["conv1[0]", "conv2[0]", "conv1.out", "conv3[0]", "conv2.out"]


def test_several_budgets_take_bits_where_they_are_broken_alone() -> None:
    budgets = {"storage": 10**6, "peak-activation-memory": 1500}
    instance = make_instance(network(budgets=budgets))
    units = Units(instance)
    found = units.within([2] * 5)
    assert found.holds and instance.is_feasible(units.choice(found.levels))
    assert set(found.trace) == {2, 4}
    tight = make_instance(network(budgets=budgets | {"storage": 500}))
    found = Units(tight).within([2] * 5)
    assert found.holds and set(found.trace) > {2, 4}


@pytest.mark.parametrize("seed", range(20))
def test_a_walk_ends_within_the_budgets_or_at_the_least(seed: int) -> None:
    problem = microcontroller()
    rng = np.random.default_rng(seed)
    budgets = {"storage": 2**24 * rng.uniform(0.4, 1.5), "peak-activation-memory": 2**22 * rng.uniform(0.2, 1)}
    instance = make_instance(dataclasses.replace(problem, budgets={n: Fraction(int(b)) for n, b in budgets.items()}))
    units = Units(instance)
    start = rng.integers(0, 3, len(units)).tolist()
    found = units.within(start)
    assert found.holds == instance.is_feasible(units.choice(found.levels))
    lost = np.bincount(found.trace, minlength=len(units)) if found.trace else np.zeros(len(units))
    assert (np.array(start) - lost == found.levels).all()
    if not found.holds:
        assert not instance.is_feasible(units.choice([0] * len(units)))


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_on_damage_gives_bits_until_it_holds(seed: int) -> None:
    instance = make_instance(network(bits=range(1, 9)), bound=float(np.random.default_rng(seed).uniform(0.001, 2)))
    units = Units(instance)
    found = units.within(np.random.default_rng(seed + 50).integers(0, 8, 5).tolist())
    assert found.holds and instance.is_feasible(units.choice(found.levels))
    if found.trace:
        before = list(found.levels)
        before[found.trace[-1]] -= 1
        assert not instance.is_feasible(units.choice(before))


def test_a_step_that_breaks_what_holds_is_not_taken() -> None:
    first, other = Limit(3, {0: (1, 2), 1: (1, 3)}), Limit(5, {0: (9, 1), 1: (2, 4)})
    found = walk((1, 1), (2, 2), [first, other])
    assert found == walk((1, 1), (2, 2), [first, other])
    assert (found.levels, found.trace, found.holds) == ((1, 0), (1,), True)
    assert not walk((1, 1), (2, 2), [Limit(2, {0: (1, 2), 1: (1, 3)}), other]).holds


# -- units -----------------------------------------------------------------------------------------------------------


def test_a_layers_kernels_take_one_precision_pins_and_ties_hold() -> None:
    problem = network().revise(pins={"conv1[1]": 8, "conv2.out": 4}, ties=[("conv2[0]", "conv3[1]")])
    instance = make_instance(problem, budget="200B")
    units = Units(instance)
    for levels in itertools.product(range(3), repeat=len(units)):
        bits = problem.candidates.bits(instance.lift(units.choice(levels)))
        assert bits[1] == 8 and bits[10] == 4
        assert len(set(bits[[0, 2, 3]])) == 1
        assert len(set(bits[[4, 5, 6, 8]])) == 1  # the tie takes conv3[1] along
    assert len(units) == 4


def test_groups_of_a_layer_with_candidates_of_their_own_are_units_of_their_own() -> None:
    names = GroupNames(("a", "b"), ((2,), ()))
    problem = Problem.from_tables([[8, 2, 4], [4, 8], [2, 4, 8]], [[0.1, 0.9, 0.5], [0.4, 0.1], [0.9, 0.5, 0.1]],
                                  bits=[[8, 2, 4], [4, 8], [2, 4, 8]], names=names)  # fmt: skip
    units = Units(make_instance(problem, budget=20))
    assert units.widths.tolist() == [3, 2, 3]
    assert units.choice([0, 0, 0]).tolist() == [1, 0, 0]  # from the least bits, in whatever order they are declared
    assert units.choice([2, 1, 2]).tolist() == [0, 1, 2]


def test_groups_without_names_are_units_each() -> None:
    assert len(Units(make_instance(Problem.from_sensitivities([5] * 6, [0.5] * 6), budget=60))) == 6


def test_what_a_step_looks_at_lies_between_0_and_1_and_tells_units_apart() -> None:
    units = Units(make_instance(problems.load("mobilenet-v1-synthetic-microcontroller"), budget="2MiB"))
    seen = units.observations
    assert len(units) == 55  # the picture is pinned
    assert seen.min() == 0 and seen.max() == 1 and len(np.unique(seen, axis=0)) == 55
    assert seen[:, -1].tolist() == [1.0, *[1.0, 0.0] * 27]
    assert (np.ptp(seen, axis=0) == 1).all()
    assert (seen[1::2, [1, 2, 3, 6]] == seen[2::2, [1, 2, 3, 6]]).all()
