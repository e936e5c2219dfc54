"""From a quantized network to a program of whole numbers: its calls, one after the other.

What a call puts out is a tensor of codes or an expression of sums and tensors with a rectifier's ends
(:class:`~impq_opt.compile.building.Linear`), which a quantizer makes a tensor of. Batch-norms, biases, factors and
rectifiers only change expressions, so they are part of the one rounding at the quantizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import fx

from impq_opt.compile.building import IN_FLOAT, WIDE_BITS, Builder, Linear, Value
from impq_opt.compile.calls import CALLS, Calls
from impq_opt.compile.levels import Coded, whole_activation
from impq_opt.compile.order import by_precision
from impq_opt.compile.program import Encoding, IntTensor, Program
from impq_opt.compile.windows import place_of
from impq_opt.errors import DataError, OptionError
from impq_opt.quantize import ActivationQuantizer
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import op_of
from impq_opt.tracing.operations import IDENTITIES
from impq_opt.types import FloatArray

__all__ = ["OUTPUT_BITS", "lower"]

# Of logits unless asked otherwise: finer than what activations of 8 bits leave apart.
OUTPUT_BITS = WIDE_BITS
_NORMALIZED_BITS = 16  # at most: windows of them are held in so many, and products with 8-bit weights in float32
_TOLD = 1e-5
_SIZES = ("sym_size",)  # of a batch, which a reshape is told


def lower(
    network: TracedModule,
    weights: Mapping[str, Coded],
    encoding: Encoding,
    *,
    name: str = "network",
    output_bits: int = OUTPUT_BITS,
    output_span: float | None = None,
) -> Program:
    """Return the program of a quantized network, its output kernels ordered by precision.

    Parameters
    ----------
    network : TracedModule
        With quantizers behind its activations.
    weights : mapping of str to Coded
        Its weights, by the name of the parameter.
    encoding : Encoding
        How its input becomes codes of 8 bits.
    name : str
    output_bits : int
        Of the logits, 2 to 24.
    output_span : float, optional
        The largest size of logits that are told apart; the largest that there can be unless given.

    Raises
    ------
    DataError
        What whole numbers cannot express, with the name of the layer: a call of another kind, an activation or weight
        in float, levels that are no equal steps.
    OptionError
        Logits of other than 2 to 24 bits.
    """
    if not 2 <= output_bits <= OUTPUT_BITS:
        raise OptionError(f"must be 2 to {OUTPUT_BITS}", where="output bits", value=output_bits)
    builder, values = Builder(), dict[fx.Node, Value]()
    calls = Calls(network, weights, builder, values)
    output = next(node for node in network.traced_graph.nodes if node.op == "output").args[0]
    if not isinstance(output, fx.Node) or op_of(output) == "tree_unflatten":
        raise DataError("returns more than its logits", where="network", hint="return the logits alone")
    needed = _needed(output)
    for node in network.traced_graph.nodes:
        if node.op == "placeholder":
            if values:
                raise DataError("takes several inputs", where="network", hint="networks of one input can be compiled")
            values[node] = _begin(calls, node, encoding)
        elif node in needed and node.op in ("call_function", "call_module"):
            values[node] = _value(calls, node)
    result = values[output]
    if isinstance(result, Linear):
        result = builder.store(result, builder.wide(result, "logits", output_bits, output_span), place_of(output))
    operations = builder.live(result)
    begin = next(iter(builder.tensors))
    return by_precision(Program(name, builder.tensors, operations, begin, result, encoding, tuple(builder.notes)))


def _needed(output: fx.Node) -> set[fx.Node]:
    """Return the calls that an output is computed from the input by."""
    carries: set[fx.Node] = set()
    for node in output.graph.nodes:
        if node.op == "placeholder" or any(source in carries for source in node.all_input_nodes):
            carries.add(node)
    front, needed = [output], set[fx.Node]()
    while front:
        node = front.pop()
        if node in carries and node not in needed and op_of(node) not in _SIZES:
            needed.add(node)
            front += node.all_input_nodes
    return needed


def _value(calls: Calls, node: fx.Node) -> Value:
    if node.op == "call_module":
        quantizer = calls.network._modules[str(node.target)]
        assert isinstance(quantizer, ActivationQuantizer)
        value = calls.builder.linear(calls.values[node.all_input_nodes[0]])
        if quantizer.bits > 8:
            raise DataError("has more than 8 bits", where=quantizer.label, value=quantizer.bits, hint=IN_FLOAT)
        tensor = whole_activation(quantizer.label, value.shape, quantizer)
        return calls.builder.store(value, tensor, quantizer.label)
    op = op_of(node).removesuffix("_")
    if op in IDENTITIES:
        return calls.values[node.all_input_nodes[0]]
    if op not in CALLS:
        raise DataError("is a call that has no form in whole numbers here", where=place_of(node), value=op)
    return CALLS[op](calls, node)


def _begin(calls: Calls, node: fx.Node, encoding: Encoding) -> str:
    """Make the input: 8-bit codes, and behind them a wider tensor where no one scale and whole zero would do."""
    builder, shape = calls.builder, tuple(int(size) for size in node.meta["val"].shape[1:])
    if len(shape) not in (1, 3):
        raise DataError("takes samples that are neither pictures nor vectors", where="network", value=shape)
    scale, zero = (np.broadcast_to(part, shape[:1]).astype(np.float64) for part in (encoding.scale, encoding.zero))
    one = bool((scale == scale[0]).all() and (zero == zero[0]).all() and float(zero[0]).is_integer())
    if one and -(2**7) <= zero[0] < 2**7:
        return builder.new(IntTensor("input", shape, 8, True, float(scale[0]), int(zero[0])))
    coded = builder.new(IntTensor("input", shape, 8, True, 1.0))
    most = 2 ** (min(_NORMALIZED_BITS, calls.room(node)) - 1) - 1
    unit = _unit(scale, zero, most)
    bits = math.floor(_largest(scale, zero) / unit + 0.5).bit_length() + 1
    target = IntTensor("normalized", shape, bits, True, unit)
    return builder.store(Linear(((coded, scale),), -scale * zero, shape), target, "input")


def _largest(scale: FloatArray, zero: FloatArray) -> float:
    """Return the largest size of what 8-bit codes stand for."""
    return float((scale * np.maximum(np.abs(-128 - zero), np.abs(127 - zero))).max())


def _unit(scale: FloatArray, zero: FloatArray, most: int) -> float:
    """Return the scale that 8-bit codes of several scales, or of zeros between two codes, are brought to.

    Where they have one scale, it is the part of it that the zeros are nearest to whole numbers of, mostly exactly:
    means of pixels have few decimals. Else it is the finest that whole numbers up to ``most`` allow.
    """
    finest = _largest(scale, zero) / most
    parts = np.arange(1, int(scale[0] / finest) + 1)
    if (scale != scale[0]).any() or not len(parts):
        return finest
    off = np.abs(parts[:, None] * zero - np.rint(parts[:, None] * zero)).max(1) / parts
    # The fewest parts among those that are about as near as the nearest: float32 tells zeros to 1e-5 of a step.
    return float(scale[0]) / int(parts[np.argmax(off <= off.min() + _TOLD)])
