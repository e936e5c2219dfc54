"""Names and candidates of groups, stored so that ten million of them fit."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError, nearest
from impq_opt.held import Held, held
from impq_opt.types import IntArray

__all__ = ["Candidates", "GroupNames", "gather_sets"]


# Precisions up to here are whole where they are large, and so are their sums.
_WIDEST = 2**53
# More groups than any memory holds.
_MOST = 1 << 40


@dataclass(frozen=True)
class GroupNames(Held, Sequence[str]):
    """The names of G groups: labels, each standing for one group or for an array of groups.

    A label of shape ``()`` names one group by itself; a label of shape ``(16, 3)`` names the 48 groups
    ``label[0,0]`` to ``label[15,2]``, in C order. So the kernels of a layer cost one label, not one string each.

    Parameters
    ----------
    labels : tuple of str
        Unique, non-empty.
    shapes : tuple of tuple of int
        One per label.
    layers : tuple of str
        The layer that each label belongs to; the label itself where not given.
    """

    labels: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "shapes", tuple(tuple(map(_length, shape)) for shape in self.shapes))
        object.__setattr__(self, "layers", tuple(self.layers) or self.labels)
        if not len(self.labels) == len(self.shapes) == len(self.layers):
            raise ProblemError(
                "labels, shapes and layers must have one length",
                where="names",
                value=(len(self.labels), len(self.shapes), len(self.layers)),
            )
        seen: set[str] = set()
        for place, label in enumerate(self.labels):
            if not isinstance(label, str) or not label:
                raise ProblemError("a name must be a non-empty string", where=f"groups[{place}].name", value=label)
            if label in seen:
                raise ProblemError(
                    "duplicate name",
                    where=f"groups[{place}].name",
                    value=label,
                    hint="every group needs a name of its own",
                )
            seen.add(label)
        self._check_text()
        if sum(math.prod(shape) for shape in self.shapes) >= _MOST:
            raise ProblemError("stand for too many groups", where="names.shapes")
        for place, (label, shape) in enumerate(zip(self.labels, self.shapes, strict=True)):
            array = label.rpartition("[")[0]
            if shape == () and label.endswith("]") and array in seen and self._element(label) is not None:
                raise ProblemError(
                    "is also the name of an element of another label", where=f"groups[{place}].name", value=label
                )

    def _check_text(self) -> None:
        try:
            "".join((*self.labels, *self.layers)).encode()
        except (TypeError, UnicodeEncodeError):  # half of a character, which no file can hold
            for place, text in enumerate((*self.labels, *self.layers)):
                if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text):
                    raise ProblemError(
                        "must be text that can be written to a file",
                        where=f"groups[{place % len(self.labels)}].{'name' if place < len(self.labels) else 'layer'}",
                        value=text,
                    ) from None

    @classmethod
    def explicit(cls, names: Sequence[str], layers: Sequence[str] | None = None) -> GroupNames:
        """One label a group."""
        return cls(tuple(names), ((),) * len(names), tuple(layers or ()))

    @classmethod
    def numbered(cls, count: int, label: str = "group") -> GroupNames:
        """``label[0]`` to ``label[count - 1]``."""
        return cls((label,), ((count,),))

    @cached_property
    def counts(self) -> IntArray:
        """Groups per label (L,)."""
        return held(np.array([math.prod(shape) for shape in self.shapes], dtype=np.int64))

    @cached_property
    def offsets(self) -> IntArray:
        """Index of the first group of each label, and the number of groups at the end (L + 1,)."""
        return held(np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64))

    @cached_property
    def label_of(self) -> IntArray:
        """Index of the label of each group (G,)."""
        return held(np.repeat(np.arange(len(self.labels)), self.counts))

    @cached_property
    def _position(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return int(sum(math.prod(shape) for shape in self.shapes))

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = int(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        label = int(np.searchsorted(self.offsets, index, side="right")) - 1
        if self.shapes[label] == ():
            return self.labels[label]
        place = np.unravel_index(index - int(self.offsets[label]), self.shapes[label])
        return f"{self.labels[label]}[{','.join(str(int(p)) for p in place)}]"

    def __iter__(self) -> Iterator[str]:
        for label, shape in zip(self.labels, self.shapes, strict=True):
            if shape == ():
                yield label
            else:
                for place in np.ndindex(*shape):
                    yield f"{label}[{','.join(map(str, place))}]"

    def index_of(self, name: str) -> int:
        """Return the index of the group called ``name``; raise ProblemError with near matches."""
        position = self._position.get(_called(name))
        if position is not None and self.shapes[position] == ():
            return int(self.offsets[position])
        element = self._element(name)
        if element is not None:
            return element
        raise ProblemError("no such group", value=name, hint=nearest(name, self.labels))

    def _element(self, name: str) -> int | None:
        """Return the index of an element such as ``"conv1[3]"`` of a label that stands for an array."""
        label, bracket, rest = name.rpartition("[")
        position = self._position.get(label)
        if not bracket or position is None or not rest.endswith("]"):
            return None
        shape = self.shapes[position]
        try:
            place = tuple(int(part) for part in rest[:-1].split(","))
        except ValueError:
            return None
        if not (len(place) == len(shape) > 0 and all(0 <= p < n for p, n in zip(place, shape, strict=True))):
            return None
        return int(self.offsets[position]) + int(np.ravel_multi_index(place, shape))

    def select(self, pattern: str) -> IntArray:
        """Return the indices of the groups that ``pattern`` means, in order.

        A pattern is the name of a group, a label (all its groups), a layer, or a shell wildcard over labels,
        such as ``"layer1.*"``. Matching is by case.
        """
        position = self._position.get(_called(pattern))
        if position is not None:
            return np.arange(self.offsets[position], self.offsets[position + 1])
        element = self._element(pattern)  # before the wildcards: to them "[3]" is a set of characters
        if element is not None:
            return np.array([element], dtype=np.int64)
        hits = [
            i
            for i, (label, layer) in enumerate(zip(self.labels, self.layers, strict=True))
            if fnmatch.fnmatchcase(label, pattern) or layer == pattern
        ]
        if hits:
            return np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in hits]).astype(np.int64)
        return np.array([self.index_of(pattern)], dtype=np.int64)


def _called(name: object) -> str:
    if not isinstance(name, str):
        raise ProblemError("must be a name", value=name)
    return name


def _length(side: object) -> int:
    if isinstance(side, bool) or not isinstance(side, (int, np.integer)) or side < 0:
        raise ProblemError("must be whole numbers >= 0", where="names.shapes", value=side)
    return int(side)


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
        object.__setattr__(self, "sets", tuple(tuple(float(w) + 0.0 for w in one) for one in self.sets))
        if self.formats and [len(f) for f in self.formats] != [len(s) for s in self.sets]:
            raise ProblemError("one format name per candidate", where="candidates.formats")
        for number, one in enumerate(self.sets):
            where = f"candidates[{number}]"
            if len(set(self.labels(number))) != len(one):
                raise ProblemError(
                    "candidates must be distinct",
                    where=where,
                    value=self.labels(number),
                    hint="name the formats where two have one width",
                )

    def _check_widths(self) -> None:
        for number, one in enumerate(self.sets):
            where = f"candidates[{number}]"
            if not isinstance(one, tuple) or not one:
                raise ProblemError("a group needs at least one candidate", where=where, hint="e.g. bits = [2, 4, 8]")
            for width in one:
                real = isinstance(width, (int, float, np.integer, np.floating)) and not isinstance(width, bool)
                if not real or not 0 <= width < math.inf or width > _WIDEST:
                    raise ProblemError("bits must be finite numbers >= 0", where=where, value=width)

    def labels(self, number: int) -> tuple[str, ...]:
        """Return what the candidates of set ``number`` are called: their format, or their bits."""
        return self.formats[number] if self.formats else tuple(f"{w:g}" for w in self.sets[number])

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
        return max(len(one) for one in self.sets)

    def of(self, group: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[float, ...]:
        """Return the precisions that ``group`` may take; only those ``allowed`` (G, K) where that is given."""
        found = self.sets[0 if self.set_of is None else int(self.set_of[group])]
        return found if allowed is None else tuple(b for b, may in zip(found, allowed[group], strict=False) if may)

    def tied(self, group: int, allowed: npt.NDArray[np.bool_] | None = None) -> dict[tuple[float, str], int]:
        """Return the columns that ``group`` may take by what its ties have to share: precision and format."""
        number = 0 if self.set_of is None else int(self.set_of[group])
        widths, names = self.sets[number], self.formats[number] if self.formats else ("",) * len(self.sets[number])
        return {
            (width, name): column
            for column, (width, name) in enumerate(zip(widths, names, strict=True))
            if allowed is None or allowed[group, column]
        }

    def members(self, number: int, count: int) -> IntArray:
        """Return the indices of the groups, out of ``count``, that take set ``number``."""
        if self.set_of is None:
            return np.arange(count) if number == 0 else np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.set_of == number)

    def bits(self, choice: IntArray) -> npt.NDArray[np.float64]:
        """Return the precision (G,) that each choice (G,) stands for."""
        if self.set_of is None:
            return np.asarray(self.sets[0], dtype=np.float64)[choice]
        table = np.full((len(self.sets), self.width), np.nan)
        for row, one in zip(table, self.sets, strict=True):
            row[: len(one)] = one
        return table[self.set_of, choice]

    def counts(self, count: int) -> IntArray:
        """Return the number of candidates (G,) of each of ``count`` groups."""
        lengths = np.array([len(one) for one in self.sets], dtype=np.int64)
        return np.full(count, lengths[0]) if self.set_of is None else lengths[self.set_of]


def gather_sets(rows: Sequence[tuple[float, ...]], formats: Sequence[tuple[str, ...]] | None = None) -> Candidates:
    """Return the candidates of groups given one list a group; equal lists share a set."""
    keys = list(zip(rows, formats or ((),) * len(rows), strict=True))
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    sets = tuple(key[0] for key in numbers)
    names = tuple(key[1] or tuple(f"{w:g}" for w in key[0]) for key in numbers) if formats else ()
    of = None if len(sets) == 1 else np.array([numbers[key] for key in keys], dtype=np.int64)
    return Candidates(sets, of, names)
