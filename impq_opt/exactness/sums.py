"""Sums without rounding, and roundings in a stated direction.

The sums and roundings that decide feasibility and bounds are here and nowhere else. A float64 is read as the exact
binary number that it is, so a sum of damages is a :class:`fractions.Fraction` whose denominator is a power of two.
Every float64 is a whole number of the smallest one, 2**-1074; what adds and compares such sums many times keeps them as
integers in that unit.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from impq_opt.exactness import native
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "UNIT_BITS",
    "ceil_float",
    "dyadic",
    "dyadic_units",
    "exact_int_sum",
    "exact_sum",
    "exact_units",
    "float_above",
    "float_of",
    "float_units",
    "floor_float",
    "nearest_float",
    "of_units",
    "product",
    "reported_as_low",
    "sum_rows_down",
    "units_within",
]


# Every float64 is a whole number of 2**-1074.
UNIT_BITS = 1074
_ONE = 1 << UNIT_BITS


def exact_sum(values: FloatArray) -> Fraction:
    """Return the exact sum of finite float64 values, of any shape, as a fraction."""
    return dyadic(*native.dyadic_sum(values))


def exact_units(values: FloatArray) -> int:
    """Return the exact sum of finite float64 values, of any shape, in units of 2**-1074."""
    return dyadic_units(*native.dyadic_sum(values))


def dyadic_units(integer: int, exponent: int) -> int:
    """Return ``integer * 2**exponent``, a sum of float64s, in units of 2**-1074."""
    return integer << (exponent + UNIT_BITS)


def units_within(value: Fraction) -> int:
    """Return how many whole units of 2**-1074 ``value`` holds: a sum of float64s is at most both or neither."""
    return (value.numerator << UNIT_BITS) // value.denominator


def float_units(value: float) -> int:
    """Return a finite float64 in units of 2**-1074."""
    integer, denominator = value.as_integer_ratio()
    return integer << (UNIT_BITS + 1 - denominator.bit_length())


def product(value: int | float | Fraction, factor: int | Fraction) -> Fraction:
    """Return the product as a fraction, brought to lowest terms once."""
    (above, below), (more, less) = value.as_integer_ratio(), factor.as_integer_ratio()
    return Fraction(above * more, below * less)


def of_units(units: int) -> Fraction:
    """Return ``units`` of 2**-1074 as a fraction."""
    return Fraction(units, _ONE)


def float_of(units: int) -> float:
    """Return the float64 nearest to ``units`` of 2**-1074; infinite where it is out of range."""
    try:
        return units / _ONE
    except OverflowError:
        return math.inf if units > 0 else -math.inf


def float_above(units: int) -> float:
    """Return the smallest float64 that is not below ``units`` of 2**-1074."""
    nearest = float_of(units)
    if math.isinf(nearest):
        return nearest if nearest > 0 else -math.nextafter(math.inf, 0.0)
    integer, denominator = nearest.as_integer_ratio()
    return (
        nearest if integer << (UNIT_BITS + 1 - denominator.bit_length()) >= units else math.nextafter(nearest, math.inf)
    )


def dyadic(integer: int, exponent: int) -> Fraction:
    """Return ``integer * 2**exponent``."""
    return Fraction(integer << exponent) if exponent >= 0 else Fraction(integer, 1 << -exponent)


def exact_int_sum(values: IntArray) -> int:
    """Return the exact sum of int64 values of any shape; it cannot overflow."""
    flat = np.asarray(values, dtype=np.int64).reshape(-1)
    if flat.size == 0:
        return 0
    largest = max(abs(int(flat.max())), abs(int(flat.min())))
    if largest * flat.size < 1 << 62:
        return int(flat.sum())
    high = flat >> 32
    return (int(high.sum()) << 32) + int((flat - (high << 32)).sum())


def floor_float(value: Fraction) -> float:
    """Return the largest float64 that is not above ``value``."""
    nearest = nearest_float(value)
    if nearest == -math.inf or (nearest != math.inf and Fraction(nearest) <= value):
        return nearest
    return math.nextafter(nearest, -math.inf)


def ceil_float(value: Fraction) -> float:
    """Return the smallest float64 that is not below ``value``."""
    return -floor_float(-value)


def nearest_float(value: Fraction | float) -> float:
    """Return the float64 nearest to ``value``; infinite where it is out of range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def reported_as_low(damage: Fraction, other: Fraction) -> bool:
    """Return whether ``damage`` is reported as at most ``other``: by nearest float64s, exactly beyond their range."""
    reported = nearest_float(damage)
    return reported <= nearest_float(other) if math.isfinite(reported) else damage <= other


def sum_rows_down(rows: FloatArray) -> FloatArray:
    """Sum non-negative rows (members, K) over the first axis, each addition rounded down.

    The result (K,) is never above the exact sum, so using it in place of the sum relaxes an upper bound on damage.
    """
    total = rows[0].copy()
    for row in rows[1:]:
        with np.errstate(over="ignore", invalid="ignore"):
            added = total + row
            # Knuth's TwoSum gives the rounding error of an addition exactly; what overflows has none.
            part = added - total
            error = (total - (added - part)) + (row - part)
            total = np.where(error < 0, np.nextafter(added, -np.inf), np.minimum(added, np.finfo(np.float64).max))
    return total
