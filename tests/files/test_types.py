"""The types of layers in problem files, of both forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from impq_opt import Group, GroupNames, Problem, files
from impq_opt.errors import InputError

GROUPS = [
    Group("fc", size=4, sensitivity=1.0, type="Linear"),
    Group("a,b", size=4, sensitivity=1.0, type="Conv2d"),
    Group("head", size=4, sensitivity=1.0, type="Linear"),
    Group("free", size=4, sensitivity=1.0),
]


def test_types_come_back_from_files_of_both_forms(tmp_path: Path) -> None:
    by_group = Problem.declare(GROUPS)
    by_array = Problem.from_sensitivities(
        [1, 2, 3], [0.1, 0.2, 0.3], names=GroupNames(("conv", "fc"), ((2,), ())), types={"conv": "Conv2d"}
    )
    for problem in (by_group, by_array):
        files.save_problem(problem, tmp_path / "p.toml")
        loaded = files.load_problem(tmp_path / "p.toml")
        assert loaded == problem
        assert dict(loaded.types) == dict(problem.types) != {}
    assert [by_array.names[g] for g in by_array.select("type:Conv2d")] == ["conv[0]", "conv[1]"]
    assert [by_group.names[g] for g in by_group.select("type:Linear")] == ["fc", "head"]


WRONG = {
    'Linear = ["x"]': r"types: no such label, got 'x' \(known are fc\)",
    'Linear = ["fc"]\nConv2d = ["fc"]': r"types\.Conv2d: is of one type only, got 'fc'",
    '"" = ["fc"]': r"types\.fc: must be the name of a kind of layer, got ''",
    'Linear = "fc"': r"types.*must be",
    "Linear = [3]": r"types.*must be",
}


@pytest.mark.parametrize("table", WRONG)
def test_wrong_types_are_told_with_their_place(table: str, tmp_path: Path) -> None:
    group = '[[groups]]\nname = "fc"\nsize = 4\nsensitivity = 1.0\n'
    head = 'format = "impq-opt problem"\nformat_version = 1\n'
    (tmp_path / "p.toml").write_text(f"{head}\n[types]\n{table}\n\n{group}")
    with pytest.raises(InputError, match=WRONG[table]):
        files.load_problem(tmp_path / "p.toml")
