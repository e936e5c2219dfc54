"""What an integer program is: tensors of whole numbers and a few operations on them; NumPy alone.

Every number that a program computes with is whole, and each operation says exactly what it puts out, so two back ends
that both do what is written here agree bit for bit. Real numbers stand in a program only to say what its whole numbers
mean: a tensor's code x stands for ``scale (x - zero)``.

Rounding
--------
There is one, in :class:`Rescale`: ``(multiplier a + addend) >> shift``, where ``>>`` rounds towards minus infinity. The
addend holds bias, half a unit and the zero of the output, so a half is rounded up. The sum in front of the shift is
below 2^52 in size, so that 64-bit integers and float64 both hold it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from impq_opt.errors import DataError
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "Add",
    "Concat",
    "Encoding",
    "Flatten",
    "IntTensor",
    "Layer",
    "Move",
    "Operation",
    "Part",
    "Pool",
    "Program",
    "Rescale",
]

# Sums of products are held in 32 bits with sign; what is shifted in 53, as a float64 has them. Multipliers of sums have
# 32 bits, so that tables of them are small; those of a layer's added tensors, which are codes, may have 53.
ACCUMULATOR_BITS = 32
SHIFTED_BITS = 53


@dataclass(frozen=True)
class IntTensor:
    """A tensor of whole numbers of one sample.

    Parameters
    ----------
    name : str
    shape : tuple of int
        (channels, height, width) or (features,).
    bits : int
        Codes are from 0 to 2^bits - 1, or from -2^(bits - 1) to 2^(bits - 1) - 1.
    signed : bool
    scale : float
        A code x stands for ``scale (x - zero)``.
    zero : int
        The code of zero, which padding fills in.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    signed: bool
    scale: float
    zero: int = 0

    @property
    def low(self) -> int:
        """The least code."""
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return self.low + 2**self.bits - 1

    @property
    def largest(self) -> int:
        """The largest size of ``x - zero``."""
        return max(self.high - self.zero, self.zero - self.low)

    @property
    def elements(self) -> int:
        """Numbers of one sample."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Encoding:
    """How real inputs become codes: ``clamp(round(x / scale + zero))``, a half to the even one, channel by channel.

    Parameters
    ----------
    scale, zero : ndarray of float64 (channels,)
        The input's first dimension; ``zero`` need not be whole.
    """

    scale: FloatArray
    zero: FloatArray


@dataclass(frozen=True, eq=False)
class Rescale:
    """From sums to codes: channel k of ``a`` becomes ``clamp((multipliers[k] a + addends[k]) >> shift, low, high)``.

    Parameters
    ----------
    multipliers : ndarray of int64 (channels,)
        Each of a layer fits in 32 bits with sign. Of :class:`Add`, (sources, channels).
    addends : ndarray of int64 (channels,)
        Bias, half a unit and the output's zero, in units of 2^-shift.
    shift : int
        0 to 52.
    low, high : int
        Within the codes of the output: the output's own ends, or nearer ones where a rectifier ends before.
    """

    multipliers: IntArray
    addends: IntArray
    shift: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Part:
    """The output kernels of a layer that have one precision: a sub-layer.

    The weight is the whole number ``q = factor code + offset``; ``factor`` is 2 where levels are odd halves of a step.

    Parameters
    ----------
    bits : int
        Of a code.
    codes : ndarray of uint8 or uint16 (kernels, inputs, height, width)
        From 0 to 2^bits - 1; height and width are 1 for linear layers.
    factor : int
        1 or 2.
    offsets : ndarray of int64 (kernels,)
    channels : ndarray of int64 (kernels,)
        Where each kernel's output goes among the channels of the target, ascending.
    reads : ndarray of int64 (kernels,)
        The first of the ``inputs`` consecutive channels of the source that each kernel reads; 0 unless the layer has
        groups.
    rescale : Rescale
    added : ndarray of int64 (tensors, kernels)
        What each of the layer's added tensors is multiplied by; none unless given.
    """

    bits: int
    codes: npt.NDArray[np.unsignedinteger]
    factor: int
    offsets: IntArray
    channels: IntArray
    reads: IntArray
    rescale: Rescale
    added: IntArray = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))

    def __post_init__(self) -> None:
        if not self.added.size:
            object.__setattr__(self, "added", np.empty((0, len(self)), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def weights(self) -> IntArray:
        """The whole numbers (kernels, inputs, height, width) that the layer multiplies by."""
        return self.factor * self.codes.astype(np.int64) + self.offsets.reshape(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or, with 1 x 1 kernels on (features,), a linear layer; parts together write every channel once.

    A sum is ``a = sum q (x - zero)`` over the kernel's window of the source; padding counts as ``x = zero``. What is
    shifted is ``multipliers[k] a + sum_j added[j, k] (y_j - zero_j) + addends[k]`` for the added tensors y, of the
    target's shape: a residual addition is part of the layer's one rounding.

    Parameters
    ----------
    name : str
        The layer's weight in the network.
    source, target : str
        Tensors.
    parts : tuple of Part
    stride, dilation : (int, int)
        Down and across.
    padding : ((int, int), (int, int))
        Above and below, left and right.
    added : tuple of str
        Tensors.
    """

    name: str
    source: str
    target: str
    parts: tuple[Part, ...]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    added: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.source, *self.added)

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernels."""
        return self.parts[0].codes.shape[2], self.parts[0].codes.shape[3]


@dataclass(frozen=True, eq=False)
class Add:
    """``clamp((sum_j multipliers[j, c] (x_j - zero_j) + addends[c]) >> shift, low, high)`` for tensors of one shape.

    With one source it is a change of scale, per channel (a batch-norm between quantized tensors, the normalization of
    an input).
    """

    name: str
    sources: tuple[str, ...]
    target: str
    rescale: Rescale


@dataclass(frozen=True, eq=False)
class Pool:
    """The largest code of a window, padding left out; or the sum of ``x - zero``, padding counting as nothing.

    A mean is a sum whose target has a scale smaller by the size of the window: nothing is rounded, and the target has
    more bits. Sums have targets with zero 0.

    Parameters
    ----------
    kind : {"max", "sum"}
    kernel, stride, dilation, padding
        As of :class:`Layer`.
    """

    name: str
    kind: str
    source: str
    target: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Move:
    """Channels, rows and columns picked by their places, -1 for what is filled with the code of zero.

    ``y[c, i, j] = x[channels[c], rows[i], columns[j]]``. It is a slice, a padding, or another order of channels; source
    and target have the same scale and zero. ``rows`` and ``columns`` are empty for (features,).
    """

    name: str
    source: str
    target: str
    channels: IntArray
    rows: IntArray
    columns: IntArray

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Concat:
    """Tensors one behind the other by their first dimension; all have the target's scale and zero."""

    name: str
    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True, eq=False)
