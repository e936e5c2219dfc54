"""What goes to JSON: plain Python numbers, text, lists and dicts, and nothing that JSON has not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from impq_opt.exactness.sums import nearest_float

__all__ = ["finite", "fraction_text", "number", "plain"]


def number(value: Fraction | float) -> int | float:
    """Return an int where ``value`` is whole, else the nearest float64."""
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else nearest_float(value)
    return value


def finite(value: Fraction | float) -> float | int | None:
    """Return a number as JSON holds it: None for an infinite one, a float64 for a whole one past 64 bits."""
    value = number(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        value = nearest_float(Fraction(value))
    return value if math.isfinite(value) else None


def fraction_text(value: Fraction | float | None) -> str | None:
    """Return an exact number as ``"p/q"``, None where there is none."""
    return str(value) if isinstance(value, (Fraction, int)) else None


def plain(value: Any) -> Any:
    """Return ``value`` in JSON's own types; what has none is written as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (float, Fraction)):
        return finite(value)
    return value if isinstance(value, int) and abs(value) < 1 << 63 else str(value)
