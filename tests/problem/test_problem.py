"""Declarations: what is read from them, and one clear sentence for each thing that is wrong."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import impq_opt
from impq_opt import Group, Problem, Status, solve
from impq_opt.errors import ImpqError, InputError, OptionError, ProblemError, UnsupportedError
from impq_opt.groups.names import GroupNames


def small(**fields: Any) -> Problem:
    return Problem.from_sensitivities([10, 20, 30], [0.1, 0.2, 0.3], names=["a", "b", "c"], **fields)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Problem.from_sensitivities([1, 0], [1, 1]), r"groups\[1\].size .*must be positive, got 0"),
        (lambda: Problem.from_sensitivities([1, -3], [1, 1]), r"groups\[1\].size .*must be positive, got -3"),
        (lambda: Problem.from_sensitivities([1, 2], [1, np.nan]), r"groups\[1\].sensitivity .*got nan"),
        (lambda: Problem.from_sensitivities([1, 2], [np.inf, 1]), r"groups\[0\].sensitivity .*got inf"),
        (lambda: Problem.from_sensitivities([1, 2], [-1.0, 1]), r"groups\[0\].sensitivity .*got -1.0"),
        (lambda: Problem.from_sensitivities([], []), r"sizes: must be a non-empty array"),
        (lambda: Problem.from_sensitivities([1.5], [1]), r"sizes: must hold whole numbers"),
        (lambda: Problem.from_sensitivities(["x"], [1]), r"sizes: must hold whole numbers"),
        (lambda: Problem.from_sensitivities([1, 2], [1]), r"damage: one row per group, got \(1, 2\)"),
        (lambda: Problem.from_sensitivities([1, 2], [1, 1], names=["a", "a"]), r"groups\[1\].name: duplicate name"),
        (lambda: Problem.from_sensitivities([1], [1], names=[""]), r"groups\[0\].name"),
        (lambda: Problem.from_sensitivities([1], [1], bits=[]), r"candidates\[0\]: a group needs at least one"),
        (lambda: Problem.from_sensitivities([1], [1], bits=[2, 2]), r"candidates must be distinct"),
        (lambda: Problem.from_sensitivities([1], [1], bits=[-1]), r"bits must be finite numbers >= 0, got -1"),
        (lambda: Problem.from_sensitivities([1], [1], kinds=["bias"]), r"groups\[0\].kind: must be 'weight' or"),
        (lambda: Problem.from_sensitivities([2**60, 2**60], [1, 1]), r"sizes are too large"),
        (lambda: Problem.from_tables([[1, 2]], [[0.1, 0.2, 0.3]]), r"cost and damage must have one shape"),
        (lambda: Problem.from_tables([[1, np.nan]], [[0.1, 0.2]]), r"costs.cost\[0, 1\]: must be finite, got nan"),
        (lambda: Problem.from_tables([[1, 2]], [[0.1, -0.2]]), r"groups\[0\].damage\[1\] .*got -0.2"),
        (lambda: Problem.from_tables([1, 2], [0.1, 0.2]), r"damage: must be a non-empty array of 2 dimensions"),
        (lambda: Problem.from_tables([[2**62]], [[0.1]]), r"costs are too large for exact 64-bit sums"),
        (lambda: Problem.from_tables([["a"]], [[0.1]]), r"costs.cost: must hold real numbers"),
        (lambda: small(bound=0), r"bound: must be positive"),
        (lambda: small(bound=float("nan")), r"bound: must be finite"),
        (lambda: small(bound="x"), r"bound: must be a number, got 'x'"),
        (lambda: small(bound=True), r"bound: must be a number"),
        (lambda: small(objective={"speed": 1}), r"minimize: unknown cost, got 'speed'"),
        (lambda: small(objective={"storage": -1}), r"minimize.storage: must be positive"),
        (lambda: small().revise(budgets={"storage": "2 parsecs"}), r"budgets.storage: unknown unit"),
        (lambda: small().revise(pins={"a": 9}), r"pins: a: is pinned to a precision that is not among"),
        (lambda: small().revise(pins={"d": 2}), r"pins.d: no such group, got 'd'"),
        (lambda: small().revise(pins={"a": 2}).revise(pins={"a": 3}), r"pins: a: is pinned twice"),
        (
            lambda: small().revise(ties=[("a", "b")], pins={"a": 2, "b": 3}),
            r"ties\[0\]: tied groups are pinned to diff",
        ),
        (lambda: small().revise(ties=["ab"]), r"ties\[0\]: must be a list of names"),
        (lambda: small().revise(bits=[9]), r"a.bits: no candidate is left"),
        (
            lambda: Problem.declare([Group("a", 1, 0.1, bits=(2,)), Group("b", 1, 0.1, bits=(4,))], ties=[("a", "b")]),
            r"ties\[0\]: the tied groups have no candidate in common",
        ),
        (lambda: Problem.declare([Group("a", 1)]), r"groups\[0\]: give either sensitivity or damage"),
        (
            lambda: Problem.declare([Group("a", 1, damage=[1.0], bits=(1, 2))]),
            r"groups\[0\].damage: must have one value",
        ),
        (lambda: Problem.declare([Group("a", 1, 0.1, reads="x")]), r"groups\[0\].reads: no such group"),
        (lambda: Problem.declare([]), r"groups: a problem needs at least one group"),
    ],
)
def test_wrong_declarations_get_one_sentence(build: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "needs a bound or a budget"),
        ({"bound": -1}, "bound: must be positive"),
        ({"bound": 0.1, "budget": 100}, "not both"),
        ({"budget": "ten"}, "budget: must be a non-negative number"),
        ({"bound": 0.1, "solver": "exct"}, "did you mean 'exact'"),
        ({"bound": 0.1, "solver": "exact", "depth": 3}, "unknown option of solver 'exact'"),
        ({"bound": 0.1, "solver": "iterative", "variant": "mine"}, "must be 'paper' or 'authors-code'"),
        ({"bound": 0.1, "minimize": "storag"}, "did you mean 'storage'"),
        ({"bound": 0.1, "time_limit": 0}, "time_limit: must be positive"),
    ],
)
def test_wrong_calls_get_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImpqError, match=sentence):
        solve(small(), **arguments)


def test_a_solver_that_cannot_says_so_and_names_those_that_can() -> None:
    with pytest.raises(UnsupportedError, match=r"'lagrangian' does not handle several budgets; these do: .*milp"):
        solve(small().revise(budgets={"storage": 300}), bound=0.1, solver="lagrangian")


def test_problems_are_frozen() -> None:
    problem = small()
    with pytest.raises(FrozenInstanceError):
        problem.bound = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        problem.sizes[0] = 3
    with pytest.raises(TypeError):
        problem.pins[0] = 1  # type: ignore[index]


def test_the_digest_covers_what_decides_and_nothing_else() -> None:
    problem = small()
    assert problem.digest == small().digest
    assert replace(problem, provenance={"seed": 1}).digest == problem.digest
    others = [
        small(bits=[1, 2]),
        small(bound=0.5),
        small(kinds=["weight", "weight", "activation"]),
        problem.revise(pins={"a": 2}),
        problem.revise(ties=[("a", "b")]),
        problem.revise(budgets={"storage": "1KiB"}),
        problem.revise(minimize="representational"),
        Problem.from_sensitivities([10, 20, 31], [0.1, 0.2, 0.3], names=["a", "b", "c"]),
        Problem.from_sensitivities([10, 20, 30], [0.1, 0.2, 0.30000000000000004], names=["a", "b", "c"]),
    ]
    assert len({p.digest for p in others} | {problem.digest}) == len(others) + 1


def test_names_of_kernels_are_not_stored_one_by_one() -> None:
    names = GroupNames(("conv1", "fc"), ((16, 3), ()), ("features", "head"))
    assert len(names) == 49
    assert names[5] == "conv1[1,2]"
    assert names[48] == names[-1] == "fc"
    assert list(names)[47] == "conv1[15,2]"
    assert all(names.index_of(name) == i for i, name in enumerate(names))
    assert names.select("conv1").tolist() == list(range(48))
    assert names.select("features").tolist() == list(range(48))
    assert names.select("conv1[1,2]").tolist() == [5]
    assert names.select("*").tolist() == list(range(49))
    for wrong in ("conv1[16,0]", "conv1[1]", "conv1[x,y]", "conv2", "fc[0]"):
        with pytest.raises(ProblemError):
            names.index_of(wrong)


def test_ten_million_groups_keep_vectors() -> None:
    count = 10_000_000
    problem = Problem.from_sensitivities(np.full(count, 9), np.full(count, 1e-9))
    assert len(problem) == count
    assert problem.names[count - 1] == f"group[{count - 1}]"
    held = sum(a.nbytes for a in (problem.sizes, problem.damage.sensitivity))
    assert held == 16 * count


def test_ties_that_share_a_group_are_one_tie() -> None:
    problem = small().revise(ties=[("a", "b")]).revise(ties=[("b", "c")])
    assert problem.ties == ((0, 1, 2),)
    found = solve(problem, bound=0.01)
    assert len(set(found.bits.tolist())) == 1


def test_labels_of_one_shape_are_tied_kernel_by_kernel() -> None:
    names = GroupNames(("q", "k"), ((3,), (3,)))
    problem = Problem.from_sensitivities([4] * 6, [0.1 * i for i in range(1, 7)], names=names)
    assert problem.revise(ties=[("q", "k")]).ties == ((0, 3), (1, 4), (2, 5))


def test_fractional_bits_cost_exactly() -> None:
    problem = Problem.from_sensitivities([16, 32], [0.1, 0.1], bits=[4.25, 4.5, 8])
    found = solve(problem, bound=1.0)
    assert found.bits.tolist() == [4.25, 4.25]
    assert found.objective == 204
    assert found.effective_bits == (4.25, None)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ([[0.1, 0.2], [0.3, 0.7]], Fraction(4, 10)),  # decimals are read as decimals
        ([[0.5, 2.25], [0.125, 8.0]], Fraction(5, 8)),
        (np.array([[1, 2], [3, 4]], dtype=np.uint8), Fraction(4)),
        (np.array([[0.5, 1], [3, 4]], dtype=np.float32), Fraction(7, 2)),
    ],
)
def test_float_costs_are_scaled_exactly(cost: Any, expected: Fraction) -> None:
    found = impq_opt.allocate(cost, [[0.5, 0.1], [0.5, 0.1]], bound=2.0)
    assert found.exact_objective == expected
    assert found.problem.costs[0].rounding == 0  # type: ignore[attr-defined]


def test_float_costs_without_a_common_scale_state_their_rounding() -> None:
    rng = np.random.default_rng(0)
    cost = rng.random((50, 4)) * np.array([1e-9, 1, 1e3, 1e6])
    problem = Problem.from_tables(cost, rng.random((50, 4)))
    term = problem.costs[0]
    assert 0 < term.rounding <= float(term.quantum)  # type: ignore[attr-defined]
    restored = term.values.astype(np.float64) * float(term.quantum)  # type: ignore[attr-defined]
    assert np.abs(restored - cost).max() <= term.rounding * (1 + 1e-9)  # type: ignore[attr-defined]


def test_units_parse_without_rounding_and_print() -> None:
    from impq_opt.costs import format_quantity, parse_quantity

    assert parse_quantity("100KiB", "bit") == 819200
    assert parse_quantity("0.1 Mbit", "bit") == 100000
    assert parse_quantity(".5", "bit") == Fraction(1, 2)
    assert parse_quantity("2ms", "s") == Fraction(1, 500)
    assert format_quantity(819200, "bit") == "100 KiB"
    assert format_quantity(36_397_000_000, "bit-op") == "36.4 Gbit-OPs"
    with pytest.raises(OptionError, match="for example 100KiB"):
        parse_quantity("-3", "bit")


def test_infeasible_says_what_is_reachable_and_what_holds_it() -> None:
    found = solve(small().revise(pins={"c": 1}), bound=1e-3)
    assert found.status is Status.INFEASIBLE
    text = str(found.diagnosis)
    assert "smallest reachable damage is 0.075" in text
    assert "held there by the pins of c (without them" in text
    with pytest.raises(ImpqError, match="infeasible"):
        _ = found.bits


def test_all_groups_pinned() -> None:
    found = solve(small().revise(pins={"*": 4}), bound=0.1)
    assert found.status is Status.OPTIMAL
    assert found.objective == 240
    assert solve(small().revise(pins={"*": 1}), bound=0.1).status is Status.INFEASIBLE


def test_public_names_are_exact() -> None:
    assert impq_opt.__all__ == sorted(impq_opt.__all__)
    assert all(hasattr(impq_opt, name) for name in impq_opt.__all__)


def test_of_the_weights_alone_ties_of_two_stay_and_mean_bits_are_theirs() -> None:
    groups = [Group("v", 10, 1.0), Group("w", 30, 1.0), Group("x", 50, 1.0, kind="activation"), Group("y", 5, 1.0)]
    problem = Problem.declare(groups, ties=[("v", "w"), ("x", "y")], budgets={"storage": "4.5bpw"})
    alone = problem.revise(weights_only=True)
    assert (list(alone.names), alone.ties) == (["v", "w", "y"], ((0, 1),))
    assert problem.budgets["storage"] == alone.budgets["storage"] == Fraction(9, 2) * 45
    assert alone.revise(budgets={"storage": "4.5 bpw"}).budgets == alone.budgets
