"""What is kept of every round, version 2: one line of ``log.jsonl`` each, and the same inside a checkpoint.

Version 1 had the same fields and did not say its version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from impq_opt.documents.reading import read_text
from impq_opt.documents.wording import in_words
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError

__all__ = [
    "LOG", "Accuracy", "Cost", "Decision", "Effective", "Record", "Seconds", "plain_record", "read_records",
    "record_from", "write_records",
]  # fmt: skip

FORMAT, VERSION = "impq-opt round", 2
LOG = "log.jsonl"


class Cost(msgspec.Struct, forbid_unknown_fields=True):
    """A cost and its unit."""

    value: float
    unit: str


class Effective(msgspec.Struct, forbid_unknown_fields=True):
    """Sum N B / sum N, by kind; None where there are none of a kind."""

    weights: float | None
    activations: float | None


class Seconds(msgspec.Struct, forbid_unknown_fields=True):
    """What a round took."""

    measure: float
    solve: float
    train: float


class Accuracy(msgspec.Struct, forbid_unknown_fields=True):
    """Shares labelled right, by split: of training data while they were trained on, in the last epoch."""

    train: float
    validation: float
    test: float | None


class Decision(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a round decided.

    Parameters
    ----------
    bits : list of int
        Precision of each group, in the order of the round's problem.
    cost : int
        Storage, in bits.
    costs : dict of str to Cost
        By name, as far as the problem tells them.
    effective_bits : Effective
    compression_ratio : float, optional
        16 by the effective weight bits.
    damage : float
    damage_unit : str
    status : str
        ``"start"`` in round 0, else what a solver's answer is; absent where no solver was asked.
    bound, budget, gap
        What a solver was allowed, and between what its answer lies.
    seconds : Seconds
    """

    bits: list[int]
    cost: int
    costs: dict[str, Cost]
    effective_bits: Effective
    compression_ratio: float | None
    damage: float
    damage_unit: str
    status: str | UnsetType = UNSET
    bound: float | UnsetType | None = UNSET
    budget: dict[str, float] | UnsetType = UNSET
    gap: float | UnsetType | None = UNSET
    seconds: Seconds = msgspec.field(default_factory=lambda: Seconds(0.0, 0.0, 0.0))


class Record(Decision, kw_only=True, forbid_unknown_fields=True):
    """A finished round: its decision, and what came of it.

    Parameters
    ----------
    round : int
    strategy : str
    epochs, total_epochs : int
        Trained in this round, and up to its end.
    accuracy : Accuracy
    loss : float, optional
        Mean over the last epoch.
    seed : int
    versions : dict of str to str
    """

    round: int
    strategy: str
    epochs: int
    accuracy: Accuracy
    loss: float | None
    total_epochs: int
    seed: int
    versions: dict[str, str]


# The order in which a line is read by people.
_FIRST = ("round", "strategy")


def plain_record(record: Record) -> dict[str, Any]:
    """Return a record in numbers, strings, lists and dicts, for a line of a log or for ``--json``."""
    values = msgspec.to_builtins(record)
    first = {"format": FORMAT, "version": VERSION} | {name: values[name] for name in _FIRST}
    return first | {name: value for name, value in values.items() if name not in _FIRST}


def record_from(values: Any, where: str) -> Record:
    """Return the record that ``values`` are, of this version or an earlier one.

    Raises
    ------
    FileError
        They are not a record, or one of a later version; with the place.
    """
    if not isinstance(values, dict):
        raise FileError("is not a record of a round", where=where, value=type(values).__name__)
    kind, version = values.get("format", FORMAT), values.get("version", 1)
    if kind != FORMAT:
        raise FileError("is not a record of a round", where=where, value=kind)
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise FileError(
            f"is of a version that this package does not read, which reads 1 to {VERSION}", where=where, value=version
        )
    told = {name: value for name, value in values.items() if name not in ("format", "version")}
    try:
        return msgspec.convert(told, Record)
    except msgspec.ValidationError as error:
        what, place = in_words(error)
        raise FileError(f"is not a record of a round: {what}", where=f"{where}: {place}" if place else where) from None


def read_records(path: str | Path) -> list[Record]:
    """Return the records of a log, one a line.

    Raises
    ------
    FileError
        The file cannot be read, or a line is not a record; with its number.
    """
    path = Path(path)
    records = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}: line {number}"
        try:
            values = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            raise FileError("is not JSON", where=where) from None
        records.append(record_from(values, where))
    return records


def write_records(path: Path, records: list[Record]) -> None:
    """Write one JSON line per finished round, all at once."""
    lines = [msgspec.json.encode(plain_record(record)) + b"\n" for record in records]
    atomic_write(path, b"".join(lines))
