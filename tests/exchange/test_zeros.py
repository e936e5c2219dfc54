"""Scores of 0 at every candidate are no measurement, in every format alike; and what the commands say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats import format_named
from known import known

from impq_opt import ImpqError, Problem, solve
from impq_opt.cli import run
from impq_opt.exchange.zeros import accept_zeros, unmeasured_zeros
from impq_opt.files import load_problem


def modelopt(scores: Any) -> list[Any]:
    formats = ["NVFP4(effective-bits: 4.5)", "FP8(effective-bits: 8.0)", "W12(effective-bits: 12.0)"]
    stats = {
        f"{name}.quant_recipe": {"formats": formats, "scores": row, "costs": [1152.0, 2048.0, 3072.0]}
        for name, row in scores.items()
    }
    return [("state.json", json.dumps({"candidate_stats": stats}))]


def autoround(scores: Any) -> Any:
    files = []
    for column, bits in enumerate((2, 4, 8)):
        scheme = {"bits": bits, "group_size": 128, "sym": False}
        rows = {name: [4096 * bits, row[column]] for name, row in scores.items()}
        cache = {"version": 1, "score_granularity": "per_op", "scheme": scheme, "layer_scores": rows}
        files.append((f"scheme_{column}.json", json.dumps(cache)))
    return files


def exllamav3(scores: Any) -> list[Any]:
    groups = [
        {"layers": [name], "candidates": [{"dkld": -one, "dbits": 100 * (k + 1)} for k, one in enumerate(row)]}
        for name, row in scores.items()
    ]
    return [("measurement.json", json.dumps({"groups": groups}))]


def csv(scores: Any) -> list[Any]:
    lines = ["group,size,bits,damage"]
    lines += [
        f"{name},64,{bits},{one}" for name, row in scores.items() for bits, one in zip((2, 4, 8), row, strict=True)
    ]
    return [("scores.csv", "\n".join(lines))]


def sensitivities(scores: Any) -> list[Any]:
    lines = ["group,size,sensitivity"]
    return [("scores.csv", "\n".join([*lines, *(f"{name},64,{row[0]}" for name, row in scores.items())]))]


FORMATS = {
    "modelopt": modelopt, "autoround": autoround, "exllamav3": exllamav3, "csv": csv,
    "csv of sensitivities": sensitivities,
}  # fmt: skip
SOME = {"visual.qkv": [0.0, 0.0, 0.0], "mlp.down": [0.31, 0.02, 0.001], "visual.proj": [-0.0, 0.0, 0.0]}


def written(folder: Any, name: Any, scores: Any) -> Any:
    paths = []
    for file, text in FORMATS[name](scores):
        (folder / file).write_text(text)
        paths.append(str(folder / file))
    return paths


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_are_unmeasured_in_every_format_and_can_be_accepted(name: Any, tmp_path: Path) -> None:
    paths = written(tmp_path, name, SOME)
    form = format_named(name.split()[0])
    problem = form.read(*paths)
    assert problem.unmeasured.tolist() == [True, False, True]
    assert problem.provenance["zero_scores"] == {"groups": 2, "such_as": "visual.qkv, visual.proj"}
    answer = solve(problem, bound=1e6)
    most = [max(problem.candidates.of(group)) for group in range(3)]
    assert [answer.bits[0], answer.bits[2]] == [most[0], most[2]] and answer.bits[1] < most[1]
    accepted = form.read(*paths, accept_zeros=True)
    assert accepted.unmeasured is None and not accepted.pins
    assert solve(accepted, bound=1e6).bits[0] < most[0]
    assert form.problem(form.load([tmp_path / p for p in paths])).digest == problem.digest


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_nothing_but_zeros_are_refused_in_a_sentence(name: Any, tmp_path: Path) -> None:
    paths = written(tmp_path, name, {layer: [0.0, 0.0, 0.0] for layer in SOME})
    form = format_named(name.split()[0])
    with pytest.raises(ImpqError, match=r"every score is 0: nothing was measured.*accept"):
        form.read(*paths)
    assert len(form.read(*paths, accept_zeros=True)) == 3


def test_a_zero_among_others_and_a_group_without_a_choice_are_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("group,size,bits,damage\na,9,4,0.5\na,9,8,0\nb,9,8,0\n c,9,4,inf\n c,9,8,0\n")
    assert format_named("csv").read(tmp_path / "t.csv").unmeasured is None


def test_what_is_not_allowed_does_not_hide_a_zero() -> None:
    table = [[0.0, 0.0, np.inf], [2.0, 1.0, 0.5]]
    problem = unmeasured_zeros(Problem.from_tables([[1, 2, 3], [1, 2, 3]], table, bits=[2, 4, 8], bound=9))
    assert solve(problem).bits.tolist() == [4, 2]
    assert unmeasured_zeros(problem).digest == problem.digest
    assert solve(accept_zeros(problem)).bits.tolist() == [2, 2]


def test_a_target_keeps_the_most_that_it_stores() -> None:
    groups = Problem.from_sensitivities(
        [64, 64], [0.0, 1.0], bits=[2, 4, 8], names=["a", "b"], unmeasured=[1, 0], bound=9
    )
    prepared = format_named("gptqmodel").prepare(groups)
    assert prepared.unmeasured.tolist() == [True, False]
    assert solve(prepared).bits[0] == max(prepared.candidates.of(0))
    pinned = format_named("gptqmodel").prepare(groups.revise(pins={"a": 4}))
    labels = pinned.candidates.labels(0)
    assert labels[pinned.pins[0]] == "4"


def test_import_says_which_were_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = written(tmp_path, "csv", SOME)
    out = tmp_path / "p.toml"
    assert run(["import", path, "-o", str(out)]) == 0
    imported = capsys.readouterr()
    assert "no damage is known of 2 groups, kept at 8 bits: visual.qkv, visual.proj" in imported.out
    assert "--accept-zeros" in imported.err
    assert known(load_problem(out).unmeasured).tolist() == [True, False, True]
    assert run(["solve", str(out), "--bound", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "optimal (without 2 groups of no known damage)" in said
    assert "kept at 8 bits: visual.qkv, visual.proj" in said
    answer = tmp_path / "a.json"
    assert run(["solve", str(out), "--bound", "0.5", "--free-unmeasured", "-o", str(answer)]) == 0
    said = capsys.readouterr().out
    assert "no damage is known of 2 groups, at 2 bits: visual.qkv, visual.proj" in said
    assert run(["verify", str(out), str(answer)]) == 1
    said = capsys.readouterr().out
    assert "claimed  damage" in said and "claimed  limits" in said
    assert run(["import", path, "--accept-zeros", "-o", str(out)]) == 0
    assert "no damage is known" not in capsys.readouterr().out
    assert load_problem(out).unmeasured is None
