"""A program while it is made: its tensors and operations, and expressions that no tensor holds yet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from impq_opt.compile.levels import WholeWeight
from impq_opt.compile.program import Add, IntTensor, Layer, Move, Operation, Part, Pool, Rescale
from impq_opt.compile.rescaling import ends_in, rescale_to
from impq_opt.errors import DataError
from impq_opt.types import FloatArray, IntArray

__all__ = ["IN_FLOAT", "SHIFTS_APART", "WIDE_BITS", "Builder", "Greatest", "Linear", "Sums", "Value"]

Sides = tuple[tuple[int, int], tuple[int, int]]

WIDE_BITS = 24  # of sums that are held: exact in float32
SHIFTS_APART = 9  # so that what is shifted by any has at most 62 bits when it is brought to the largest

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
    terms : tuple of (Sums or Greatest or str, ndarray of float64 (channels,))
        Sums of a layer, largest values, or tensors by name, and what one unit of each stands for.
    constants : ndarray of float64 (channels,)
    shape : tuple of int
    ends : (float, float)
    """

    terms: tuple[tuple[Term, FloatArray], ...]
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


@dataclass(frozen=True, eq=False)
class Greatest:
    """The largest values of windows of an expression, which no tensor holds; padding is left out.

    Parameters
    ----------
    name : str
        Of the call.
    value : Linear
    kernel, stride, dilation, padding
        As of :class:`~impq_opt.compile.program.Pool`.
    shape : tuple of int
        Of the output.
    """

    name: str
    value: Linear
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    shape: tuple[int, ...]


