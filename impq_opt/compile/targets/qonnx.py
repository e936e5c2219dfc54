"""QONNX: Quant nodes with one bit width each, run by QONNX's own executor."""

from __future__ import annotations

import numpy as np

from impq_opt.compile.program import IntTensor, Layer, Part, Program
from impq_opt.compile.targets.base import Compiled, Size
from impq_opt.compile.targets.graph import ExactWriter

__all__ = ["compile_qonnx"]

_DOMAIN, _OPSET = "qonnx.custom_op.general", 13


def compile_qonnx(program: Program, *, batch: int = 1) -> Compiled:
    """Return NAME.onnx of a program, equal to its reference in every bit: real inputs, logits in float32.

    Parameters
    ----------
    program : Program
    batch : int
        Samples of a run: QONNX's executor takes no other number.

    Raises
    ------
    DataError
        Numbers or products above 2^24, which float32 does not hold.
    MissingPackageError
        onnx is not installed.
    """
    writer = _QonnxWriter(program)
    writer.write()
    content = writer.graph.written(program, {"": _OPSET, _DOMAIN: 1}, batch, writer.shapes)
    sizes = (
        Size("weights", -(-program.weight_bits // 8), -(-writer.weight_bits // 8)),
        Size("file", None, len(content)),
    )
    notes = (f"ONNX opset {_OPSET} with {_DOMAIN}; batches of {batch}; weights are float32 before their Quant nodes",)
    return Compiled({f"{program.name}.onnx": content}, sizes, notes)


class _QonnxWriter(ExactWriter):
    """Weights and activations behind Quant nodes: their whole numbers, so that scales are 1, or 2 for odd levels."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.shapes: dict[str, tuple[int, ...]] = {}  # of what Quant puts out
        self.weight_bits = 0

    def together(self, layer: Layer) -> tuple[tuple[Part, ...], ...]:
        return tuple((part,) for part in layer.parts)

    def weight(self, parts: tuple[Part, ...], flat: bool) -> str:
        (part,) = parts
        weights = part.weights[:, :, 0, 0] if flat else part.weights
        self.weight_bits += part.codes.size * part.bits
        signed = part.bits > 1  # QONNX takes one bit with sign for -1 and 1, whatever the zero point
        zero = -(part.offsets / part.factor + (2 ** (part.bits - 1) if signed else 0))
        across = (-1, *(1,) * (weights.ndim - 1))
        zero = zero[0] if (zero == zero[0]).all() else zero.reshape(across)
        value = self.graph.constant(weights, np.float32, "weight")
        return self._quant(value, part.factor, zero, part.bits, signed, weights.shape)

    def coded(self, value: str, tensor: IntTensor, low: int, high: int) -> str:
        if (low, high) != (tensor.low, tensor.high):
            ends = (self.graph.constant(end - tensor.zero, np.float32) for end in (low, high))
            value = self.graph.node("Clip", value, *ends)
        return self._quant(value, 1, np.float64(tensor.zero), tensor.bits, tensor.signed, (-1, *tensor.shape))

    def _quant(
        self, value: str, scale: int, zero: np.typing.ArrayLike, bits: int, signed: bool, shape: tuple[int, ...]
    ) -> str:
        constants = (self.graph.constant(number, np.float32) for number in (scale, zero, bits))
        quantized = self.graph.node(
            "Quant", value, *constants, domain=_DOMAIN, signed=int(signed), narrow=0, rounding_mode="ROUND"
        )
        self.shapes[quantized] = shape
        return quantized
