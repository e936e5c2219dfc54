"""The precisions that each group may take, stored so that ten million groups fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError
from impq_opt.groups.held import Held
from impq_opt.types import IntArray

__all__ = ["FLOAT_BITS", "Candidates", "gather_sets"]

FLOAT_BITS = 32  # a group of so many bits stays as it is

# Sets in the representation.
_SHOWN = 3

# Precisions up to here are whole where they are large, and so are their sums.
_WIDEST = 2**53


@dataclass(frozen=True, eq=False)
class Candidates(Held):
    """The precisions that each group may take.

    Groups that may take the same precisions share one *set*; a set is a tuple of distinct bit widths in the order
    of the columns of the tables. Widths may be fractional: formats with overhead cost 4.25 or 4.5 bits.

    Parameters
    ----------
    sets : tuple of tuple of float
        The distinct sets.
    set_of : ndarray of int64 (G,), optional
        The set of each group; all groups take set 0 where it is left out.
    formats : tuple of tuple of str
        One name per width of each set, such as ``"nvfp4"``; needed where two formats have one width.
    numbered : bool
        The widths are only column numbers: nothing is known about bits.
    """

    sets: tuple[tuple[float, ...], ...]
    set_of: IntArray | None = None
    formats: tuple[tuple[str, ...], ...] = ()
    numbered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_widths()
        # Neither the sign of a zero nor the type of a number is part of what it says.
        object.__setattr__(self, "sets", tuple(tuple(float(w) + 0.0 for w in widths) for widths in self.sets))
        if self.formats and [len(f) for f in self.formats] != [len(s) for s in self.sets]:
            raise ProblemError("one format name per candidate", where="candidates.formats")
        for number, widths in enumerate(self.sets):
            where = f"candidates[{number}]"
            if len(set(self.labels(number))) != len(widths):
                raise ProblemError(
                    "candidates must be distinct",
                    where=where,
                    value=self.labels(number),
                    hint="name the formats where two have one width",
                )

    def _check_widths(self) -> None:
        for number, widths in enumerate(self.sets):
            where = f"candidates[{number}]"
            if not isinstance(widths, tuple) or not widths:
                raise ProblemError("a group needs at least one candidate", where=where, hint="e.g. bits = [2, 4, 8]")
            for width in widths:
                real = isinstance(width, (int, float, np.integer, np.floating)) and not isinstance(width, bool)
                if not real or not 0 <= width < math.inf or width > _WIDEST:
                    raise ProblemError("bits must be finite numbers >= 0", where=where, value=width)

    def __repr__(self) -> str:
        sets = [", ".join(self.labels(number)) for number in range(min(len(self.sets), _SHOWN))]
        more = "; ..." if len(self.sets) > _SHOWN else ""
        what = "columns" if self.numbered else "formats" if self.formats else "bits"
        count = f"{len(self.sets):,} {'set' if len(self.sets) == 1 else 'sets'} of {what}"
        return f"Candidates({count}: {'; '.join(sets)}{more})"

    def labels(self, number: int) -> tuple[str, ...]:
        """Return what the candidates of set ``number`` are called: their format, or their bits."""
        return self.formats[number] if self.formats else tuple(f"{w:g}" for w in self.sets[number])

    def label(self, group: int, column: int) -> str:
        """Return what candidate ``column`` of ``group`` is called."""
        return self.labels(self.number_of(group))[column]

    def position(self, number: int, candidate: float | str) -> int | None:
        """Return the column in set ``number`` of a width or format name, or None."""
        labels = self.labels(number)
        try:
            if str(candidate) in labels:
                return labels.index(str(candidate))
            wanted = float(candidate)
        except (TypeError, ValueError, OverflowError):
            return None
        widths = [float(w) for w in self.sets[number]]
        return widths.index(wanted) if widths.count(wanted) == 1 else None

    @property
    def width(self) -> int:
        """The largest number of candidates of a group, K."""
        return max(len(widths) for widths in self.sets)

    def number_of(self, group: int) -> int:
        """Return the number of the set that ``group`` takes."""
        return 0 if self.set_of is None else int(self.set_of[group])

    def numbers(self, count: int) -> IntArray:
        """Return the number of the set (G,) that each of ``count`` groups takes."""
        return np.zeros(count, dtype=np.int64) if self.set_of is None else self.set_of

    def of(self, group: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[float, ...]:
        """Return the precisions that ``group`` may take; only those ``allowed`` (G, K) where that is given."""
        widths = self.sets[self.number_of(group)]
        return widths if allowed is None else tuple(b for b, may in zip(widths, allowed[group], strict=False) if may)

    def tied(self, group: int, allowed: npt.NDArray[np.bool_] | None = None) -> dict[tuple[float, str], int]:
        """Return the columns that ``group`` may take by what its ties have to share: precision and format."""
        number = self.number_of(group)
        widths, names = self.sets[number], self.formats[number] if self.formats else ("",) * len(self.sets[number])
        return {
            (width, name): column
            for column, (width, name) in enumerate(zip(widths, names, strict=True))
            if allowed is None or allowed[group, column]
        }

    def members(self, number: int, count: int) -> IntArray:
        """Return the indices of the groups, out of ``count``, that take set ``number``."""
        return np.flatnonzero(self.numbers(count) == number)

    def bits(self, choice: IntArray) -> npt.NDArray[np.float64]:
        """Return the precision (G,) that each choice (G,) stands for."""
        if self.set_of is None:
            return np.asarray(self.sets[0], dtype=np.float64)[choice]
        table = np.full((len(self.sets), self.width), np.nan)
        for row, widths in zip(table, self.sets, strict=True):
            row[: len(widths)] = widths
        return table[self.set_of, choice]

    def columns(self, bits: npt.NDArray[np.float64]) -> IntArray:
        """Return the column (G,) of the candidate of each precision (G,), -1 where not exactly one has it."""
        columns = np.full(len(bits), -1, dtype=np.int64)
        for number, precisions in enumerate(self.sets):
            members = self.members(number, len(bits))
            match = bits[members, None] == np.array(precisions)
            columns[members] = np.where(match.sum(axis=1) == 1, match.argmax(axis=1), -1)
        return columns

    def counts(self, count: int) -> IntArray:
        """Return the number of candidates (G,) of each of ``count`` groups."""
        lengths = np.array([len(widths) for widths in self.sets], dtype=np.int64)
        return np.full(count, lengths[0]) if self.set_of is None else lengths[self.set_of]


def gather_sets(rows: Sequence[tuple[float, ...]], formats: Sequence[tuple[str, ...]] | None = None) -> Candidates:
    """Return the candidates of groups given one list a group; equal lists share a set."""
    keys = list(zip(rows, formats or ((),) * len(rows), strict=True))
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    sets = tuple(key[0] for key in numbers)
    names = tuple(key[1] or tuple(f"{w:g}" for w in key[0]) for key in numbers) if formats else ()
    of = None if len(sets) == 1 else np.array([numbers[key] for key in keys], dtype=np.int64)
    return Candidates(sets, of, names)
