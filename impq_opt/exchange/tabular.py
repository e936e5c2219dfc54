"""Plain tables: a CSV or Parquet file with one row a candidate in, one row a group (or a candidate) out."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from impq_opt.costs import TableCost
from impq_opt.documents.numbers import read_float, read_whole
from impq_opt.documents.reading import read_text
from impq_opt.errors import FileError, nearest
from impq_opt.exchange.base import Precision, Reader, Writer, need, whole
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.arrays import KIND_NAMES, allowed_tables
from impq_opt.groups.candidates import Candidates, gather_sets
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.names import GroupNames
from impq_opt.instance.rows import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.text import csv_text, csv_value

__all__ = ["Csv", "Parquet"]

_COLUMNS = {
    "group": "name of the group",
    "layer": "layer that it belongs to; the group where left out",
    "kind": "weight or activation",
    "size": "elements",
    "bits": "precision of the candidate",
    "format": "name of the candidate",
    "cost": "cost of the candidate; size times bits where left out",
    "damage": "damage of the candidate; inf where it is not allowed",
    "sensitivity": "instead of damage: E, where damage is E 4^-bits",
    "chosen": "written only: 1 where the allocation takes the candidate",
}


@dataclass(frozen=True)
class Csv(Reader, Writer):
    """Rows ``group,bits,damage`` with optional ``layer, kind, size, format, cost``, or ``group,size,sensitivity``.

    Parameters
    ----------
    candidates : bool
        Write a row for every candidate with a column ``chosen``, which reads back as the same problem; otherwise a row
        a group.
    """

    name: ClassVar[str] = "csv"
    ending: ClassVar[str] = ".csv"
    summary: ClassVar[str] = "plain table: a row a candidate in, a row a group out"
    source: ClassVar[str] = "RFC 4180; the columns are " + ", ".join(_COLUMNS)
    limits: ClassVar[str] = "none: every allocation can be written"
    layerwise: ClassVar[bool] = False

    candidates: bool = False

    def precisions(self) -> tuple[Precision, ...]:
        return ()

    def prepare(self, problem: Problem) -> Problem:
        return problem

    # -- in ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> Mapping[str, Sequence[Any]]:
        path = self.only(paths)
        if not path.exists():
            raise FileError("cannot be read: there is no such file", where=str(path))
        try:
            rows = list(csv.reader(io.StringIO(read_text(path, "a table is CSV"), newline=""), strict=True))
        except csv.Error as error:
            raise FileError(f"is not CSV: {error}", where=str(path)) from None
        rows = [row for row in rows if row]
        if len(rows) < 2:
            raise FileError("has no rows", where=str(path))
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(rows[0]):
                raise FileError(f"must have {len(rows[0])} values", where=f"{path}: row {number}", value=len(row))
        if len({name.strip() for name in rows[0]}) != len(rows[0]):
            raise FileError("has two columns of one name", where=f"{path}: row 1", value=rows[0])
        return {name.strip(): list(map(csv_value, cells)) for name, *cells in zip(*rows, strict=True)}

    def problem(self, scores: Mapping[str, Sequence[Any]]) -> Problem:
        """Return the problem of the columns ``scores``, by name.

        Raises
        ------
        FileError
            Where a column is unknown or missing, or a row says what it must not.
        """
        for column in scores:
            if column not in _COLUMNS:
                raise FileError("unknown column", where=self.name, value=column, hint=nearest(column, _COLUMNS))
        for column in ("group",):
            if column not in scores:
                raise FileError(f"has no column {column!r}", where=self.name)
        if ("damage" in scores) == ("sensitivity" in scores):
            raise FileError("must have a column damage or a column sensitivity", where=self.name)
        return unmeasured_zeros(_by_sensitivity(scores) if "sensitivity" in scores else _by_candidate(scores))

    # -- out ---------------------------------------------------------------------------------------------------------

    def config(self, allocation: Allocation) -> dict[str, list[Any]]:
        """Return the columns by name."""
        rows = list(_rows(allocation, every=self.candidates))
        return {column: [row[column] for row in rows] for column in rows[0]}

    def dump(self, allocation: Allocation) -> bytes:
        columns = self.config(allocation)
        return csv_text([list(columns), *zip(*columns.values(), strict=True)]).encode()


@dataclass(frozen=True)
class Parquet(Csv):
    """The same table as a Parquet file; needs pyarrow."""

    name: ClassVar[str] = "parquet"
    ending: ClassVar[str] = ".parquet"
    summary: ClassVar[str] = "the same table as Parquet (needs pyarrow)"
    source: ClassVar[str] = "https://parquet.apache.org; columns as for csv"
    package: ClassVar[str] = "pyarrow"

    def load(self, paths: Sequence[Path]) -> Mapping[str, Sequence[Any]]:
        path = self.only(paths)
        parquet = need("pyarrow.parquet", "Parquet", "pyarrow")
        try:
            table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
        except ValueError as error:  # pyarrow.ArrowInvalid
            raise FileError(f"is not Parquet: {error}", where=str(path)) from None
        return table

    def dump(self, allocation: Allocation) -> bytes:
        arrow = need("pyarrow", "Parquet", "pyarrow")
        sink = arrow.BufferOutputStream()
        need("pyarrow.parquet", "Parquet", "pyarrow").write_table(arrow.table(self.config(allocation)), sink)
        return bytes(sink.getvalue())


def _numbers(scores: Mapping[str, Sequence[Any]], column: str, *, infinite: bool = False) -> list[float]:
    """Return a column as numbers; one that is ``infinite`` stands for a candidate that is not allowed."""
    return [
        math.inf if infinite and _is_infinite(value) else read_float(value, f"row {row}: {column}", error=FileError)
        for row, value in enumerate(scores[column], start=2)
    ]


def _is_infinite(value: object) -> bool:
    return value == math.inf or (isinstance(value, str) and value.strip().lower() in ("inf", "+inf", "infinity"))


def _whole_numbers(scores: Mapping[str, Sequence[Any]], column: str, *, infinite: bool = False) -> list[int]:
    numbers = []
    for row, value in enumerate(scores[column], start=2):
        where = f"row {row}: {column}"
        number = 0 if infinite and _is_infinite(value) else read_whole(value, where, error=FileError)
        if abs(number) >= 2**63:
            raise FileError("is beyond 64 bits", where=where, value=value)
        numbers.append(number)
    return numbers


def _costs(scores: Mapping[str, Sequence[Any]], rows: Mapping[str, list[int]]) -> Any:
    """Return the costs (G, K) as they are written, whole ones without rounding."""
    floats = _padded(_numbers(scores, "cost", infinite=True), rows)
    if np.abs(floats).max(where=np.isfinite(floats), initial=0) < 2.0**53:
        return whole(floats)
    exact = _padded(_whole_numbers(scores, "cost", infinite=True), rows)
    return np.ma.masked_array(exact, np.isinf(floats))


def _first(rows: Mapping[str, list[int]], values: Sequence[Any], column: str) -> list[Any]:
    """Return one value a group; its rows must agree."""
    entries = []
    for group, members in rows.items():
        odd = [row for row in members if values[row] != values[members[0]]]
        if odd:
            raise FileError(
                f"differs between the rows of {group!r}", where=f"row {odd[0] + 2}: {column}", value=values[odd[0]]
            )
        entries.append(values[members[0]])
    return entries


def _common(scores: Mapping[str, Sequence[Any]], rows: Mapping[str, list[int]]) -> dict[str, Any]:
    layers = _first(rows, scores["layer"], "layer") if "layer" in scores else list(rows)
    kinds = _first(rows, scores["kind"], "kind") if "kind" in scores else ["weight"] * len(rows)
    for group, kind in zip(rows, kinds, strict=True):
        if kind not in KIND_NAMES:
            raise FileError("must be weight or activation", where=f"row {rows[group][0] + 2}: kind", value=kind)
    sizes = _first(rows, _whole_numbers(scores, "size"), "size") if "size" in scores else [1] * len(rows)
    names = GroupNames.explicit(list(rows), [str(layer) or group for layer, group in zip(layers, rows, strict=True)])
    codes = np.array([KIND_NAMES.index(kind) for kind in kinds], dtype=np.int8)
    return {
        "names": names,
        "kinds": codes if codes.any() else None,
        "sizes": np.array(sizes, dtype=np.int64),
    }


def _by_sensitivity(scores: Mapping[str, Sequence[Any]]) -> Problem:
    rows = _grouped(scores)
    twice = next((group for group, members in rows.items() if len(members) > 1), None)
    if twice is not None:
        raise FileError("a table of sensitivities has one row a group", where=f"row {rows[twice][1] + 2}", value=twice)
    return Problem(
        candidates=Candidates((tuple(float(b) for b in range(1, 9)),)),
        damage=PowerLaw(np.array(_numbers(scores, "sensitivity"))),
        **_common(scores, rows),
    )


def _by_candidate(scores: Mapping[str, Sequence[Any]]) -> Problem:
    rows = _grouped(scores)
    damage = _padded(_numbers(scores, "damage", infinite=True), rows)
    numbered = "bits" not in scores
    place = {row: k for members in rows.values() for k, row in enumerate(members)}
    bits = [float(place[row]) for row in range(len(scores["damage"]))] if numbered else _numbers(scores, "bits")
    formats = [str(value) for value in scores["format"]] if "format" in scores else None
    candidates = gather_sets(
        [tuple(bits[row] for row in members) for members in rows.values()],
        None if formats is None else [tuple(formats[row] for row in members) for members in rows.values()],
    )
    if numbered:
        candidates = Candidates(candidates.sets, candidates.set_of, candidates.formats, numbered=True)
    fields: dict[str, Any] = {}
    if "cost" in scores:
        cost, damage = allowed_tables(_costs(scores, rows), damage)
        fields["costs"] = (TableCost.from_array(cost, source="the table's cost"),)
        fields["objective"] = {"cost": 1}
    elif numbered or "size" not in scores:
        raise FileError("needs a column cost, or both size and bits", where="columns", value=list(scores))
    return Problem(
        candidates=candidates,
        damage=DamageTable(damage),
        metric="table",
        damage_unit="",
        **fields,
        **_common(scores, rows),
    )


def _grouped(scores: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(scores["group"]):
        rows.setdefault(str(group), []).append(row)
    return rows


def _padded(values: Sequence[float], rows: Mapping[str, list[int]]) -> Any:
    """Return the values (G, K) of each group's rows; the last is repeated."""
    width = max(map(len, rows.values()))
    return np.array([[values[members[min(k, len(members) - 1)]] for k in range(width)] for members in rows.values()])


