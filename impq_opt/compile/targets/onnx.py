"""ONNX: weights of 2, 4 and 8 bits, activations of 8, run exactly by ONNX Runtime's CPU provider."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import IntTensor, Part, Program
from impq_opt.compile.targets.base import Compiled, Size
from impq_opt.compile.targets.graph import BATCH, ExactWriter, joined, model_of, needed_onnx
from impq_opt.errors import OptionError
from impq_opt.exchange.base import need
from impq_opt.types import FloatArray

__all__ = ["OnnxWriter", "compile_onnx", "compile_onnx_unsplit", "run_onnx", "written_onnx"]

# The first opset with weights of so many bits.
_OPSETS = {2: 25, 4: 21, 8: 13}


def compile_onnx(program: Program, *, split: bool = True) -> Compiled:
    """Return NAME.onnx of a program, equal to its reference in every bit: real inputs, logits in float32.

    Parameters
    ----------
    program : Program
    split : bool
        Whether the sub-layers of one precision are stored apart, each in the narrowest type that holds it, and joined
        when the file is loaded; else one type holds all weights of a layer.

    Raises
    ------
    DataError
        Numbers or products above 2^24, which float32 does not hold.
    MissingPackageError
        onnx is not installed.
    """
    return written_onnx(OnnxWriter(program, split))


def compile_onnx_unsplit(program: Program) -> Compiled:
    """Return the same with one type a weight."""
    return compile_onnx(program, split=False)


class OnnxWriter(ExactWriter):
    """Weights in the narrowest type that the installed ONNX Runtime reads; QuantizeLinear with scale 1 at activations.

    Weights are cast to float32, and those of a layer's precisions concatenated: ONNX Runtime does both once, when it
    loads the file, while it would do a DequantizeLinear at every run.
    """

    def __init__(self, program: Program, split: bool = True) -> None:
        super().__init__(program)
        self.split = split
        self.most = newest_opset()
        self.opset = _OPSETS[8]
        self.weight_bits = 0

    def weight(self, parts: tuple[Part, ...], flat: bool) -> str:
        own = self.split_parts(parts)
        channels = np.concatenate([part.channels for part in own])
        return self.in_order([self.whole(part, flat) for part in own], channels, axis=0)

    def split_parts(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """Return the parts that have types of their own."""
        return parts if self.split else (joined(parts),)

    def whole(self, part: Part, flat: bool) -> str:
        """Return the whole numbers of a part in float32."""
        weights, codes = (values[:, :, 0, 0] if flat else values for values in (part.weights, part.codes))
        own, wide = self.width(part.bits), self.held(int(weights.min()), int(weights.max()))
        if wide <= own:
            return self.graph.cast(self.stored(weights, wide, True), np.float32)
        value = self.graph.cast(self.stored(codes, own, False), np.float32)
        if part.factor != 1:
            value = self.graph.node("Mul", value, self.graph.constant(part.factor, np.float32))
        offsets = part.offsets
        alike = (offsets == offsets[0]).all()
        offsets = offsets[0] if alike else offsets.reshape(-1, *(1,) * (weights.ndim - 1))
        return self.graph.node("Add", value, self.graph.constant(offsets, np.float32, "offset"))

    def coded(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        least, most = (-128, 127) if tensor.signed else (0, 255)
        if (low, high) != (least, most):
            ends = (self.graph.constant(end - tensor.zero, np.float32) for end in (low, high))
            value = self.graph.node("Clip", value, *ends)
        if tensor.bits > 8:
            return value
        step = self.graph.constant(1, np.float32, "scale")
        zero = self.graph.constant(tensor.zero, np.int8 if tensor.signed else np.uint8, "zero")
        return self.graph.node("DequantizeLinear", self.graph.node("QuantizeLinear", value, step, zero), step, zero)

    # -- types -------------------------------------------------------------------------------------------------------

    def width(self, bits: int) -> int:
        """Return the bits of the narrowest type for numbers of so many."""
        return next(width for width in (2, 4, 8, 16, 32, 64) if width >= bits and _OPSETS.get(width, 0) <= self.most)

    def held(self, least: int, most: int) -> int:
        """Return the bits of the narrowest type with sign that holds two numbers."""
        return self.width(max(max(-least - 1, 0).bit_length(), max(most, 0).bit_length()) + 1)

    def stored(self, values: npt.NDArray[Any], width: int, signed: bool) -> str:
        """Return a constant in a type of ``width`` bits."""
        kind: Any = f"{'' if signed else 'u'}int{width}"
        if width < 8:
            kind = getattr(need("ml_dtypes", "writing ONNX files", "onnx"), kind)
        self.opset = max(self.opset, _OPSETS.get(width, 0))
        self.weight_bits += -(-values.size * width // 8) * 8
        return self.graph.constant(values, kind, "weight")


def written_onnx(writer: OnnxWriter) -> Compiled:
    """Return the file of a writer, opened again and checked."""
    writer.write()
    program = writer.program
    content = writer.graph.written(program, {"": writer.opset}, BATCH, {})
    sizes = (Size("weights", -(-program.weight_bits // 8), writer.weight_bits // 8), Size("file", None, len(content)))
    notes = (f"ONNX opset {writer.opset}",)
    run = functools.partial(run_onnx, content) if find_spec("onnxruntime") else None
    return Compiled({f"{program.name}.onnx": content}, sizes, notes, run)


@functools.cache
def newest_opset() -> int:
    """Return the newest opset of weight types that onnx has and ONNX Runtime, where it is installed, reads.

    Raises
    ------
    OptionError
        Where that is none.
    """
    onnx = needed_onnx()
    for bits, opset in _OPSETS.items():
        if opset <= onnx.defs.onnx_opset_version() and (find_spec("onnxruntime") is None or _reads(onnx, bits, opset)):
            return opset
    raise OptionError("is too old for opset 13", where="onnx", value=onnx.__version__)


def _reads(onnx: Any, bits: int, opset: int) -> bool:
    """Return whether ONNX Runtime runs a graph with a weight of so many bits."""
    helper, types = onnx.helper, onnx.TensorProto
    kind = getattr(types, f"UINT{bits}")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=types.FLOAT)],
        "trial",
        [],
        [helper.make_tensor_value_info("y", types.FLOAT, (8,))],
        [helper.make_tensor("w", kind, (8,), [0, 1] * 4)],
    )
    try:
        return bool(_run(model_of(onnx, graph, {"": opset}).SerializeToString(), {}).sum() == 4)
    except Exception:  # each release has its own errors for what it does not know
        return False


def run_onnx(content: bytes, samples: npt.ArrayLike) -> FloatArray:
    """Return what ONNX Runtime's CPU provider puts out for samples (n, ...), which are read as float32."""
    return _run(content, {"input": np.asarray(samples, dtype=np.float32)})


def _run(content: bytes, given: dict[str, Any]) -> Any:
    runtime = need("onnxruntime", "running an ONNX file", "onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, given)[0]
