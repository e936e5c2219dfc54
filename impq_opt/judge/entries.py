"""What hubs, pairs of hubs and parts add to each line exactly; what is small is read once, whatever the prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.judge.hubs import Hubs, Open, Part
from impq_opt.judge.lines import Line, pair_rows, pair_tables

__all__ = ["Entries"]

# Entries of a part under one choice of its hubs, over all lines, that are kept.
_SMALL = 256


class Entries:
    """The tables of some lines, in the lines' units; the lines' prices are not looked at.

    Parameters
    ----------
    lines : sequence of Line
    hubs : Hubs
        Of these lines.
    """

    def __init__(self, lines: Sequence[Line], hubs: Hubs) -> None:
        self.lines, self.hubs = lines, hubs
        self._hubs: dict[tuple[int, int], tuple[int, ...]] = {}
        self._pairs: dict[tuple[tuple[int, int], tuple[int, ...]], list[tuple[int, int]]] = {}
        self._kept: dict[tuple[int, tuple[tuple[int, ...], ...]], npt.NDArray[np.bool_]] = {}
        self._parts: dict[tuple[tuple[int, ...], tuple[int, ...]], list[list[tuple[int, ...]]]] = {}

    def hub(self, place: int, column: int) -> tuple[int, ...]:
        """Return what a hub alone adds at a column, by line."""
        if (place, column) not in self._hubs:
            group = int(self.hubs.groups[place])
            self._hubs[place, column] = tuple(line.at(group, [column])[0] for line in self.lines)
        return self._hubs[place, column]

    def between(self, ends: tuple[int, int], columns: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return what the pairs of two hubs add, as (line, sum)."""
        if (ends, columns) not in self._pairs:
            adds = []
            for i, edge in self.hubs.pairs[ends]:
                pairs, line = self.lines[i].pairs, self.lines[i]
                assert pairs is not None
                adds.append((i, int(pair_tables(pairs, np.array([edge]))[0][columns]) * line.unit))
            self._pairs[ends, columns] = adds
        return self._pairs[ends, columns]

    def kept(self, i: int, open_: Open) -> npt.NDArray[np.bool_]:
        """Return which combinations (K, ...) of open columns of the hubs that line ``i`` depends on keep it."""
        places = self.hubs.held[i]
        key = i, tuple(tuple(open_[place]) for place in places)
        if key not in self._kept:
            self._kept[key] = self.hubs.kept(self.lines[i], places, open_, len(self.lines[i].widths))
        return self._kept[key]

    def small(self, part: Part, columns: tuple[int, ...]) -> list[list[tuple[int, ...]]] | None:
        """Return by group of a part, and by its columns, what each line gets under hubs; None where they are many."""
        widths = self.lines[0].widths[part.groups]
        if int(widths.sum()) * len(self.lines) > _SMALL:
            return None
        key = (part.places, columns)
        if key not in self._parts:
            at = slice(0, len(part.groups))
            rows = self.rows(part, columns, at)
            self._parts[key] = [
                list(
                    zip(
                        *(self.exact(part, rows, row, at, i, list(range(width))) for i in range(len(self.lines))),
                        strict=True,
                    )
                )
                for row, width in enumerate(widths.tolist())
            ]
        return self._parts[key]

    def rows(self, part: Part, columns: tuple[int, ...], at: slice) -> list[npt.NDArray[Any]]:
        """Return each line's entries (n, K) of some groups of a part, their pairs with the hubs added."""
        groups, by_line = part.groups[at], []
        for i, line in enumerate(self.lines):
            rows = line.rows(groups)
            for place, column in zip(part.places, columns, strict=True):
                edges = part.edges.get((i, place))
                if edges is not None and line.pairs is not None and len(line.pairs):
                    more = pair_rows(line.pairs, edges[at], groups, int(self.hubs.groups[place]), column)
                    rows = rows + more[:, : rows.shape[1]]
            by_line.append(rows)
        return by_line

    def exact(
        self, part: Part, rows: list[npt.NDArray[Any]], row: int, at: slice, i: int, some: list[int]
    ) -> list[int]:
        """Return the exact entries of one line at some columns of a row of ``rows``, in the line's unit."""
        line, group = self.lines[i], int(part.groups[at.start + row])
        if group in line.exact or rows[i].dtype.kind == "f":
            return line.at(group, some)
        return [int(rows[i][row, column]) * line.unit for column in some]
