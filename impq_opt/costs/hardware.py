"""Costs on processors whose speed by precision is published."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

import numpy as np

from impq_opt.costs.operations import INPUT_BITS, Reads, reads
from impq_opt.costs.terms import CostTerm, PairTables, common_quantum
from impq_opt.errors import ProblemError
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["BitFusionCycles", "MpicCycles"]

# Multiply-accumulates a cycle, by activation bits and then weight bits (Ottavi et al. 2020, arXiv:2010.04073).
_MPIC = {
    2: {2: "6.5", 4: "4.0", 8: "2.2"},
    4: {2: "3.9", 4: "3.5", 8: "2.1"},
    8: {2: "2.5", 4: "2.3", 8: "2.1"},
}
# A fusion unit has 16 bricks that each multiply 2 bits by 2 bits in a cycle; what needs more of them takes turns
# (Sharma et al. 2018, arXiv:1712.01507).
_BRICKS, _BRICK = 16, 2
_FUSED = (2, 4, 8, 16)


class _Cycles(CostTerm):
    """Cycles by the precisions of weight and activation; what the processor lacks runs at the next wider one."""

    cycles: ClassVar[dict[tuple[int, int], Fraction]]
    """Of one multiply-accumulate by weight and activation bits, all that the processor has of the one with all of the
    other."""

    def slope(self, layout: Layout) -> None:
        return None

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        edges = self._edges(layout)
        values = np.zeros((len(layout), layout.candidates.width), dtype=np.int64)
        for weight, activation, macs in zip(*(part.tolist() for part in edges), strict=True):
            if activation < 0:
                own = self._multiples(layout.candidates.of(weight), (INPUT_BITS,))[:, 0]
                values[weight, : len(own)] += macs * own
        return values, self._quantum()

    def lookup(self, layout: Layout) -> PairTables | None:
        edges = self._edges(layout)
        inside = edges.activation >= 0
        left, right, macs = (part[inside] for part in edges)
        if not len(left):
            return None
        width = layout.candidates.width
        values = np.zeros((len(left), width, width), dtype=np.int64)
        for place, (weight, activation) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            grid = self._multiples(layout.candidates.of(weight), layout.candidates.of(activation))
            values[place, : grid.shape[0], : grid.shape[1]] = macs[place] * grid
        return PairTables(left, right, values, self._quantum())

    def _edges(self, layout: Layout) -> Reads:
        """Return who reads what; raise ProblemError for what cannot be computed there or 64 bits cannot add."""
        edges = reads(layout, self.name)
        most = max(self.cycles.values()) / self._quantum()
        if int(edges.macs.sum()) * most >= LARGEST_TOTAL:
            raise ProblemError("too many multiply-accumulates to add exactly", where=f"costs.{self.name}")
        widest = max(self.cycles)[0]
        for candidates in layout.candidates.sets:
            if max(candidates) > widest:
                raise ProblemError(
                    f"the processor has at most {widest} bits", where=f"costs.{self.name}", value=max(candidates)
                )
        return edges

    @classmethod
    @cache
    def _quantum(cls) -> Fraction:
        return common_quantum(list(cls.cycles.values()))

    @classmethod
    @cache
    def _multiples(cls, lefts: tuple[float, ...], rights: tuple[float, ...]) -> IntArray:
        """Return the quanta (len(lefts), len(rights)) of one multiply-accumulate; without bits there is none."""
        grid = np.zeros((len(lefts), len(rights)), dtype=np.int64)
        for row, weight in enumerate(lefts):
            for column, activation in enumerate(rights):
                if weight and activation:
                    grid[row, column] = int(cls.cycles[cls._wider(weight), cls._wider(activation)] / cls._quantum())
        return grid

    @classmethod
    def _wider(cls, bits: float) -> int:
        return min(width for width, _ in cls.cycles if bits <= width)


@dataclass(frozen=True)
class MpicCycles(_Cycles):
    """Cycles of the RISC-V core MPIC for the multiply-accumulates of one sample, by weight and activation bits.

    The core multiplies 2, 4 and 8 bits by 2, 4 and 8 bits; what lies between is computed at the next wider precision,
    and more than 8 bits cannot be.
    """

    cycles: ClassVar[dict[tuple[int, int], Fraction]] = {
        (weight, activation): 1 / Fraction(speed)
        for activation, speeds in _MPIC.items()
        for weight, speed in speeds.items()
    }

    name: str = "mpic-cycles"
    unit: str = "cycle"
    source: str = "Ottavi et al. 2020, arXiv:2010.04073: MPIC, multiply-accumulates a cycle by precisions, one sample"


@dataclass(frozen=True)
class BitFusionCycles(_Cycles):
    """Cycles of one fusion unit of Bit Fusion for the multiply-accumulates of one sample, by both precisions.

    Its 16 bricks of 2 by 2 bits make up 2, 4, 8 or 16 bits by any of these: 16 multiply-accumulates a cycle at 2 by 2
    bits, one at 8 by 8, one in four cycles at 16 by 16. An array of n busy units takes an n-th of it.
    """

    cycles: ClassVar[dict[tuple[int, int], Fraction]] = {
        (weight, activation): Fraction(weight // _BRICK * (activation // _BRICK), _BRICKS)
        for weight in _FUSED
        for activation in _FUSED
    }

    name: str = "bit-fusion-cycles"
    unit: str = "cycle"
    source: str = (
        "Sharma et al., ISCA 2018, arXiv:1712.01507: Bit Fusion, 16 bricks of 2 by 2 bits in a fusion unit, cycles of "
        "one unit, one sample"
    )
