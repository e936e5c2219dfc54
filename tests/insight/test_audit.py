"""A choice from elsewhere beside the best: what is overspent is what trying everything finds."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from impq_opt import Group, Problem, Status
from impq_opt.cli import run
from impq_opt.errors import AllocationError
from impq_opt.files import load_allocation, load_problem, save_problem
from impq_opt.insight.audit import audit
from impq_opt.judge.declared import cost_of, damage_of


def small(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    groups = [
        Group(f"g{k}", size=int(rng.integers(1, 9)), sensitivity=float(rng.uniform(0, 2)), bits=(1, 2, 4))
        for k in range(5)
    ]
    return Problem.declare(groups, bound=1.0)


@pytest.mark.parametrize("seed", range(20))
def test_excesses_are_those_of_trying_everything(seed: int) -> None:
    problem = small(seed)
    choice = np.random.default_rng(seed).integers(0, 3, 5)
    found = audit(problem, choice)
    every = [np.array(columns) for columns in itertools.product(range(3), repeat=5)]
    points = [(cost_of(problem, {"storage": 1}, c), damage_of(problem, c)) for c in every]
    cost, damage = cost_of(problem, {"storage": 1}, choice), damage_of(problem, choice)
    assert (found.cost, found.damage, found.breaks) == (cost, damage, "")
    assert found.better.damage == float(min(d for c, d in points if c <= cost))
    assert found.cheaper.exact_cost == min(c for c, d in points if d <= damage)
    assert found.optimal == (float(damage) == found.better.damage)
    assert found.better.status is found.cheaper.status is Status.OPTIMAL
    assert found.excess_cost is not None
    assert found.excess_cost >= 0


def test_a_choice_without_damage_or_cost_is_held_against_others_too() -> None:
    found = audit(Problem.from_tables([[0, 3, 5], [0, 2, 4]], [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), [2, 1])
    assert [found.excess_cost, found.excess_damage] == [2, 0]
    assert found.optimal
    nothing = audit(found.problem, [0, 0])
    assert [nothing.excess_cost, nothing.better.damage] == [0, 3]
    assert nothing.optimal


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(AllocationError, match="one column for each group"):
        audit(small(0), [0, 1])
    with pytest.raises(AllocationError, match="g1: has no such candidate, got 3"):
        audit(small(0), [0, 3, 0, 0, 0])
    with pytest.raises(AllocationError, match="infinite"):
        audit(Problem.from_tables([[1, 2], [1, 2]], [[3.0, 1.0], [np.inf, 1.0]]), [0, 0])


def test_no_share_is_told_of_scores_that_were_shifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, choice = tmp_path / "s.csv", tmp_path / "c.csv"
    scores.write_text("group,size,damage_2,damage_4\na,10,1.5,-0.5\nb,10,8,1\n")
    choice.write_text("group,bits\na,4\nb,2\n")
    assert run(["audit", str(scores), str(choice), "--from", "csv"]) == 0
    said, noted = capsys.readouterr()
    assert "5 of the damage is more than that cost needs" in said
    assert "-0.5 was taken off" in noted


def test_the_command_tells_what_is_overspent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = small(1).revise(pins={"g0": 4})
    save_problem(problem, tmp_path / "p.toml")
    choice = tmp_path / "choice.csv"
    choice.write_text("group,bits\n" + "".join(f"g{k},{2 if k else 1}\n" for k in range(5)))
    better = tmp_path / "better.json"
    status = run(["audit", str(tmp_path / "p.toml"), str(choice), "--from", "csv", "-o", str(better), "--json"])
    said, noted = capsys.readouterr()
    record = json.loads(said)
    assert record["breaks"] == "g0 is not at its pin"
    assert status == (0 if record["least_damage"]["status"] == record["least_cost"]["status"] == "optimal" else 1)
    answer = load_allocation(better, load_problem(tmp_path / "p.toml"))
    assert answer.exact_cost is not None
    assert answer.exact_cost <= Fraction(record["cost"])
    assert not noted or "written" in noted
    choice.write_text("group,bits\n" + "".join(f"g{k},4\n" for k in range(5)))
    assert run(["audit", str(tmp_path / "p.toml"), str(choice), "--from", "csv"]) == 0
    assert "the choice is optimal, proved" in capsys.readouterr().out
    assert run(["audit", str(tmp_path / "p.toml"), str(choice), "--from", "onnxruntime"]) == 2
    assert "tells no choice" in capsys.readouterr().err
