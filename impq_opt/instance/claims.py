"""A claim as it comes from any strategy: of the right types, of numbers that can be reckoned with, fit for a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from impq_opt.errors import SolverError
from impq_opt.instance.contract import Claim
from impq_opt.problem.allocation import Enumeration, Stop

__all__ = ["checked"]

# Digits of a bound, in bits: more than any sum of costs or damages has.
_LONGEST = 12_000
# Statistics inside statistics, and things in one of them.
_DEEPEST, _MOST = 8, 10_000


def checked(claim: object, name: str) -> Claim:
    """Return the claim of solver ``name`` in plain numbers.

    Raises
    ------
    SolverError
        Where it is no claim, or a field of it, which is named, is none.
    """
    if not isinstance(claim, Claim):
        raise SolverError(f"solver {name!r} returned {type(claim).__name__}, not a Claim")
    right = {
        "choice": claim.choice is None or type(claim.choice) is np.ndarray,
        "lower_bound": _is_bound(claim.lower_bound),
        "multipliers": isinstance(claim.multipliers, Mapping)
        and all(isinstance(key, str) and _is_price(value) for key, value in claim.multipliers.items()),
        "enumeration": claim.enumeration is None or _counts(claim.enumeration),
        "tangent": claim.tangent is None or _is_point(claim.tangent),
        "stop": isinstance(claim.stop, Stop),
        "statistics": isinstance(claim.statistics, Mapping),
    }
    for field, is_right in right.items():
        if not is_right:
            raise SolverError(f"solver {name!r} claimed a {field} that is none: {_brief(getattr(claim, field))}")
    bound = claim.lower_bound
    try:
        statistics = _in_json(claim.statistics, _DEEPEST)
    except ValueError as error:
        raise SolverError(f"solver {name!r} gave statistics that {error}") from None
    return Claim(
        claim.choice,
        bound.item() if isinstance(bound, np.generic) else bound,
        {key: float(value) for key, value in claim.multipliers.items()},
        claim.enumeration,
        claim.stop,
        statistics,
        claim.tangent,
    )


def _is_bound(value: object) -> bool:
    if isinstance(value, (float, np.floating)):
        return not math.isnan(value)
    if not isinstance(value, (int, np.integer, Fraction)) or isinstance(value, bool):
        return False
    exact = value if isinstance(value, Fraction) else Fraction(int(value))
    return max(exact.numerator.bit_length(), exact.denominator.bit_length()) <= _LONGEST


def _is_price(value: object) -> bool:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_point(value: object) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 1:
        return False
    return bool(np.isfinite(value).all())


def _counts(enumeration: object) -> bool:
    return isinstance(enumeration, Enumeration) and all(
        isinstance(count, (int, np.integer)) and 0 <= count < 1 << 63
        for count in (enumeration.groups, enumeration.states)
    )


def _in_json(value: Any, depth: int) -> Any:
    """Return ``value`` in JSON's own types; what has none is written as text."""
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 63):
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if not depth:
            raise ValueError("are nested too deep")
        if len(value) > _MOST:
            raise ValueError(f"hold more than {_MOST} values")
        if isinstance(value, Mapping):
            return {_text(key): _in_json(item, depth - 1) for key, item in value.items()}
        return [_in_json(item, depth - 1) for item in value]
    plain = value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 63)
    return value if plain else _text(value)


def _text(value: object) -> str:
    """Return ``value`` in words that a file can hold."""
    return (value if isinstance(value, str) else _brief(value)).encode("utf-8", "backslashreplace").decode()


def _brief(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception as error:  # whatever a stranger's object does when it is asked for its name
        return f"{type(value).__name__} ({type(error).__name__})"
