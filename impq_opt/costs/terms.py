"""The cost terms that every problem can use: storage, activation memory, representational, and explicit tables."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.groups.arrays import plain_array
from impq_opt.groups.held import Held
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = [
    "ActivationMemory",
    "CostTerm",
    "PairTables",
    "Pairs",
    "Representational",
    "Storage",
    "TableCost",
    "common_quantum",
    "largest_entry",
    "to_integers",
]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A cost that couples two groups: ``coefficient[e] * B_left * B_right`` for each edge e.

    left, right, coefficient : ndarray of int64 (E,)
        Indices of groups, and whole units per bit and bit, not negative.
    """

    left: IntArray
    right: IntArray
    coefficient: IntArray


@dataclass(frozen=True, eq=False)
class PairTables:
    """A cost looked up by the candidates of two groups: ``values[e, k_left, k_right] * quantum``.

    left, right : ndarray of int64 (E,)
    values : ndarray of int64 (E, K, K)
    """

    left: IntArray
    right: IntArray
    values: IntArray
    quantum: Fraction = Fraction(1)


class CostTerm(ABC):
    """A cost by name, a sum of parts, each of which may be missing.

    ``slope[g] * B_g`` or ``table[g, k] * quantum`` over groups, ``pairs`` and ``lookup`` over pairs of groups, and a
    ``constant``. A term with ``peaks`` is instead the largest of several linear rows.
    """

    name: str
    unit: str
    source: str

    @abstractmethod
    def slope(self, layout: Layout) -> IntArray | None:
        """Return whole units per bit (G,), or None where the term is a table."""

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        """Return (G, K) integers and the value of one of them in units; asked for where there is no slope."""
        raise NotImplementedError

    def pairs(self, layout: Layout) -> Pairs | None:
        """Return the part that multiplies the bits of two groups, if any."""
        return None

    def lookup(self, layout: Layout) -> PairTables | None:
        """Return the part that is looked up by the candidates of two groups, if any."""
        return None

    def constant(self, layout: Layout) -> int:
        """Return the part, in whole units, that does not depend on the precisions."""
        return 0

    def peaks(self, layout: Layout) -> tuple[tuple[str, IntArray], ...] | None:
        """Return named slopes (G,) of which the term is the largest; None for a term that is a sum."""
        return None

    def with_columns(self, take: Callable[[IntArray], IntArray]) -> CostTerm:
        """Return the term for fewer candidates; ``take`` keeps the columns of a (G, K) table."""
        return self

    def canonical(self) -> Iterator[tuple[str, object]]:
        """Yield what determines the term's values beside its name, for the problem's digest."""
        yield from ()


@dataclass(frozen=True)
class Storage(CostTerm):
    """Bits that hold the weights: the sum of N B over weight groups."""

    name: str = "storage"
    unit: str = "bit"
    source: str = "IMPQ (ICASSP 2022): sum N B over weight groups"

    def slope(self, layout: Layout) -> IntArray:
        return layout.sizes if layout.kinds is None else np.where(layout.kinds == 0, layout.sizes, 0)


@dataclass(frozen=True)
class ActivationMemory(CostTerm):
    """Bits that hold the activations of one sample: the sum of N B over activation groups."""

    name: str = "activation-memory"
    unit: str = "bit"
    source: str = "sum N B over activation groups, one sample"

    def slope(self, layout: Layout) -> IntArray:
        return np.zeros_like(layout.sizes) if layout.kinds is None else np.where(layout.kinds == 1, layout.sizes, 0)


@dataclass(frozen=True)
class Representational(CostTerm):
    """All weight bits plus all activation bits."""

    name: str = "representational"
    unit: str = "bit"
    source: str = "Sakr et al., ICML 2017: representational cost"

    def slope(self, layout: Layout) -> IntArray:
        return layout.sizes


