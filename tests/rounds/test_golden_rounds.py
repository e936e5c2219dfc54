"""Runs that an earlier version began: kept in tests/golden, read and gone on with for as long as there are rounds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from golden_rounds import STRATEGIES, lines, network, settings, splits
from rounds_world import measure
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from impq_opt import Problem
from impq_opt.errors import DataError, FileError
from impq_opt.rounds import rounds

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST = GOLDEN / "rounds-1"


def copied(name: Any, tmp_path: Path) -> Any:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.mark.parametrize(
    "kept", [*(f"rounds-1/{name}" for name in STRATEGIES), "rounds-2/exact", "rounds-2/authors-code"]
)
def test_a_run_that_was_left_in_the_middle_of_a_round_goes_on_to_the_same_end(kept: Any, tmp_path: Path) -> None:
    folder, strategy = copied(kept, tmp_path), Path(kept).name
    before = lines(folder / "log.jsonl")
    assert len(before) == 1
    rounds(network(), splits(), settings(strategy), folder, measure=measure)
    after, expected = lines(folder / "log.jsonl"), lines(FIRST / f"{strategy}-end.jsonl")
    before[0]["accuracy"]["test"] = after[0]["accuracy"]["test"]  # read after the last round
    assert after[0] == before[0]
    for told, wanted in zip(after, expected, strict=True):
        assert told["bits"] == wanted["bits"]
        assert told.keys() == wanted.keys()
        assert told["costs"] == wanted["costs"]
        # Another processor adds up in another order.
        assert told["damage"] == pytest.approx(wanted["damage"], rel=1e-2)
        for split, value in wanted["accuracy"].items():
            assert told["accuracy"][split] == pytest.approx(value, abs=0.05)


def test_a_run_that_version_1_finished_is_not_repeated(tmp_path: Path) -> None:
    folder = copied("rounds-1/finished", tmp_path)

    def never(network: Any, data: Any, seed: int) -> Problem:
        raise AssertionError("measured again")

    rounds(network(), splits(), settings("exact"), folder, measure=never)
    kept = [json.loads(line) for line in (FIRST / "finished/log.jsonl").read_text().splitlines()]
    assert [json.loads(line)["versions"] for line in (folder / "log.jsonl").read_text().splitlines()] == [
        record["versions"] for record in kept
    ]
    assert lines(folder / "log.jsonl") == lines(FIRST / "finished/log.jsonl")


def test_a_start_that_version_1_made_is_one_to_begin_from(tmp_path: Path) -> None:
    folder = copied("rounds-1/start", tmp_path)
    own = tmp_path / "exact"
    rounds(network(), splits(), settings("exact"), own, measure=measure, start=folder)
    assert [r["bits"] for r in lines(own / "log.jsonl")] == [r["bits"] for r in lines(FIRST / "exact-end.jsonl")]


@pytest.mark.parametrize("kept", ["rounds-1/exact", "rounds-2/exact"])
def test_a_run_with_other_settings_is_refused(kept: str, tmp_path: Path) -> None:
    folder = copied(kept, tmp_path)
    for changes in ({"rate": 0.01}, {"monotone": True}, {"metric": "fit"}, {"bits": (1, 2, 4, 8)}, {"rounds": 3}):
        with pytest.raises(DataError, match=f"hyper-parameters are not those.*{next(iter(changes))}"):
            rounds(network(), splits(), settings("exact", **changes), folder, measure=measure)
    other = dataclasses.replace(splits(), train=splits().test)
    with pytest.raises(DataError, match="the data are not those"):
        rounds(network(), other, settings("exact"), folder, measure=measure)


def test_a_checkpoint_of_a_later_version_is_refused_by_its_version(tmp_path: Path) -> None:
    folder = copied("rounds-2/exact", tmp_path)
    path = folder / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"version": "3"}
    save_file(load_file(path), path, metadata)
    with pytest.raises(FileError, match="of a version that this package does not read, which reads 1 to 2, got '3'"):
        rounds(network(), splits(), settings("exact"), folder, measure=measure)
    save_file(load_file(path), path, metadata | {"format": "impq-opt packed"})
    with pytest.raises(FileError, match="is not a checkpoint of rounds"):
        rounds(network(), splits(), settings("exact"), folder, measure=measure)
