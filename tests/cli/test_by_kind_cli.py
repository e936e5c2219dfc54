"""Groups asked for by kind and type wherever bits are chosen or measured, and odd names in every option."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from impq_opt import Group, Problem, Verdict, files, problems, solve, verify
from impq_opt.cli import run
from impq_opt.cli._common import parse_tie

RESNET = problems.load("resnet20-fashion-mnist")


def answered(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert run([*arguments, "--json"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 2
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


def test_activations_have_the_bits_that_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "a.json")
    asked = ["--bound", "0.1", "--activation-bits", "8", "--pin", "type:Linear=7", "--pin", "layer3.*.conv2=5"]
    bits = answered(capsys, "solve", *asked, "-o", file)["bits"]
    assert bits["fc"] == 7
    assert {bits[name] for name in RESNET.names if "relu" in name} == {8}
    assert {bits[name] for name in RESNET.names if name.startswith("layer3") and name.endswith("conv2")} == {5}
    loaded = files.load_allocation(file, RESNET)
    assert verify(RESNET, loaded).proved


def test_weights_alone_are_a_question_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "w.json")
    record = answered(capsys, "solve", "--bound", "0.1", "--weights-only", "-o", file)
    assert list(record["bits"]) == [name for name in RESNET.names if "relu" not in name]
    assert record["effective_bits"]["activation"] is None
    assert run(["verify", "resnet20-fashion-mnist", file]) == 0
    assert "a revision of the file's problem for its weights alone" in capsys.readouterr().out
    assert run(["verify", "resnet20-fashion-mnist", file, "--json"]) == 0
    capsys.readouterr()
    forged = json.loads(Path(file).read_text())
    forged["revision"]["pins"] = {"conv1": 12}  # not what was answered
    Path(file).write_text(json.dumps(forged))
    assert run(["verify", "resnet20-fashion-mnist", file]) == 1
    capsys.readouterr()


def test_an_answer_names_what_was_pinned_by_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Types are outside the digest: without them, or with others, an answer still says what it said."""
    groups = [Group("a", 100, 0.1), Group("b", 10, 0.3), Group("c", 10, 0.3)]
    problem, file, answer = Problem.declare(groups, bound=0.01), str(tmp_path / "p.toml"), str(tmp_path / "a.json")
    files.save_problem(replace(problem, types={"a": "Linear", "b": "Conv2d", "c": "Conv2d"}), file)
    record = answered(capsys, "solve", file, "--pin", "type:Conv2d=8", "-o", answer)
    assert record["revision"]["pins"] == {"b": "8", "c": "8"}
    for types in ({}, {"a": "Conv2d"}):
        files.save_problem(replace(problem, types=types), file)
        assert run(["verify", file, answer]) == 0
        assert "2 pins" in capsys.readouterr().out
    files.save_problem(replace(problem, types={"a": "Linear"}), file)
    assert "a: is pinned twice" in told(capsys, "solve", file, "--pin", "type:Linear=8", "--pin", "a=4")


def test_a_revision_to_the_weights_may_loosen_nothing_of_them() -> None:
    groups = [Group("w", 4, 1.0), Group("v", 4, 1.0), Group("x", 4, 1.0, kind="activation")]
    problem = Problem.declare(groups, pins={"w": 8})
    loose = Problem.declare(groups).revise(weights_only=True)
    answer = replace(solve(loose, bound=1.0), origin=problem)
    wrong = [check.name for check in verify(loose, answer).checks if check.verdict is Verdict.WRONG]
    assert wrong == ["pin w"]


WRONG: list[tuple[list[str], str]] = [
    (["--activation-bits", "8", "--weights-only"], "--weights-only leaves no activations, got '8'"),
    (["--activation-bits", "8", "--pin", "kind:activation=7"], "is given twice, got '7 and 8'"),
    (["--activation-bits", "8", "--pin", "relu1=7"], "relu1: is pinned twice"),
    (["--activation-bits", "99"], "is pinned to a precision that is not among its candidates, got '99'"),
    (["--activation-bits", "x"], "is pinned to a precision that is not among its candidates, got 'x'"),
    (["--weights-only", "--pin", "kind:activation=8"], "the problem has no activation groups"),
    (["--pin", "type:Linaer=8"], "did you mean 'Linear'"),
    (["--pin", "conv11=8"], "did you mean 'conv1'"),
    (["--tie", "conv1,laier1.*"], "no such group, got 'laier1.*'"),
    (["--tie", '"conv1,fc'], "a name that holds commas stands in double quotes"),
]


