"""What each call of a network comes to in whole numbers; a new operator is a function and a line in :data:`CALLS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, fx

from impq_opt.compile.building import IN_FLOAT, WIDE_BITS, Builder, Greatest, Linear, Sums, Value
from impq_opt.compile.levels import Coded, WholeWeight, whole_weight
from impq_opt.compile.program import ACCUMULATOR_BITS, Concat, Flatten, IntTensor, Pool
from impq_opt.compile.windows import Pair, Sides, arguments, padded, pair, place_of, windows_of
from impq_opt.errors import DataError
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import attribute_of, op_of
from impq_opt.tracing.operations import IDENTITIES
from impq_opt.types import FloatArray, IntArray

__all__ = ["CALLS", "Calls"]

_COMMON_BITS = 16  # at most, of what had several scales: 256 times as fine as 8 bits are
_LEAST_BITS = 12
_MOST_BITS = 24
_MEANS = ("avg_pool2d", "adaptive_avg_pool2d", "mean")
_PASSING = (
    "pad", "constant_pad_nd", "slice", "cat", "concat", "flatten", "reshape", "view", "squeeze", "getitem",
    "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d",
)  # fmt: skip


class Calls:
    """Calls of one network, made one after the other.

    Parameters
    ----------
    network : TracedModule
    weights : mapping of str to Coded
        By the name of the parameter.
    builder : Builder
    values : mapping of Node to Value
        What has come of the calls so far.
    """

    def __init__(
        self, network: TracedModule, weights: Mapping[str, Coded], builder: Builder, values: dict[fx.Node, Value]
    ) -> None:
        self.network, self.weights, self.builder, self.values = network, weights, builder, values
        self.whole: dict[str, WholeWeight] = {}

    def tensor(self, argument: object) -> FloatArray | None:
        """Return the parameter or buffer that an argument of a call stands for, in float64."""
        if not (isinstance(argument, fx.Node) and argument.op == "get_attr"):
            return None
        held: Tensor = attribute_of(self.network, str(argument.target))
        return held.detach().cpu().double().numpy()

    def shape(self, argument: fx.Node) -> tuple[int, ...]:
        """Return the shape of what a call has put out, of one sample."""
        value = self.values[argument]
        return value.shape if isinstance(value, Linear) else self.builder.tensors[value].shape

    def stored(self, argument: fx.Node, node: fx.Node) -> IntTensor:
        """Return the tensor that a call reads."""
        return self.builder.stored(self.values[argument], place_of(node))

    def held(self, argument: fx.Node, node: fx.Node, spare: int = 0) -> IntTensor:
        """Return the tensor that a pool reads: of what nothing rounds, one of 24 bits less ``spare``."""
        value = self.values[argument]
        if isinstance(value, Linear):
            wide = self.builder.wide(value, f"{place_of(argument)}.held", WIDE_BITS - spare)
            value = self.builder.store(value, wide, place_of(node))
        return self.builder.tensors[value]

    def room(self, node: fx.Node) -> int:
        """Return the most bits, with sign, that a tensor may have so that sums of layers that read it have 32."""
        bits = _MOST_BITS
        for user in node.users:
            op = op_of(user).removesuffix("_")
            if op in ("conv2d", "linear"):
                sums = self.whole_weight(arguments(user)["weight"], user)[1].sizes().max()
                bits = min(bits, ((2 ** (ACCUMULATOR_BITS - 1) - 1) // max(int(sums), 1)).bit_length())
            elif op in _MEANS:
                count = math.prod(_shape(node)) // max(math.prod(_shape(user)), 1)
                bits = min(bits, self.room(user) - count.bit_length())
            elif op in _PASSING or op in IDENTITIES:
                bits = min(bits, self.room(user))
        return bits

    def whole_weight(self, argument: Any, node: fx.Node) -> tuple[str, WholeWeight]:
        """Return name and whole numbers of the weight of a layer."""
        name, coded = self.weight(argument, node)
        if name not in self.whole:
            self.whole[name] = whole_weight(name, coded)
        return name, self.whole[name]

    def weight(self, argument: Any, node: fx.Node) -> tuple[str, Coded]:
        """Return name and codes of the weight of a layer.

        Raises
        ------
        DataError
            It is in float.
        """
        name = str(argument.target) if isinstance(argument, fx.Node) and argument.op == "get_attr" else ""
        if name not in self.weights:
            raise DataError(
                "has a weight in float", where=place_of(node), hint="give it whole bits, 8 at most: --candidates 1:8"
            )
        return name.removesuffix(".weight"), self.weights[name]


def _conv(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    name, weight = calls.whole_weight(given["weight"], node)
    tensor = calls.stored(given["input"], node)
    out, inputs, *kernel = weight.codes.shape
    stride, dilation = pair(given["stride"]), pair(given["dilation"])
    sides = padded(given["padding"], (kernel[0], kernel[1]), dilation)
    tensor, sides = calls.builder.unpadded(tensor, sides)
    reads = np.arange(out) // (out // int(given["groups"])) * inputs
    return _sums(calls, node, Sums(name, tensor.name, weight, reads, stride, dilation, sides), given["bias"])


def _linear(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    name, weight = calls.whole_weight(given["weight"], node)
    tensor = calls.stored(given["input"], node)
    if len(tensor.shape) != 1:
        raise DataError("is a linear layer on more than vectors", where=name, value=tensor.shape)
    reads = np.zeros(len(weight.codes), dtype=np.int64)
    return _sums(calls, node, Sums(name, tensor.name, weight, reads), given["bias"])


def _sums(calls: Calls, node: fx.Node, sums: Sums, bias: Any) -> Linear:
    added = calls.tensor(bias)
    scales = sums.weight.scales * calls.builder.tensors[sums.source].scale
    shape = _shape(node)
    term = replace(sums, shape=shape)
    return Linear(((term, scales),), np.zeros(len(scales)) if added is None else added, shape)


def _batch_norm(calls: Calls, node: fx.Node) -> Value:
    value = calls.builder.linear(calls.values[node.args[0]])  # type: ignore[index]
    gamma, beta, mean, variance = (calls.tensor(argument) for argument in node.args[1:5])
    if value.is_clamped or mean is None or variance is None:
        raise DataError("is a batch-norm of an activation in float", where=place_of(node), hint=IN_FLOAT)
    factors = (1.0 if gamma is None else gamma) / np.sqrt(variance + float(node.args[7]))  # type: ignore[arg-type]
    return value.scaled(factors, (0.0 if beta is None else beta) - mean * factors)


def _rectifier(low: float, high: float) -> Callable[[Calls, fx.Node], Value]:
    def call(calls: Calls, node: fx.Node) -> Value:
        return _clamped(calls, node, low, high)

    return call


def _hardtanh(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    return _clamped(calls, node, float(given["min_val"]), float(given["max_val"]))


def _clamp(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    low, high = (given.get(end) for end in ("min", "max"))
    return _clamped(calls, node, -math.inf if low is None else float(low), math.inf if high is None else float(high))


def _clamped(calls: Calls, node: fx.Node, low: float, high: float) -> Value:
    value = calls.values[node.all_input_nodes[0]]
    if isinstance(value, str):
        tensor = calls.builder.tensors[value]
        if low <= tensor.scale * (tensor.low - tensor.zero) and tensor.scale * (tensor.high - tensor.zero) <= high:
            return value
    linear = calls.builder.linear(value)
    ends = (min(max(low, linear.ends[0]), linear.ends[1]), max(min(high, linear.ends[1]), linear.ends[0]))
    return replace(linear, ends=ends)


def _add(sign: float) -> Callable[[Calls, fx.Node], Value]:
    def call(calls: Calls, node: fx.Node) -> Value:
        given = arguments(node)
        values: list[float | Linear] = []
        for argument, factor in ((given["self"], 1.0), (given["other"], sign * float(given.get("alpha", 1)))):
            if isinstance(argument, (int, float)):
                values.append(float(argument) * factor)
                continue
            value = calls.values.get(argument)
            if value is None or calls.builder.linear(value).is_clamped:
                raise DataError("adds an activation in float", where=place_of(node), hint=IN_FLOAT)
            values.append(calls.builder.linear(value).scaled(factor))
        first, second = values
        if not isinstance(first, Linear):
            first, second = second, first
        assert isinstance(first, Linear)
        if not isinstance(second, Linear):
            return first.scaled(1.0, second)
        if first.shape != second.shape:
            raise DataError("adds tensors of unlike shapes", where=place_of(node), value=(first.shape, second.shape))
        return Linear(first.terms + second.terms, first.constants + second.constants, first.shape)

    return call


def _times(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    factor, value = given["other"], calls.values.get(given["self"])
    if value is None or not isinstance(factor, (int, float)) or calls.builder.linear(value).is_clamped:
        raise DataError("multiplies by more than a number", where=place_of(node))
    return calls.builder.linear(value).scaled(float(factor) if "mul" in str(node.target) else 1 / float(factor))


def _max_pool(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    kernel, dilation, value = pair(given["kernel_size"]), pair(given["dilation"]), calls.values[given["self"]]
    stride, padding = pair(given["stride"] or kernel), pair(given["padding"])
    _, *size = calls.shape(given["self"])
    sides = windows_of((size[0], size[1]), _size_of(node), kernel, stride, dilation, padding)
    if isinstance(value, Linear):
        most = Greatest(place_of(node), value, kernel, stride, dilation, sides, _shape(node))
        return Linear(((most, np.ones(most.shape[0])),), np.zeros(most.shape[0]), most.shape)
    tensor = calls.stored(given["self"], node)
    return _pool(calls, node, tensor, "max", kernel, stride, dilation, sides)


def _mean_pool(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    kernel = pair(given["kernel_size"])
    tensor = calls.held(given["self"], node, math.prod(kernel).bit_length())
    stride, padding = pair(given["stride"] or kernel), pair(given["padding"])
    if given["ceil_mode"] or given["divisor_override"] or (any(padding) and not given["count_include_pad"]):
        raise DataError("is a mean over windows of several sizes", where=place_of(node))
    sides = windows_of(_size(tensor), _size_of(node), kernel, stride, (1, 1), padding)
    return _pool(calls, node, tensor, "sum", kernel, stride, (1, 1), sides)


def _adaptive(kind: str) -> Callable[[Calls, fx.Node], Value]:
    def call(calls: Calls, node: fx.Node) -> Value:
        source, out = node.all_input_nodes[0], _size_of(node)
        size = calls.shape(source)[1:]
        if any(whole % part for whole, part in zip(size, out, strict=True)):
            raise DataError("pools over windows of several sizes", where=place_of(node), value=f"{size} to {out}")
        kernel = size[0] // out[0], size[1] // out[1]
        tensor = calls.held(source, node, math.prod(kernel).bit_length() if kind == "sum" else 0)
        return _pool(calls, node, tensor, kind, kernel, kernel)

    return call


def _mean(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    shape, dims = calls.shape(given["self"]), given["dim"]
    if len(shape) != 3 or sorted(d % 4 for d in dims or ()) != [2, 3]:
        raise DataError("is a mean over other than rows and columns", where=place_of(node))
    kernel = shape[1], shape[2]
    tensor = calls.held(given["self"], node, math.prod(kernel).bit_length())
    pooled = _pool(calls, node, tensor, "sum", kernel, kernel)
    return pooled if given["keepdim"] else _flattened(calls, node, pooled)


def _pool(
    calls: Calls,
    node: fx.Node,
    tensor: IntTensor,
    kind: str,
    kernel: Pair,
    stride: Pair,
    dilation: Pair = (1, 1),
    padding: Sides = ((0, 0), (0, 0)),
) -> str:
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = [
        (size + sum(sides) - s) // step + 1
        for size, sides, s, step in zip(_size(tensor), padding, span, stride, strict=True)
    ]
    made = replace(tensor, name=place_of(node), shape=(tensor.shape[0], *sizes))
    if kind == "sum":
        count, signed = math.prod(kernel), tensor.low < tensor.zero
        bits = int(count * tensor.largest).bit_length() + signed
        made = replace(made, bits=bits, signed=signed, scale=tensor.scale / count, zero=0)
    target = calls.builder.new(made)
    calls.builder.operations.append(Pool(place_of(node), kind, tensor.name, target, kernel, stride, dilation, padding))
    return target


def _shaped(calls: Calls, node: fx.Node) -> Value:
    """Reshape: to the same shape, or to a vector."""
    value = calls.values[node.all_input_nodes[0]]
    shape, own = _shape(node), calls.shape(node.all_input_nodes[0])
    if shape == own:
        return value
    if len(shape) != 1 or len(own) != 3:
        raise DataError("reshapes to other than a vector", where=place_of(node), value=f"{own} to {shape}")
    return _flattened(calls, node, calls.stored(node.all_input_nodes[0], node).name)


def _flattened(calls: Calls, node: fx.Node, source: str) -> str:
    tensor = calls.builder.tensors[source]
    target = calls.builder.new(replace(tensor, name=f"{place_of(node)}.flat", shape=(tensor.elements,)))
    calls.builder.operations.append(Flatten(place_of(node), source, target))
    return target


def _slice(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    dim, start, end, step = (given[key] for key in ("dim", "start", "end", "step"))
    if dim == 0 and start in (None, 0) and (end is None or end > 2**31) and step == 1:
        return calls.values[given["self"]]
    tensor = calls.stored(given["self"], node)
    if not 1 <= dim <= len(tensor.shape):
        raise DataError("slices other than channels, rows and columns", where=place_of(node))
    places = [np.arange(size) for size in tensor.shape]
    places[dim - 1] = places[dim - 1][start:end:step]
    return _moved(calls, node, tensor, places)


def _pad(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    if given.get("mode", "constant") != "constant" or given["value"]:
        raise DataError("pads with other than zeros", where=place_of(node))
    tensor = calls.stored(given["self"], node)
    places = [np.arange(size) for size in tensor.shape]
    pads = [int(p) for p in given["pad"]]
    for axis, before, after in zip(reversed(range(len(places))), pads[::2], pads[1::2], strict=False):
        place = np.arange(-before, tensor.shape[axis] + after)
        places[axis] = np.where(place < tensor.shape[axis], np.maximum(place, -1), -1)
    return _moved(calls, node, tensor, places)


def _moved(calls: Calls, node: fx.Node, tensor: IntTensor, places: list[IntArray]) -> str:
    empty = np.empty(0, dtype=np.int64)
    channels, rows, columns = places if len(places) == 3 else (places[0], empty, empty)
    return calls.builder.move(tensor.name, channels, rows, columns, place_of(node))


def _cat(calls: Calls, node: fx.Node) -> Value:
    given = arguments(node)
    parts = [calls.stored(argument, node) for argument in given["tensors"]]
    if given["dim"] not in (1, -len(parts[0].shape)) or any(p.shape[1:] != parts[0].shape[1:] for p in parts):
        raise DataError("concatenates other than channels", where=place_of(node), value=given["dim"])
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    bits = max(min(_COMMON_BITS, calls.room(node)), _LEAST_BITS)
    common = replace(_common(parts, bits), name=place_of(node), shape=shape)
    names = []
    for part in parts:
        if (part.scale, part.zero) != (common.scale, common.zero) or part.bits > common.bits:
            own = replace(common, name=f"{part.name}.rescaled", shape=part.shape)
            names.append(calls.builder.store(calls.builder.linear(part.name), own, place_of(node)))
        else:
            names.append(part.name)
    if any(name != part.name for name, part in zip(names, parts, strict=True)):
        calls.builder.notes.append(
            f"{place_of(node)}: what is concatenated has several scales and is brought to one, of {common.bits} bits"
        )
    target = calls.builder.new(common)
    calls.builder.operations.append(Concat(place_of(node), tuple(names), target))
    return target


def _common(parts: list[IntTensor], bits: int) -> IntTensor:
    """Return a tensor that holds the values of all: of their scale, or of a finer one where they have several."""
    first = parts[0]
    if all((p.scale, p.zero, p.signed) == (first.scale, first.zero, first.signed) for p in parts):
        return max(parts, key=lambda part: part.bits)
    bits = max(bits, *(part.bits for part in parts))
    low = min(part.scale * (part.low - part.zero) for part in parts)
    high = max(part.scale * (part.high - part.zero) for part in parts)
    signed = low < 0
    most = 2 ** (bits - 1) - 1  # with or without sign, so that whatever reads it may hold it with one
    return IntTensor("", (), bits - (not signed), signed, max(high, -low) / most)


def _first(calls: Calls, node: fx.Node) -> Value:
    """Return the values of a pool that returns their places too."""
    source, place = node.args
    if not isinstance(source, fx.Node) or place != 0 or source not in calls.values:
        raise DataError("takes the places of a pool, or a part of a tensor", where=place_of(node))
    return calls.values[source]


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of one sample, of the first of several outputs."""
    value = node.meta["val"]
    first = value[0] if isinstance(value, (tuple, list)) else value
    return tuple(int(size) for size in first.shape[1:])


def _size(tensor: IntTensor) -> Pair:
    return tensor.shape[1], tensor.shape[2]


def _size_of(node: fx.Node) -> Pair:
    rows, columns = _shape(node)[-2:]
    return rows, columns


CALLS: dict[str, Callable[[Calls, fx.Node], Value]] = {
    "conv2d": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _rectifier(0.0, math.inf),
    "relu6": _rectifier(0.0, 6.0),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "add": _add(1.0),
    "sub": _add(-1.0),
    "mul": _times,
    "div": _times,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _mean_pool,
    "adaptive_avg_pool2d": _adaptive("sum"),
    "adaptive_max_pool2d": _adaptive("max"),
    "mean": _mean,
    "getitem": _first,
    "flatten": _shaped,
    "reshape": _shaped,
    "view": _shaped,
    "squeeze": _shaped,
    "slice": _slice,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "cat": _cat,
    "concat": _cat,
}
