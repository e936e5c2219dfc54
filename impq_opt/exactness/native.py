"""The compiled exact sums, each behind a typed function that owns what it may be given.

Where they were not built, or may not take an array, NumPy does the same, more slowly. Set the environment variable
IMPQ_OPT_PURE to use NumPy in any case.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol, cast

import numpy as np

from impq_opt.exactness.build import load
from impq_opt.exactness.limits import MOST_COLUMNS, MOST_TERMS
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "MOST_COLUMNS",
    "MOST_ROWS",
    "ROWS_A_THREAD",
    "Dyadic",
    "Recount",
    "dyadic_sum",
    "least_on_lines",
    "library",
    "recount",
    "thread_count",
]

# A sum has a term for each row.
MOST_ROWS = MOST_TERMS
# Starting a thread takes longer than a few thousand rows.
ROWS_A_THREAD = 1 << 14

# Below this length Python integers are faster than NumPy: no array temporaries at all.
_SMALL = 256
# Pieces of 26 and 27 bits: 2**26 of them still add up below 2**53, so float accumulation in bincount is exact.
_LOW_BITS = 26
_CHUNK = 1 << 25

Dyadic = tuple[int, int]


class Library(Protocol):
    """``_exact.c``. Sums of float64 come as (integer, exponent)."""

    LIMITS: dict[str, int]

    def exact_sum(self, values: FloatArray, count: int, threads: int, /) -> Dyadic: ...

    def messages(  # a C function takes what it takes
        self,
        fixed: FloatArray,
        slope: FloatArray,
        own: IntArray,
        other: IntArray,
        rows: int,
        columns: int,
        out: FloatArray,
        /,
    ) -> None: ...

    def recount(  # noqa: PLR0917
        self,
        cost: IntArray,
        damage: FloatArray,
        levels: IntArray | None,
        scales: FloatArray | None,
        widths: IntArray | None,
        choice: IntArray,
        rows: int,
        columns: int,
        by_cost: bool,
        multiplier: float,
        factor: float,
        huge: float,
        threads: int,
        /,
    ) -> tuple[int, Dyadic, int, Dyadic] | None: ...


library = cast("Library | None", load("impq_opt.exactness._exact"))


def thread_count(rows: int) -> int:
    """Return the number of threads for an array of some rows; answers do not depend on it."""
    most = rows // ROWS_A_THREAD
    if most < 2:
        return 1
    return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def dyadic_sum(values: FloatArray, most: int = MOST_ROWS) -> Dyadic:
    """Return the exact sum of finite float64 values of any shape as (integer, exponent): integer * 2**exponent.

    The exponent is at least -1074. Compiled sums of more than ``most`` terms could overflow.
    """
    values = np.ascontiguousarray(values, dtype=np.float64)
    if library is not None and values.size <= most:
        return library.exact_sum(values, values.size, thread_count(values.size))
    flat = values.reshape(-1)
    if flat.size <= _SMALL:
        return _sum_python(flat.tolist())
    total = 0  # in units of 2**-(1074 + 53)
    for start in range(0, flat.size, _CHUNK):
        mantissa, exponent = np.frexp(flat[start : start + _CHUNK])
        scaled = np.ldexp(mantissa, 53)  # an integer below 2**53
        high = np.floor(np.ldexp(scaled, -_LOW_BITS))
        low = scaled - np.ldexp(high, _LOW_BITS)
        first = int(exponent.min())
        exponent -= first
        sums_high = np.bincount(exponent, weights=high)
        sums_low = np.bincount(exponent, weights=low)
        for offset in np.flatnonzero((sums_high != 0) | (sums_low != 0)).tolist():
            piece = (int(sums_high[offset]) << _LOW_BITS) + int(sums_low[offset])
            total += piece << (1074 + first + offset)
    return total >> 53, -1074  # every float64 is a multiple of 2**-1074


def _sum_python(values: list[float]) -> Dyadic:
    total, places = 0, 0
    for value in values:
        top, bottom = value.as_integer_ratio()
        own = bottom.bit_length() - 1
        if own > places:
            total <<= own - places
            places = own
        total += top << (places - own)
    return total, -places


class Recount(NamedTuple):
    """What a choice costs and damages, and sums over all rows of the least cost and the least priced value."""

    cost: int
    damage: Dyadic
    least_cost: int
    least_values: Dyadic


def recount(
    tables: tuple[IntArray, FloatArray] | tuple[IntArray, FloatArray, IntArray, FloatArray],
    widths: IntArray | None,
    choice: IntArray,
    prices: tuple[bool, float, float, float],
    most_rows: int = MOST_ROWS,
    most_columns: int = MOST_COLUMNS,
) -> Recount | None:
    """Return cost, damage and dual sum of a ``choice`` (n,) in one pass; None where NumPy has to, or one is no column.

    Parameters
    ----------
    tables : tuple of ndarrays
        Cost and damage (n, K); or vectors (n,) of both, and what each column multiplies them by (K,).
    widths : ndarray of int64 (n,), optional
    prices : tuple
        Whether a row's value is cost + multiplier * damage or the other way round, the multiplier, the factor that
        takes roundings off, and what no value exceeds.
    """
    vectors = len(tables) == 4
    cost, damage = tables[0], tables[1]
    levels, scales = (tables[2], tables[3]) if len(tables) == 4 else (None, None)
    columns = cost.shape[1] if levels is None else len(levels)
    if library is None or columns > most_columns or len(choice) > most_rows:
        return None
    if vectors:
        cost, damage = np.ascontiguousarray(cost), np.ascontiguousarray(damage)
        levels, scales = np.ascontiguousarray(levels), np.ascontiguousarray(scales)
    elif not (cost.flags.c_contiguous and damage.flags.c_contiguous):  # copies of tables take longer
        return None
    widths = None if widths is None else np.ascontiguousarray(widths)
    choice = np.ascontiguousarray(choice, dtype=np.int64)
    rows = len(choice)
    sums = library.recount(*(cost, damage, levels, scales, widths, choice, rows, columns, *prices, thread_count(rows)))
    return None if sums is None else Recount(*sums)


def least_on_lines(
    fixed: FloatArray, slope: FloatArray, own: IntArray, other: IntArray, most_columns: int = MOST_COLUMNS
) -> FloatArray:
    """Return the least over k (n, K) of ``fixed[i, k] + slope[i] own[i, k] other[i, c]``, for each c."""
    count, width = fixed.shape
    if library is not None and width <= most_columns:
        least = np.empty((count, width))
        fixed, slope = np.ascontiguousarray(fixed), np.ascontiguousarray(slope)
        own, other = np.ascontiguousarray(own, dtype=np.int64), np.ascontiguousarray(other, dtype=np.int64)
        library.messages(fixed, slope, own, other, count, width, least)
        return least
    # (K, n), so that the minimum runs over whole rows
    rising, flat = slope * own.T, np.ascontiguousarray(fixed.T)
    return np.stack([(flat + rising * level).min(axis=0) for level in other.T], axis=1)
