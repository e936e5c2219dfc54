"""Tables as people have them: whatever separates their columns, whatever these are called, commas for points."""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from impq_opt.documents.numbers import read_exact, read_float
from impq_opt.documents.reading import read_text
from impq_opt.errors import FileError, nearest
from impq_opt.text import csv_value

__all__ = ["COLUMNS", "Columns", "Sheet", "is_infinite", "read_columns"]

COLUMNS = {
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

# What else a column is called, the likeliest first; capitals, blanks and hyphens do not count.
_ALSO = {
    "group": ("name", "module", "tensor", "layer", "layer_name", "module_name", "tensor_name", "parameter", "param"),
    "size": ("numel", "params", "elements", "n_params", "num_params", "parameters", "num_elements", "weights", "count"),
    "bits": ("bit", "precision", "bitwidth", "bit_width", "num_bits", "n_bits", "wbits", "w_bits"),
    "damage": ("score", "scores", "damages"),
}
_NUMBERS = ("size", "bits", "cost", "damage", "sensitivity")
# A column for each precision: damages, or ||Q(W) - W||^2, which HAWQ multiplies with the trace of the Hessian.
_WIDE = re.compile(r"(damage|delta2)_([0-9]+(?:\.[0-9]+)?)(?:_?bits?)?")

_SEPARATORS = ",;\t|"
_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?")
_PLAINEST = re.compile(r"[0-9.eE+\-]*")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
_BY_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[.,' \u00a0\u202f_][0-9]{3})+")
_THOUSANDS = "write numbers without thousands separators"


class Columns(dict[str, Sequence[Any]]):
    """Columns as a file has them, by their headings, and the number of each row in the file."""

    rows: Sequence[int] = ()


def read_columns(path: Path) -> Columns:
    """Return the columns of a text with separators: commas, semicolons, tabs or bars, in UTF-8 or UTF-16.

    Raises
    ------
    FileError
        Where it is no table: with the row, and what to do.
    """
    lines = _records(path)
    head_row, head = lines[0] if lines else (1, [])
    rows = lines[1:]
    if not rows:
        raise FileError("has no rows", where=str(path))
    for place, (number, row) in enumerate(rows):
        if len(row) != len(head):
            if len(row) < len(head) or any(row[len(head) :]):
                raise FileError(
                    f"must have {len(head)} values",
                    where=f"{path}: row {number} ({row[0]})",
                    value=len(row),
                    hint="a decimal comma? write a point, or put semicolons between columns" * (len(row) > len(head)),
                )
            rows[place] = (number, row[: len(head)])
    columns = [list(map(csv_value, cells)) for cells in zip(*(row for _, row in rows), strict=True)]
    return _named(head, head_row, columns, [number for number, _ in rows], path)


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, each with its number."""
    text = read_text(path, "a table is CSV", utf16=True)
    stated = re.match(r"sep=(.)\r?\n", text)  # as Excel writes and wants it
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("sep=")), "")
    separator = stated[1] if stated else _separator(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for number, row in enumerate(reader, start=1):
            if row and (row[0].strip() or any(map(str.strip, row))):
                lines.append((number, row))
    except csv.Error as error:
        what = _broken(str(error))
        raise FileError(f"is not CSV: {what}", where=f"{path}: row {len(lines) + 1}") from None
    return lines[1:] if stated else lines


def _broken(said: str) -> str:
    if "NUL" in said:
        return "it holds a NUL character"
    if "field limit" in said:
        return "a cell has more than 131,072 characters"
    return "a quotation mark is not closed, or not doubled inside a cell"


def _separator(head: str) -> str:
    """Return what separates the columns: what gives the heading most names that are known, or most names."""

    def known(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([head], delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return sum(_meaning(name) is not None for name in names), len(names)

    return max(_SEPARATORS, key=known)


def _named(head: Sequence[str], head_row: int, cells: Sequence[list[str]], rows: Sequence[int], path: Path) -> Columns:
    columns = Columns()
    columns.rows = rows
    for place, (heading, column) in enumerate(zip(map(str.strip, head), cells, strict=True)):
        name = heading or "group"
        if not heading:
            if not any(column) or column == [str(k) for k in range(len(column))]:
                continue  # an empty column, or the numbers of rows that pandas writes
            if place or any(_meaning(other) == "group" for other in head):
                raise FileError("has a column without a name", where=f"{path}: row {head_row}", value=list(head))
        if name in columns:
            raise FileError("has two columns of one name", where=f"{path}: row {head_row}", value=list(head))
        columns[name] = column
    return columns


def _key(name: object) -> str:
    return re.sub(r"[\s\-]+", "_", str(name).strip("\ufeff \t").casefold())


def _meaning(name: object) -> str | None:
    """Return the column that a heading means, None where it means none of ours."""
    key = _key(name)
    if key in COLUMNS:
        return key
    if _WIDE.fullmatch(key) or key == "trace":
        return key
    return next((own for own, others in _ALSO.items() if key in others), None)


@dataclass(frozen=True)
class Sheet:
    """A table under the names that :data:`COLUMNS` has, with the columns that mean nothing here as notes.

    Parameters
    ----------
    columns : mapping of str to sequence
        Of R rows each.
    rows : sequence of int
        Number of each row in the file (R,).
    headings : mapping of str to str
        What each column is called in the file.
    notes : mapping of str to sequence
        Columns that say nothing about the problem, by what they are called in the file.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[int]
    headings: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Sequence[Any]]) -> Sheet:
        """Return the sheet of columns under whatever names.

        Raises
        ------
        FileError
            Where two columns have one name, there are no groups, a name is nearly that of a column, a group has no
            name, or a number is written in a way that can be read in two.
        """
        headings = _headings(given)
        notes = {str(name): values for name, values in given.items() if name not in headings.values()}
        columns = {own: given[name] for own, name in headings.items()}
        _refuse_misspelt(columns, notes)
        count = len(columns["group"])
        for own, values in columns.items():
            if len(values) != count:
                what = f"must have as many rows as {headings['group']}"
                raise FileError(what, where=str(headings[own]), value=(len(values), count))
        if not count:
            raise FileError("has no rows", where="columns", value=list(given))
        rows = getattr(given, "rows", None) or range(2, count + 2)
        sheet = cls(columns, rows, {own: str(name) for own, name in headings.items()}, notes)
        for row, group in enumerate(columns["group"]):
            if group is None or not str(group).strip():
                raise FileError(
                    "is empty", where=f"row {rows[row]}: {sheet.headings['group']}", hint="name every group"
                )
        return _lengthened(replace(sheet, columns=dict(columns) | _with_points(sheet)))

    def place(self, row: int, column: str) -> str:
        """Return where a fault is: the row of the file, the group, the column."""
        name = self.columns["group"][row]
        return f"row {self.rows[row]} ({name}): {self.headings.get(column, column)}"

    def numbers(self, column: str, *, infinite: bool = False) -> list[float]:
        """Return a column as numbers; one that is ``infinite`` stands for a candidate that is not allowed."""
        cells = self.columns[column]
        if _all_texts(cells) and _PLAINEST.fullmatch("".join(cells)):
            with contextlib.suppress(ValueError):
                values = [float(cell) + 0.0 for cell in cells]
                if math.inf not in values and -math.inf not in values:
                    return values
        values = []
        for row, value in enumerate(cells):
            if isinstance(value, str) and _PLAIN.fullmatch(value):
                values.append(float(value) + 0.0)
            elif infinite and is_infinite(value):
                values.append(math.inf)
            else:
                hint = "such as 0.25; inf where it is not allowed" if infinite else "such as 4 or 0.25"
                cell, where = self.cell(row, column), self.place(row, column)
                values.append(read_float(cell, where, error=FileError, hint=hint))
        return values

    def exact(self, column: str, row: int) -> Fraction:
        """Return one number exactly."""
        return read_exact(self.cell(row, column), self.place(row, column), error=FileError)

    def cell(self, row: int, column: str) -> Any:
        """Return one cell; raise FileError where it is empty."""
        value = self.columns[column][row]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise FileError("is empty", where=self.place(row, column))
        return value


