"""Priced sums of groups that stand alone once their hubs are chosen: the least of them, and what may exceed it.

Floats sort out what is far from the least, with a margin for every rounding; what is near is compared, and all that is
added up is added up, in whole numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.judge.entries import Entries
from impq_opt.judge.hubs import Part
from impq_opt.judge.lines import Line, chunks
from impq_opt.types import FloatArray, IntArray

__all__ = ["Core", "OpenColumn", "Pricing"]


_EPS, _TINY = 2.0**-53, 2.0**-1070


@dataclass(frozen=True, slots=True)
class OpenColumn:
    """One open candidate of a group: its column, what it adds to each open line, and its excess over the least."""

    column: int
    adds: tuple[int, ...]
    excess: int


@dataclass(frozen=True, eq=False)
class Core:
    """A part, or several, under given hubs.

    ``columns`` (n,) are the best of each of its ``groups`` (n,), ``adds`` what the groups with no other open column add
    to the open lines, and ``choices`` the open ones of the others, groups that differ most in the first line first:
    these separate states best.
    """

    groups: IntArray
    columns: IntArray
    adds: tuple[int, ...]
    choices: list[tuple[int, list[OpenColumn]]]

    @classmethod
    def joined(cls, cores: Sequence[Core]) -> Core:
        """Return the core of all groups of several."""
        adds = tuple(map(sum, zip(*(core.adds for core in cores), strict=True)))
        choices = sorted(
            (open_group for core in cores for open_group in core.choices),
            key=lambda open_group: -_spread(open_group[1]),
        )
        groups, columns = (np.concatenate([getattr(core, name) for core in cores]) for name in ("groups", "columns"))
        return cls(groups, columns, adds, choices)

    def least(self) -> list[tuple[int, ...]]:
        """Return what the open groups add to each open line at least: all of them, all but the first, and so on."""
        total = (0,) * len(self.adds)
        totals = [total]
        for _, some in reversed(self.choices):
            total = tuple(added + min(choice.adds[i] for choice in some) for i, added in enumerate(total))
            totals.append(total)
        return totals[::-1]


def _spread(choices: list[OpenColumn]) -> int:
    first = [choice.adds[0] for choice in choices if choice.adds]
    return max(first) - min(first) if first else 0


class Pricing:
    """What assignments weigh: the sum over lines of ``weights[i]`` times the line in its own unit.

    Parameters
    ----------
    weights : sequence of int
        Not negative; one of them stands for a price of ``1 / scale`` for each unit of a line.
    entries : Entries
        Of the same lines.
    """

    def __init__(self, lines: Sequence[Line], weights: Sequence[int], scale: int, entries: Entries) -> None:
        self.lines, self.weights, self.scale, self.entries = lines, weights, scale, entries

    def hub(self, place: int, columns: tuple[int, ...]) -> int:
        """Return what a hub alone weighs at a column."""
        return self._weigh(self.entries.hub(place, columns[0]))

    def between(self, ends: tuple[int, int], columns: tuple[int, ...]) -> int:
        """Return what the pairs of two hubs weigh."""
        return sum(self.weights[i] * cost for i, cost in self.entries.between(ends, columns))

    def least(self, part: Part, columns: tuple[int, ...]) -> int:
        """Return the least that a part weighs under hubs at ``columns``, exactly."""
        small = self.entries.small(part, columns)
        if small is not None:
            return sum(min(map(self._weigh, some)) for some in small)
        total = 0
        for at in chunks(len(part.groups)):
            rows, best = self._best(part, columns, at)
            total += sum(w * adds for w, adds in zip(self.weights, self._adds(part, rows, best, at), strict=True))
        return total

    def _weigh(self, adds: Sequence[int]) -> int:
        return sum(map(operator.mul, self.weights, adds))

    def core(self, part: Part, columns: tuple[int, ...], room: int, most: int, held: Sequence[int]) -> Core | None:
        """Return the choices of a part that weigh at most ``room`` more than the least; None if over ``most`` groups.

        ``held`` are the lines that choices are to say their part of.
        """
        best = np.empty(len(part.groups), dtype=np.int64)
        adds = [0] * len(held)
        choices: list[tuple[int, list[OpenColumn]]] = []
        limit = _just_above(Fraction(room, self.scale))
        for at in chunks(len(part.groups)):
            rows, best[at] = self._best(part, columns, at)
            values = self._values(part, rows, at)
            least = values.min(axis=1, keepdims=True)
            slack = self._margin(values) + self._margin(least)
            with np.errstate(invalid="ignore"):
                near = ~(values - least - slack > limit) & (values < np.inf) | self._unclear(values, part, at)
            several = np.flatnonzero(near.sum(axis=1) > 1)
            if len(choices) + len(several) > most:
                return None
            single = np.ones(len(values), dtype=bool)
            for row in several.tolist():
                open_choices = self._choices(part, rows, row, at, np.flatnonzero(near[row]).tolist(), room, held)
                if len(open_choices) > 1:
                    single[row] = False
                    choices.append((int(part.groups[at.start + row]), open_choices))
            alone = np.flatnonzero(single)
            more = self._adds(part, [r[alone] for r in rows], best[at][alone], at, alone)
            adds = [total + more[i] for total, i in zip(adds, held, strict=True)]
        choices.sort(key=lambda open_group: -_spread(open_group[1]))
        return Core(part.groups, best, tuple(adds), choices)

    # -- tables of a stretch of a part ---------------------------------------------------------------------------

    def _values(self, part: Part, rows: list[npt.NDArray[Any]], at: slice) -> FloatArray:
        """Return the priced entries (n, K) in floats, each line's smallest taken out; inf past a group's width."""
        widths = self.lines[0].widths[part.groups[at]]
        inside = np.arange(rows[0].shape[1]) < widths[:, None]
        total = np.zeros(rows[0].shape)
        with np.errstate(over="ignore"):
            for line, table in zip(self.lines, rows, strict=True):
                if line.price > 0:
                    large = np.iinfo(np.int64).max if table.dtype.kind == "i" else np.inf
                    least = np.where(inside, table, large).min(axis=1, keepdims=True)
                    total += line.price * (table - least).astype(np.float64)
        return np.where(inside, total, np.inf)

    def _margin(self, values: FloatArray) -> FloatArray:
        """Return how far a priced entry may be from the exact one.

        Each line brings three roundings and a sum, and where it has ties one for each member.
        """
        roundings = 8 + 8 * len(self.lines) + 2 * max(line.members for line in self.lines)
        with np.errstate(over="ignore"):
            margin: FloatArray = roundings * _EPS * values + _TINY
        return margin

    def _unclear(self, values: FloatArray, part: Part, at: slice) -> npt.NDArray[np.bool_]:
        """Return the entries of rows where a float overflowed, so that all of them have to be looked at."""
        inside = np.arange(values.shape[1]) < self.lines[0].widths[part.groups[at], None]
        return inside & (np.isinf(values) & inside).any(axis=1, keepdims=True)

    def _best(self, part: Part, columns: tuple[int, ...], at: slice) -> tuple[list[npt.NDArray[Any]], IntArray]:
        """Return the entries of a stretch of a part, and the column (n,) that exactly weighs least in each row."""
        rows = self.entries.rows(part, columns, at)
        values = self._values(part, rows, at)
        best = values.argmin(axis=1)
        least = values[np.arange(len(values)), best][:, None]
        with np.errstate(invalid="ignore"):
            near = ~(values - self._margin(values) > least + self._margin(least)) & (values < np.inf)
        near |= self._unclear(values, part, at)
        for row in np.flatnonzero(near.sum(axis=1) > 1).tolist():
            some = np.flatnonzero(near[row]).tolist()
            weighed = self._weighed(part, rows, row, at, some)
            best[row] = some[weighed.index(min(weighed))]
        return rows, best

    def _weighed(self, part: Part, rows: list[npt.NDArray[Any]], row: int, at: slice, some: list[int]) -> list[int]:
        total = [0] * len(some)
        for i, weight in enumerate(self.weights):
            if weight:
                values = self.entries.exact(part, rows, row, at, i, some)
                total = [so_far + weight * value for so_far, value in zip(total, values, strict=True)]
        return total

    def _choices(
        self,
        part: Part,
        rows: list[npt.NDArray[Any]],
        row: int,
        at: slice,
        some: list[int],
        room: int,
        held: Sequence[int],
    ) -> list[OpenColumn]:
        weighed = self._weighed(part, rows, row, at, some)
        least = min(weighed)
        added = [self.entries.exact(part, rows, row, at, i, some) for i in held]
        return [
            OpenColumn(column, tuple(values[k] for values in added), weighed[k] - least)
            for k, column in enumerate(some)
            if weighed[k] - least <= room
        ]

    def _adds(
        self, part: Part, rows: list[npt.NDArray[Any]], columns: IntArray, at: slice, some: IntArray | None = None
    ) -> list[int]:
        """Return what rows at ``columns`` add to each line, in its unit, exactly."""
        groups = part.groups[at] if some is None else part.groups[at][some]
        places = np.arange(len(columns))
        adds = []
        for line, table in zip(self.lines, rows, strict=True):
            if table.dtype.kind == "f":
                adds.append(line.total(groups, columns))  # ties are exact there
            else:
                adds.append(line.whole(table[places, columns]))
        return adds


def _just_above(value: Fraction) -> float:
    try:
        return math.nextafter(float(value), math.inf)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
