"""Bytes of the C file that ``impq-opt compile`` writes: what it keeps in flash, and what it needs of RAM."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.costs.memory import lifetimes
from impq_opt.costs.terms import CostTerm
from impq_opt.errors import ProblemError
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["Flash", "Ram"]

_BYTE = 8
# Bytes: of an output kernel a multiplier of 4, an addend and what an added tensor is multiplied by of 8, an offset,
# its place and the first channel that it reads of 2; of a sub-layer and of a layer what says where all that is.
_KERNEL, _PART, _LAYER = 26, 96, 64
_VALUE = 2  # bytes of an unpacked weight and of what it is multiplied by
_AT_ONCE = 16  # a window and an unpacked kernel end at a multiple of so many
_BEHIND = 32  # values that unpacking may write behind a kernel
_CHANNELS = 32  # kernels of one channel that are unpacked together; kernels no longer than the next may be such
_ONE_CHANNEL = 49
_OVERRUN = 31  # bytes behind all codes


@dataclass(frozen=True)
class Flash(CostTerm):
    """Bits of flash that a compiled network takes: codes up to the next byte a kernel, and at most so much beside."""

    name: str = "flash"
    unit: str = "bit"
    source: str = (
        f"impq-opt compile --to c: codes up to the next byte a kernel; at most {_KERNEL} bytes a kernel beside them, "
        f"{_PART} a precision of a layer, {_LAYER} a layer"
    )

    def slope(self, layout: Layout) -> None:
        return None

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        groups, lengths = _weights(layout, self.name)
        values = np.zeros((len(layout), layout.candidates.width), dtype=np.int64)
        kernels = -(-layout.sizes[groups] // lengths)
        sets = np.zeros(len(layout), dtype=np.int64) if layout.candidates.set_of is None else layout.candidates.set_of
        for number, bits in enumerate(layout.candidates.sets):
            own = sets[groups] == number
            for column, width in enumerate(bits):
                size = _KERNEL + np.ceil(lengths[own] * width / _BYTE).astype(np.int64)
                values[groups[own], column] = _BYTE * kernels[own] * size
        return values, Fraction(1)

    def constant(self, layout: Layout) -> int:
        groups, lengths = _weights(layout, self.name)
        labels = layout.names.label_of[groups]
        total = _OVERRUN
        for label in np.unique(labels).tolist():
            own = groups[labels == label]
            widths = {width for group in own[:1].tolist() for width in layout.candidates.of(group)}
            kernels = int((-(-layout.sizes[own] // lengths[labels == label])).sum())
            total += _LAYER + _PART * min(len(widths) if len(own) > 1 else 1, kernels)
        return _BYTE * total


@dataclass(frozen=True)
class Ram(CostTerm):
    """Bits of RAM that a compiled network takes at least: activations in memory together, a byte each, and scratch.

    Scratch is the longest dot product, once as its inputs and once as its weights, 16 bits each; the C file takes more
    where it may, so that windows are laid out together.

    A code of 8 bits or less takes a byte, whatever its precision, so that no allocation changes it. The picture lies
    with the caller. What else a program holds (a picture brought to one scale, sums of pools) is not known here:
    ``impq-opt compile`` tells it, and holds its files against the budget.
    """

    name: str = "ram"
    unit: str = "bit"
    source: str = (
        "impq-opt compile --to c: the largest sum of elements over the activations alive at one step, a byte each, "
        "and the longest dot product twice, 16 bits a value"
    )

    def slope(self, layout: Layout) -> IntArray:
        return np.zeros(len(layout), dtype=np.int64)

    def constant(self, layout: Layout) -> int:
        groups, steps = lifetimes(layout, self.name)
        sizes, steps = layout.sizes[groups], _from_the_last_read(steps)
        most = max(
            sum(sizes[(steps[:, 0] <= step) & (step <= steps[:, 1])].tolist()) for step in np.unique(steps).tolist()
        )
        lengths = _weights(layout, self.name)[1]
        padded = -(-lengths // _AT_ONCE) * _AT_ONCE
        weights = padded + _BEHIND + np.where(lengths <= _ONE_CHANNEL, _CHANNELS * lengths, 0)
        return _BYTE * (most + _VALUE * int(padded.max(initial=0) + weights.max(initial=0)))


def _from_the_last_read(steps: IntArray) -> IntArray:
    """Return lives (n, 2) that begin where something was last read before.

    A convolution, its norm and its rectifier are steps of their own in a traced network and one step of a compiled one,
    which writes what the last makes while it reads what the first reads.
    """
    ends = np.unique(steps[:, 1])
    before = np.searchsorted(ends, steps[:, 0]) - 1
    return np.column_stack([np.where(before >= 0, ends[np.maximum(before, 0)], steps[:, 0]), steps[:, 1]])


def _weights(layout: Layout, cost: str) -> tuple[IntArray, IntArray]:
    """Return the weight groups (n,) and the lengths (n,) of their kernels.

    Raises
    ------
    ProblemError
        Where a length is not known.
    """
    groups = np.flatnonzero(layout.weights())
    lengths = np.zeros(len(groups), dtype=np.int64) if layout.lengths is None else layout.lengths[groups]
    if len(groups) and lengths.min() < 1:
        raise ProblemError(
            "the number of its kernels is not known",
            where=f"costs.{cost}: {layout.names[int(groups[lengths.argmin()])]}.length",
            hint="declare the length of its dot products",
        )
    return groups, lengths
