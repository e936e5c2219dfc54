"""ONNX as engines like it: real scales at QuantizeLinear and DequantizeLinear, so that layers become integer kernels.

It differs from the reference by rounding: an engine's bias is a whole number of sums, its scale a float32, its half
goes to the even code. Weights beyond 8 bits with sign (the odd levels of mid-rise at 8 bits) are rounded to 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import Add, Concat, Flatten, IntTensor, Layer, Move, Part, Pool, Program
from impq_opt.compile.targets.base import Compiled
from impq_opt.compile.targets.graph import added_factors, grouped, joined, shifted
from impq_opt.compile.targets.onnx import OnnxWriter, written_onnx
from impq_opt.types import FloatArray, IntArray

__all__ = ["compile_onnx_qdq", "compile_onnx_qdq_unsplit"]

_INT8, _WIDTH = 127, 8
_Moving = TypeVar("_Moving", Concat, Flatten, Move, Pool)
_NEAR = 1e-6  # of a code: what is nearer to nothing is left out


def compile_onnx_qdq(program: Program, *, split: bool = True) -> Compiled:
    """Return NAME.onnx of a program with real scales: near its reference, and fast.

    Parameters
    ----------
    program : Program
    split : bool
        As of :func:`~impq_opt.compile.targets.onnx.compile_onnx`.

    Raises
    ------
    DataError
        Numbers above 2^24, which float32 does not hold.
    MissingPackageError
        onnx is not installed.
    """
    return written_onnx(_QdqWriter(program, split))


def compile_onnx_qdq_unsplit(program: Program) -> Compiled:
    """Return the same with one type a weight."""
    return compile_onnx_qdq(program, split=False)


class _QdqWriter(OnnxWriter):
    """The value of a tensor is the real number that it stands for."""

    def __init__(self, program: Program, split: bool = True) -> None:
        super().__init__(program, split)
        self.codes: dict[str, str] = {}  # of values that a DequantizeLinear puts out

    def input(self) -> str:
        tensor, encoding = self.program.tensors[self.program.input], self.program.encoding
        value = "input"
        if (encoding.scale != tensor.scale).any() or (encoding.zero != tensor.zero).any():
            value = self.graph.node("Div", value, self.channels(encoding.scale, tensor, np.float32))
            value = self.graph.node("Add", value, self.channels(encoding.zero, tensor, np.float32))
        return self.coded(value, tensor, tensor.low, tensor.high)

    def output(self, value: str) -> None:
        self.graph.node("Identity", value, output="logits")

    def layer(self, layer: Layer) -> str:
        source, target = self.program.tensors[layer.source], self.program.tensors[layer.target]
        flat, (low, high) = len(source.shape) == 1, self.ends(layer)
        factors, biases = np.zeros(target.shape[0]), np.zeros(target.shape[0])
        for part in layer.parts:
            multipliers, addends = shifted(part.rescale, target.zero)
            factors[part.channels] = multipliers * (target.scale / source.scale)
            biases[part.channels] = (addends - 0.5) * target.scale
        weight, steps = self.integers(self.split_parts(layer.parts), factors, flat)
        made, channels, whole = list[str](), list[IntArray](), joined(layer.parts)
        for own, read, groups in grouped(whole, source.shape[0]):
            kernels = self.dequantize(self.graph.gather(weight, own, 0, len(whole)), steps[own])
            bias = self.bias(biases[own], np.float32(source.scale) * steps[own])
            value = self.picked(layer.source, read)
            made.append(
                self.graph.node("Gemm", value, kernels, bias, transB=1)
                if flat
                else self.convolution(value, kernels, layer, groups, bias)
            )
            channels.append(own)
        total = self.in_order(made, np.concatenate(channels))
        for number, name in enumerate(layer.added):
            total = self.graph.node("Add", total, self.scaled(name, added_factors(layer, number, target), target))
        return self.coded(total, target, low, high)

    def scaled(self, source: str, factors: FloatArray, target: IntTensor) -> str:
        """Return a tensor whose codes come to ``factors`` codes of the target, in real numbers."""
        real = factors * (target.scale / self.program.tensors[source].scale)
        if (np.abs(real - 1) <= _NEAR).all():
            return self.values[source]
        return self.graph.node("Mul", self.values[source], self.channels(real, target, np.float32))

    def integers(self, parts: tuple[Part, ...], factors: FloatArray, flat: bool) -> tuple[str, npt.NDArray[np.float32]]:
        """Return the weights of a layer as integers of 8 bits, and the scale of each kernel."""
        steps, every = np.zeros(len(factors), dtype=np.float32), list[str]()
        for part in parts:
            weights, steps[part.channels] = _signed(part.weights, factors[part.channels])
            width = self.held(int(weights.min()), int(weights.max()))
            # Cast from narrow types when the file is loaded, so that integer kernels are found.
            if np.array_equal(weights, part.weights) and self.width(part.bits) < width:
                every.append(self.graph.cast(self.whole(part, flat), np.int8))
            else:
                name = self.stored(weights[:, :, 0, 0] if flat else weights, width, True)
                every.append(name if width == _WIDTH else self.graph.cast(name, np.int8))
        return self.in_order(every, np.concatenate([part.channels for part in parts]), axis=0), steps

    def bias(self, values: FloatArray, units: npt.NDArray[np.float32]) -> str:
        """Return biases as whole numbers of sums of products, where 32 bits hold them."""
        whole = np.rint(values / units)
        if np.abs(whole).max() >= 2**31:
            return self.graph.constant(values, np.float32, "bias")
        return self.dequantize(self.graph.constant(whole, np.int32, "bias"), units)

    def dequantize(self, name: str, scales: npt.NDArray[np.float32]) -> str:
        """Return a constant (kernels, ...) after DequantizeLinear with a scale a kernel."""
        return self.graph.node("DequantizeLinear", name, self.graph.constant(scales, what="scale"), axis=0)

    def add(self, add: Add) -> str:
        target, total = self.program.tensors[add.target], ""
        multipliers, addends = shifted(add.rescale, target.zero)
        for name, factors in zip(add.sources, multipliers, strict=True):
            value = self.scaled(name, factors, target)
            total = self.graph.node("Add", total, value) if total else value
        if (np.abs(addends - 0.5) > _NEAR).any():
            biases = (addends - 0.5) * target.scale
            total = self.graph.node("Add", total, self.channels(biases, target, np.float32))
        return self.coded(total, target, add.rescale.low, add.rescale.high)

    def pool(self, pool: Pool) -> str:
        if pool.kind == "max":
            return self.among_codes(super().pool, pool)
        source, target = (self.program.tensors[name] for name in (pool.source, pool.target))
        value, sizes = self.values[pool.source], pool.kernel
        if self.covers(pool):
            value = self.graph.node("GlobalAveragePool", value)
        else:
            value = self.windows("AveragePool", value, pool, count_include_pad=1)
        factor = sizes[0] * sizes[1] * target.scale / source.scale
        if abs(factor - 1) > _NEAR:
            value = self.graph.node("Mul", value, self.graph.constant(factor, np.float32))
        return self.cut(value, pool, target)

    def move(self, move: Move) -> str:
        return self.among_codes(super().move, move)

    def fill(self, source: str) -> tuple[str, ...]:
        codes = self.values[source] in self.codes.values()
        return (self.line(self.program.tensors[source])[1],) if codes else ()

    def concat(self, concat: Concat) -> str:
        return self.among_codes(super().concat, concat)

    def flatten(self, flatten: Flatten) -> str:
        return self.among_codes(super().flatten, flatten)

    def among_codes(self, write: Callable[[_Moving], str], operation: _Moving) -> str:
        """Write what only moves numbers among codes, where there are codes, so that layers read a DequantizeLinear."""
        values = self.values
        if not all(values[source] in self.codes for source in operation.sources):
            return write(operation)
        self.values = values | {source: self.codes[values[source]] for source in operation.sources}
        codes = write(operation)
        self.values = values
        return self.dequantized(codes, self.program.tensors[operation.target])

    def picked(self, source: str, channels: IntArray) -> str:
        """Return the same, picked among codes, so that a DequantizeLinear is in front of the layer."""
        tensor, value = self.program.tensors[source], self.values[source]
        if value not in self.codes:
            return super().picked(source, channels)
        codes = self.graph.gather(self.codes[value], channels, 1, tensor.shape[0])
        return value if codes == self.codes[value] else self.dequantized(codes, tensor)

    # -- codes and values --------------------------------------------------------------------------------------------

    def coded(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        if tensor.bits > 8:
            return self.clipped(value, tensor, low, high)
        return self.dequantized(self.quantized(value, tensor, low, high), tensor)

    def clipped(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        """Return a value in float that ends where a rectifier ends."""
        if (low, high) == (tensor.low, tensor.high):
            return value
        ends = (self.graph.constant((end - tensor.zero) * tensor.scale, np.float32) for end in (low, high))
        return self.graph.node("Clip", value, *ends)

    def quantized(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        """Return the codes of a value, of 8 bits."""
        codes = self.graph.node("QuantizeLinear", value, *self.line(tensor))
        ends = [end + _moved(tensor) for end in (low, high)]
        if ends == [0, 255]:
            return codes
        return self.graph.node("Clip", codes, *(self.graph.constant(end, np.uint8) for end in ends))

    def dequantized(self, codes: str, tensor: IntTensor) -> str:
        """Return the value of codes."""
        value = self.graph.node("DequantizeLinear", codes, *self.line(tensor))
        self.codes[value] = codes
        return value

    def line(self, tensor: IntTensor) -> tuple[str, str]:
        """Return scale and zero of a tensor."""
        return (
            self.graph.constant(tensor.scale, np.float32, "scale"),
            self.graph.constant(tensor.zero + _moved(tensor), np.uint8, "zero"),
        )


def _moved(tensor: IntTensor) -> int:
    """Return what is added to codes: engines want one type for what a layer reads and writes, so none has a sign."""
    return 128 if tensor.signed else 0


def _signed(weights: IntArray, scales: FloatArray) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """Return weights (kernels, ...) within 8 bits and their scales, which are above zero."""
    across = (-1, *(1,) * (weights.ndim - 1))
    weights = np.where(scales.reshape(across) < 0, -weights, weights)
    scales = np.abs(scales)
    if weights.min() < -_INT8 - 1 or weights.max() > _INT8:
        most = np.abs(weights).reshape(len(weights), -1).max(1)
        shrunk = np.minimum(1.0, _INT8 / np.maximum(most, 1))
        weights, scales = np.rint(weights * shrunk.reshape(across)).astype(np.int64), scales / shrunk
    none = scales.astype(np.float32) == 0  # of a channel that is constant
    weights = np.where(none.reshape(across), 0, weights)
    return weights, np.where(none, scales[~none].min() if (~none).any() else 1.0, scales).astype(np.float32)
