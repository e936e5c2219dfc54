"""Names of groups, stored so that ten million of them fit."""

from __future__ import annotations

import fnmatch
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from impq_opt.errors import ProblemError, close_names
from impq_opt.groups.held import Held, held
from impq_opt.types import IntArray

__all__ = ["GroupNames"]

# More groups than any memory holds.
_MOST = 1 << 40

# Names that an unknown one is compared with, and names in the representation.
_COMPARED, _SHOWN = 5000, 3

_PATTERNS = "a pattern is a name, a layer, 'layer1.*', 'kind:weight', 'kind:activation' or 'type:Linear'"


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
        return int(self.offsets[-1])

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index, count = int(index), len(self)
        if index < 0:
            index += count
        if not 0 <= index < count:
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
                for place in itertools.product(*(map(str, range(side)) for side in shape)):
                    yield f"{label}[{','.join(place)}]"

    def index_of(self, name: str) -> int:
        """Return the index of the group called ``name``; raise ProblemError with near matches."""
        place = self.place_of(name)
        if place is None:
            position = self._position.get(name)
            several = "" if position is None else f"it names {self.counts[position]:,} groups, such as {self[position]}"
            raise ProblemError("no such group", value=name, hint=several or self._near(name))
        return place

    def place_of(self, name: str) -> int | None:
        """Return the index of the one group called ``name``; None where there is none."""
        position = self._position.get(_called(name))
        if position is not None:
            return int(self.offsets[position]) if self.shapes[position] == () else None
        return self._element(name)

    def _near(self, name: str) -> str:
        """Return a hint of the few names nearest to one that is none."""
        labels: Sequence[str] = self.labels
        inside = sum(label.startswith(f"{name}.") for label in labels)
        if inside:
            return f"'{name}.*' means the {inside:,} {'label' if inside == 1 else 'labels'} inside it"
        for part in sorted(re.findall(r"[^\W_]{2,}", name), key=len, reverse=True):
            if len(labels) > _COMPARED:  # those that have its parts are nearer than those that have not
                labels = [label for label in labels if part in label] or labels
        close = close_names(name.strip("*?"), labels[:_COMPARED])
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        more = len(self.labels) - _SHOWN
        return f"known are {', '.join(self.labels[:_SHOWN])}{f' and {more:,} more' if more > 0 else ''}"

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
        such as ``"layer1.*"``. Matching is by case; a bracket is one of the name's where there are such names.

        Raises
        ------
        ProblemError
            Where it means no group, with the nearest names.
        """
        found = self.find(pattern)
        if found is None:
            hint = self._near(pattern)
            raise ProblemError("no such group", value=pattern, hint=f"{hint}; {_PATTERNS}" if hint else _PATTERNS)
        return found

    def find(self, pattern: str) -> IntArray | None:
        """Return what :meth:`select` does, None where the pattern means no group."""
        position = self._position.get(_called(pattern))
        if position is not None:
            return np.arange(self.offsets[position], self.offsets[position + 1])
        element = self._element(pattern)  # before the wildcards: to them "[3]" is a set of characters
        if element is not None:
            return np.array([element], dtype=np.int64)
        for shape in (pattern.replace("[", "[[]"), pattern):
            matches = re.compile(fnmatch.translate(shape)).match
            hits = [
                i
                for i, (label, layer) in enumerate(zip(self.labels, self.layers, strict=True))
                if layer == pattern or matches(label)
            ]
            if hits:
                return self.groups_of(hits)
        composed = unicodedata.normalize("NFC", pattern)
        same = [] if pattern.isascii() else [unicodedata.normalize("NFC", label) == composed for label in self.labels]
        return self.groups_of(np.flatnonzero(same).tolist()) if any(same) else None

    def groups_of(self, labels: Iterable[int]) -> IntArray:
        """Return the indices of the groups of some labels, given by number, in their order."""
        parts = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in labels]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.labels[:_SHOWN])) + (", ..." if len(self.labels) > _SHOWN else "")
        return f"GroupNames({len(self):,} groups, {len(self.labels):,} labels: {shown})"


def _called(name: object) -> str:
    if not isinstance(name, str):
        raise ProblemError("must be a name", value=name)
    return name


def _length(side: object) -> int:
    if isinstance(side, bool) or not isinstance(side, (int, np.integer)) or side < 0:
        raise ProblemError("must be whole numbers >= 0", where="names.shapes", value=side)
    return int(side)
