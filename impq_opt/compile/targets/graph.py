"""Graphs of ONNX that compute what a program computes, exactly: what the targets ``onnx`` and ``qonnx`` share.

The value of a program's tensor is the float32 number ``x - zero``, which is whole and below 2^24 in size. Sums of
products are made by Conv and MatMul in float32, which hold every partial sum below 2^24, whatever their order; a layer
whose sums may be larger is made of several that add up. What rounds is done in float64, which holds the scaled sums
that a program allows: multiplied, shifted (multiplier and addend are there in units of 2^-shift) and rounded down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import (
    Add,
    Concat,
    Flatten,
    IntTensor,
    Layer,
    Move,
    Operation,
    Part,
    Pool,
    Program,
    Rescale,
)
from impq_opt.errors import DataError
from impq_opt.exchange.base import need
from impq_opt.types import FloatArray, IntArray

__all__ = ["BATCH", "ExactWriter", "Graph", "grouped", "joined", "model_of", "needed_onnx", "shifted"]

BATCH = "batch"
_WHOLE = 2**24  # float32 holds every whole number up to here


def needed_onnx() -> Any:
    """Return the package onnx; raise MissingPackageError where it is absent."""
    return need("onnx", "writing ONNX files", "onnx")


class Graph:
    """Nodes and constants as they come; names begin with the operation that they belong to."""

    def __init__(self) -> None:
        self.onnx = needed_onnx()
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
        self.scope = ""
        self.names: set[str] = set()

    def name(self, wanted: str) -> str:
        """Return a name that nothing has."""
        name, number = wanted, 1
        while name in self.names:
            number += 1
            name = f"{wanted}_{number}"
        self.names.add(name)
        return name

    def node(self, op: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node of one output; return that."""
        output = output or self.name(f"{self.scope}/{op}")
        made = self.onnx.helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        self.nodes.append(made)
        return output

    def constant(self, values: npt.ArrayLike, kind: Any = None, what: str = "constant") -> str:
        """Add a constant unless it is there; return its name."""
        array = np.asarray(values, dtype=kind)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = self.onnx.numpy_helper.from_array(array, self.name(f"{self.scope}/{what}"))
        return self.constants[key].name

    def cast(self, value: str, kind: type) -> str:
        """Return a value as NumPy's ``kind``."""
        return self.node("Cast", value, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def gather(self, value: str, places: IntArray, axis: int, size: int, axes: int = 0, *fill: str) -> str:
        """Return places of an axis of ``size``, the value itself where they are all, in order.

        Where there are places of -1, for zeros or a constant ``fill``, ``axes`` is the number of all axes.
        """
        if (places < 0).any():
            pads = np.zeros((2, axes), dtype=np.int64)
            pads[1, axis] = 1
            value = self.node("Pad", value, self.constant(pads.reshape(-1)), *fill)
        if np.array_equal(places, np.arange(size)):
            return value
        return self.node("Gather", value, self.constant(np.where(places < 0, size, places)), axis=axis)

    def written(
        self, program: Program, opsets: Mapping[str, int], batch: int | str, shapes: Mapping[str, tuple[int, ...]]
    ) -> bytes:
        """Return the file, opened again and checked; ``shapes`` are of values that ONNX does not know, -1 the batch."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        infos = [
            helper.make_tensor_value_info(name, kind, [batch if size < 0 else size for size in shape])
            for name, shape in (
                ("input", (-1, *program.tensors[program.input].shape)),
                ("logits", (-1, *program.tensors[program.output].shape)),
                *shapes.items(),
            )
        ]
        graph = helper.make_graph(
            self.nodes, program.name, infos[:1], infos[1:2], list(self.constants.values()), value_info=infos[2:]
        )
        model = model_of(self.onnx, graph, opsets)
        content: bytes = self.onnx.shape_inference.infer_shapes(model).SerializeToString()
        self.onnx.checker.check_model(self.onnx.load_from_string(content), full_check=True)
        return content


def model_of(onnx: Any, graph: Any, opsets: Mapping[str, int]) -> Any:
    """Return a model for the oldest readers that its opsets have."""
    every = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    known = [opset for opset in every if not opset.domain]
    return onnx.helper.make_model(
        graph, producer_name="impq-opt", opset_imports=every, ir_version=onnx.helper.find_min_ir_version_for(known)
    )


class ExactWriter:
    """The graph of a program, as far as it is written.

    A target says how weights are held (:meth:`weight`) and how activations are rounded (:meth:`coded`).

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = Graph()
        self.values: dict[str, str] = {}

    def write(self) -> None:
        """Write all operations.

        Raises
        ------
        DataError
            Where float32 does not hold a tensor's numbers.
        """
        for tensor in self.program.tensors.values():
            if tensor.largest >= _WHOLE:
                raise DataError("has numbers that float32 does not hold", where=tensor.name, value=tensor.largest)
        self.graph.scope = "input"
        self.values[self.program.input] = self.input()
        for operation in self.program.operations:
            self.graph.scope = operation.name
            self.values[operation.target] = _OPERATIONS[type(operation)](self, operation)
        self.graph.scope = "output"
        self.output(self.values[self.program.output])

    # -- what a target says ------------------------------------------------------------------------------------------

    def weight(self, parts: tuple[Part, ...], flat: bool) -> str:
        """Return the whole numbers of parts in float32: (kernels, inputs, height, width), or (kernels, inputs).

        Kernels are in the order of their channels.
        """
        raise NotImplementedError

    def coded(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        """Return whole float32 numbers ``x - zero`` of a tensor, clamped to codes ``low`` and ``high``."""
        raise NotImplementedError

    def fill(self, source: str) -> tuple[str, ...]:
        """Return what a tensor is padded with, nothing for zeros."""
        return ()

    # -- operations --------------------------------------------------------------------------------------------------

    def input(self) -> str:
        """Return the codes of real inputs."""
        tensor, encoding = self.program.tensors[self.program.input], self.program.encoding
        scaled = self.graph.node("Div", self.graph.cast("input", np.float64), self.channels(encoding.scale, tensor))
        moved = self.graph.node("Add", scaled, self.channels(encoding.zero, tensor))
        codes = self.graph.node("Round", moved)
        if tensor.zero:
            codes = self.graph.node("Sub", codes, self.graph.constant(tensor.zero, np.float64))
        return self.coded(self.graph.cast(codes, np.float32), tensor, tensor.low, tensor.high)

    def output(self, value: str) -> None:
        scale = self.graph.constant(self.program.tensors[self.program.output].scale, np.float32, "scale")
        self.graph.node("Mul", value, scale, output="logits")

    def layer(self, layer: Layer) -> str:
        target = self.program.tensors[layer.target]
        made: list[tuple[str, bool]] = []  # with whether it is float64
        channels: list[IntArray] = []
        for parts in self.together(layer):
            for weight, kernels, value, groups in self.grouped(layer, parts):
                masks = list(self.masks(layer, kernels))
                pieces = [
                    self.product(layer, value, self.graph.node("Mul", weight, mask) if mask else weight, groups)
                    for mask in masks
                ]
                if len(pieces) > 1:
                    wide = [self.graph.cast(one, np.float64) for one in pieces]
                    made.append((self.graph.node("Sum", *wide), True))
                else:
                    made.append((pieces[0], False))
                channels.append(kernels.channels)
        if any(wide for _, wide in made):
            made = [(value if wide else self.graph.cast(value, np.float64), True) for value, wide in made]
        sums = self.in_order([value for value, _ in made], np.concatenate(channels))
        if not made[0][1]:
            sums = self.graph.cast(sums, np.float64)
        multipliers, addends = np.zeros(target.shape[0]), np.zeros(target.shape[0])
        for part in layer.parts:
            multipliers[part.channels], addends[part.channels] = shifted(part.rescale, target.zero)
        terms = [self.graph.node("Mul", sums, self.channels(multipliers, target))]
        for number, source in enumerate(layer.added):
            factors = added_factors(layer, number, target)
            value = self.graph.cast(self.values[source], np.float64)
            terms.append(self.graph.node("Mul", value, self.channels(factors, target)))
        scaled = terms[0] if len(terms) == 1 else self.graph.node("Sum", *terms)
        return self.rounded(scaled, addends, target, *self.ends(layer))

    def add(self, add: Add) -> str:
        target = self.program.tensors[add.target]
        multipliers, addends = shifted(add.rescale, target.zero)
        terms = [
            self.graph.node("Mul", self.graph.cast(self.values[source], np.float64), self.channels(factors, target))
            for source, factors in zip(add.sources, multipliers, strict=True)
        ]
        total = terms[0] if len(terms) == 1 else self.graph.node("Sum", *terms)
        return self.rounded(total, addends, target, add.rescale.low, add.rescale.high)

    def pool(self, pool: Pool) -> str:
        source, target = self.program.tensors[pool.source], self.program.tensors[pool.target]
        value, whole = self.values[pool.source], self.covers(pool)
        if pool.kind == "max":
            made = self.windows("MaxPool", value, pool)
        elif whole:
            made = self.graph.node("ReduceSum", value, self.graph.constant([2, 3], np.int64), keepdims=1)
        else:
            ones = self.graph.constant(np.ones((source.shape[0], 1, *pool.kernel)), np.float32)
            made = self.convolution(value, ones, pool, source.shape[0])
        return self.cut(made, pool, target)

    def move(self, move: Move) -> str:
        value = self.values[move.source]
        shape = self.program.tensors[move.source].shape
        for axis, places in enumerate((move.channels, move.rows, move.columns)[: len(shape)], 1):
            value = self.graph.gather(value, places, axis, shape[axis - 1], len(shape) + 1, *self.fill(move.source))
        return value

    def concat(self, concat: Concat) -> str:
        return self.graph.node("Concat", *(self.values[source] for source in concat.sources), axis=1)

    def flatten(self, flatten: Flatten) -> str:
        return self.graph.node("Flatten", self.values[flatten.source], axis=1)

    # -- parts of operations -----------------------------------------------------------------------------------------

    def channels(self, values: FloatArray, tensor: IntTensor, kind: type = np.float64) -> str:
        """Return a constant a channel, or one for all where they are alike."""
        if (values == values[0]).all():
            return self.graph.constant(values[0], kind)
        return self.graph.constant(values.reshape(-1, *(1,) * (len(tensor.shape) - 1)), kind)

    def together(self, layer: Layer) -> tuple[tuple[Part, ...], ...]:
        """Return the parts of a layer, those together that one convolution computes."""
        return (layer.parts,)

    def ends(self, layer: Layer) -> tuple[int, int]:
        """Return the least and the largest code of a layer.

        Raises
        ------
        DataError
            Where its sub-layers have different ones.
        """
        ends = {(part.rescale.low, part.rescale.high) for part in layer.parts}
        if len(ends) > 1:
            raise DataError("has sub-layers that end at codes of their own", where=layer.name, value=sorted(ends))
        return ends.pop()

    def grouped(self, layer: Layer, parts: tuple[Part, ...]) -> Iterator[tuple[str, Part, str, int]]:
        """Yield what one convolution computes: a weight, its kernels, the channels that they read, groups."""
        source, whole = self.program.tensors[layer.source], joined(parts)
        weight = self.weight(parts, len(source.shape) == 1)
        for own, channels, groups in grouped(whole, source.shape[0]):
            kernels = self.graph.gather(weight, own, 0, len(whole))
            yield kernels, taken(whole, own), self.picked(layer.source, channels), groups

    def picked(self, source: str, channels: IntArray) -> str:
        """Return some channels of a tensor."""
        return self.graph.gather(self.values[source], channels, 1, self.program.tensors[source].shape[0])

    def masks(self, layer: Layer, part: Part) -> Iterator[str]:
        """Yield what a weight is multiplied by so that float32 holds all sums; one empty name where it does anyway.

        Raises
        ------
        DataError
            Where float32 does not hold a single product.
        """
        sizes = np.abs(part.weights)
        flat = sizes.reshape(len(part), -1)
        largest = self.program.tensors[layer.source].largest
        limit = (_WHOLE - 1) // max(largest, 1)
        if flat.sum(1).max() <= limit:
            yield ""
            return
        if flat.max() > limit:
            raise DataError(
                "has products that float32 does not hold",
                where=layer.name,
                value=f"up to {int(flat.max()) * largest:,}",
            )
        piece, held = np.zeros(flat.shape[1], dtype=np.int64), np.zeros(len(part), dtype=np.int64)
        for place in range(flat.shape[1]):
            held = held + flat[:, place]
            if held.max() > limit:
                piece[place:] += 1
                held = flat[:, place]
        shape = (1, flat.shape[1]) if len(self.program.tensors[layer.source].shape) == 1 else (1, *sizes.shape[1:])
        for number in range(piece[-1] + 1):
            yield self.graph.constant((piece == number).reshape(shape), np.float32, "mask")

    def product(self, layer: Layer, value: str, weight: str, groups: int) -> str:
        """Return sums of products."""
        if len(self.program.tensors[layer.source].shape) == 1:
            return self.graph.node("Gemm", value, weight, transB=1)
        return self.convolution(value, weight, layer, groups)

    def convolution(self, value: str, weight: str, window: Layer | Pool, groups: int, *bias: str) -> str:
        """Return the convolution of a value."""
        return self.windows("Conv", value, window, weight, *bias, group=groups)

    def windows(self, op: str, value: str, window: Layer | Pool, *others: str, **attributes: Any) -> str:
        """Return a node over windows of a value."""
        (above, below), (left, right) = window.padding
        return self.graph.node(
            op, value, *others, kernel_shape=window.kernel, strides=window.stride, dilations=window.dilation,
            pads=[above, left, below, right], **attributes,
        )  # fmt: skip

    def in_order(self, values: list[str], channels: IntArray, axis: int = 1) -> str:
        """Return values that have these channels one behind the other as one, its channels in order."""
        value = self.graph.node("Concat", *values, axis=axis) if len(values) > 1 else values[0]
        return self.graph.gather(value, np.argsort(channels), axis, len(channels))

    def covers(self, pool: Pool) -> bool:
        """Return whether one window covers the source, without padding."""
        return pool.kernel == self.program.tensors[pool.source].shape[1:] and not any(map(any, pool.padding))

    def cut(self, value: str, pool: Pool, target: IntTensor) -> str:
        """Return the windows that a pool keeps."""
        shape = self.program.tensors[pool.source].shape
        for axis in (1, 2):
            k = axis - 1
            spread = pool.dilation[k] * (pool.kernel[k] - 1) + 1
            windows = (shape[axis] + sum(pool.padding[k]) - spread) // pool.stride[k] + 1
            value = self.graph.gather(value, np.arange(target.shape[axis]), axis + 1, windows)
        return value

    def rounded(self, scaled: str, addends: FloatArray, target: IntTensor, low: int, high: int) -> str:
        """Return the codes of float64 sums that are multiplied already."""
        if addends.any():
            scaled = self.graph.node("Add", scaled, self.channels(addends, target))
        whole = self.graph.cast(self.graph.node("Floor", scaled), np.float32)
        return self.coded(whole, target, low, high)


def shifted(rescale: Rescale, zero: int) -> tuple[FloatArray, FloatArray]:
    """Return multipliers and addends, without the output's zero, in units of a code; float64 holds them exactly."""
    moved = rescale.addends - (zero << rescale.shift)
    return (
        np.ldexp(rescale.multipliers.astype(np.float64), -rescale.shift),
        np.ldexp(moved.astype(np.float64), -rescale.shift),
    )


def added_factors(layer: Layer, number: int, target: IntTensor) -> FloatArray:
    """Return how many codes of a layer's target one code of the added tensor ``number`` comes to, by channel."""
    factors = np.zeros(target.shape[0])
    for part in layer.parts:
        factors[part.channels] = np.ldexp(part.added[number].astype(np.float64), -part.rescale.shift)
    return factors


def joined(parts: tuple[Part, ...]) -> Part:
    """Return parts as one, of the largest number of bits, its kernels in order; how sums become codes is left out."""
    order = np.argsort(np.concatenate([part.channels for part in parts]))
    factors = {part.factor for part in parts}
    codes: npt.NDArray[Any]
    if len(factors) > 1:
        least = int(min(part.weights.min() for part in parts))
        most = int(max(part.weights.max() for part in parts))
        codes = np.concatenate([part.weights - least for part in parts])
        offsets = np.full(len(codes), least)
        bits, factor = (most - least).bit_length(), 1
    else:
        codes = np.concatenate([part.codes for part in parts])
        offsets = np.concatenate([part.offsets for part in parts])
        bits, factor = max(part.bits for part in parts), parts[0].factor
    narrow: npt.NDArray[np.unsignedinteger] = codes.astype(np.uint8) if bits <= 8 else codes.astype(np.uint16)
    return replace(
        parts[0],
        bits=bits,
        codes=narrow[order],
        factor=factor,
        offsets=offsets[order],
        channels=np.concatenate([part.channels for part in parts])[order],
        reads=np.concatenate([part.reads for part in parts])[order],
    )


def grouped(part: Part, size: int) -> Iterator[tuple[IntArray, IntArray, int]]:
    """Yield the kernels of one convolution, the channels of the source (of ``size``) that it reads, groups."""
    inputs = part.codes.shape[1]
    if inputs == size:
        yield np.arange(len(part)), np.arange(size), 1
        return
    if inputs == 1:
        yield np.arange(len(part)), part.reads, len(part)
        return
    firsts, counts = np.unique(part.reads, return_counts=True)
    if (counts == counts[0]).all():
        every = np.argsort(part.reads, kind="stable")
        yield every, (firsts[:, None] + np.arange(inputs)).reshape(-1), len(firsts)
        return
    for first in firsts:
        yield np.flatnonzero(part.reads == first), first + np.arange(inputs), 1


def taken(part: Part, kernels: IntArray) -> Part:
    """Return some kernels of a part; how sums become codes is left out."""
    return replace(
        part,
        codes=part.codes[kernels],
        offsets=part.offsets[kernels],
        channels=part.channels[kernels],
        reads=part.reads[kernels],
    )


_OPERATIONS: dict[type[Operation], Any] = {
    Layer: lambda writer, operation: writer.layer(operation),
    Add: lambda writer, operation: writer.add(operation),
    Pool: lambda writer, operation: writer.pool(operation),
    Move: lambda writer, operation: writer.move(operation),
    Concat: lambda writer, operation: writer.concat(operation),
    Flatten: lambda writer, operation: writer.flatten(operation),
}