@dataclass(frozen=True, eq=False)
class TableCost(Held, CostTerm):
    """An explicit cost for every group and candidate.

    Parameters
    ----------
    values : ndarray of int64 (G, K)
        Columns past a group's last candidate are ignored.
    quantum : Fraction
        What one integer is worth in ``unit``.
    rounding : float
        The largest difference, in ``unit``, between a given float and the multiple of ``quantum`` that stands for it;
        0 where the scaling is exact.
    fixed : int
        Units that no candidate changes, such as the header of a file; a multiple of the quantum.
    """

    values: IntArray
    quantum: Fraction = Fraction(1)
    name: str = "cost"
    unit: str = ""
    source: str = "given as a table"
    rounding: float = 0.0
    fixed: int = 0

    @classmethod
    def from_array(
        cls, values: npt.ArrayLike, *, name: str = "cost", unit: str = "", source: str = "given as a table"
    ) -> TableCost:
        """Read costs (G, K) of any real type; floats get an exact integer scaling, stated in ``quantum``.

        Raises
        ------
        ProblemError
            Where it is no table of finite real numbers, or too large for exact sums.
        """
        array = plain_array(values, f"costs.{name}", "must hold real numbers")
        if array.ndim != 2 or array.size == 0:
            raise ProblemError(
                "must be a non-empty array of shape (groups, candidates)",
                where=f"costs.{name}",
                value=array.shape,
            )
        if array.dtype.kind == "O" and any(isinstance(value, (Fraction, float)) for value in array.flat):
            integers, quantum, rounding = _of_fractions(array, f"costs.{name}")
        elif array.dtype.kind in "iuO":  # Python's own numbers are whole ones
            if array.dtype.kind == "O" or array.dtype == np.uint64:  # what int64 may not hold
                _check_total(largest_entry(array), len(array), f"costs.{name}")
            integers, quantum, rounding = array.astype(np.int64, copy=False), Fraction(1), 0.0
        else:
            integers, quantum, rounding = to_integers(array.astype(np.float64, copy=False), f"costs.{name}")
        return cls(integers, quantum, name, unit, source, rounding)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_total(largest_entry(self.values), len(self.values), f"costs.{self.name}")
        self._check_fixed()

    def slope(self, layout: Layout) -> None:
        return None

    def constant(self, layout: Layout) -> int:
        return self.fixed

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        return self.values, self.quantum

    def _check_fixed(self) -> None:
        quanta = Fraction(self.fixed) / self.quantum
        most = LARGEST_TOTAL - largest_entry(self.values) * len(self.values)
        if self.fixed < 0 or quanta.denominator != 1 or quanta >= most:
            raise ProblemError(
                "must be a whole number of quanta, and small enough for exact 64-bit sums",
                where=f"costs.{self.name}.fixed",
                value=self.fixed,
            )

    def with_columns(self, take: Callable[[IntArray], IntArray]) -> TableCost:
        return replace(self, values=take(self.values))

    def canonical(self) -> Iterator[tuple[str, object]]:
        yield "quantum", str(self.quantum)
        yield "values", self.values
        if self.fixed:
            yield "fixed", self.fixed


def largest_entry(values: npt.NDArray[Any]) -> int:
    """Return the largest absolute value of an array of integers, 0 of an empty one; it cannot overflow."""
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _check_total(largest: int, count: int, where: str) -> None:
    if largest * count >= LARGEST_TOTAL:
        raise ProblemError(
            "costs are too large for exact 64-bit sums",
            where=where,
            value=largest,
            hint=f"{count} groups may cost {(LARGEST_TOTAL - 1) // count} each; use a coarser unit",
        )


def to_integers(values: npt.NDArray[np.float64], where: str) -> tuple[IntArray, Fraction, float]:
    """Return integers, a quantum and the largest rounding error that stand for float costs.

    Tried in turn: decimals of up to nine places (0.1 is read as one tenth where every entry is the float64 nearest to
    such a decimal); the floats' own binary value; and where that needs more than 64 bits, the finest power of two whose
    sums still fit, with the rounding error stated.

    Raises
    ------
    ProblemError
        Where a value is not finite.
    """
    finite = np.isfinite(values)
    if not finite.all():
        place = [int(i) for i in np.argwhere(~finite)[0]]
        raise ProblemError("must be finite", where=f"{where}{place}", value=float(values[tuple(place)]))
    largest = float(np.abs(values).max())
    # The room, an exponent apart: it may leave the range of float64.
    mantissa, exponent = math.frexp(largest)
    room = float(LARGEST_TOTAL) / (mantissa or 1.0) / len(values)
    for places in range(10):
        scale = 10.0**places
        if math.frexp(scale)[1] + exponent > 1000 or math.ldexp(scale, exponent) >= room:
            break
        whole = np.rint(values * scale)
        if np.abs(whole).max() < 2.0**53 and np.array_equal(whole / scale, values):
            return whole.astype(np.int64), Fraction(1, 10**places), 0.0
    shift = math.frexp(room)[1] - 2 - exponent  # 2**shift <= half of the room
    scaled = np.ldexp(values, shift)
    whole = np.rint(scaled)
    lost = float(np.abs(scaled - whole).max())
    rounding = max(float(np.ldexp(lost, -shift)), math.ulp(0.0) if lost else 0.0)
    return whole.astype(np.int64), Fraction(2) ** -shift, rounding


def _of_fractions(values: npt.NDArray[Any], where: str) -> tuple[IntArray, Fraction, float]:
    """Return what :func:`to_integers` does for fractions: exact where 64 bits hold the sums, else as float64."""
    exact = [value for value in values.flat if isinstance(value, Fraction)]
    if len(exact) == values.size:
        quantum = common_quantum(exact) or Fraction(1)
        if max(map(abs, exact)) / quantum * len(values) < LARGEST_TOTAL:
            return (values / quantum).astype(np.int64), quantum, 0.0
    try:
        return to_integers(values.astype(np.float64), where)
    except OverflowError:
        raise ProblemError("is beyond the range of float64", where=where) from None


def common_quantum(values: list[Fraction]) -> Fraction:
    """Return the largest fraction of which all positive ``values`` are whole multiples."""
    top, bottom = 0, 1
    for value in values:
        bottom = bottom * value.denominator // math.gcd(bottom, value.denominator)
    for value in values:
        top = math.gcd(top, value.numerator * (bottom // value.denominator))
    return Fraction(top, bottom)
