"""Numbers out of files and from the command line: one grammar, one limit, and exact values.

A number is written as a decimal (``12``, ``-0.5``, ``.5``, ``1e-3``) or as a fraction of whole numbers (``1/3``), with
a sign before it and blanks around it where one likes. Nothing else is one: no ``inf`` or ``nan``, no ``1_000``, no
hexadecimals, no digits other than 0 to 9. The limits keep every number small enough to be written out in full at once,
and lie outside whatever sums and products of float64 give, so what this package writes it also reads.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np

from impq_opt.errors import InputError, ProblemError

__all__ = ["DIGITS", "EXPONENT", "NUMBER", "exact_value", "number_of", "read_exact", "read_float", "read_whole"]

# The exact sum of ten million float64 damages has at most 1,100 digits on either side of the line, a product of two
# such 2,200. Python itself turns no text of more than 4,300 digits into a number.
DIGITS = 4000
EXPONENT = 999

# A number as a part of a longer pattern, such as that of a quantity with its unit.
NUMBER = r"[+-]?(?:[0-9]+/[0-9]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
_NUMBER = re.compile(NUMBER)
_EXPONENT = re.compile(r"[eE][+-]?0*([0-9]*)$")
_HINT = "such as 0.25, 1e-3 or 1/4"

_TEXT = 2 * DIGITS + 10
_BEYOND = 10**DIGITS


def number_of(value: object) -> object:
    """Return the number in an array or a tensor of no dimensions, and anything else as it is."""
    if isinstance(value, np.generic) or getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    return value.item()


def read_exact(
    value: object,
    where: str,
    *,
    error: type[InputError] = ProblemError,
    hint: str = _HINT,
    what: str = "must be a number",
) -> Fraction:
    """Return a number exactly: a text as the decimal or fraction that it spells, a float as its binary value.

    Parameters
    ----------
    value : str, int, float, Fraction or Decimal
        Or an array or a tensor that holds one.
    where : str
        The place, for the error.
    error : type of InputError
        Raised unless it is a finite number of at most ``DIGITS`` digits, with an exponent of at most ``EXPONENT``.
    hint : str
        What may stand there.
    what : str
        The rule that what is no number breaks.
    """
    value = number_of(value)
    if isinstance(value, str):
        number = _from_text(value, where, error, hint, what)
    elif isinstance(value, bool) or not isinstance(value, int | float | Fraction | Decimal | np.integer | np.floating):
        raise error(what, where=where, value=value, hint=hint)
    elif isinstance(value, float | Decimal | np.floating):
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            raise error("must be finite", where=where, value=float(value), hint=hint)
        if isinstance(value, Decimal) and value and abs(value.adjusted()) > DIGITS:  # before it is written out in full
            raise error(f"must be a number of at most {DIGITS} digits", where=where, hint=hint)
        number = Fraction(value if isinstance(value, Decimal) else float(value))
    else:
        number = Fraction(int(value)) if isinstance(value, np.integer) else Fraction(value)
    if max(abs(number.numerator), number.denominator) >= _BEYOND:
        raise error(f"must be a number of at most {DIGITS} digits", where=where, hint=hint)
    return number


def read_float(value: object, where: str, *, error: type[InputError] = ProblemError, hint: str = _HINT) -> float:
    """Return the float64 nearest to a number that is read as :func:`read_exact` does; 0 is never negative.

    Raises
    ------
    InputError
        Of the kind ``error``, where it is no finite number or beyond float64.
    """
    try:
        # Adding 0 leaves every number as it is but -0.0, which becomes 0.0.
        return float(read_exact(value, where, error=error, hint=hint, what="must be a finite number")) + 0.0
    except OverflowError:
        raise error("is beyond the range of float64", where=where, value=value, hint=hint) from None


def read_whole(value: object, where: str, *, error: type[InputError] = ProblemError, hint: str = "such as 64") -> int:
    """Return a whole number that is read as :func:`read_exact` does, so that ``64.0`` and ``1e3`` are whole too.

    Raises
    ------
    InputError
        Of the kind ``error``, where it is no whole number.
    """
    number = read_exact(value, where, error=error, hint=hint)
    if number.denominator != 1:
        raise error("must be a whole number", where=where, value=value, hint=hint)
    return number.numerator


def _from_text(text: str, where: str, error: type[InputError], hint: str, what: str) -> Fraction:
    if len(text) > _TEXT:
        raise error(f"must be a number of at most {DIGITS} digits", where=where, value=text[:80], hint=hint)
    spelled = text.strip(" \t\r\n")
    if not _NUMBER.fullmatch(spelled):
        raise error(what, where=where, value=text, hint=hint)
    exponent = _EXPONENT.search(spelled)
    if exponent and int(exponent[1][:5] or 0) > EXPONENT:
        raise error(f"must have an exponent of at most {EXPONENT}", where=where, value=text, hint=hint)
    try:
        return Fraction(spelled)
    except ZeroDivisionError:
        raise error("must not be divided by 0", where=where, value=text, hint=hint) from None
    except ValueError:  # more digits than Python was told to read
        raise error(f"must be a number of at most {DIGITS} digits", where=where, value=text[:80], hint=hint) from None


def exact_value(number: Fraction | float) -> int | float | str:
    """Return a number as a document holds it, which :func:`read_exact` reads as the same; a fraction as ``"p/q"``."""
    if isinstance(number, Fraction):
        return number.numerator if number.denominator == 1 else str(number)
    return int(number) if isinstance(number, (int, np.integer)) else float(number)
