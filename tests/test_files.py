"""Problem and allocation files: what is read is what was written, and nothing else is read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import impq_opt
from impq_opt import Candidates, DamageTable, Group, GroupNames, Problem, files
from impq_opt.costs import TableCost

GOLDEN = Path(__file__).parent / "golden"


def by_group() -> Problem:
    """Return a problem with everything that can be written group by group."""
    groups = [
        Group(
            "conv1", size=432, sensitivity=0.8, stderr=0.1, range=1.5, macs=1000, reads="input", layer="stem", length=27
        ),
        Group("q", size=640, sensitivity=0.1, bits=(2, 4, 8)),
        Group("k", size=640, sensitivity=0.2, bits=(2, 4.5, 8), also_reads=[("input", 50)]),
        Group("input", size=784, sensitivity=0.3, kind="activation", steps=(0, 1)),
    ]
    return Problem.declare(
        groups,
        minimize={"storage": 1, "representational": 0.1},
        bound=0.01,
        budgets={"activation-memory": "1 KiB"},
        pins={"input": 8},
        ties=[["q", "k"]],
        provenance={"network": "none", "samples": 3, "nested": {"list": [1, 2.5]}},
    )


def by_array() -> Problem:
    """Return a problem that needs an arrays file: array labels, two tables, ragged sets with formats, pins and ties."""
    rng = np.random.default_rng(3)
    names = GroupNames(("a", "b"), ((20,), (3, 5)), ("first", "second"))
    candidates = Candidates(
        ((2.0, 4.5, 8.0), (4.5, 4.5)), np.arange(35) % 2, (("int2", "int4", "int8"), ("int4", "nvfp4"))
    )
    return Problem(
        names=names,
        candidates=candidates,
        damage=DamageTable(rng.random((35, 3)), rng.random((35, 3))),
        sizes=rng.integers(1, 100, 35),
        kinds=(np.arange(35) % 3 == 0).astype(np.int8),
        ranges=rng.random(35),
        macs=rng.integers(0, 9, 35),
        reads=np.full(35, -1) + np.arange(35) % 2,
        also_reads=np.array([[3, 4, 5], [7, 1, 0]]),
        lengths=rng.integers(0, 9, 35),
        steps=np.stack([np.arange(35), np.arange(35) + 2], axis=1),
        costs=(TableCost.from_array(rng.random((35, 3)).round(3), name="latency", unit="ms", source="measured"),),
        objective={"latency": 1, "storage": Fraction(1, 7)},
        bound=Fraction(1, 3),
        budgets={"storage": Fraction(50, 3)},
        pins={3: 1, 4: 0},
        ties=((9, 7), (12, 10, 14)),
    )


def same(one: Problem, other: Problem) -> None:
    assert one.digest == other.digest
    assert dict(one.provenance) == dict(other.provenance)
    assert (one.ranges is None) == (other.ranges is None)
    if one.ranges is not None and other.ranges is not None:
        np.testing.assert_array_equal(one.ranges, other.ranges)
    mine, theirs = one.damage.stderr, other.damage.stderr
    assert (mine is None) == (theirs is None)
    if mine is not None and theirs is not None:
        np.testing.assert_array_equal(mine, theirs)
    assert [t.source for t in one.costs] == [t.source for t in other.costs]


@pytest.mark.parametrize("make", [by_group, by_array])
def test_problem_round_trip(make, tmp_path):
    problem = make()
    files.save_problem(problem, tmp_path / "p.toml")
    loaded = files.load_problem(tmp_path / "p.toml")
    same(problem, loaded)
    first = sorted((f.name, f.read_bytes()) for f in tmp_path.iterdir())
    files.save_problem(loaded, tmp_path / "p.toml")
    assert sorted((f.name, f.read_bytes()) for f in tmp_path.iterdir()) == first
    assert [name for name, _ in first] == (["p.toml"] if make is by_group else ["p.safetensors", "p.toml"])


@pytest.mark.parametrize("name", ["by-group", "by-array"])
def test_version_1_is_still_read(name):
    """The golden files are never written again: a change of format needs a new version and new golden files."""
    problem = files.load_problem(GOLDEN / f"problem-1-{name}.toml")
    expected = {"by-group": by_group, "by-array": by_array}[name]()
    if name == "by-group":
        same(expected, problem)
    assert len(problem) == len(expected)
    allocation = files.load_allocation(GOLDEN / f"allocation-1-{name}.json", problem)
    assert allocation.status is impq_opt.Status.FEASIBLE
    assert allocation.exact_lower_bound < allocation.exact_cost
    assert allocation.exact_damage <= allocation.bound


@pytest.mark.parametrize("make", [by_group, by_array])
def test_allocation_round_trip(make, tmp_path):
    problem = make()
    problem = problem if make is by_group else problem.revise(budgets={"storage": 10**9}, bound=15)
    allocation = impq_opt.solve(problem, solver="milp")
    files.save_allocation(allocation, tmp_path / "a.json")
    loaded = files.load_allocation(tmp_path / "a.json", problem)
    np.testing.assert_array_equal(loaded.choice, allocation.choice)
    for name in ("status", "exact_cost", "exact_damage", "exact_lower_bound", "bound", "budgets", "certificate"):
        assert getattr(loaded, name) == getattr(allocation, name), name
    for name in ("solver", "seed", "seconds", "stop", "minimizes", "diagnosis"):
        assert getattr(loaded, name) == getattr(allocation, name), name