def is_infinite(value: object) -> bool:
    """Return whether a cell says infinity."""
    return value == math.inf or (isinstance(value, str) and value.strip().lower() in ("inf", "+inf", "infinity", "∞"))


def _headings(given: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Return the heading of each of our columns."""
    by_key: dict[str, str] = {}
    for name in given:
        if _key(name) in by_key:
            raise FileError("has two columns of one name", where="columns", value=[by_key[_key(name)], name])
        by_key[_key(name)] = name
    headings = {own: by_key[own] for own in COLUMNS if own in by_key}
    headings |= {key: name for key, name in by_key.items() if _WIDE.fullmatch(key)}
    if "trace" in by_key and any(key.startswith("delta2") for key in headings):
        headings["trace"] = by_key["trace"]
    for own, others in _ALSO.items():
        also = next((by_key[other] for other in others if other in by_key), None)
        if own not in headings and also is not None:
            headings[own] = also
    return headings


def _refuse_misspelt(columns: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    for name in notes:
        wanted = [own for own in COLUMNS if own not in columns and own != "chosen"]
        cutoff = 0.5 if "group" not in columns else 0.8
        close = difflib.get_close_matches(_key(name), wanted, n=1, cutoff=cutoff)
        if close and (cutoff == 0.8 or close == ["group"]):
            raise FileError("unknown column", where="columns", value=name, hint=nearest(_key(name), close))
    if "group" not in columns:
        raise FileError(
            "has no column 'group'",
            where="columns",
            value=list(notes) + list(columns),
            hint="the groups may be called name, module, tensor or layer too",
        )


# -- commas ------------------------------------------------------------------------------------------------------


def _with_points(sheet: Sheet) -> dict[str, list[Any]]:
    """Return the columns of numbers with decimal commas read as such.

    Raises
    ------
    FileError
        Where a number can be read in two ways: 1,234 with nothing else in the file that tells.
    """
    named = [name for name in sheet.columns if name in _NUMBERS or name == "trace" or _WIDE.fullmatch(name)]
    for row, text in _texts(sheet, "size", ".,' \u00a0\u202f_") if "size" in named else ():
        if _BY_THOUSANDS.fullmatch(text.strip()):
            raise FileError("can be read in two ways", where=sheet.place(row, "size"), value=text, hint=_THOUSANDS)
    if not any(_texts(sheet, name, ",") for name in named):
        return {}
    certain, unclear, pointed = None, None, None
    for name in named:
        for row, text in _texts(sheet, name, ".,"):
            if "," in text:
                if not _DECIMAL_COMMA.fullmatch(text.strip()):
                    raise FileError(
                        "must be a number", where=sheet.place(row, name), value=text, hint=f"such as 0.25; {_THOUSANDS}"
                    )
                two = _BY_THOUSANDS.fullmatch(text.strip())
                certain, unclear = (certain, unclear or (row, name)) if two else (certain or (row, name), unclear)
            elif "." in text and pointed is None:
                pointed = (row, name)
    if certain is None and unclear is None:
        return {}
    row, name = unclear or pointed or (0, named[0])
    if certain is None or pointed is not None:
        what = "can be read in two ways" if certain is None else "has a point where other numbers have decimal commas"
        row, name = (unclear or (0, named[0])) if certain is None else (pointed or (0, named[0]))
        raise FileError(what, where=sheet.place(row, name), value=sheet.columns[name][row], hint=_THOUSANDS)
    return {
        name: [cell.replace(",", ".") if isinstance(cell, str) else cell for cell in sheet.columns[name]]
        for name in named
    }


def _texts(sheet: Sheet, name: str, signs: str) -> list[tuple[int, str]]:
    """Return the cells of a column, with their rows, where any of ``signs`` stands in one of them."""
    cells = sheet.columns[name]
    if _all_texts(cells) and not set(signs).intersection("".join(cells)):
        return []
    return [(row, cell) for row, cell in enumerate(cells) if isinstance(cell, str)]


def _all_texts(cells: Sequence[Any]) -> bool:
    return set(map(type, cells)) == {str}


# -- a column for each precision ---------------------------------------------------------------------------------


def _lengthened(sheet: Sheet) -> Sheet:
    """Return a sheet with a row a candidate where it has a column a precision; an empty cell is no candidate."""
    wide = {name: match for name in sheet.columns if (match := _WIDE.fullmatch(name))}
    if not wide:
        return sheet
    for name in ("damage", "sensitivity", "bits", "cost", "format"):
        if name in sheet.columns:
            raise FileError(f"cannot stand beside {sheet.headings[name]}", where="columns", value=next(iter(wide)))
    kept: list[tuple[int, str, float]] = []
    for row in range(len(sheet.rows)):
        for name, match in wide.items():
            cell = sheet.columns[name][row]
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                continue
            kept.append((row, match[2], _wide_damage(sheet, row, name, match[1])))
        if not kept or kept[-1][0] != row:
            raise FileError("has no damage at any precision", where=sheet.place(row, "group"), hint="leave it out")
    rows = [row for row, _, _ in kept]
    columns: dict[str, Sequence[Any]] = {
        name: [values[row] for row in rows]
        for name, values in sheet.columns.items()
        if name not in wide and name != "trace"
    }
    columns |= {"bits": [bits for _, bits, _ in kept], "damage": [damage for _, _, damage in kept]}
    notes = {name: [values[row] for row in rows] for name, values in sheet.notes.items()}
    return replace(sheet, columns=columns, rows=[sheet.rows[row] for row in rows], notes=notes)


def _wide_damage(sheet: Sheet, row: int, name: str, kind: str) -> float:
    if is_infinite(sheet.columns[name][row]):
        return math.inf
    if kind == "damage":
        return read_float(sheet.columns[name][row], sheet.place(row, name), error=FileError)
    if "trace" not in sheet.columns:
        raise FileError("needs a column trace: damage is trace times delta2 (HAWQ)", where="columns", value=name)
    return float(sheet.exact("trace", row)) * float(sheet.exact(name, row))
