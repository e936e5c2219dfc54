"""Tables as people have them: whatever separates their columns, whatever these are called, commas for points."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from impq_opt.documents.numbers import read_exact, read_float
from impq_opt.documents.tables import all_texts, heading_key, with_points
from impq_opt.errors import FileError, nearest

__all__ = ["COLUMNS", "Sheet", "is_infinite", "meaning"]

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

# What else a column is called, the likeliest first; see heading_key.
_ALSO = {
    "group": ("name", "layer", "module", "tensor", "layername", "modulename", "tensorname", "parameter", "param"),
    "size": ("numel", "params", "elements", "nparams", "numparams", "parameters", "numelements", "weights", "count"),
    "bits": ("bit", "precision", "bitwidth", "numbits", "nbits", "wbits"),
    "damage": ("score", "scores", "damages"),
}
_NUMBERS = ("size", "bits", "cost", "damage", "sensitivity")
# A column for each precision: damages, or ||Q(W) - W||^2, which HAWQ multiplies with the trace of the Hessian.
_WIDE = re.compile(r"(damage|score|loss|kld?|mse|error|delta2)([0-9]+(?:\.[0-9]+)?)(?:bits?)?")

_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?")
_PLAINEST = re.compile(r"[0-9.eE+\-]*")


def meaning(name: str) -> str | None:
    """Return the column that a heading means, None where it means none of ours."""
    key = heading_key(name)
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
        return _lengthened(replace(sheet, columns=dict(columns) | sheet._with_points()))

    def _with_points(self) -> dict[str, list[Any]]:
        numbers = {
            name: cells
            for name, cells in self.columns.items()
            if name in _NUMBERS or name == "trace" or _WIDE.fullmatch(name)
        }
        return with_points(numbers, self.place, {"size"} & set(numbers))

    def place(self, row: int, column: str) -> str:
        """Return where a fault is: the row of the file, the group, the column."""
        name = self.columns["group"][row]
        return f"row {self.rows[row]} ({name}): {self.headings.get(column, column)}"

    def numbers(self, column: str, *, infinite: bool = False) -> list[float]:
        """Return a column as numbers; one that is ``infinite`` stands for a candidate that is not allowed."""
        cells = self.columns[column]
        if all_texts(cells) and _PLAINEST.fullmatch("".join(cells)):
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
        if heading_key(name) in by_key:
            raise FileError("has two columns of one name", where="columns", value=[by_key[heading_key(name)], name])
        by_key[heading_key(name)] = name
    headings = {own: by_key[own] for own in COLUMNS if own in by_key}
    for own, others in _ALSO.items():
        also = next((by_key[other] for other in others if other in by_key), None)
        if own not in headings and also is not None:
            headings[own] = also
    for key, name in by_key.items():
        match = _WIDE.fullmatch(key)
        # Beside a damage of its own a column such as loss_1 means something else.
        if match and (match[1] == "damage" or {"damage", "sensitivity"}.isdisjoint(headings)):
            headings[key] = name
    if "trace" in by_key and any(key.startswith("delta2") for key in headings):
        headings["trace"] = by_key["trace"]
    return headings


def _refuse_misspelt(columns: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    for name in notes:
        wanted = [own for own in COLUMNS if own not in columns and own != "chosen"]
        cutoff = 0.5 if "group" not in columns else 0.8
        close = difflib.get_close_matches(heading_key(name), wanted, n=1, cutoff=cutoff)
        if close and (cutoff == 0.8 or close == ["group"]):
            raise FileError("unknown column", where="columns", value=name, hint=nearest(heading_key(name), close))
    if "group" not in columns:
        raise FileError(
            "has no column 'group'",
            where="columns",
            value=list(notes) + list(columns),
            hint="the groups may be called name, layer, module or tensor too",
        )


# -- a column for each precision ---------------------------------------------------------------------------------


def _lengthened(sheet: Sheet) -> Sheet:
    """Return a sheet with a row a candidate where it has a column a precision; an empty cell is no candidate."""
    wide = {name: match for name in sheet.columns if (match := _WIDE.fullmatch(name))}
    if not wide:
        return sheet
    for name in ("damage", "sensitivity", "bits", "cost", "format"):
        if name in sheet.columns:
            first = sheet.headings[next(iter(wide))]
            raise FileError(f"cannot stand beside {sheet.headings[name]}", where="columns", value=first)
    if len({match[1] for match in wide.values()}) > 1:
        said = [sheet.headings[name] for name in wide]
        raise FileError("says the damage in several ways", where="columns", value=said, hint="keep the columns of one")
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
    if kind != "delta2":
        cell = sheet.columns[name][row]
        if isinstance(cell, str) and _PLAIN.fullmatch(cell):
            return float(cell) + 0.0
        return read_float(sheet.columns[name][row], sheet.place(row, name), error=FileError)
    if "trace" not in sheet.columns:
        what = "needs a column trace: damage is trace times delta2 (HAWQ)"
        raise FileError(what, where="columns", value=sheet.headings[name])
    return float(sheet.exact("trace", row)) * float(sheet.exact(name, row))
