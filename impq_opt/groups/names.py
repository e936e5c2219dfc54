"""Names of groups, stored so that ten million of them fit."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from impq_opt.errors import ProblemError, nearest
from impq_opt.groups.held import Held, held
from impq_opt.types import IntArray

__all__ = ["GroupNames"]

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
