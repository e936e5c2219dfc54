"""The grids of a problem: declared, in files of both forms, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from impq_opt import GroupNames, Problem, files
from impq_opt.errors import ProblemError

GOLDEN = Path(__file__).parents[1] / "golden" / "problem-1-grids.toml"


def declared(grids: Any, **fields: Any) -> Problem:
    return Problem.from_sensitivities(
        [256, 80, 16], [1.0, 2.0, 0.5], names=["conv", "fc", "conv.output"], kinds=["weight", "weight", "activation"],
        bound=0.01, grids=grids, **fields,
    )  # fmt: skip


def test_the_golden_file_says_which_grid_and_is_written_again_as_it_is(tmp_path: Path) -> None:
    problem = files.load_problem(GOLDEN)
    assert (problem.grid("conv"), problem.grid("fc")) == ("mid-rise", "zero:over=tensor")
    files.save_problem(problem, tmp_path / "again.toml")
    assert (tmp_path / "again.toml").read_text() == GOLDEN.read_text()


def test_a_problem_without_grids_is_written_as_it_always_was(tmp_path: Path) -> None:
    files.save_problem(declared({}), tmp_path / "p.toml")
    assert "grid" not in (tmp_path / "p.toml").read_text()
    assert files.load_problem(tmp_path / "p.toml").grids == {}


def test_grids_come_back_from_files_with_arrays(tmp_path: Path) -> None:
    names = GroupNames(("conv", "fc"), ((300,), ()))
    problem = Problem.from_sensitivities([3] * 300 + [80], [1.0] * 301, names=names, grids={"conv": "zero"})
    files.save_problem(problem, tmp_path / "p.toml")
    loaded = files.load_problem(tmp_path / "p.toml")
    assert (tmp_path / "p.safetensors").exists()
    assert loaded.grids == {"conv": "zero"}


def test_grids_change_no_answer_and_stay_with_the_problem() -> None:
    problem = declared({"fc": "zero"})
    assert problem.digest == declared({}).digest  # damages tell what a grid does, and they are in the digest
    assert problem.revise(pins={"conv": 8}).grids == {"fc": "zero"}
    assert problem.revise(weights_only=True).grids == {"fc": "zero"}
    assert declared({"fc": "zero", "conv.output": "pact"}).revise(weights_only=True).grids == {"fc": "zero"}


def test_grids_are_the_problems_own() -> None:
    given = {"fc": "zero"}
    problem = declared(given)
    given["fc"] = "mid-rise"
    assert problem.grid("fc") == "zero"


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"fd": "zero"}, r"grids: no such label, got 'fd' \(did you mean 'fc'"),
        ({"fc": ""}, r"grids.fc: must be the name of a grid, got ''"),
        ({"fc": "zero\n"}, "grids.fc: must be the name of a grid"),
        ({"fc": 4}, "grids.fc: must be the name of a grid, got 4"),
        (["zero"], "grids: must be a mapping of labels to grids"),
    ],
)
def test_what_is_no_grid_is_told(grids: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        declared(grids)
