"""Plain tables: a CSV or Parquet file with one row a candidate in, one row a group (or a candidate) out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from impq_opt.costs import TableCost
from impq_opt.documents.numbers import read_whole
from impq_opt.documents.tables import Columns, read_columns
from impq_opt.errors import FileError, ProblemError
from impq_opt.exchange.base import Precision, Reader, Writer, need, whole
from impq_opt.exchange.choice import Chooser, Said
from impq_opt.exchange.scores import shifted
from impq_opt.exchange.sheet import COLUMNS, Sheet, is_infinite, meaning
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.arrays import KIND_NAMES, allowed_tables
from impq_opt.groups.candidates import Candidates, gather_sets
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.names import GroupNames
from impq_opt.instance.cost_row import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.text import csv_text

__all__ = ["Csv", "Parquet"]

Rows = Mapping[str, list[int]]
_CHOSEN = {"1", "1.0", "true", "True", "TRUE"}
_WHOLE = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Csv(Reader, Writer, Chooser):
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
    source: ClassVar[str] = "RFC 4180; the columns are " + ", ".join(COLUMNS)
    limits: ClassVar[str] = "none: every allocation can be written"
    layerwise: ClassVar[bool] = False

    candidates: bool = False

    def precisions(self) -> tuple[Precision, ...]:
        return ()

    def prepare(self, problem: Problem) -> Problem:
        return problem

    # -- in ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> Mapping[str, Sequence[Any]]:
        return read_columns(self.only(paths), meaning)

    def problem(self, scores: Mapping[str, Sequence[Any]]) -> Problem:
        """Return the problem of the columns ``scores``, by name.

        Raises
        ------
        FileError
            Where a column is missing, or a row says what it must not.
        """
        sheet = Sheet.of(scores)
        law, given = "sensitivity" in sheet.columns, "damage" in sheet.columns
        if given == law:
            raise FileError(
                "must have a column damage or a column sensitivity" + ", and not both" * given,
                where="columns",
                value=list(sheet.headings.values()) + list(sheet.notes),
            )
        return unmeasured_zeros(_by_sensitivity(sheet) if law else _by_candidate(sheet))

    def load_choice(self, path: Path) -> Mapping[str, Sequence[Any]]:
        return self.load([path])

    def choice(self, configuration: Mapping[str, Sequence[Any]], problem: Problem) -> Mapping[str, Said]:
        """Return the ``format`` or ``bits`` of each group; of a table of candidates, where ``chosen`` is 1.

        Raises
        ------
        FileError
            Where neither column is there, or a group has several rows.
        """
        sheet = Sheet.of(configuration)
        columns = sheet.columns
        if not {"bits", "format"} & set(columns):
            headings = list(sheet.headings.values()) + list(sheet.notes)
            raise FileError("must have a column bits or a column format", where="columns", value=headings)
        widths = sheet.numbers("bits") if "bits" in columns else None
        chosen: dict[str, Said] = {}
        for row, group in enumerate(columns["group"]):
            if "chosen" in columns and str(columns["chosen"][row]).strip() not in _CHOSEN:
                continue
            if str(group) in chosen:
                raise FileError("is chosen twice", where=sheet.place(row, "group"), value=group)
            named = (str(columns["format"][row]).strip(),) if "format" in columns else ()
            chosen[str(group)] = (*named, *(() if widths is None else (widths[row],)))
        return chosen

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
        if not os.path.isfile(path):
            raise FileError(
                "is a folder, not a file" if os.path.isdir(path) else "there is no such file", where=str(path)
            )
        parquet = need("pyarrow.parquet", "Parquet", "pyarrow")
        try:
            columns = Columns(parquet.read_table(path).to_pydict())
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or 'it is broken'}", where=str(path)) from None
        except ValueError:  # pyarrow.ArrowInvalid
            raise FileError("is not Parquet, or not whole", where=str(path)) from None
        columns.rows = range(1, 1 + max(map(len, columns.values()), default=0))  # no row of headings
        return columns

    def dump(self, allocation: Allocation) -> bytes:
        arrow = need("pyarrow", "Parquet", "pyarrow")
        sink = arrow.BufferOutputStream()
        need("pyarrow.parquet", "Parquet", "pyarrow").write_table(arrow.table(self.config(allocation)), sink)
        return bytes(sink.getvalue())


def _whole_numbers(sheet: Sheet, column: str, *, infinite: bool = False) -> list[int]:
    numbers = []
    for row, value in enumerate(sheet.columns[column]):
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            number = int(value)
        elif infinite and is_infinite(value):
            number = 0
        else:
            number = read_whole(sheet.cell(row, column), sheet.place(row, column), error=FileError)
        if abs(number) >= 2**63:
            raise FileError("is beyond 64 bits", where=sheet.place(row, column), value=value)
        numbers.append(number)
    return numbers


def _costs(sheet: Sheet, rows: Rows) -> Any:
    """Return the costs (G, K) as they are written, whole ones without rounding."""
    floats = _padded(sheet.numbers("cost", infinite=True), rows)
    if np.abs(floats).max(where=np.isfinite(floats), initial=0) < 2.0**53:
        return whole(floats)
    exact = _padded(_whole_numbers(sheet, "cost", infinite=True), rows)
    return np.ma.masked_array(exact, np.isinf(floats))


def _first(sheet: Sheet, rows: Rows, values: Sequence[Any], column: str) -> list[Any]:
    """Return one value a group; its rows must agree."""
    entries = []
    for group, members in rows.items():
        odd = [row for row in members if values[row] != values[members[0]]]
        if odd:
            raise FileError(
                f"differs between the rows of {group!r}", where=sheet.place(odd[0], column), value=values[odd[0]]
            )
        entries.append(values[members[0]])
    return entries


def _common(sheet: Sheet, rows: Rows) -> dict[str, Any]:
    columns = sheet.columns
    layers = _first(sheet, rows, columns["layer"], "layer") if "layer" in columns else list(rows)
    kinds = _first(sheet, rows, columns["kind"], "kind") if "kind" in columns else ["weight"] * len(rows)
    kinds = [kind.strip().casefold() if isinstance(kind, str) else kind for kind in kinds]
    for members, kind in zip(rows.values(), kinds, strict=True):
        if kind not in KIND_NAMES:
            raise FileError("must be weight or activation", where=sheet.place(members[0], "kind"), value=kind)
    sizes = _first(sheet, rows, _whole_numbers(sheet, "size"), "size") if "size" in columns else [1] * len(rows)
    for members, size in zip(rows.values(), sizes, strict=True):
        if size < 1:
            raise FileError("must be positive", where=sheet.place(members[0], "size"), value=size)
    codes = np.array([KIND_NAMES.index(kind) for kind in kinds], dtype=np.int8)
    return {
        "names": _names(sheet, rows, [str(layer) or group for layer, group in zip(layers, rows, strict=True)]),
        "kinds": codes if codes.any() else None,
        "sizes": np.array(sizes, dtype=np.int64),
    }


def _names(sheet: Sheet, rows: Rows, layers: Sequence[str]) -> GroupNames:
    try:
        return GroupNames.explicit(list(rows), layers)
    except ProblemError as error:  # its place is that of a group, not of a row
        members = rows.get(str(error.value))
        where = sheet.place(members[0], "group") if members else error.where
        raise FileError(error.what, where=where, value=error.value, hint=error.hint) from None


def _by_sensitivity(sheet: Sheet) -> Problem:
    rows = _grouped(sheet)
    twice = next((group for group, members in rows.items() if len(members) > 1), None)
    if twice is not None:
        first, second = rows[twice][:2]
        raise FileError(
            "a table of sensitivities has one row a group",
            where=sheet.place(second, "group"),
            value=twice,
            hint=f"it stands in row {sheet.rows[first]} too",
        )
    widths = tuple(float(b) for b in range(1, 9))
    law = PowerLaw(np.array(sheet.numbers("sensitivity")))
    common = _common(sheet, rows)
    damage: PowerLaw | DamageTable = law
    note: Mapping[str, Any] = {}
    if (law.sensitivity < 0).any():
        table, note = shifted(law.at(slice(None), widths), common["names"])
        damage = DamageTable(table)
    return Problem(
        candidates=Candidates((widths,)), damage=damage, provenance=dict(note) | _notes(sheet, rows), **common
    )


def _by_candidate(sheet: Sheet) -> Problem:
    rows, columns = _grouped(sheet), sheet.columns
    damage = _padded(sheet.numbers("damage", infinite=True), rows)
    numbered = "bits" not in columns
    if "cost" not in columns and (numbered or "size" not in columns):
        raise FileError(
            "needs a column cost, or both size and bits", where="columns", value=list(sheet.headings.values())
        )
    place = {row: k for members in rows.values() for k, row in enumerate(members)}
    bits = [float(place[row]) for row in range(len(place))] if numbered else sheet.numbers("bits")
    formats = [str(value) for value in columns["format"]] if "format" in columns else None
    _check_candidates(sheet, rows, bits, formats)
    candidates = gather_sets(
        [tuple(bits[row] for row in members) for members in rows.values()],
        None if formats is None else [tuple(formats[row] for row in members) for members in rows.values()],
    )
    if numbered:
        candidates = Candidates(candidates.sets, candidates.set_of, candidates.formats, numbered=True)
    common, fields = _common(sheet, rows), dict[str, Any]()
    if "cost" in columns:
        cost, damage = allowed_tables(_costs(sheet, rows), damage)
        fields["costs"] = (TableCost.from_array(cost, source="the table's cost"),)
        fields["objective"] = {"cost": 1}
    forbidden = np.isinf(damage).all(axis=1)
    if forbidden.any():
        group = list(rows)[int(forbidden.argmax())]
        raise FileError("allows none of the group's candidates", where=sheet.place(rows[group][0], "damage"))
    damage, note = shifted(damage, common["names"])
    return Problem(
        candidates=candidates,
        damage=DamageTable(damage),
        metric="table",
        damage_unit="",
        provenance=dict(note) | _notes(sheet, rows),
        **fields,
        **common,
    )


def _check_candidates(sheet: Sheet, rows: Rows, bits: Sequence[float], formats: Sequence[str] | None) -> None:
    """Raise FileError where a precision is none, or a group has one twice."""
    for members in rows.values():
        seen: dict[Any, int] = {}
        for row in members:
            if not 0 <= bits[row] <= 64:
                raise FileError("must be a precision of 0 to 64 bits", where=sheet.place(row, "bits"), value=bits[row])
            said = bits[row] if formats is None else formats[row]
            if said in seen:
                raise FileError(
                    f"candidates must be distinct, and row {sheet.rows[seen[said]]} has the same",
                    where=sheet.place(row, "bits" if formats is None else "format"),
                    value=said,
                    hint="leave one out" if formats else "leave one out, or name them in a column format",
                )
            seen[said] = row


def _notes(sheet: Sheet, rows: Rows) -> dict[str, Any]:
    """Return columns that mean nothing here, for the provenance: a value a group, or a list of its rows'."""
    kept = {}
    for name, values in sheet.notes.items():
        texts = ["" if value is None else str(value) for value in values]
        by_group = [[texts[row] for row in members] for members in rows.values()]
        kept[name] = [own[0] if len(set(own)) == 1 else own for own in by_group]
    return {"columns": kept} if kept else {}


def _grouped(sheet: Sheet) -> Rows:
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(sheet.columns["group"]):
        rows.setdefault(str(group), []).append(row)
    bare: dict[str, str] = {}
    for name, members in rows.items():
        if bare.setdefault(name.strip(" "), name) != name:
            other = bare[name.strip(" ")]
            what = f"differs from {other!r}, in row {sheet.rows[rows[other][0]]}, by blanks alone"
            raise FileError(what, where=sheet.place(members[0], "group"), value=name)
    return rows


def _padded(values: Sequence[float], rows: Rows) -> Any:
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
