"""Reading callers' arrays, names and numbers: one clear sentence for each thing that is not what it should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import nearest_float
from impq_opt.errors import ProblemError
from impq_opt.groups import Candidates, GroupNames, gather_sets

__all__ = [
    "ACTIVATION",
    "KIND_NAMES",
    "WEIGHT",
    "candidate_sets",
    "exact_bound",
    "float_array",
    "group_names",
    "int_array",
    "kind_array",
    "positive",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
KindArray = npt.NDArray[np.int8]

WEIGHT, ACTIVATION = 0, 1
KIND_NAMES = ("weight", "activation")


def exact_bound(value: object, where: str = "bound") -> Fraction:
    """Return a bound on damage as an exact number; raise ProblemError unless it is finite and positive."""
    return positive(value, where, "a bound is a number above 0, such as 0.01")


def positive(value: object, where: str, hint: str = "") -> Fraction:
    """Return a number exactly, a float as the binary number that it is; raise ProblemError unless finite and > 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction, np.floating, np.integer)):
        raise ProblemError("must be a number", where=where, value=value, hint=hint)
    if not isinstance(value, (int, Fraction)):
        if not math.isfinite(value):
            raise ProblemError("must be finite", where=where, value=float(value), hint=hint)
        value = float(value)
    if value <= 0:
        raise ProblemError("must be positive", where=where, value=nearest_float(value), hint=hint)
    return Fraction(value)


def float_array(values: npt.ArrayLike, where: str, dimensions: int = 1) -> FloatArray:
    """Return a read-only float64 array; raise ProblemError at ``where`` unless it is numeric, full and of that rank."""
    return _array(values, np.float64, where, dimensions)


def int_array(values: npt.ArrayLike, where: str) -> IntArray:
    """Return a read-only int64 vector; floats are taken where they are whole."""
    array = np.asarray(values)
    if array.dtype.kind in "fu" and array.size and (array >= 2.0**63).any():
        raise ProblemError("is too large for 64 bits", where=where, value=array.max().item())
    if array.dtype.kind == "f" and array.size and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" and array.size:
        raise ProblemError("must hold whole numbers", where=where, value=array.dtype.name)
    return _array(array, np.int64, where, 1)


def _array(values: npt.ArrayLike, dtype: type, where: str, dimensions: int) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise ValueError
        array = array.astype(dtype, copy=False).view()
    except (TypeError, ValueError):
        raise ProblemError("must be an array of numbers", where=where, value=values) from None
    if array.ndim != dimensions or array.size == 0:
        raise ProblemError(
            f"must be a non-empty array of {dimensions} dimension{'s' * (dimensions > 1)}",
            where=where,
            value=array.shape,
        )
    array.flags.writeable = False
    return array


def group_names(names: Sequence[str] | GroupNames | None, count: int) -> GroupNames:
    """Return names as they are kept; numbered ones where none are given."""
    if isinstance(names, GroupNames):
        return names
    return GroupNames.numbered(count) if names is None else GroupNames.explicit(list(names))


def kind_array(kinds: Sequence[str] | npt.ArrayLike | None) -> KindArray | None:
    """Return 0 (weight) or 1 (activation) for each group, from words or numbers."""
    if kinds is None:
        return None
    array = np.asarray(kinds)
    if array.dtype.kind in "iu":
        return array.astype(np.int8)
    unknown = [(i, str(k)) for i, k in enumerate(array.tolist()) if k not in KIND_NAMES]
    if unknown:
        raise ProblemError(
            "must be 'weight' or 'activation'", where=f"groups[{unknown[0][0]}].kind", value=unknown[0][1]
        )
    return (array == "activation").astype(np.int8)


def candidate_sets(bits: Sequence[float] | Sequence[Sequence[float]] | None, count: int, width: int) -> Candidates:
    """Return the candidates of tables (count, width): one list for all, one a group, or the column numbers."""
    if bits is None:
        return Candidates((tuple(float(k) for k in range(width)),), numbered=True)
    rows = list(bits)
    if rows and not isinstance(rows[0], (int, float, np.integer, np.floating)):
        if len(rows) != count:
            raise ProblemError("must have one list per group", where="bits", value=len(rows))
        return gather_sets([tuple(float(b) for b in cast(Sequence[float], row)) for row in rows])
    return Candidates((tuple(float(b) for b in rows),))  # type: ignore[arg-type]
