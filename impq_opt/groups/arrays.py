"""Reading callers' arrays, names and numbers: one clear sentence for each thing that is not what it should be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impq_opt.documents.numbers import number_of, read_exact, read_float
from impq_opt.errors import ProblemError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.candidates import Candidates, gather_sets
from impq_opt.groups.held import held
from impq_opt.groups.names import GroupNames
from impq_opt.types import FloatArray, IntArray, KindArray

__all__ = [
    "ACTIVATION",
    "KIND_NAMES",
    "WEIGHT",
    "allowed_tables",
    "candidate_sets",
    "exact_bound",
    "float_array",
    "group_names",
    "int_array",
    "kind_array",
    "labels_of",
    "plain_array",
    "positive",
    "precisions",
    "rectangles",
    "split_mask",
]


WEIGHT, ACTIVATION = 0, 1
KIND_NAMES = ("weight", "activation")

# The largest float64 below 2^63: what lies above it does not come back from int64.
_LARGEST_WHOLE = 2**63 - 1024


def exact_bound(value: object, where: str = "bound") -> Fraction:
    """Return a bound on damage as an exact number; raise ProblemError unless it is finite and positive."""
    return positive(value, where, "a bound is a number above 0, such as 0.01")


def positive(value: object, where: str, hint: str = "") -> Fraction:
    """Return a number exactly, a float as the binary number that it is; raise ProblemError unless finite and > 0."""
    if isinstance(value, str):
        raise ProblemError("must be a number", where=where, value=value, hint=hint)
    number = read_exact(value, where, hint=hint)
    if number <= 0:
        raise ProblemError("must be positive", where=where, value=nearest_float(number), hint=hint)
    return number


def float_array(values: object, where: str, dimensions: int = 1) -> FloatArray:
    """Return a held float64 array; raise ProblemError at ``where`` unless it is numeric, full and of that rank."""
    return _array(values, np.float64, where, dimensions)


def int_array(values: object, where: str, dimensions: int = 1, dtype: type[np.integer[Any]] = np.int64) -> IntArray:
    """Return a held array of whole numbers; floats are taken where they are whole."""
    return _array(values, dtype, where, dimensions)


def plain_array(values: object, where: str, what: str = "must be an array of numbers") -> npt.NDArray[Any]:
    """Return an array of real numbers; raise ProblemError where it is none, is partly masked, or has labels."""
    if labels_of(values) is not None:
        raise ProblemError(
            "has labels, which are read by Problem.from_sensitivities and from_tables only",
            where=where,
            hint="give its numbers: .to_numpy()",
        )
    array, masked = split_mask(values, where, what)
    if masked is not None:
        raise ProblemError(
            "is masked",
            where=f"{where}{np.argwhere(masked)[0].tolist()}",
            hint="a mask means that a candidate is not allowed, in the tables of cost and damage alone",
        )
    return array


def _array(values: object, dtype: type[Any], where: str, dimensions: int) -> npt.NDArray[Any]:
    is_float = issubclass(dtype, np.floating)
    array = plain_array(values, where, "must be an array of numbers" if is_float else "must hold whole numbers")
    if array.ndim != dimensions or array.size == 0:
        raise ProblemError(
            f"must be a non-empty array of {dimensions} dimension{'s' * (dimensions > 1)}",
            where=where,
            value=array.shape,
        )
    if array.dtype == dtype:
        return held(array)
    if is_float:
        converted = _floats(array, where)
        if array.dtype.kind in "iu" and int(abs(converted).max()) >= 2**53 and not _same_whole(converted, array):
            raise ProblemError("holds whole numbers that float64 cannot", where=where, value=array.dtype.name)
        return held(converted)
    if array.dtype.kind == "O":
        whole = all(isinstance(value, (int, Fraction)) and value == int(value) for value in array.flat)
    else:
        whole = array.dtype.kind != "f" or bool((np.isfinite(array) & (array == np.rint(array))).all())
    if not whole:
        swapped = "are sizes and sensitivities in each other's place?" if where == "sizes" else ""
        raise ProblemError("must hold whole numbers", where=where, value=array.dtype.name, hint=swapped)
    limits = np.iinfo(dtype)
    low, high = (np.asarray(end).item() for end in (array.min(), array.max()))
    if not (limits.min <= low and high <= min(limits.max, _LARGEST_WHOLE)):
        worst = high if high > -low else low
        raise ProblemError(f"is too large for {limits.bits} bits", where=where, value=worst)
    return held(array.astype(dtype))


def _same_whole(floats: npt.NDArray[Any], whole: npt.NDArray[Any]) -> bool:
    # Compared as Python's numbers: NumPy would round one side to the other's type.
    return all(first == second for first, second in zip(floats.ravel().tolist(), whole.ravel().tolist(), strict=True))


def split_mask(
    values: object, where: str, what: str = "must be an array of numbers"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """Return the numbers of an array and what of it is masked, None for nothing.

    Raises
    ------
    ProblemError
        Where it is no array of numbers, or a whole number would be rounded.
    """
    if isinstance(values, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in values):
        values = _stacked(values, where)
    try:
        array = np.asarray(_without_tensors(values))
        if array.dtype.kind == "V" and array.dtype.names is None:  # such as bfloat16, which NumPy itself lacks
            array = array.astype(np.float64)
        if array.dtype.kind == "O":  # such as a table with columns of several types
            exact = _exact_numbers(array)
            array = _whole_as_given(array, np.array(array.tolist()), where) if exact is None else exact
        elif array.dtype.kind == "f" and isinstance(values, (list, tuple)) and np.abs(array).max(initial=0) >= 2.0**53:
            array = _whole_as_given(np.array(values, dtype=object), array, where)
        if array.dtype.kind not in "iufO" or (array.dtype.kind != "O" and array.dtype.itemsize > 8):
            raise ValueError
    except ProblemError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's
        raise ProblemError(what, where=where, value=_kind(values)) from None
    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return array, masked if masked is not None and masked.any() else None


def _without_tensors(values: Any) -> Any:
    """Return tensors of torch, and lists of them, as NumPy's arrays: without a gradient, in a type that NumPy has."""
    if isinstance(values, (list, tuple)):
        first = values
        while isinstance(first, (list, tuple)) and len(first):
            first = first[0]
        return list(map(_without_tensors, values)) if hasattr(first, "detach") else values
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16 and what is narrower
        return tensor.float().numpy()


