"""Costs of computing: what a multiply-accumulate costs depends on the bits of the weight and of what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from impq_opt.costs.terms import CostTerm, Pairs
from impq_opt.errors import ProblemError
from impq_opt.exactness.limits import MOST_MACS
from impq_opt.exactness.sums import exact_int_sum
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["INPUT_BITS", "Adders", "BitOperations", "Reads", "Slides", "reads"]


# A tensor without a group of its own is the network's input: an image of 8 bits (IMPQ, section on experiments).
INPUT_BITS = 8
# Found by fitting the slides' C_C column: with it on top of Sakr's adders five of the six uniform MobileNetV1 rows
# come out to rounding.
_PER_OUTPUT = 576


class Reads(NamedTuple):
    """Who reads what: E edges of weight group, activation group (-1: the input) and multiply-accumulates."""

    weight: IntArray
    activation: IntArray
    macs: IntArray


def reads(layout: Layout, cost: str) -> Reads:
    """Return the edges with multiply-accumulates; raise ProblemError where none are declared."""
    if layout.macs is None:
        raise ProblemError(
            "the problem has no multiply-accumulates",
            where=f"costs.{cost}",
            hint="declare macs (and reads) for the weight groups",
        )
    weight = np.flatnonzero(layout.macs)
    activation = np.full(len(weight), -1) if layout.reads is None else layout.reads[weight]
    macs = layout.macs[weight]
    if layout.also_reads is not None:
        further = layout.also_reads
        weight, activation, macs = (
            np.concatenate([first, further[:, column]]) for first, column in ((weight, 0), (activation, 1), (macs, 2))
        )
    total = exact_int_sum(macs)
    if total >= MOST_MACS:
        raise ProblemError("too many multiply-accumulates to add exactly", where=f"costs.{cost}", value=total)
    return Reads(weight, activation, macs)


def _product(layout: Layout, edges: Reads) -> Pairs | None:
    inside = edges.activation >= 0
    if not inside.any():
        return None
    return Pairs(edges.weight[inside], edges.activation[inside], edges.macs[inside])


def _per_group(layout: Layout, groups: IntArray, values: IntArray) -> IntArray:
    total = np.zeros(len(layout), dtype=np.int64)
    np.add.at(total, groups, values)
    return total


@dataclass(frozen=True)
class BitOperations(CostTerm):
    """Multiply-accumulates times weight bits times activation bits, of one sample."""

    name: str = "bit-operations"
    unit: str = "bit-op"
    source: str = (
        "sum MACs B_w B_a, one sample; the product convention of IMPQ's public code, HAWQ-V3 and MCT; of declared "
        "bits, so at least the EBOPs of HGQ (arXiv:2405.00645)"
    )

    def slope(self, layout: Layout) -> IntArray:
        edges = reads(layout, self.name)
        outside = edges.activation < 0
        return _per_group(layout, edges.weight[outside], INPUT_BITS * edges.macs[outside])

    def pairs(self, layout: Layout) -> Pairs | None:
        return _product(layout, reads(layout, self.name))


@dataclass(frozen=True)
class Adders(CostTerm):
    """One-bit full adders of one sample.

    Each dot product of length D takes D B_a B_w + (D - 1)(B_a + B_w + ceil(log2 D) - 1).
    """

    name: str = "adders"
    unit: str = "FA"
    source: str = "Sakr et al., ICML 2017: computational cost in one-bit full adders, one sample"

    def slope(self, layout: Layout) -> IntArray:
        edges = reads(layout, self.name)
        carried = edges.macs - _outputs(layout, edges, self.name)
        outside = edges.activation < 0
        total = _per_group(layout, edges.weight, carried + np.where(outside, INPUT_BITS * edges.macs, 0))
        return total + _per_group(layout, edges.activation[~outside], carried[~outside])

    def pairs(self, layout: Layout) -> Pairs | None:
        return _product(layout, reads(layout, self.name))

    def constant(self, layout: Layout) -> int:
        edges = reads(layout, self.name)
        outputs = _outputs(layout, edges, self.name)
        length = edges.macs // outputs
        # ceil(log2 D) is the number of bits of D - 1.
        carries = np.frexp((length - 1).astype(np.float64))[1].astype(np.int64)
        total = (edges.macs - outputs) * (carries - 1)
        total += np.where(edges.activation < 0, INPUT_BITS * (edges.macs - outputs), 0)
        return sum(total.tolist())


@dataclass(frozen=True)
class Slides(Adders):
    """The C_C column of the IMPQ slides: Sakr's adders, and 576 for each output of a convolution.

    A convolution is a weight group whose weights are used at more than one position.
    """

    name: str = "slides"
    unit: str = "bit-op"
    source: str = (
        "IMPQ slides, C_C: Sakr et al.'s adders plus 576 per convolution output; reproduces five of its six uniform "
        "MobileNetV1 rows"
    )

    def constant(self, layout: Layout) -> int:
        edges = reads(layout, self.name)
        outputs = _outputs(layout, edges, self.name)
        convolution = edges.macs > layout.sizes[edges.weight]
        return super().constant(layout) + _PER_OUTPUT * sum(outputs[convolution].tolist())


def _outputs(layout: Layout, edges: Reads, cost: str) -> IntArray:
    """Return the dot products (E,) behind each edge; raise ProblemError where lengths do not say."""
    length = np.zeros(len(edges.weight), dtype=np.int64) if layout.lengths is None else layout.lengths[edges.weight]
    wrong = (length < 1) | (edges.macs % np.maximum(length, 1) != 0)
    if wrong.any():
        worst = int(wrong.argmax())
        raise ProblemError(
            f"its {int(edges.macs[worst])} multiply-accumulates are no whole number of dot products",
            where=f"costs.{cost}: {layout.names[int(edges.weight[worst])]}.length",
            value=int(length[worst]),
            hint="declare the length of its dot products",
        )
    return edges.macs // length
