"""Costs on processors whose speed by precision is published."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.costs.operations import INPUT_BITS, Reads, reads
from impq_opt.costs.terms import CostTerm, PairTables, common_quantum
from impq_opt.errors import ProblemError
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["MpicCycles"]

_WIDTHS = (2, 4, 8)
# Multiply-accumulates a cycle, by activation bits and then weight bits (Ottavi et al. 2020, arXiv:2010.04073).
_MPIC = {
    2: ("6.5", "4.0", "2.2"),
    4: ("3.9", "3.5", "2.1"),
    8: ("2.5", "2.3", "2.1"),
}
_CYCLES = {
    (weight, activation): 1 / Fraction(speed)
    for activation, speeds in _MPIC.items()
    for weight, speed in zip(_WIDTHS, speeds, strict=True)
}
_QUANTUM = common_quantum(list(_CYCLES.values()))


@dataclass(frozen=True)
class MpicCycles(CostTerm):
    """Cycles of the RISC-V core MPIC for the multiply-accumulates of one sample, by weight and activation bits.

    The core multiplies 2, 4 and 8 bits by 2, 4 and 8 bits; what lies between is computed at the next wider precision,
    and more than 8 bits cannot be.
    """

    name: str = "mpic-cycles"
    unit: str = "cycle"
    source: str = "Ottavi et al. 2020, arXiv:2010.04073: MPIC, multiply-accumulates a cycle by precisions, one sample"

    def slope(self, layout: Layout) -> None:
        return None

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        edges = self._edges(layout)
        values = np.zeros((len(layout), layout.candidates.width), dtype=np.int64)
        for weight, activation, macs in zip(*(part.tolist() for part in edges), strict=True):
            if activation < 0:
                own = _multiples(layout.candidates.of(weight), (INPUT_BITS,))[:, 0]
                values[weight, : len(own)] += macs * own
        return values, _QUANTUM

    def lookup(self, layout: Layout) -> PairTables | None:
        edges = self._edges(layout)
        inside = edges.activation >= 0
        left, right, macs = (part[inside] for part in edges)
        if not len(left):
            return None
        width = layout.candidates.width
        values = np.zeros((len(left), width, width), dtype=np.int64)
        for place, (weight, activation) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            grid = _multiples(layout.candidates.of(weight), layout.candidates.of(activation))
            values[place, : grid.shape[0], : grid.shape[1]] = macs[place] * grid
        return PairTables(left, right, values, _QUANTUM)

    def _edges(self, layout: Layout) -> Reads:
        """Return who reads what; raise ProblemError for what the core cannot compute or 64 bits cannot add."""
        edges = reads(layout, self.name)
        most = max(_CYCLES.values()) / _QUANTUM
        if int(edges.macs.sum()) * most >= LARGEST_TOTAL:
            raise ProblemError("too many multiply-accumulates to add exactly", where=f"costs.{self.name}")
        for candidates in layout.candidates.sets:
            if max(candidates) > _WIDTHS[-1]:
                raise ProblemError(
                    "the processor has at most 8 bits", where=f"costs.{self.name}", value=max(candidates)
                )
        return edges


def _multiples(lefts: tuple[float, ...], rights: tuple[float, ...]) -> IntArray:
    """Return the quanta (len(lefts), len(rights)) of one multiply-accumulate; without bits there is none."""
    grid = np.zeros((len(lefts), len(rights)), dtype=np.int64)
    for row, weight in enumerate(lefts):
        for column, activation in enumerate(rights):
            if weight and activation:
                grid[row, column] = int(_CYCLES[_wider(weight), _wider(activation)] / _QUANTUM)
    return grid


def _wider(bits: float) -> int:
    return next(width for width in _WIDTHS if bits <= width)
