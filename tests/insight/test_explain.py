"""explain: its figures are those of the problem, its predictions come true when solved again."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known, law_of

from impq_opt import Group, ImpqError, Problem, files, solve
from impq_opt.cli import run
from impq_opt.insight.explain import explain, overview


def drawn(seed: int, count: int = 8) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem.from_sensitivities(
        rng.integers(50, 900, count),
        0.1 * np.exp(rng.normal(size=count)),
        bits=range(1, 6),
        names=[f"layer{i}" for i in range(count)],
    )


GOALS = [{"bound": 0.02}, {"budget": 9000}]


@pytest.mark.parametrize("goals", GOALS, ids=["bound", "budget"])
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_problem(seed: int, goals: Any) -> None:
    problem = drawn(seed)
    answer = solve(problem, **goals)
    for index, name in enumerate(problem.names):
        found = explain(problem, answer, name, solve_again=False)
        assert found.label == str(answer.bits[index])
        assert [c.cost for c in found.candidates] == [problem.sizes[index] * b for b in range(1, 6)]
        sensitivity = law_of(problem).sensitivity[index]
        assert [c.damage for c in found.candidates] == [sensitivity * 4.0**-b for b in range(1, 6)]
        # A reduced cost is cost + price * damage (or the other way round), less the least of them.
        price = found.price
        main, limited = ("cost", "damage") if "bound" in goals else ("damage", "cost")
        values = [getattr(c, main) + price * getattr(c, limited) for c in found.candidates]
        expected = [v - min(values) for v in values]
        np.testing.assert_allclose(
            [c.reduced_cost for c in found.candidates], expected, rtol=1e-9, atol=max(values) * 1e-12
        )
        assert [c.chosen for c in found.candidates] == [b == answer.bits[index] for b in range(1, 6)]


@pytest.mark.parametrize("goals", GOALS, ids=["bound", "budget"])
@pytest.mark.parametrize("seed", range(4))
def test_one_step_more_or_less_is_the_optimum_around_it(seed: int, goals: Any) -> None:
    problem = drawn(seed, 6)
    answer = solve(problem, **goals)
    for index, name in enumerate(problem.names):
        found = explain(problem, answer, name)
        labels = [b for b in (answer.bits[index] - 1, answer.bits[index] + 1) if 1 <= b <= 5]
        assert [step.label for step in found.alternatives] == [str(b) for b in labels]
        for step, bits in zip(found.alternatives, labels, strict=True):
            truth = solve(problem.revise(pins={name: bits}), solver="exhaustive", **goals)
            assert step.objective == truth.exact_objective
            assert step.proved
            if truth.choice is None:
                assert step.increase == math.inf
            else:
                assert step.increase == float(known(truth.exact_objective) - known(answer.exact_objective)) >= 0
            assert step.cost_change == problem.sizes[index] * (bits - answer.bits[index])


@pytest.mark.parametrize("goals", GOALS, ids=["bound", "budget"])
@pytest.mark.parametrize("seed", range(6))
def test_changes_by_multipliers_come_true(seed: int, goals: Any) -> None:
    """The limit is what a point of the convex frontier uses; there the Lagrangian choice is the optimum (Everett)."""
    problem = drawn(seed)
    answer = solve(problem, **goals)
    seen = 0
    for name in problem.names:
        for change in explain(problem, answer, name).changes:
            seen += 1
            assert change.label == change.solved_again
            again: dict[str, Any] = {next(iter(goals)): change.value}
            exact = solve(problem, **again)
            assert exact.bits[problem.names.index_of(name)] == int(change.label)
    assert seen > len(problem) // 2


def test_near_ties_are_what_the_price_leaves_open() -> None:
    problem = drawn(3)
    answer = solve(problem, bound=0.02)
    slack = known(answer.exact_objective) - known(known(answer.certificate).dual_bound)
    found = overview(problem, answer, count=100)
    assert found.slack == float(slack)
    near = 0
    for name in problem.names:
        one = explain(problem, answer, name, solve_again=False)
        ties = [c for c in one.candidates if c.near_tie]
        near += bool(ties)
        assert all(c.reduced_cost <= slack and not c.chosen for c in ties)
    assert found.near_ties == near
    distances = [abs(row[3]) for row in found.rows]
    assert distances == sorted(distances)
    assert len(found.rows) == found.free_groups == len(problem)


def test_pins_and_ties_are_named() -> None:
    problem = drawn(1).revise(pins={"layer0": 5, "layer5": 4}, ties=[["layer1", "layer2"], ["layer5", "layer6"]])
    answer = solve(problem, bound=0.05)
    pinned = explain(problem, answer, "layer0")
    assert (pinned.label, pinned.held, pinned.candidates) == ("5", "pinned", ())
    assert explain(problem, answer, "layer6").held == "tied with layer5, which is pinned"
    for name, other in (("layer1", "layer2"), ("layer2", "layer1")):
        tied = explain(problem, answer, name)
        assert tied.held == f"tied with {other}"
        assert [c.cost for c in tied.candidates] == [sum(problem.sizes[1:3]) * b for b in range(1, 6)]
    assert overview(problem, answer).free_groups == 4


def test_groups_of_no_known_damage_are_not_called_pinned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = [
        Group("q", 10, sensitivity=0.0, bits=(2, 4, 8), measured=False),
        Group("k", 10, sensitivity=1.0, bits=(2, 4, 8)),
        Group("v", 10, sensitivity=0.0, bits=(2, 4), measured=False),
    ]
    problem = Problem.declare(groups, ties=[["q", "k"]], pins={"v": 2}, bound=9)
    answer = solve(problem)
    assert explain(problem, answer, "q").held == "kept at its most bits: no damage is known of it"
    assert explain(problem, answer, "k").held == (
        "tied with q, which is kept at its most bits: no damage is known of it"
    )
    assert explain(problem, answer, "v").held == "pinned"
    freed = problem.revise(free_unmeasured=True)
    assert explain(freed, solve(freed), "q").held == "tied with k"
    files.save_problem(problem, tmp_path / "p.toml")
    files.save_allocation(answer, tmp_path / "a.json")
    assert run(["explain", str(tmp_path / "p.toml"), str(tmp_path / "a.json"), "q"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("q: 8 bits (kept at its most bits: no damage is known of it)")
    assert "--free-unmeasured for all such groups" in said.err


def test_a_heuristic_answer_is_explained_by_lagrangian_prices() -> None:
    problem = drawn(2)
    answer = solve(problem, bound=0.02, solver="uniform")
    exact = solve(problem, bound=0.02)
    found = explain(problem, answer, "layer3")
    assert found.price > 0
    assert {step.objective for step in found.alternatives} != {None}
    assert any(step.increase < 0 for step in found.alternatives)  # uniform is far from the optimum
    assert min(known(step.objective) for step in found.alternatives) >= known(exact.exact_objective)


def test_coupled_costs_are_given_with_all_else_as_it_is() -> None:
    problem = Problem.declare(
        [
            Group("conv1", size=400, sensitivity=0.2, macs=4000, reads="input", bits=(2, 4, 8)),
            Group("conv2", size=900, sensitivity=0.1, macs=9000, reads="relu", bits=(2, 4, 8)),
            Group("input", size=100, sensitivity=0.1, kind="activation", bits=(2, 4, 8)),
            Group("relu", size=100, sensitivity=0.3, kind="activation", bits=(2, 4, 8)),
        ]
    )
    answer = solve(problem, bound=0.02, minimize="bit-operations", solver="milp")
    bits = dict(zip(problem.names, answer.bits.tolist(), strict=True))
    found = explain(problem, answer, "conv2")
    assert [c.cost for c in found.candidates] == [9000 * b * bits["relu"] for b in (2, 4, 8)]
    found = explain(problem, answer, "relu")
    assert [c.cost for c in found.candidates] == [9000 * b * bits["conv2"] for b in (2, 4, 8)]
    assert found.changes == ()


def test_what_cannot_be_explained_is_told() -> None:
    problem = drawn(1)
    answer = solve(problem, bound=0.02)
    with pytest.raises(ImpqError, match=r"no such group, got 'layr1' \(did you mean 'layer1'"):
        explain(problem, answer, "layr1")
    with pytest.raises(ImpqError, match="has no answer to explain"):
        overview(problem, solve(problem, bound=1e-12))
    with pytest.raises(ImpqError, match="answers another problem"):
        overview(drawn(2), answer)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = drawn(3)
    files.save_problem(problem, tmp_path / "p.toml")
    answer = solve(problem, bound=0.02)
    files.save_allocation(answer, tmp_path / "a.json")
    paths = [str(tmp_path / "p.toml"), str(tmp_path / "a.json")]
    assert run(["explain", *paths, "layer1"]) == 0
    out = capsys.readouterr().out
    found = explain(problem, answer, "layer1")
    assert f"layer1: {found.label} bits" in out
    assert "(by multipliers; solved again there: " in out
    assert "the best around it is" in out
    assert run(["explain", *paths, "layer1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["candidates"] == [dataclasses.asdict(c) for c in found.candidates]
    assert run(["explain", *paths]) == 0
    assert "closest to changing" in capsys.readouterr().out
    assert run(["explain", *paths, "nolayer"]) == 2
    assert "did you mean 'layer" in capsys.readouterr().err