class Flatten:
    """(channels, height, width) as (features,), the last dimension running fastest."""

    name: str
    source: str
    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.source,)


Operation = Layer | Add | Pool | Move | Concat | Flatten


@dataclass(frozen=True, eq=False)
class Program:
    """A network in whole numbers.

    Parameters
    ----------
    name : str
    tensors : mapping of str to IntTensor
    operations : tuple
        In an order in which they can be done; each writes a tensor of its own.
    input, output : str
        Tensors. The input has 8 bits with sign, and the ``encoding`` says what its codes stand for; the output's are
        the logits, in the network's order of classes.
    encoding : Encoding
    notes : tuple of str
        What a user should know, a sentence each.

    Raises
    ------
    DataError
        It breaks a rule of this module: a tensor that is not there or written twice, a sum that 32 bits do not hold.
    """

    name: str
    tensors: Mapping[str, IntTensor]
    operations: tuple[Operation, ...]
    input: str
    output: str
    encoding: Encoding
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        written = {self.input}
        for operation in self.operations:
            missing = [source for source in operation.sources if source not in written]
            if missing or operation.target in written or operation.target not in self.tensors:
                raise DataError("is not written once before it is read", where=operation.name, value=missing)
            written.add(operation.target)
        for layer in self.layers:
            for part in layer.parts:
                self._check_part(layer, part)
        if self.output not in written:
            raise DataError("is written by nothing", where="program: output", value=self.output)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""
        return tuple(operation for operation in self.operations if isinstance(operation, Layer))

    @property
    def weight_bits(self) -> int:
        """Bits of all codes of weights, as they are allocated."""
        return sum(part.codes.size * part.bits for layer in self.layers for part in layer.parts)

    def encode(self, x: npt.ArrayLike) -> IntArray:
        """Return the codes (n, ...) of real inputs (n, ...)."""
        given = np.asarray(x, dtype=np.float64)
        tensor = self.tensors[self.input]
        across = (-1, *(1,) * (len(tensor.shape) - 1))
        scale, zero = self.encoding.scale.reshape(across), self.encoding.zero.reshape(across)
        return np.clip(np.rint(given / scale + zero), tensor.low, tensor.high).astype(np.int64)

    def decode(self, codes: IntArray) -> FloatArray:
        """Return the logits that output codes stand for."""
        tensor = self.tensors[self.output]
        return (np.asarray(codes, dtype=np.float64) - tensor.zero) * tensor.scale

    def sums(self, layer: Layer, part: Part) -> int:
        """Return the largest size that a sum of a part can have."""
        return int(np.abs(part.weights).reshape(len(part), -1).sum(1).max()) * self.tensors[layer.source].largest

    def uses(self) -> Iterator[tuple[str, int, int]]:
        """Yield each tensor with the numbers of the operations that write it (-1: the input) and read it last."""
        first, last = {self.input: -1}, {self.input: -1}
        for number, operation in enumerate(self.operations):
            first[operation.target] = last[operation.target] = number
            last |= dict.fromkeys(operation.sources, number)
        last[self.output] = len(self.operations)
        yield from ((name, first[name], last[name]) for name in first)

    def _check_part(self, layer: Layer, part: Part) -> None:
        if part.added.shape != (len(layer.added), len(part)):
            raise DataError("has other factors than tensors that it adds", where=layer.name, value=part.added.shape)
        sizes = np.abs(part.weights).reshape(len(part), -1).sum(1) * self.tensors[layer.source].largest
        if sizes.max() >= 2 ** (ACCUMULATOR_BITS - 1):
            raise DataError("has sums that 32 bits do not hold", where=layer.name, value=f"up to {sizes.max():,}")
        shifted = sizes.astype(np.float64) * np.abs(part.rescale.multipliers) + np.abs(part.rescale.addends)
        for name, factors in zip(layer.added, part.added, strict=True):
            shifted += self.tensors[name].largest * np.abs(factors).astype(np.float64)
        if shifted.max() >= 2.0 ** (SHIFTED_BITS - 1):
            raise DataError(
                "has scaled sums that 53 bits do not hold", where=layer.name, value=f"up to {shifted.max():.3g}"
            )
