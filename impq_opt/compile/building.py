"""A program while it is made: its tensors and operations, and expressions that no tensor holds yet."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from impq_opt.compile.levels import WholeWeight
from impq_opt.compile.program import Add, IntTensor, Layer, Move, Operation, Part
from impq_opt.compile.rescaling import rescale_to
from impq_opt.errors import DataError
from impq_opt.types import FloatArray, IntArray

__all__ = ["IN_FLOAT", "WIDE_BITS", "Builder", "Linear", "Sums", "Value"]

WIDE_BITS = 24  # of sums that are held: exact in float32

IN_FLOAT = "every activation must be rounded: quantize with --activation-bits 8"


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of products of a layer, O output channels, which no tensor holds.

    Parameters
    ----------
    name, source : str
        The layer's weight, and the tensor that it reads.
    weight : WholeWeight
    reads : ndarray of int64 (O,)
    stride, dilation, padding
        As of :class:`~impq_opt.compile.program.Layer`.
    shape : tuple of int
        Of the output.
    """

    name: str
    source: str
    weight: WholeWeight
    reads: IntArray
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Linear:
    """``clamp(sum_j factors_j terms_j + constants, *ends)``, channel by channel, in real units.

    Parameters
    ----------
    terms : tuple of (Sums or str, ndarray of float64 (channels,))
        Sums of a layer, or tensors by name, and what one unit of each stands for.
    constants : ndarray of float64 (channels,)
    shape : tuple of int
    ends : (float, float)
    """

    terms: tuple[tuple[Sums | str, FloatArray], ...]
    constants: FloatArray
    shape: tuple[int, ...]
    ends: tuple[float, float] = (-math.inf, math.inf)

    @property
    def is_clamped(self) -> bool:
        """Whether a rectifier is part of it."""
        return self.ends != (-math.inf, math.inf)

    def scaled(self, factors: FloatArray | float, constants: FloatArray | float = 0.0) -> Linear:
        """Return ``factors self + constants``."""
        terms = tuple((term, own * factors) for term, own in self.terms)
        return replace(self, terms=terms, constants=self.constants * factors + constants)


Value = Linear | str  # what a call puts out: an expression, or a tensor by name


class Builder:
    """Tensors and operations as they come."""

    def __init__(self) -> None:
        self.tensors: dict[str, IntTensor] = {}
        self.operations: list[Operation] = []
        self.notes: list[str] = []

    def new(self, tensor: IntTensor) -> str:
        """Add a tensor; return its name, which has a number behind where it is taken."""
        name, number = tensor.name, 1
        while name in self.tensors:
            number += 1
            name = f"{tensor.name}#{number}"
        self.tensors[name] = replace(tensor, name=name)
        return name

    def live(self, output: str) -> tuple[Operation, ...]:
        """Return the operations that an output is computed by, and forget the tensors of the others."""
        needed, kept = {output, next(iter(self.tensors))}, list[Operation]()
        for operation in reversed(self.operations):
            if operation.target in needed:
                needed.update(operation.sources)
                kept.insert(0, operation)
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if name in needed}
        return tuple(kept)

    def linear(self, value: Value) -> Linear:
        """Return a value as an expression."""
        if isinstance(value, Linear):
            return value
        tensor = self.tensors[value]
        channels = tensor.shape[0]
        return Linear(((value, np.full(channels, tensor.scale)),), np.zeros(channels), tensor.shape)

    def stored(self, value: Value, where: str) -> IntTensor:
        """Return the tensor that a value is.

        Raises
        ------
        DataError
            It is an expression: an activation that nothing rounds.
        """
        if isinstance(value, Linear):
            raise DataError("reads an activation in float", where=where, hint=IN_FLOAT)
        return self.tensors[value]

    def sizes(self, term: Sums | str) -> FloatArray:
        """Return the largest sizes (channels,) of the whole numbers of a term."""
        if isinstance(term, str):
            tensor = self.tensors[term]
            return np.full(tensor.shape[0], float(tensor.largest))
        weight = term.weight
        whole = weight.factor * weight.codes.astype(np.int64) + weight.offsets.reshape(-1, 1, 1, 1)
        return np.abs(whole).sum((1, 2, 3)).astype(np.float64) * self.tensors[term.source].largest

    def store(self, value: Linear, tensor: IntTensor, where: str) -> str:
        """Write an expression into a new tensor, rounded once; return its name.

        Sums of a layer that are added to something else go through a tensor of 24 bits, as fine as an accumulator's.
        """
        if len(value.terms) > 1:
            value = replace(value, terms=tuple(self._held(term, own) for term, own in value.terms))
        layers = [term for term, _ in value.terms if isinstance(term, Sums)]
        factors = np.stack([own for _, own in value.terms])
        sizes = np.stack([self.sizes(term) for term, _ in value.terms])
        if not layers:
            rescale = rescale_to(tensor, factors, value.constants, sizes, value.ends, where)
            target = self.new(tensor)
            names = tuple(term for term, _ in value.terms if isinstance(term, str))
            self.operations.append(Add(where, names, target, rescale))
            return target
        sums, weight, parts = layers[0], layers[0].weight, []
        for bits in np.unique(weight.bits).tolist():
            own = np.flatnonzero(weight.bits == bits)
            rescale = rescale_to(tensor, factors[0, own], value.constants[own], sizes[0, own], value.ends, sums.name)
            codes, offsets = weight.codes[own], weight.offsets[own]
            parts.append(Part(bits, codes, weight.factor, offsets, own, sums.reads[own], rescale))
        target = self.new(tensor)
        self.operations.append(
            Layer(sums.name, sums.source, target, tuple(parts), sums.stride, sums.dilation, sums.padding)
        )
        return target

    def wide(self, value: Linear, name: str, bits: int = WIDE_BITS, span: float | None = None) -> IntTensor:
        """Return a tensor of ``bits`` for an expression: as fine as its largest size, or ``span``, allows."""
        sizes = np.sum([np.abs(own) * self.sizes(term) for term, own in value.terms], axis=0)
        most = float((sizes + np.abs(value.constants)).max()) if span is None else span
        return IntTensor(name, value.shape, bits, True, max(most, 2.0**-60) / (2 ** (bits - 1) - 1))

    def _held(self, term: Sums | str, own: FloatArray) -> tuple[str, FloatArray]:
        """Return a term as a tensor."""
        if isinstance(term, str):
            return term, own
        alone = Linear(((term, own),), np.zeros(len(own)), term.shape)
        name = self.store(alone, self.wide(alone, f"{term.name}.sum"), term.name)
        return name, np.full(len(own), self.tensors[name].scale)

    def move(self, source: str, channels: IntArray, rows: IntArray, columns: IntArray, where: str) -> str:
        """Pick channels, rows and columns of a tensor, of a moved one those of what it was moved from."""
        before = next((op for op in self.operations if op.target == source), None)
        places = [channels, rows, columns]
        if isinstance(before, Move):
            inner = (before.channels, before.rows, before.columns)
            places = [
                np.where(outer < 0, -1, own[np.maximum(outer, 0)]) if len(own) else outer
                for outer, own in zip(places, inner, strict=True)
            ]
            source = before.source
        shape = tuple(len(place) for place in places if len(place))
        target = self.new(replace(self.tensors[source], name=where, shape=shape))
        self.operations.append(Move(where, source, target, *places))
        return target
