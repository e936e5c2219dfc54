"""Runs that an earlier version began: kept in tests/golden, read and gone on with for as long as there are rounds."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from golden_rounds import STRATEGIES, lines, network, settings, splits
from rounds_world import measure

from impq_opt.errors import DataError
from impq_opt.rounds import rounds

GOLDEN = Path(__file__).parents[1] / "golden" / "rounds-1"


def copied(name, tmp_path):
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_version_1_left_in_the_middle_of_a_round_goes_on_to_the_same_end(strategy, tmp_path):
    folder = copied(strategy, tmp_path)
    before = lines(folder / "log.jsonl")
    assert len(before) == 1
    rounds(network(), splits(), settings(strategy), folder, measure=measure)
    after, expected = lines(folder / "log.jsonl"), lines(GOLDEN / f"{strategy}-end.jsonl")
    before[0]["accuracy"]["test"] = after[0]["accuracy"]["test"]  # read after the last round
    assert after[0] == before[0]
    for found, wanted in zip(after, expected, strict=True):
        assert found["bits"] == wanted["bits"]
        assert found.keys() == wanted.keys()
        assert found["costs"] == wanted["costs"]
        # Another processor adds up in another order.
        assert found["damage"] == pytest.approx(wanted["damage"], rel=1e-2)
        for split, value in wanted["accuracy"].items():
            assert found["accuracy"][split] == pytest.approx(value, abs=0.05)


def test_a_run_that_version_1_finished_is_not_repeated(tmp_path):
    folder = copied("finished", tmp_path)

    def never(*args):
        raise AssertionError("measured again")

    rounds(network(), splits(), settings("exact"), folder, measure=never)
    kept = [json.loads(line) for line in (GOLDEN / "finished/log.jsonl").read_text().splitlines()]
    assert [json.loads(line)["versions"] for line in (folder / "log.jsonl").read_text().splitlines()] == [
        record["versions"] for record in kept
    ]
    assert lines(folder / "log.jsonl") == lines(GOLDEN / "finished/log.jsonl")


def test_a_start_that_version_1_made_is_one_to_begin_from(tmp_path):
    folder = copied("start", tmp_path)
    found = tmp_path / "exact"
    rounds(network(), splits(), settings("exact"), found, measure=measure, start=folder)
    assert [r["bits"] for r in lines(found / "log.jsonl")] == [r["bits"] for r in lines(GOLDEN / "exact-end.jsonl")]


def test_a_run_of_version_1_with_other_settings_is_refused(tmp_path):
    folder = copied("exact", tmp_path)
    for changes in ({"rate": 0.01}, {"monotone": True}, {"metric": "fit"}, {"bits": (1, 2, 4, 8)}, {"rounds": 3}):
        with pytest.raises(DataError, match=f"hyper-parameters are not those.*{next(iter(changes))}"):
            rounds(network(), splits(), settings("exact", **changes), folder, measure=measure)
    other = dataclasses.replace(splits(), train=splits().test)
    with pytest.raises(DataError, match="the data are not those"):
        rounds(network(), other, settings("exact"), folder, measure=measure)
