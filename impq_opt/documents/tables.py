"""Tables as people have them: whatever separates their columns, commas for decimal points, quotation marks.

What a table says is not known here, only how it is written.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from impq_opt.documents.reading import read_text
from impq_opt.errors import FileError
from impq_opt.text import csv_value

__all__ = ["Columns", "all_texts", "heading_key", "read_columns", "with_points"]

_SEPARATORS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
_BY_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[.,' \u00a0\u202f_][0-9]{3})+")
_THOUSANDS = "write numbers without thousands separators"

Meaning = Callable[[str], str | None]


class Columns(dict[str, Sequence[Any]]):
    """Columns as a file has them, by their headings, and the number of each row in the file."""

    rows: Sequence[int] = ()


def read_columns(path: Path, meaning: Meaning, what: str = "a table is CSV") -> Columns:
    """Return the columns of a text with separators: commas, semicolons, tabs or bars, in UTF-8 or UTF-16.

    Parameters
    ----------
    path : path
    meaning : callable
        Returns what a heading means to the caller, None where nothing.
    what : str
        What the file should be, for the error.

    Raises
    ------
    FileError
        Where it is no table: with the row, and what to do.
    """
    lines = _records(path, meaning, what)
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
    columns_by_name = _named(head, head_row, columns, meaning, path)
    columns_by_name.rows = [number for number, _ in rows]
    return columns_by_name


def _records(path: Path, meaning: Meaning, what: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, each with its number."""
    text = read_text(path, what, utf16=True)
    stated = re.match(r"sep=(.)\r?\n", text)  # as Excel writes and wants it
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("sep=")), "")
    separator = stated[1] if stated else _separator(first, meaning)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for number, row in enumerate(reader, start=1):
            if row and (row[0].strip() or any(map(str.strip, row))):
                lines.append((number, row))
    except csv.Error as error:
        raise FileError(f"is not CSV: {_broken(str(error))}", where=f"{path}: row {len(lines) + 1}") from None
    return lines[1:] if stated else lines


def _broken(said: str) -> str:
    if "NUL" in said:
        return "it holds a NUL character"
    if "field limit" in said:
        return "a cell has more than 131,072 characters"
    return "a quotation mark is not closed, or not doubled inside a cell"


def _separator(head: str, meaning: Meaning) -> str:
    """Return what separates the columns: what gives the heading most names that are known, or most names."""

    def known(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([head], delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return sum(meaning(name) is not None for name in names), len(names)

    return max(_SEPARATORS, key=known)


def _named(head: Sequence[str], head_row: int, cells: Sequence[list[str]], meaning: Meaning, path: Path) -> Columns:
    columns = Columns()
    for place, (heading, column) in enumerate(zip(map(str.strip, head), cells, strict=True)):
        name = heading or "group"
        if not heading:
            if not any(column) or column == [str(k) for k in range(len(column))]:
                continue  # an empty column, or the numbers of rows that pandas writes
            if place or any(meaning(other) == "group" for other in head):
                raise FileError("has a column without a name", where=f"{path}: row {head_row}", value=list(head))
        if name in columns:
            raise FileError("has two columns of one name", where=f"{path}: row {head_row}", value=list(head))
        columns[name] = column
    return columns


def heading_key(name: object) -> str:
    """Return a heading without capitals, blanks, hyphens and the like, so that headings compare: ``# Params``."""
    return re.sub(r"[\s\-_#@:]+", "", str(name).strip("\ufeff").casefold())


# -- commas ------------------------------------------------------------------------------------------------------


def with_points(
    columns: Mapping[str, Sequence[Any]], place: Callable[[int, str], str], whole: Collection[str] = ()
) -> dict[str, list[Any]]:
    """Return columns of numbers with decimal commas read as such; empty where there are none.

    Parameters
    ----------
    columns : mapping of str to sequence
        Columns of numbers, as texts or as numbers.
    place : callable
        Returns where a fault is, from the number of the row and the name of the column.
    whole : collection of str
        Columns of whole numbers, where 16.000 may mean 16,000.

    Raises
    ------
    FileError
        Where a number can be read in two ways: 1,234 with nothing else in the file that tells.
    """
    for name in whole:
        for row, text in _texts(columns[name], ".,' \u00a0\u202f_"):
            if _BY_THOUSANDS.fullmatch(text.strip()):
                raise FileError("can be read in two ways", where=place(row, name), value=text, hint=_THOUSANDS)
    if not any(_texts(cells, ",") for cells in columns.values()):
        return {}
    certain: tuple[int, str] | None = None
    unclear: tuple[int, str] | None = None
    pointed: tuple[int, str] | None = None
    for name, cells in columns.items():
        for row, text in _texts(cells, ".,"):
            if "," in text:
                if not _DECIMAL_COMMA.fullmatch(text.strip()):
                    raise FileError(
                        "must be a number", where=place(row, name), value=text, hint=f"such as 0.25; {_THOUSANDS}"
                    )
                two = _BY_THOUSANDS.fullmatch(text.strip())
                certain, unclear = (certain, unclear or (row, name)) if two else (certain or (row, name), unclear)
            elif "." in text and pointed is None:
                pointed = (row, name)
    if certain is None and unclear is not None:
        row, name = unclear
        raise FileError("can be read in two ways", where=place(row, name), value=columns[name][row], hint=_THOUSANDS)
    if pointed is not None:
        row, name = pointed
        what = "has a point where other numbers have decimal commas"
        raise FileError(what, where=place(row, name), value=columns[name][row], hint=_THOUSANDS)
    return {
        name: [cell.replace(",", ".") if isinstance(cell, str) else cell for cell in cells]
        for name, cells in columns.items()
    }


def _texts(cells: Sequence[Any], signs: str) -> list[tuple[int, str]]:
    """Return the cells of a column, with their rows, where any of ``signs`` stands in one of them."""
    if all_texts(cells) and not set(signs).intersection("".join(cells)):
        return []
    return [(row, cell) for row, cell in enumerate(cells) if isinstance(cell, str)]


def all_texts(cells: Sequence[Any]) -> bool:
    """Return whether every cell is a text."""
    return set(map(type, cells)) == {str}