def _rows(allocation: Allocation, *, every: bool) -> Iterable[dict[str, Any]]:
    """Yield a row for each group, or for each candidate of each group."""
    problem, choice = allocation.problem, allocation._need()
    candidates = problem.candidates
    row = cost_row(problem, allocation.cost_weights)
    columns = [(k, np.minimum(k, candidates.counts(len(problem)) - 1)) for k in range(candidates.width)]
    shown = columns if every else [(-1, choice)]
    cost = np.stack([row.by_group(candidates, column, choice) for _, column in shown], axis=1)
    damage = np.stack([problem.damage.chosen(candidates, column) for _, column in shown], axis=1)
    labels = [candidates.labels(number) for number in range(len(candidates.sets))]
    weights = problem.weights()
    for group, name in enumerate(problem.names):
        number = candidates.number_of(group)
        chosen = int(choice[group])
        for place, k in enumerate(range(len(labels[number])) if every else [chosen]):
            yield {
                "group": name,
                "layer": problem.names.layers[int(problem.names.label_of[group])],
                "kind": KIND_NAMES[0 if weights[group] else 1],
                "size": int(problem.sizes[group]),
                "bits": candidates.sets[number][k],
                "format": labels[number][k],
                "cost": _plain(int(cost[group, place]) * row.quantum),
                "damage": float(damage[group, place]),
            } | ({"chosen": int(k == chosen)} if every else {})


def _plain(value: Any) -> int | float:
    return int(value) if value.denominator == 1 else float(value)
