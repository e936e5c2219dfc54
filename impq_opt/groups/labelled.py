"""Tables with labels, such as those of pandas: rows and columns are put in one order by label, never by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from impq_opt.errors import ProblemError
from impq_opt.groups.arrays import labels_of

__all__ = ["Aligned", "align"]

Labels = tuple[Any, ...]
# Labels as they are shown and compared: those of an index of several levels are joined.
_JOINT = "."


@dataclass(frozen=True)
class Aligned:
    """Arrays in one order, without labels.

    Parameters
    ----------
    arrays : mapping of str to array
        By the names under which they were given.
    names : sequence of str, optional
        Of the groups: as given, else the labels of the rows where they say more than a number each.
    bits : sequence, optional
        As given, else the labels of the columns where they are numbers and say more than their place.
    formats : tuple of str
        The labels of the columns where they are words.
    """

    arrays: Mapping[str, Any]
    names: Sequence[str] | None
    bits: Any
    formats: tuple[str, ...] = field(default=())


def align(given: Mapping[str, Any], names: Sequence[str] | None = None, bits: Any = None) -> Aligned:
    """Put tables and vectors in one order: that of ``names`` and ``bits``, else that of the first one with labels.

    Plain arrays are taken as they stand. Raise ProblemError where the labels of two are not the same.
    """
    labels = {where: own for where, values in given.items() if (own := labels_of(values)) is not None}
    if not labels:
        return Aligned(given, names, bits)
    axes: list[Labels | None] = []
    for axis, what in enumerate(("row", "column")):
        known = {where: _distinct(pair[axis], what, where) for where, pair in labels.items() if pair[axis] is not None}
        wanted = _wanted(axis, known, names, bits)
        axes.append(next(iter(known.values()), None) if wanted is None else wanted)
        for where, own in known.items():
            _match(own, axes[axis], what, where)
    arrays = {where: _in_order(values, labels.get(where), axes) for where, values in given.items()}
    rows, columns = axes
    if names is None and rows is not None and not _places(rows):
        names = [_shown(label) for label in rows]
    formats: tuple[str, ...] = ()
    if bits is None and columns is not None and not _places(columns):
        if all(map(_is_number, columns)):
            bits = [float(label) for label in columns]
        else:
            formats = tuple(map(_shown, columns))
    return Aligned(arrays, names, bits, formats)


def _wanted(axis: int, known: Mapping[str, Labels], names: Sequence[str] | None, bits: Any) -> Labels | None:
    """Return the labels that names or bits ask for, in the words of the tables; None where they name no labels."""
    first = next(iter(known.values()), ())
    given = names if axis == 0 else bits
    if given is None or not known or _places(first):
        return None
    if axis == 0:
        own = {_shown(label): label for label in first}
        return tuple(own.get(name, name) for name in given)
    if all(map(_is_number, first)):
        if not all(map(_is_number, given)):
            raise ProblemError(
                "must be one list for all groups where the columns of the tables have labels", where="bits"
            )
        return tuple(float(width) for width in given)
    return None


def _distinct(labels: Labels | None, what: str, where: str) -> Labels:
    seen: set[Any] = set()
    for label in labels or ():
        try:
            if label in seen:
                raise ProblemError(f"has two {what}s of one label", where=where, value=label)
            seen.add(label)
        except TypeError:
            raise ProblemError(f"has {what}s whose labels cannot be compared", where=where) from None
    return labels or ()


def _match(own: Labels, wanted: Labels | None, what: str, where: str) -> None:
    assert wanted is not None
    if set(own) == set(wanted) and len(own) == len(wanted):
        return
    odd = next((label for label in own if label not in set(wanted)), None)
    lacking = next((label for label in wanted if label not in set(own)), None)
    said = f"has no {what} {lacking!r}" if odd is None else f"has a {what} {odd!r} that the others have not"
    raise ProblemError(
        said, where=where, hint=f"give tables whose {what}s have the same labels, in any order, or plain arrays"
    )


def _in_order(values: Any, own: tuple[Labels | None, Labels | None] | None, axes: Sequence[Labels | None]) -> Any:
    if own is None:
        return values
    array = np.asarray(values)
    for axis, (labels, wanted) in enumerate(zip(own, axes, strict=True)):
        if labels is not None and wanted is not None and labels != wanted:
            place = {label: k for k, label in enumerate(labels)}
            array = np.take(array, [place[label] for label in wanted], axis=axis)
    return array


def _places(labels: Labels) -> bool:
    """Return whether labels are only 0, 1, 2, ..., as they are where nobody gave any."""
    return all(_is_number(label) and label == k for k, label in enumerate(labels))


def _is_number(label: object) -> bool:
    return isinstance(label, (int, float, np.integer, np.floating)) and not isinstance(label, bool)


def _shown(label: object) -> str:
    return _JOINT.join(map(str, label)) if isinstance(label, tuple) else str(label)
