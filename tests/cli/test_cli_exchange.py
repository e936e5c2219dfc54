"""``impq-opt import``, ``export`` and ``formats``, as people call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from impq_opt import Group, Problem, solve
from impq_opt.cli import run
from impq_opt.exchange import format_names
from impq_opt.files import load_problem, save_allocation, save_problem

SENSITIVITIES = (3.0, 1.0, 0.1)
NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj"]


@pytest.fixture
def files(tmp_path: Path) -> Any:
    groups = [
        Group(name, size=512, sensitivity=e, bits=(2, 4, 8)) for name, e in zip(NAMES, SENSITIVITIES, strict=True)
    ]
    problem = Problem.declare(groups, bound=0.02)
    save_problem(problem, tmp_path / "problem.toml")
    save_allocation(solve(problem), tmp_path / "allocation.json")
    return tmp_path


def test_scores_become_a_problem_and_then_a_configuration(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = files / "scores.csv"
    rows = [
        f"{name},512,{bits},{e * 4.0**-bits}" for name, e in zip(NAMES, SENSITIVITIES, strict=True) for bits in (4, 8)
    ]
    table.write_text("\n".join(["group,size,bits,damage", *rows]) + "\n")
    out = files / "gguf.toml"
    assert run(["import", str(table), "--for", "llama.cpp", "-o", str(out)]) == 0
    problem = load_problem(out)
    assert problem.candidates.labels(0) == ("q4_k", "iq4_xs", "q4_1", "q8_0")
    allocation = files / "gguf.json"
    assert run(["solve", str(out), "--bound", "0.02", "-o", str(allocation)]) == 0
    capsys.readouterr()
    assert run(["export", str(out), str(allocation), "--to", "llama.cpp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("=")[0] for line in lines] == [
        r"^blk\.0\.attn_q\.weight$", r"^blk\.0\.attn_k\.weight$", r"^blk\.0\.ffn_down\.weight$"
    ]  # fmt: skip


def test_a_problem_is_restated_with_its_ties(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "vllm.toml"
    arguments = ["import", str(files / "problem.toml"), "--for", "compressed-tensors", "--option", "group_size=64"]
    assert run([*arguments, "-o", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["ties"] == 1
    problem = load_problem(out)
    assert problem.candidates.sets == ((4.5, 8.5),)  # scales of 32 bits
    assert problem.digest == summary["digest"]


@pytest.mark.parametrize(
    "name", [name for name in format_names(writes=True) if name not in ("gguf", "parquet", "compressed-tensors")]
)
def test_every_format_is_written_whole(name: Any, files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "out"
    arguments = ["export", str(files / "problem.toml"), str(files / "allocation.json"), "--to", name]
    allocated = solve(load_problem(files / "problem.toml"))
    if name == "onnxruntime" and 2 in allocated.bits:
        pytest.skip("2 bits need the model's scales")
    assert run([*arguments, "-o", str(out)]) == 0
    capsys.readouterr()
    assert run(arguments) == 0
    assert capsys.readouterr().out.encode() == out.read_bytes()


def test_what_a_target_cannot_express_leaves_no_file(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem.declare([Group("blk.0.attn_q", size=256, sensitivity=1.0, bits=(7,))], bound=1.0)
    save_problem(problem, files / "seven.toml")
    save_allocation(solve(problem), files / "seven.json")
    out = files / "out.json"
    assert (
        run(["export", str(files / "seven.toml"), str(files / "seven.json"), "--to", "gptqmodel", "-o", str(out)]) == 2
    )
    assert "blk.0.attn_q: has 7, and gptqmodel stores 2, 3, 4, 8, 16" in capsys.readouterr().err
    assert not out.exists()


def test_activations_are_left_out_where_asked(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    groups = [
        Group("blk.0.ffn_up", size=512, sensitivity=1.0, bits=(4, 8), reads="x"),
        Group("x", size=64, sensitivity=1.0, bits=(8,), kind="activation"),
    ]
    save_problem(Problem.declare(groups, bound=0.1), files / "both.toml")
    assert run(["import", str(files / "both.toml"), "--for", "llama.cpp"]) == 2
    assert "x.bits: no candidate is one that llama.cpp can store" in capsys.readouterr().err
    out = files / "weights.toml"
    assert run(["import", str(files / "both.toml"), "--for", "llama.cpp", "--weights-only", "-o", str(out)]) == 0
    assert list(load_problem(out).names) == ["blk.0.ffn_up"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "scores.json"], "--from: say what the file is"),
        (["import", "scores.json", "--from", "autround"], "did you mean 'autoround'"),
        (["import", "scores.json", "--from", "mlx"], "--from: is not read, got 'mlx'"),
        (["import", "nothing.csv"], "nothing.csv: there is no such file"),
        (["import", "nothing.csv", "--option", "a=1"], "unknown option of format 'csv'"),
        (["import", "problem.toml", "--for", "mlx", "--option", "group=1"], "unknown option of format 'mlx'"),
        (["import", "problem.toml", "--for", "mlx", "--option", "group_size=x"], "must be a whole number"),
        (["export", "problem.toml", "problem.toml", "--to", "mlx"], "problem.toml"),
        (["formats", "mlxx"], "did you mean 'mlx'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: Any, says: str, files: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    if "--option" in arguments and "nothing.csv" in arguments:
        (files / "nothing.csv").write_text("group,size,sensitivity\na,1,1\n")
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["formats", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(format_names())
    assert run(["formats"]) == 0
    assert run(["formats", "llama.cpp"]) == 0
    assert "q6_k (6.5625 bits)" in capsys.readouterr().out