@pytest.mark.parametrize("command", ["solve", "frontier", "compare"])
@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_what_cannot_be_asked_is_told(
    command: str, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = [] if command == "frontier" else ["--bound", "0.1"]
    error = told(capsys, command, *bound, *options)
    assert sentence in error
    assert len(error) < 400


ODD = ["a,b", "blocks[0,1].w", "重み", "x=y", "c d", "<b>", "kind:weight"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_go_into_every_option(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem.declare([Group(one, size=4, sensitivity=1.0, bits=(2, 4, 8)) for one in [*ODD, "z"]])
    file, answer = str(tmp_path / "p.toml"), str(tmp_path / "a.json")
    files.save_problem(problem, file)
    bits = answered(capsys, "solve", file, "--bound", "2", "--pin", f"{name}=8", "--tie", f'"{name}",z', "-o", answer)
    assert bits["bits"][name] == bits["bits"]["z"] == 8
    assert run(["verify", file, answer]) == 0
    assert run(["explain", file, answer, name]) == 0
    assert f"{name}: 8 bits" in capsys.readouterr().out


LISTS = {
    "q,k,v": ["q", "k", "v"],
    "conv[0,1], conv[0,2]": ["conv[0,1]", "conv[0,2]"],
    '"a,b",c': ["a,b", "c"],
    '"a""b" , x': ['a"b', "x"],
    "a[b,c": ["a[b", "c"],
    "[0,1],b": ["[0,1]", "b"],
    'a"b,c': ['a"b', "c"],
    "c d,layer1.*": ["c d", "layer1.*"],
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_names(text: str) -> None:
    assert parse_tie(text) == LISTS[text]


# -- measuring -----------------------------------------------------------------------------------------------------

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return "net.py:make"


def measured(network: str, *options: str) -> list[str]:
    return ["measure", network, "--data", "digits", "--samples", "16", "--bits", "2:8", "-o", "p.toml", *options]


def test_measuring_by_kind(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(measured(network, "--activation-bits", "8", "--pin", "type:Linear=6")) == 0
    problem = files.load_problem("p.toml")
    assert dict(problem.types) == {"0": "Conv2d", "1": "ReLU", "3": "Linear"}
    assert {problem.names[g]: problem.candidates.of(g)[k] for g, k in problem.pins.items()} == {"1": 8, "3": 6}
    capsys.readouterr()
    validated = ["validate", "p.toml", "--network", network, "--data", "digits"]
    rows = answered(capsys, *validated, "--uniform", "2", "--activation-bits", "8")["rows"]
    assert [row["effective_bits"] for row in rows] == [{"weight": 2, "activation": 8}]
    for bound in ("1e9", "1e3"):
        assert run(["solve", "p.toml", "--bound", bound, "-o", f"{bound}.json"]) == 0
    capsys.readouterr()
    validated = ["validate", "p.toml", "1e9.json", "1e3.json", *validated[2:]]
    rows = answered(capsys, *validated, "--uniform", "4", "--weights-only")["rows"]
    assert [row["name"] for row in rows] == ["1e9", "1e3", "all 4 bits"]
    assert {row["effective_bits"]["activation"] for row in rows} == {None}
    assert run(["solve", "p.toml", "--bound", "1e9", "--weights-only", "-o", "alone.json"]) == 0
    assert run(["pack", network, "p.toml", "alone.json", "-o", "alone.safetensors"]) == 0
    capsys.readouterr()
    alone = ["validate", "p.toml", "alone.json", "alone.safetensors", *validated[4:]]
    again = answered(capsys, *alone, "--weights-only")["rows"]
    assert [row["mismatch"] for row in again] == [rows[0]["mismatch"]] * 2
    assert "alone.json: is of the weights alone (--weights-only leaves" in told(capsys, *alone)
    error = told(capsys, *validated, "--activation-bits", "8")
    assert "--activation-bits: is of other rows than those of files" in error


def test_measuring_weights_alone_and_what_is_told_before_the_work(
    network: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(measured(network, "--weights-only")) == 0
    assert list(files.load_problem("p.toml").names) == ["0", "3"]
    capsys.readouterr()
    monkeypatch.setattr("impq_opt.measure.api.replicate", None)  # nothing is measured any more
    assert "did you mean 'Conv2d'" in told(capsys, *measured(network, "--pin", "type:Conv1d=8"))
    assert "not among its candidates, got '9'" in told(capsys, *measured(network, "--activation-bits", "9"))
