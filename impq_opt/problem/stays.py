"""What of a network stays as it is, and what the whole network takes: its groups and all that is in none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from impq_opt.documents.numbers import read_exact, read_whole
from impq_opt.errors import ProblemError
from impq_opt.exactness.sums import nearest_float
from impq_opt.problem.plain import finite

__all__ = ["STORED", "Stay", "Whole", "by_reason", "check_stays", "staying_lines", "width"]

# Bits of a parameter where nobody says how it is stored: float32.
STORED = 32

_SHOWN = 3  # names in a line

_MOST = 2**55  # elements, as in a problem file
_WIDEST = 2**16  # bits of one element


@dataclass(frozen=True)
class Stay:
    """A parameter of the network, or a part of one, that is in no group and stays as it is stored.

    Parameters
    ----------
    name : str
        The parameter's name, such as ``"experts.w1"``.
    elements : int
    bits : int or Fraction
        Of one element, as it is stored.
    reason : str
        Why it is in no group, such as ``"not a weight of a convolution or linear layer"``.
    """

    name: str
    elements: int
    bits: int | Fraction
    reason: str

    def __post_init__(self) -> None:
        for key in ("name", "reason"):
            text = getattr(self, key)
            if not isinstance(text, str) or not text.strip():
                raise ProblemError("must be a text that is not empty", where=key, value=text)
        elements, bits = read_whole(self.elements, "elements"), width(self.bits, "bits")
        if not 1 <= elements <= _MOST:
            raise ProblemError("must be at least 1, and at most 2^55", where="elements", value=self.elements)
        object.__setattr__(self, "elements", elements)
        object.__setattr__(self, "bits", bits)


def width(value: object, where: str) -> int | Fraction:
    """Return how many bits an element takes, exactly; raise ProblemError unless above 0 and below 2^16."""
    bits = read_exact(value, where)
    if not 0 < bits < _WIDEST:
        raise ProblemError("must be above 0 and below 2^16", where=where, value=value)
    return bits.numerator if bits.denominator == 1 else bits


def check_stays(stays: Iterable[Stay]) -> tuple[Stay, ...]:
    """Return what stays as a tuple, one reason after the other; raise ProblemError where an entry is none."""
    try:
        entries = tuple(stays)
    except TypeError:
        raise ProblemError("must be a list of Stay", where="stays", value=stays) from None
    names: set[str] = set()
    for place, entry in enumerate(entries):
        if not isinstance(entry, Stay):
            raise ProblemError("must be a Stay", where=f"stays[{place}]", value=entry)
        if entry.name in names:
            raise ProblemError("is listed twice", where=f"stays[{place}]", value=entry.name)
        names.add(entry.name)
    return tuple(entry for some in by_reason(entries).values() for entry in some)


def by_reason(stays: Iterable[Stay]) -> dict[tuple[str, int | Fraction], list[Stay]]:
    """Return what stays by reason and bits, in the order in which these first come."""
    alike: dict[tuple[str, int | Fraction], list[Stay]] = {}
    for stay in stays:
        alike.setdefault((stay.reason, stay.bits), []).append(stay)
    return alike


@dataclass(frozen=True)
class Whole:
    """What a whole network takes: the weights in groups at their bits, and what stays at its own.

    Parameters
    ----------
    bits : Fraction
        All parameters as they are then.
    stored : Fraction
        All parameters as the network stores them.
    parameters : int
        Weights in groups and what stays; a parameter that is used twice counts once.
    staying : int
        Those that stay as they are.
    """

    bits: Fraction
    stored: Fraction
    parameters: int
    staying: int

    @classmethod
    def of(cls, groups: Fraction, weights: int, stored: int | Fraction, stays: Sequence[Stay]) -> Whole:
        """Add what stays to so many ``weights`` in groups, which take ``groups`` bits and took ``stored`` each."""
        staying = sum(stay.elements for stay in stays)
        kept = sum((stay.elements * Fraction(stay.bits) for stay in stays), Fraction(0))
        return cls(groups + kept, weights * Fraction(stored) + kept, weights + staying, staying)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, in bits."""
        return {
            "bits": finite(self.bits),
            "parameters": self.parameters,
            "staying": self.staying,
            "bits_per_parameter": nearest_float(self.mean),
            "compression_ratio": None if self.ratio is None else nearest_float(self.ratio),
        }

    @property
    def mean(self) -> Fraction:
        """Bits of a parameter."""
        return self.bits / self.parameters

    @property
    def ratio(self) -> Fraction | None:
        """How many times smaller the network is than as it is stored; None where nothing is left of it."""
        return self.stored / self.bits if self.bits else None


def staying_lines(stays: Sequence[Stay], weights: int) -> list[str]:
    """Return in words what stays, beside so many ``weights`` in groups: a line a reason, the largest first."""
    total = weights + sum(stay.elements for stay in stays)
    parts = sorted(by_reason(stays).items(), key=lambda part: -sum(stay.elements for stay in part[1]))
    lines = []
    for (reason, bits), entries in parts:
        names = ", ".join(stay.name for stay in entries[:_SHOWN])
        more = f" and {len(entries) - _SHOWN:,} more" if len(entries) > _SHOWN else ""
        count = sum(stay.elements for stay in entries)
        width = f"{float(bits):g}"
        lines.append(f"{names}{more}: {reason}; {count:,} of {total:,} parameters stay at {width} bits")
    return lines