Term = Sums | Greatest | str
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

    def sizes(self, term: Term) -> FloatArray:
        """Return the largest sizes (channels,) of the whole numbers of a term."""
        if isinstance(term, str):
            tensor = self.tensors[term]
            return np.full(tensor.shape[0], float(tensor.largest))
        if isinstance(term, Greatest):
            return self.largest(term.value)
        return term.weight.sizes().astype(np.float64) * self.tensors[term.source].largest

    def largest(self, value: Linear) -> FloatArray:
        """Return the largest sizes (channels,) of an expression, its ends left aside."""
        return np.sum([np.abs(own) * self.sizes(term) for term, own in value.terms], axis=0) + np.abs(value.constants)

    def store(self, value: Linear, tensor: IntTensor, where: str) -> str:
        """Write an expression into a new tensor, rounded once; return its name.

        A layer adds tensors to its sums before they are rounded. Sums of a second layer go through a tensor of 24 bits.
        """
        if isinstance(value.terms[0][0], Greatest) and len(value.terms) == 1:
            rounded = self._rounded_before(value.terms[0][0], value, tensor, where)
            if rounded is not None:
                return rounded
        terms: list[tuple[Term, FloatArray]] = [self._pooled(term, own) for term, own in value.terms]
        layers = [place for place, (term, _) in enumerate(terms) if isinstance(term, Sums)]
        if layers:
            last = terms.pop(layers[-1])
            terms = [last, *(self._held(term, own) for term, own in terms)]
        value = replace(value, terms=tuple(terms))
        factors = np.stack([own for _, own in value.terms])
        sizes = np.stack([self.sizes(term) for term, _ in value.terms])
        if not layers:
            rescale = rescale_to(tensor, factors, value.constants, sizes, value.ends, where)
            target = self.new(tensor)
            names = tuple(term for term, _ in value.terms if isinstance(term, str))
            self.operations.append(Add(where, names, target, rescale))
            return target
        sums = value.terms[0][0]
        assert isinstance(sums, Sums)
        added = tuple(term for term, _ in value.terms if isinstance(term, str))
        parts = tuple(self._parts(sums, tensor, factors, sizes, value))
        target = self.new(tensor)
        self.operations.append(
            Layer(sums.name, sums.source, target, parts, sums.stride, sums.dilation, sums.padding, added)
        )
        return target

    def _parts(
        self, sums: Sums, tensor: IntTensor, factors: FloatArray, sizes: FloatArray, value: Linear
    ) -> Iterator[Part]:
        """Yield the sub-layers of a layer, one a precision, with shifts near each other where tensors are added."""
        weight = sums.weight
        kernels = [np.flatnonzero(weight.bits == bits) for bits in np.unique(weight.bits)]

        def rescale(own: IntArray, **most: int) -> Rescale:
            constants = value.constants[own]
            return rescale_to(
                tensor, factors[:, own], constants, sizes[:, own], value.ends, sums.name, narrow=1, **most
            )

        made = [rescale(own) for own in kernels]
        if len(value.terms) > 1:
            most = min(one.shift for one in made) + SHIFTS_APART
            made = [
                one if one.shift <= most else rescale(own, most=most) for one, own in zip(made, kernels, strict=True)
            ]
        for own, one in zip(kernels, made, strict=True):
            first, added = one.multipliers[0], one.multipliers[1:]
            yield Part(
                int(weight.bits[own[0]]), weight.codes[own], weight.factor, weight.offsets[own], own, sums.reads[own],
                replace(one, multipliers=first), added,
            )  # fmt: skip

    def wide(self, value: Linear, name: str, bits: int = WIDE_BITS, span: float | None = None) -> IntTensor:
        """Return a tensor of ``bits`` for an expression: as fine as its largest size, or ``span``, allows."""
        most = float(self.largest(value).max()) if span is None else span
        return IntTensor(name, value.shape, bits, True, max(most, 2.0**-60) / (2 ** (bits - 1) - 1))

    def _rounded_before(self, most: Greatest, value: Linear, tensor: IntTensor, where: str) -> str | None:
        """Write an expression of largest values as the largest codes, rounded before they are compared.

        Rounding keeps the order. Where a factor is below zero the channel's codes are told from the other end, and
        told back behind the pool. Return None where ends of rectifiers stand in the way.
        """
        (own,), inner = (factors for _, factors in value.terms), most.value
        if inner.is_clamped:
            if value.is_clamped or (own != 1).any() or value.constants.any():
                return None
            value = replace(value, ends=inner.ends)
        falling = own < 0
        if falling.any() and ends_in(tensor, value.ends) != (tensor.low, tensor.high):
            return None
        ends = (-math.inf, math.inf) if falling.any() else value.ends
        signs = np.where(falling, -1.0, 1.0)
        moved = np.where(falling, tensor.scale * (tensor.low + tensor.high - 2 * tensor.zero), 0.0)
        rounded = replace(inner.scaled(own, value.constants).scaled(signs, moved), ends=ends)
        before = self.store(rounded, replace(tensor, name=f"{tensor.name}.before", shape=inner.shape), where)
        name = f"{tensor.name}.largest" if falling.any() else tensor.name
        pooled = self._pool(most, before, replace(tensor, name=name))
        if not falling.any():
            return pooled
        return self.store(Linear(((pooled, signs * tensor.scale),), moved, value.shape), tensor, where)

    def _pooled(self, term: Term, own: FloatArray) -> tuple[Sums | str, FloatArray]:
        """Return a term of largest values as the pool of a tensor of 24 bits; others as they are."""
        if not isinstance(term, Greatest):
            return term, own
        wide = self.wide(term.value, f"{term.name}.held")
        held = self.store(term.value, wide, term.name)
        return self._pool(term, held, replace(wide, name=term.name, shape=term.shape)), own * wide.scale

    def _pool(self, most: Greatest, source: str, tensor: IntTensor) -> str:
        target = self.new(tensor)
        self.operations.append(
            Pool(most.name, "max", source, target, most.kernel, most.stride, most.dilation, most.padding)
        )
        return target

    def unpadded(self, tensor: IntTensor, sides: Sides) -> tuple[IntTensor, Sides]:
        """Return what a tensor was before rows and columns of zeros were put around it, with these as padding."""
        move = next((op for op in self.operations if op.target == tensor.name), None)
        if not isinstance(move, Move):
            return tensor, sides
        source = self.tensors[move.source]
        places = (move.channels, move.rows, move.columns)
        outer = []
        for place, size in zip(places, source.shape, strict=True):
            inside = np.flatnonzero(place >= 0)
            if not np.array_equal(place[inside], np.arange(size)) or len(inside) != np.ptp(inside) + 1:
                return tensor, sides
            outer.append((int(inside[0]), len(place) - 1 - int(inside[-1])))
        if outer[0] != (0, 0):
            return tensor, sides
        down, across = ((own[0] + more[0], own[1] + more[1]) for own, more in zip(sides, outer[1:], strict=True))
        return source, (down, across)

    def _held(self, term: Term, own: FloatArray) -> tuple[str, FloatArray]:
        """Return a term, of largest values no more, as a tensor."""
        assert not isinstance(term, Greatest)
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
