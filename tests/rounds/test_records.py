"""Records of rounds: schema, versions, and one sentence for what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impq_opt.errors import FileError
from impq_opt.rounds import Record, read_records
from impq_opt.rounds.record import plain_record, record_from, write_records

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_log_of_version_1_says_what_it_said() -> None:
    records = read_records(GOLDEN / "rounds-1/finished/log.jsonl")
    lines = [json.loads(line) for line in (GOLDEN / "rounds-1/finished/log.jsonl").read_text().splitlines()]
    for record, line in zip(records, lines, strict=True):
        assert isinstance(record, Record)
        plain = plain_record(record)
        assert (plain.pop("format"), plain.pop("version")) == ("impq-opt round", 2)
        assert plain == line


def test_a_log_of_this_version_is_the_golden_one(tmp_path: Path) -> None:
    kept = GOLDEN / "rounds-2" / "log.jsonl"
    write_records(tmp_path / "log.jsonl", read_records(kept))
    assert (tmp_path / "log.jsonl").read_bytes() == kept.read_bytes()
    assert read_records(kept) == read_records(GOLDEN / "rounds-1/finished/log.jsonl")


def broken(**changes: Any) -> dict[Any, Any]:
    line = json.loads((GOLDEN / "rounds-1/finished/log.jsonl").read_text().splitlines()[1])
    return {name: value for name, value in (line | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (broken(version=3), "here: is of a version that this package does not read, which reads 1 to 2, got 3"),
        (broken(version="2"), "is of a version"),
        (broken(version=True), "is of a version"),
        (broken(format="impq-opt problem"), "is not a record of a round, got 'impq-opt problem'"),
        (broken(bits="many"), r"bits: is not a record of a round: must be a list"),
        (broken(bits=[1.5]), r"bits\[0\]: is not a record of a round: must be a whole number"),
        (broken(bits=...), "the key 'bits' is missing"),
        (broken(surprise=1), "unknown key 'surprise'"),
        (broken(accuracy={"train": 1.0}), "the key 'validation' is missing"),
        (broken(costs={"storage": 3}), "must be a table"),
        ([], "is not a record of a round, got 'list'"),
        (None, "is not a record of a round"),
    ],
)
def test_what_is_no_record_is_told(values: Any, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        record_from(values, "here")
    assert "\n" not in str(caught.value)


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = (GOLDEN / "rounds-1/finished/log.jsonl").read_text().splitlines()[0]
    for bad, message in (
        ("{", "is not JSON"),
        ("[" * 10000, "is not JSON"),
        ("", "is not JSON"),
        ("3", "is not a record"),
    ):
        path.write_text(f"{good}\n{bad}\n{good}\n")
        with pytest.raises(FileError, match=rf"log\.jsonl: line 2: {message}"):
            read_records(path)
    with pytest.raises(FileError, match="there is no such file"):
        read_records(tmp_path / "none.jsonl")


def test_a_heuristic_is_asked_for_no_limits_and_records_none() -> None:
    line = json.loads((GOLDEN / "rounds-1/iterative-end.jsonl").read_text().splitlines()[1])
    record = record_from(line, "here")
    assert record.bound is msgspec.UNSET
    assert {"bound", "budget", "status", "gap"}.isdisjoint(plain_record(record))
