"""What the commands say of the whole network beside its groups, and of problems that say nothing of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impq_opt import PowerLaw, Problem, Stay, files, solve
from impq_opt.cli import run

STAYS = (
    Stay("experts.w1", 32768, 32, "not a weight of a convolution or linear layer"),
    Stay("experts.w2", 8192, 32, "not a weight of a convolution or linear layer"),
    *(Stay(f"norm.{k}", 1, 16, "scale or shift of a normalization") for k in range(5)),
)
LINES = (
    "experts.w1, experts.w2: not a weight of a convolution or linear layer; 40,960 of 41,301 parameters stay at 32 "
    "bits",
    "norm.0, norm.1, norm.2 and 2 more: scale or shift of a normalization; 5 of 41,301 parameters stay at 16 bits",
)


def problem(stays: tuple[Stay, ...] | None) -> Problem:
    return Problem.from_sensitivities([256, 80], [1.0, 2.0], names=["gate", "fc"], bound=0.01, stays=stays)


@pytest.fixture
def experts(tmp_path: Path) -> Any:
    files.save_problem(problem(STAYS), tmp_path / "experts.toml")
    files.save_problem(problem(None), tmp_path / "silent.toml")
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    assert run([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_solve_and_compare_tell_the_groups_from_the_network(experts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = solve(problem(STAYS))
    size = int(np.dot([256, 80], answer.bits)) + 32 * 40960 + 16 * 5
    out = ask(capsys, "solve", experts / "experts.toml")
    mean, ratio = size / 41301, (32 * 41296 + 80) / size
    assert f"(ratio {ratio:.2f}), {mean:.3f} bits a parameter" in out
    assert "of the groups" in out and "of the weights in groups, against 16 bits" in out
    for line in LINES:
        assert line in out
    compared = ask(capsys, "compare", experts / "experts.toml", "--solver", "exact")
    assert "cost, bits and ratio are of the groups; whole network by exact: " in compared
    document = json.loads(ask(capsys, "solve", experts / "experts.toml", "--json"))
    assert document["whole"] == {
        "bits": size, "parameters": 41301, "staying": 40965, "bits_per_parameter": mean, "compression_ratio": ratio,
    }  # fmt: skip
    rows = json.loads(ask(capsys, "compare", experts / "experts.toml", "--solver", "exact", "--json"))["rows"]
    assert rows[0]["whole"] == document["whole"]


def test_cost_has_the_network_as_a_row(experts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = ask(capsys, "cost", experts / "experts.toml", "--bits", "8,8", "--bits", "4,8")
    assert "whole network" in out and LINES[0] in out
    rows = json.loads(ask(capsys, "cost", experts / "experts.toml", "--bits", "8,8", "--bits", "4,8", "--json"))
    whole = rows[-1]
    rest = 32 * 40960 + 16 * 5
    assert whole["cost"] == "whole network" and whole["unit"] == "bit"
    assert whole["values"] == {"8,8": rest + 8 * 336, "4,8": rest + 4 * 336}
    assert whole["stays"][0] == {"name": "experts.w1", "elements": 32768, "bits": 32, "reason": STAYS[0].reason}
    asked = json.loads(ask(capsys, "cost", experts / "experts.toml", "--convention", "storage", "--json"))
    assert [row["cost"] for row in asked] == ["storage"]


def test_the_page_says_both(experts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ask(capsys, "solve", experts / "experts.toml", "-o", experts / "a.json")
    ask(capsys, "report", experts / "a.json", "--problem", experts / "experts.toml", "-o", experts / "page.html")
    page = (experts / "page.html").read_text()
    assert "whole network" in page and "bits a weight in a group" in page and LINES[0] in page


def test_of_a_problem_that_says_nothing_nothing_is_said(experts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["solve"], ["compare", "--solver", "exact"], ["cost"]):
        out = ask(capsys, command[0], experts / "silent.toml", *command[1:])
        assert "whole" not in out and "stay at" not in out and "of the groups" not in out
    assert "whole" not in json.loads(ask(capsys, "solve", experts / "silent.toml", "--json"))
    ask(capsys, "solve", experts / "silent.toml", "-o", experts / "a.json")
    ask(capsys, "report", experts / "a.json", "--problem", experts / "silent.toml", "-o", experts / "page.html")
    assert "whole network" not in (experts / "page.html").read_text()


def test_what_makes_a_measured_bound_unreachable_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = PowerLaw(np.array([1.0, 2.0]), np.array([4.0, 8.0]))
    tail = {"of_the_top_1_percent": 0.9, "of_the_top_sample": 0.5, "ties": 0}
    measured = replace(problem(None), damage=law, provenance={"source": "measured", "conceded": 0.0, "tail": tail})
    conceded = replace(measured, provenance={**measured.provenance, "conceded": 0.02})
    for name, one in (("all", measured), ("kept", conceded)):
        files.save_problem(one, tmp_path / f"{name}.toml")
    smallest = 3.0 * 4.0**-8

    def asked(name: str, bound: float, *options: str) -> tuple[str, str]:
        assert run(["solve", str(tmp_path / f"{name}.toml"), "--bound", repr(bound), *options]) == 1
        said = capsys.readouterr()
        return said.out, said.err

    concede = "carry 90% of the damages: `measure --concede 0.01` gives them up, and the mismatch is up to 0.01 more"
    assert concede in asked("all", smallest / 2)[1]
    _, err = asked("kept", smallest / 2)
    assert "the 0.02 conceded come on top of it" in err and "--concede" not in err
    _, err = asked("kept", smallest / 2, "--confidence", "0.95")
    assert f"without it the smallest is {smallest:.6g}" in err
    assert "without it the bound is met" in asked("kept", smallest * 2, "--confidence", "0.95")[1]
    out = ask(capsys, "solve", tmp_path / "kept.toml")
    assert "2 % of the samples are conceded: over all, the mismatch may be 0.02 more" in out
    assert "conceded" not in ask(capsys, "solve", tmp_path / "all.toml")