def _exact_numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return an array of objects as fractions where some are fractions or decimals, else None; infinities stay."""
    given = [number_of(value) for value in array.flat]
    if not any(isinstance(value, (Fraction, Decimal)) for value in given):
        return None
    numbers = np.empty(len(given), dtype=object)
    for place, value in enumerate(given):
        if isinstance(value, bool) or not isinstance(value, (int, float, Fraction, Decimal, np.integer, np.floating)):
            raise ValueError
        if isinstance(value, (float, np.floating)) and math.isfinite(value):
            numbers[place] = Fraction(repr(float(value)))  # its shortest decimal, as costs are read
        elif isinstance(value, (float, np.floating)) or (isinstance(value, Decimal) and not value.is_finite()):
            numbers[place] = float(value)
        else:
            numbers[place] = read_exact(value, "table")
    return numbers.reshape(array.shape)


def _floats(array: npt.NDArray[Any], where: str) -> FloatArray:
    """Return the float64 nearest to each number."""
    try:
        return array.astype(np.float64)
    except OverflowError:
        raise ProblemError("is beyond the range of float64", where=where) from None


def rectangles(tables: dict[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
    """Return tables whose rows, given one by one, differ in length, filled up with zeros, and how long the rows are.

    Where rows do not differ the tables are returned as they are, and None.

    Raises
    ------
    ProblemError
        Where two tables differ in the length of a row.
    """
    lengths = {where: own for where, values in tables.items() if (own := _lengths(values)) is not None}
    if all(len(set(own)) <= 1 for own in lengths.values()):
        return tables, None
    if len(lengths) < len(tables):
        raise ProblemError("has rows of several lengths, the other table has not", where=next(iter(lengths)))
    (where, first), *others = lengths.items()
    for other, own in others:
        if own != first:
            count = min(len(own), len(first))
            place = next((g for g in range(count) if own[g] != first[g]), count)
            found = [one[place] if place < count else None for one in (first, own)]
            raise ProblemError(f"must have rows as long as those of {where}", where=f"{other}[{place}]", value=found)
    width = max(first)
    if not min(first):
        raise ProblemError("a group needs at least one candidate", where=f"{where}[{first.index(0)}]", value=[])
    return {name: [_filled(row, width) for row in values] for name, values in tables.items()}, first


def _filled(row: Any, width: int) -> list[Any]:
    numbers = row if isinstance(row, (list, tuple)) else _without_tensors(row).tolist()
    return [*numbers, *[0] * (width - len(numbers))]


def _lengths(values: Any) -> list[int] | None:
    """Return the length of each row where rows are given one by one, else None."""
    if not isinstance(values, (list, tuple)):
        return None
    try:
        return [len(row) for row in values]
    except TypeError:  # numbers, or tensors of one
        return None


def _whole_as_given(given: npt.NDArray[Any], read: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return what NumPy has ``read``, or Python's own numbers where all are whole and 64 bits may not hold them."""
    whole = [value for value in given.flat if isinstance(value, (int, np.integer)) and not isinstance(value, bool)]
    if len(whole) == given.size > 0:
        return read if read.dtype.kind == "i" else given
    if read.dtype.kind not in "iuf":
        raise ValueError
    rounded = [value for value in whole if int(float(value)) != value]
    if rounded:
        raise ProblemError(
            "is no float64, as the numbers beside it are", where=where, value=rounded[0], hint="give whole numbers only"
        )
    return read


