"""Quantities with units, in and out, without rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import cast

from impq_opt.documents.numbers import NUMBER, number_of, read_exact
from impq_opt.errors import OptionError, nearest
from impq_opt.exactness.sums import nearest_float
from impq_opt.types import Real

__all__ = ["format_quantity", "is_bare", "is_mean_bits", "parse_quantity", "readable_unit"]

_SI = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

# unit -> {suffix: number of units}
_FACTORS: dict[str, dict[str, Fraction]] = {
    "bit": {
        **{f"{p}bit": Fraction(f) for p, f in (_SI | _IEC).items()},
        **{f"{p}B": Fraction(8 * f) for p, f in (_SI | _IEC).items()},
    },
    "bit-op": {
        f"{p}{name}": Fraction(f) for p, f in _SI.items() for name in ("bit-op", "bit-OPs", "bitops", "BOPs", "bop")
    },
    "FA": {f"{p}{name}": Fraction(f) for p, f in _SI.items() for name in ("FA", "adders")},
    "cycle": {f"{p}{name}": Fraction(f) for p, f in _SI.items() for name in ("cycle", "cycles")},
    "s": {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6)},
    "J": {"J": Fraction(1), "mJ": Fraction(1, 10**3), "uJ": Fraction(1, 10**6)},
}
# What is read with SI prefixes, and what it is called then.
_PREFIXED = {"bit-op": "bit-OPs", "FA": "FA", "cycle": "cycles"}
# Mean bits of the weights; and what may stand for bits and for bytes.
_MEAN = "bpw"
_EITHER = re.compile("([kKmMgGtT]?[iI]?)[bB]")
# What people write is far below; a Fraction is a limit in whole quanta, of a quantum of any size.
_LARGEST = Fraction(10) ** 100
_QUANTITY = re.compile(rf"\s*({NUMBER})\s*([A-Za-z-]{{0,20}})\s*")


def parse_quantity(text: str | Real, unit: str, where: str = "quantity", *, weights: int | None = None) -> Fraction:
    """Return ``text`` (``"100KiB"``, ``"1.5 Mbit"``, ``"1/3"`` or a plain number of ``unit``) as an exact number.

    Decimals are read as decimals: ``"0.1"`` is one tenth, not the nearest float64, and so is the float 0.1. Where the
    quantity is the storage of ``weights`` weights, ``"4.5bpw"`` is their mean bits.

    Raises
    ------
    OptionError
        Where it is no number, its unit is not one of ``unit`` or may be two of them (kb), or it is too large.
    """
    text = str(text) if isinstance(text, Decimal) else cast("str | float | Fraction", number_of(text))
    number, suffix = (text, "") if isinstance(text, Fraction) else _parts(text, where)
    factors = _FACTORS.get(unit, {unit: Fraction(1)})
    if unit == "bit" and weights is not None:
        factors = factors | {_MEAN: Fraction(weights)}
    if suffix and suffix not in factors:
        raise _unknown(suffix, unit, factors, where)
    value = read_exact(number, where, error=OptionError) * (factors[suffix] if suffix else 1)
    if abs(value) > _LARGEST and not isinstance(text, Fraction):
        raise OptionError(
            "is too large", where=where, value=text, hint=f"at most {nearest_float(_LARGEST):g} {unit}".rstrip()
        )
    return value


def _unknown(suffix: str, unit: str, factors: Mapping[str, Fraction], where: str) -> OptionError:
    if suffix == _MEAN:
        return OptionError("bits per weight are a size of the storage of weights", where=where, value=suffix)
    size = _EITHER.fullmatch(suffix)
    if unit == "bit" and size:
        prefix = size[1].replace("K", "k") if len(size[1]) == 1 else size[1]
        prefix = prefix if prefix == "k" or not prefix else prefix[0].upper() + prefix[1:].lower()
        return OptionError("may be bits or bytes", where=where, value=suffix, hint=f"write {prefix}bit or {prefix}B")
    what = f"unknown unit for a quantity in {unit}" if unit else "unknown unit for a quantity without a unit"
    return OptionError(what, where=where, value=suffix, hint=nearest(suffix, factors) if unit else "give a bare number")


def is_mean_bits(text: object) -> bool:
    """Whether a size is given as mean bits of the weights, as in ``"4.5bpw"``."""
    return isinstance(text, str) and text.strip().endswith(_MEAN)


def is_bare(text: object) -> bool:
    """Whether a quantity is given as a number without a unit."""
    return isinstance(text, str) and re.fullmatch(rf"\s*({NUMBER})\s*", text) is not None


def _parts(text: str | float, where: str) -> tuple[str | int, str]:
    """Return a number, not negative, as it is spelled, and its unit."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text, ""
    match = None if isinstance(text, int) else _QUANTITY.fullmatch(str(text))
    if match is None or match[1].startswith("-"):
        raise OptionError(
            "must be a non-negative number with an optional unit", where=where, value=text, hint="for example 100KiB"
        )
    return match[1], match[2]


def readable_unit(value: Fraction | float, unit: str) -> tuple[float, str]:
    """Return how many of ``unit`` go into the unit in which people read ``value``, and that unit's name.

    ``readable_unit(819200, "bit") == (8192.0, "KiB")``: divide by the first, write the second.
    """
    number = abs(nearest_float(value))
    if unit == "bit":
        for suffix in ("GiB", "MiB", "KiB"):
            factor = float(_FACTORS["bit"][suffix])
            if number >= factor:
                return factor, suffix
        return (8.0, "B") if number % 8 == 0 else (1.0, "bit")
    if unit in _PREFIXED:
        name = _PREFIXED[unit]
        prefix = next((p for p in ("T", "G", "M", "k") if number >= _SI[p]), "")
        return float(_SI[prefix]), f"{prefix}{name}"
    if unit in ("s", "J") and number:
        for prefix, factor in (("", 1.0), ("m", 1e-3), ("u", 1e-6)):
            if number >= factor or prefix == "u":
                return factor, f"{prefix}{unit}"
    return 1.0, unit


def format_quantity(value: Fraction | float, unit: str) -> str:
    """Return ``value``, a number of ``unit``, for people: ``format_quantity(819200, "bit") == "100 KiB"``."""
    factor, name = readable_unit(value, unit)
    digits = 4 if factor != 1 or unit == "bit" or (unit in ("s", "J") and value) else 6
    return f"{nearest_float(value) / factor:.{digits}g} {name}".rstrip()
