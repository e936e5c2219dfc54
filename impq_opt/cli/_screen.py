"""What is written for people and for programs: lines that end in no space, tables that fit, numbers with units."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from impq_opt.costs import format_quantity
from impq_opt.exactness.sums import nearest_float
from impq_opt.text import json_lines, shortened, visible

__all__ = [
    "Grid",
    "Screen",
    "console",
    "cost_heading",
    "cost_text",
    "counted",
    "grid",
    "in_columns",
    "number",
    "print_json",
    "styled",
    "wrapped",
]

# Columns of what is piped: nothing is wrapped there, a line is a line for `grep` and `cut`.
_ENDLESS = 1 << 20
# What stands in a column of numbers may have come from a file too: a unit, a label, the heading.
_WIDEST_NUMBER = 24
_LONGEST_UNIT = 16
# A column of words is no narrower than this before the rows of a table are stacked instead.
_NARROWEST_PROSE = 20
_GAP = 2

# A number stays with its unit, and with what it is at most.
_WORD = re.compile(r"\s*(?:<= )?\S+(?:(?<=\d) (?:[kKMGT]?i?B|bits?|m?s|min|%)(?![A-Za-z0-9])\S*)?")
_TRAILING = re.compile(r"[ \t]+((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)


class Screen(Console):
    """A console to which a string is data: nothing in it is markup, an emoji or a control sequence.

    Lines break between words and nowhere else, and none ends in a space. What is ours and has styles is given as
    :class:`rich.text.Text`; :func:`styled` makes it from data.
    """

    def print(self, *objects: Any, indent: int = 0, **options: Any) -> None:
        """Print texts and tables, each in the width there is; what is wrapped goes on set in by ``indent``."""
        lines = [line for thing in objects or ("",) for line in self._lines(thing, indent)]
        with self.capture() as captured:
            super().print(Text("\n").join(lines), soft_wrap=True, **options)
        self.file.write(_TRAILING.sub(r"\1", captured.get()))

    def _lines(self, thing: Any, indent: int) -> list[Text]:
        if isinstance(thing, Grid):
            return thing.lines(self)
        text = self.text(thing) if isinstance(thing, str | Text) else thing
        return wrapped(text, self.width, indent)

    def text(self, value: str | Text) -> Text:
        """Return a string in characters that the stream has, so that widths are right; a Text as it is."""
        return value.copy() if isinstance(value, Text) else Text(self.shown(value))

    def shown(self, text: str) -> str:
        """Return ``text`` on one line, in characters that the stream has."""
        shown = visible(text)
        if not self.can("…"):
            shown = shown.replace("…", "...")
        return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def can(self, characters: str) -> bool:
        """Whether the stream has these characters."""
        try:
            characters.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True


def console(*, stderr: bool = False) -> Screen:
    """Return a console; what is piped is neither wrapped nor cut, unless COLUMNS says how wide it is."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _ENDLESS
    return Screen(stderr=stderr, highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return texts, or texts with their styles, as one line for a console."""
    return Text.assemble(*((visible(p), "") if isinstance(p, str) else (visible(p[0]), p[1]) for p in parts))


def wrapped(text: Text, width: int, indent: int = 0) -> list[Text]:
    """Return ``text`` in lines of ``width`` columns, broken between words; later ones are set in by ``indent``.

    A word that is longer stands on a line of its own, whole.
    """
    lines = []
    for line in text.split("\n", allow_blank=True):
        ends, used = [0], 0
        for word in _WORD.finditer(line.plain):
            room = width - (indent if len(ends) > 1 else 0)
            size = cell_len(word[0])
            if used and used + size > room:
                ends.append(word.start())
                size, used = cell_len(word[0].lstrip()), 0
            used += size
        lines += [_stripped(part, indent if place else None) for place, part in enumerate(line.divide(ends[1:]))]
    return lines


def _stripped(line: Text, indent: int | None) -> Text:
    """Return a line without the spaces at its end and, where it goes on from another, set in by ``indent``."""
    line.rstrip()
    if indent is not None:
        line = line[len(line.plain) - len(line.plain.lstrip()) :]
        line.pad_left(indent)
    return line


# -- tables ------------------------------------------------------------------------------------------------------


class Grid:
    """A plain table; where it is too wide for its words, the rows are stacked: each a heading and what belongs to it.

    A column whose heading begins with ``>`` is set flush right, and is never broken.
    """

    def __init__(self, *columns: str, title: str | None = None, header: bool = True) -> None:
        self.right = [column.startswith(">") for column in columns]
        self.headings = [shortened(visible(column.removeprefix(">")), _WIDEST_NUMBER) for column in columns]
        self.title, self.header = title, header
        self.rows: list[tuple[tuple[str | Text, ...], str]] = []

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row: a text a column."""
        self.rows.append((cells, style))

    def lines(self, screen: Screen) -> list[Text]:
        """Return the table in lines that fit the screen."""
        rows = [[self._cell(screen, place, cell, style) for place, cell in enumerate(row)] for row, style in self.rows]
        heads = [Text(screen.shown(heading), style="bold") for heading in self.headings]
        title = [] if self.title is None else wrapped(Text(screen.shown(self.title), style="italic"), screen.width)
        if not self.header:
            return title + list(self._facts(rows, screen.width))
        for gap in (_GAP, 1):
            widths = self._widths([heads, *rows], screen.width, gap)
            if widths is not None:
                return title + [line for row in [heads, *rows] for line in self._beside(row, widths, gap)]
        return title + list(self._stacked(heads, rows, screen.width))

    def _cell(self, screen: Screen, place: int, cell: str | Text, style: str) -> Text:
        if isinstance(cell, str) and self.right[place]:
            cell = shortened(visible(cell), _WIDEST_NUMBER)
        text = screen.text(cell)
        if style:
            text.stylize(style)
        return text

    def _widths(self, rows: list[list[Text]], room: int, gap: int) -> list[int] | None:
        """Return the width of every column, or None where words would have to be broken."""
        columns = list(zip(*rows, strict=True))
        if not columns:
            return []
        widths = [max(text.cell_len for text in column) for column in columns]
        least = [
            width if right else min(width, max(_NARROWEST_PROSE, *map(_longest_word, column)))
            for width, right, column in zip(widths, self.right, columns, strict=True)
        ]
        room -= gap * (len(columns) - 1)
        if sum(least) > room:
            return None
        while sum(widths) > room:  # the widest gives way first
            place = max((p for p in range(len(widths)) if widths[p] > least[p]), key=lambda p: widths[p])
            others = [w for p, w in enumerate(widths) if p != place and w > least[p]]
            step = max(1, widths[place] - max([*others, least[place], widths[place] - (sum(widths) - room)]))
            widths[place] -= step
        return widths

    def _beside(self, row: list[Text], widths: list[int], gap: int = _GAP) -> Iterator[Text]:
        cells = [wrapped(cell, width) or [Text()] for cell, width in zip(row, widths, strict=True)]
        for height in range(max(map(len, cells), default=0)):
            line = Text()
            for cell, width, right in zip(cells, widths, self.right, strict=True):
                part = cell[height] if height < len(cell) else Text()
                space = " " * max(0, width - part.cell_len)
                line = Text.assemble(line, *((space, part) if right else (part, space)), " " * gap)
            line.rstrip()
            yield line

    def _facts(self, rows: list[list[Text]], room: int) -> Iterator[Text]:
        """Yield what is called so and is so; a word that has no room beside its name stands under it."""
        short = [row[0].cell_len for row in rows if row[0].cell_len <= room // 2]
        names = max(short, default=0) + _GAP
        for name, fact in rows:
            if name.cell_len <= names - _GAP and _longest_word(fact) <= room - names:
                yield from self._beside([name, fact], [names - _GAP, room - names])
            else:
                yield from wrapped(name, room)
                for line in wrapped(fact, room - _GAP):
                    line.pad_left(_GAP)
                    yield line

    def _stacked(self, heads: list[Text], rows: list[list[Text]], room: int) -> Iterator[Text]:
        """Yield each row as its first cell, and what else it has under it, each after its heading."""
        pairs = [
            [Text.assemble((head.plain, "dim"), ": " * bool(head.plain), cell) if cell.plain.strip() else Text()
             for head, cell in zip(heads[1:], row[1:], strict=True)]
            for row in rows
        ]  # fmt: skip
        widths = [max(pair.cell_len for pair in column) for column in zip(*pairs, strict=True)]
        for row, items in zip(rows, pairs, strict=True):
            yield from wrapped(row[0], room, 2)
            line, used = Text("  "), 2
            for item, width in zip(items, widths, strict=True):
                if used > 2 and used + width > room:
                    yield from self._told(line, room)
                    line, used = Text("  "), 2
                line = Text.assemble(line, item, " " * (width - item.cell_len + _GAP))
                used += width + _GAP
            yield from self._told(line, room)

    def _told(self, line: Text, room: int) -> list[Text]:
        line.rstrip()
        return wrapped(line, room, 4) if line.plain.strip() else []


def _longest_word(text: Text) -> int:
    return max(map(cell_len, text.plain.split()), default=0)


def grid(*columns: str, title: str | None = None, header: bool = True) -> Grid:
    """Return an empty table; a column whose heading begins with ``>`` is set flush right."""
    return Grid(*columns, title=title, header=header)


def in_columns(cells: list[Text], width: int) -> list[Text]:
    """Return cells beside each other, as many as ``width`` holds, to be read downwards."""
    widest = max(cell.cell_len for cell in cells)
    across = max(1, (width + _GAP) // (widest + _GAP))
    down = -(-len(cells) // across)
    lines = []
    for start in range(down):
        line = Text()
        for cell in cells[start::down]:
            line = Text.assemble(line, cell, " " * (widest - cell.cell_len + _GAP))
        line.rstrip()
        lines.append(line)
    return lines


# -- numbers -----------------------------------------------------------------------------------------------------


def number(value: Fraction | float | None, digits: int = 4) -> str:
    """Return a number for people; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{nearest_float(value):.{digits}g}"


def cost_text(value: Fraction | float | None, unit: str) -> str:
    """Return a cost with its unit for people; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return format_quantity(value, shortened(visible(unit), _LONGEST_UNIT))


def cost_heading(name: str, unit: str) -> str:
    """Return what a column of costs is called; a cost without a unit says so."""
    return name if unit else f"{name} (no unit)"


def counted(count: int, noun: str, many: str = "") -> str:
    """Return a number of things in words: ``"1 group"``, ``"1,200 groups"``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


# -- for programs ------------------------------------------------------------------------------------------------


def print_json(document: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document."""
    try:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: the name of a file that is not UTF-8
        text = json.dumps(document, indent=2)
    sys.stdout.write(json_lines(text) + "\n")