def allowed_tables(cost: object, damage: object) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return cost and damage (G, K), whose damage is infinite where either is masked or infinite.

    Raises
    ------
    ProblemError
        Where they are not two tables of one shape.
    """
    costs, cost_masked = split_mask(cost, "costs.cost", "must hold real numbers")
    if costs.dtype.kind == "O":
        infinite = np.array([isinstance(value, float) and value == math.inf for value in costs.flat])
        if infinite.any():
            cost_masked = infinite.reshape(costs.shape) | (False if cost_masked is None else cost_masked)
    table, masked = split_mask(damage, "damage")
    if table.ndim != 2 or table.size == 0:
        raise ProblemError("must be a non-empty array of 2 dimensions", where="damage", value=table.shape)
    if costs.shape != table.shape:
        raise ProblemError("cost and damage must have one shape", where="cost", value=(costs.shape, table.shape))
    unbounded = np.isposinf(costs) if costs.dtype.kind == "f" else None
    if unbounded is not None and unbounded.any():
        cost_masked = unbounded if cost_masked is None else cost_masked | unbounded
    if cost_masked is not None:
        # Never read: a candidate that is not allowed costs nothing.
        costs = np.where(cost_masked, 0 if costs.dtype.kind == "O" else costs.dtype.type(0), costs)
    if masked is None and cost_masked is None:
        return costs, table
    table = _floats(table, "damage")
    if masked is not None:
        table[masked] = np.inf
    if cost_masked is not None:
        table[cost_masked & (table >= 0)] = np.inf  # what is no damage at all stays, to be told
    return costs, table


def _stacked(rows: Sequence[object], where: str) -> object:
    try:
        return np.ma.stack([np.ma.asarray(row) for row in rows])
    except ValueError:
        raise ProblemError("must have rows of one length", where=where) from None


def _kind(values: object) -> object:
    return values if isinstance(values, (str, int, float, list, tuple)) or values is None else type(values).__name__


def labels_of(values: object) -> tuple[tuple[Any, ...] | None, tuple[Any, ...] | None] | None:
    """Return the labels of rows and of columns that a table or series of another library has, None for a plain array.

    Nothing is imported: what has ``index`` or ``columns`` (methods of those names, such as a list's, aside) has labels.
    """
    axes = [getattr(values, name, None) for name in ("index", "columns")]
    rows, columns = (None if axis is None or callable(axis) else tuple(axis) for axis in axes)
    return None if rows is None and columns is None else (rows, columns)


def group_names(names: Sequence[str] | GroupNames | None, count: int) -> GroupNames:
    """Return names as they are kept; numbered ones where none are given."""
    if isinstance(names, GroupNames):
        return names
    return GroupNames.numbered(count) if names is None else GroupNames.explicit(list(names))


def kind_array(kinds: Sequence[str] | npt.ArrayLike | None) -> KindArray | None:
    """Return 0 (weight) or 1 (activation) for each group, from words or numbers.

    Raises
    ------
    ProblemError
        Where a kind is neither, or is masked.
    """
    if kinds is None:
        return None
    if np.ma.is_masked(kinds):
        raise ProblemError("is masked", where="kinds", hint="every group is a weight or an activation")
    array = np.asarray(kinds)
    if array.dtype.kind not in "iu":
        unknown = [(i, str(k)) for i, k in enumerate(array.tolist()) if k not in KIND_NAMES]
        if unknown:
            raise ProblemError(
                "must be 'weight' or 'activation'", where=f"groups[{unknown[0][0]}].kind", value=unknown[0][1]
            )
        array = array == "activation"
    return held(array.astype(np.int8)) if array.dtype == bool else _array(array, np.int8, "kinds", 1)


def candidate_sets(
    bits: Sequence[float] | Sequence[Sequence[float]] | None,
    count: int,
    width: int,
    formats: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
) -> Candidates:
    """Return the candidates of tables (count, width): one list for all, one a group, or the column numbers.

    ``lengths`` are those of the rows, where they differ.

    Raises
    ------
    ProblemError
        Where there is not one list a group, or a list is no list of distinct precisions.
    """
    named = (tuple(formats),) if formats else ()
    if bits is None and lengths is not None:
        return replace(gather_sets([tuple(map(float, range(own))) for own in lengths]), numbered=True)
    if bits is None:
        return Candidates((tuple(float(k) for k in range(width)),), None, named, numbered=True)
    rows = list(bits)
    if rows and np.ndim(cast(Any, number_of(rows[0]))) > 0:
        if len(rows) != count:
            raise ProblemError("must have one list per group", where="bits", value=len(rows))
        sets = [precisions(cast(Sequence[float], row), f"bits[{g}]") for g, row in enumerate(rows)]
        for group, (one, own) in enumerate(zip(sets, lengths or (), strict=False)):
            if len(one) != own:
                raise ProblemError(
                    "must have a precision for each number of the rows", where=f"bits[{group}]", value=(len(one), own)
                )
        return gather_sets(sets)
    if lengths is not None:
        raise ProblemError("must be one list per group, as rows differ in length", where="bits", value=rows)
    return Candidates((precisions(cast(Sequence[float], rows), "bits"),), None, named)


def precisions(bits: Iterable[float], where: str) -> tuple[float, ...]:
    """Return precisions as floats; raise ProblemError unless they are a list of finite numbers."""
    if isinstance(bits, str) or not isinstance(bits, Iterable):
        raise ProblemError("must be a list of precisions", where=where, value=bits, hint="e.g. [2, 4, 8]")
    return tuple(read_float(width, f"{where}[{k}]") for k, width in enumerate(bits))
