"""What is kept is held: copies of callers' arrays and mappings that nobody can write to, not even through a view.

A problem's digest, an answer's status and its certificate are statements about numbers. They stay true only while the
numbers stay, so a frozen dataclass here owns its arrays: a caller's array stays writable and is copied; what was
held before is shared. For the same reason two of them are equal where their contents are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

__all__ = ["FrozenDict", "Held", "adopted", "frozen", "held", "same"]

Key = TypeVar("Key")
Value = TypeVar("Value")

# The read-only buffers of the copies made here, by identity: what stands on one of them needs no further copy.
_OURS: WeakValueDictionary[int, memoryview] = WeakValueDictionary()


def held(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of the same numbers that cannot be made writable; a zero has no sign in it."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if _OURS.get(id(base)) is base and type(array) is np.ndarray:
        return array
    own = np.array(array, order="C", subok=False)
    if own.dtype.kind == "f" and np.signbit(own).any():
        own += 0.0
    return _read_only(own)


def adopted(array: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return an array of whole numbers as :func:`held` does, without a copy: who made it must let go of it."""
    plain = type(array) is np.ndarray and array.dtype == np.int64
    if not (plain and array.flags.c_contiguous and array.flags.owndata and array.flags.writeable):
        return held(array)
    return _read_only(array)


def _read_only(own: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # The flag of an array can be set back, that of an array on a read-only buffer cannot.
    view = np.asarray(own.data.toreadonly())
    assert isinstance(view.base, memoryview)
    _OURS[id(view.base)] = view.base
    return view


class FrozenDict(dict[Key, Value]):
    """A dict that cannot be changed; what writes out dicts, such as JSON, writes it out too."""

    def _refuse(self, *_args: Any, **_named: Any) -> NoReturn:
        raise TypeError("this mapping is part of something frozen and cannot be changed")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen, (dict(self),)


def frozen(value: Any) -> Any:
    """Return ``value`` with every array, mapping and list in it held; lists become tuples."""
    return _ways(type(value))(value)  # type: ignore[arg-type]


@cache
def _ways(kind: type) -> Callable[[Any], Any]:
    """Return how values of one type are held: asked once a type, since most fields need nothing."""
    if issubclass(kind, np.ndarray):
        return held
    if issubclass(kind, Mapping) and not issubclass(kind, FrozenDict):
        return lambda value: FrozenDict({key: frozen(item) for key, item in value.items()})
    if issubclass(kind, (list, tuple)) and not hasattr(kind, "_fields"):
        return lambda value: tuple(map(frozen, value))
    return frozenset if issubclass(kind, set) else lambda value: value


def same(first: object, second: object) -> bool:
    """Return whether two values have the same contents: arrays by their numbers, NaN beside NaN."""
    if first is second:
        return True
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray)) or first.shape != second.shape:
            return False
        return np.array_equal(first, second, equal_nan=first.dtype.kind == second.dtype.kind == "f")
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


# Entries of an array that its hash looks at.
_LOOKED_AT = 8


def _mark(value: object) -> object:
    """Return what can be hashed at once and is equal for values that are the :func:`same`."""
    if isinstance(value, np.ndarray):
        few = value.ravel()[:: max(1, value.size // _LOOKED_AT)].tolist()
        return value.shape, tuple(None if one != one else one for one in few)  # noqa: PLR0124 - NaN
    return len(value) if isinstance(value, (Mapping, tuple)) else value


class Held:
    """Base of frozen dataclasses whose arrays, mappings and lists are their own, in other processes too.

    Equal where the fields are that take part in comparisons (``field(compare=False)`` says which do not). Their hash
    looks at a few numbers of each array, so that it costs nothing.
    """

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in _compared(self.__class__))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash((type(self), *(_mark(getattr(self, name)) for name in _compared(self.__class__))))  # type: ignore[arg-type]

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.startswith("__") or not name.startswith("_")]

    def __post_init__(self) -> None:
        for name in _names(self.__class__):  # type: ignore[arg-type]
            value = getattr(self, name)
            kept = frozen(value)
            if kept is not value:
                object.__setattr__(self, name, kept)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only arrays arrive writable in another process: there the object is made anew.
        return _again, (type(self), {name: getattr(self, name) for name in _names(self.__class__)})  # type: ignore[arg-type]


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(column.name for column in fields(kind))


@cache
def _compared(kind: type) -> tuple[str, ...]:
    return tuple(column.name for column in fields(kind) if column.compare)


def _again(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**values)
