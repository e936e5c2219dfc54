"""ONNX Runtime: ``TensorQuantOverrides`` for static quantization to Q and DQ nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.errors import AllocationError, OptionError
from impq_opt.exchange.base import Precision, Writer, need
from impq_opt.problem.allocation import Allocation

__all__ = ["OnnxRuntime"]

_CONTAINERS = {4: "QInt4", 8: "QInt8", 16: "QInt16"}
_INPUTS = {8: "QUInt8", 16: "QUInt16"}


@dataclass(frozen=True)
class OnnxRuntime(Writer):
    """The ``extra_options`` of ``onnxruntime.quantization.quantize_static``: one entry a tensor, or one a channel.

    Weights are symmetric integers of 4, 8 or 16 bits. With ``model`` every precision from 2 to 16 bits can be written,
    and every kernel can have its own: a channel of B bits gets the scale ``max|w| / (2^(B-1) - 1)``, so that it takes
    the values of a B-bit quantizer, in a tensor of the smallest type that holds its widest channel. The file is as
    large as that type says: 3 bits in a tensor of 4 cost 4.

    Parameters
    ----------
    model : str
        The ONNX file. It gives the names of the tensors (a layer's input is that of the node that reads its weight)
        and, for other than 4, 8 or 16 bits, the scales. Without it weights are called ``<layer>.weight``.
    """

    name: ClassVar[str] = "onnxruntime"
    summary: ClassVar[str] = "TensorQuantOverrides for onnxruntime.quantization.quantize_static"
    source: ClassVar[str] = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
    package: ClassVar[str] = "onnxruntime"
    limits: ClassVar[str] = (
        "tensors of 4, 8 or 16 bits; kernels narrower than their tensor save no storage; inputs of 8 or 16 bits"
    )
    layerwise: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, ...]] = (8, 16)

    model: str = ""

    def precisions(self) -> tuple[Precision, ...]:
        # Without scales of ours it has other steps at 4 bits: twice the largest weight over 15.
        return tuple(
            Precision(str(bits), bits, kind, on_grid=bits > 4 or bool(self.model)) for bits, kind in _CONTAINERS.items()
        )

    def grid(self) -> str:
        return "symmetric" if self.model else "symmetric:over=tensor"

    def config(self, allocation: Allocation) -> dict[str, Any]:
        tensors = self._tensors()
        overrides: dict[str, list[dict[str, Any]]] = {}
        if self.model:
            widths, inputs = self._by_kernel(allocation)
            for layer, bits in widths.items():
                weight, activation, peaks = _tensor(tensors, layer)
                overrides[weight] = _channels(layer, bits, peaks)
                self._input(layer, inputs[layer])
                _add_input(overrides, activation, inputs[layer], layer)
        else:
            for stored in self.layers(allocation):
                if stored.input_bits is not None:
                    raise OptionError("is needed to name the activations", where="onnxruntime.model")
                weight = f"{stored.name.removesuffix('.weight')}.weight"
                overrides[weight] = [{"quant_type": stored.weight.entry, "symmetric": True}]
        return {"TensorQuantOverrides": overrides}

    def native(self, allocation: Allocation) -> dict[str, Any]:
        """Return ``extra_options`` with onnxruntime's own types."""
        kinds = need("onnxruntime.quantization", "QuantType", "onnxruntime").QuantType
        overrides = self.config(allocation)["TensorQuantOverrides"]
        return {"TensorQuantOverrides": {name: [_typed(e, kinds) for e in rows] for name, rows in overrides.items()}}

    def _by_kernel(self, allocation: Allocation) -> tuple[dict[str, list[float]], dict[str, float | None]]:
        """Return the bits of each layer's kernels, and of its input."""
        problem, bits = allocation.problem, np.asarray(allocation.bits, dtype=np.float64)
        widths: dict[str, list[float]] = {}
        inputs: dict[str, float | None] = {}
        for group in np.flatnonzero(problem.weights()).tolist():
            layer = problem.names.layers[int(problem.names.label_of[group])].removesuffix(".weight")
            widths.setdefault(layer, []).append(float(bits[group]))
            inputs[layer] = self._read(problem, group, bits)
        return widths, inputs

    def _tensors(self) -> dict[str, tuple[str, str, npt.NDArray[Any]]]:
        """Return layer to (weight tensor, input tensor, largest absolute weight of each channel)."""
        if not self.model:
            return {}
        onnx = need("onnx", "reading an ONNX model", "onnx")
        if not os.path.isfile(self.model):
            raise OptionError("there is no such file", where="onnxruntime.model", value=self.model)
        graph = onnx.load(self.model).graph
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        tensors = {}
        for node in graph.node:
            if len(node.input) > 1 and node.input[1] in weights and weights[node.input[1]].ndim > 1:
                value = weights[node.input[1]]
                # A convolution's kernels are its first axis, and Gemm's with transB, as PyTorch exports it.
                peaks = np.abs(value).reshape(len(value), -1).max(axis=1)
                tensors[node.input[1].removesuffix(".weight")] = (node.input[1], node.input[0], peaks)
        return tensors


def _tensor(tensors: Mapping[str, Any], layer: str) -> Any:
    if layer not in tensors:
        raise AllocationError(
            "no node of the ONNX model reads a weight of that name",
            where=layer,
            hint="it has " + ", ".join(list(tensors)[:6]),
        )
    return tensors[layer]


def _channels(layer: str, bits: list[float], peaks: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """Return the override of a weight tensor: one entry a channel."""
    container = next((width for width in _CONTAINERS if width >= max(bits)), None)
    if container is None or min(bits) < 2 or any(b != int(b) for b in bits):
        raise AllocationError("ONNX Runtime has whole weights of 2 to 16 bits", where=layer, value=bits)
    kind = _CONTAINERS[container]
    if len(bits) not in (1, len(peaks)):
        raise AllocationError(f"has {len(peaks)} channels in the ONNX model", where=layer, value=len(bits))
    widths = bits * len(peaks) if len(bits) == 1 else bits
    peaks = np.where(peaks > 0, peaks, 1.0)
    scales = [float(peak) / (2 ** (int(b) - 1) - 1) for peak, b in zip(peaks, widths, strict=True)]
    return [{"quant_type": kind, "axis": 0, "scale": scale, "zero_point": 0} for scale in scales]


def _add_input(overrides: dict[str, Any], tensor: str, bits: float | None, layer: str) -> None:
    if bits is None:
        return
    entry = [{"quant_type": _INPUTS[int(bits)]}]
    if overrides.setdefault(tensor, entry) != entry:
        raise AllocationError("two layers read one tensor at different precisions", where=layer, value=tensor)


def _typed(entry: Mapping[str, Any], kinds: Any) -> dict[str, Any]:
    """Return an override with onnxruntime's enumeration, and arrays where it wants arrays."""
    typed = dict(entry) | {"quant_type": kinds[entry["quant_type"]]}
    if "scale" in entry:
        typed |= {"scale": np.array(entry["scale"], dtype=np.float32), "zero_point": np.array(entry["zero_point"])}
    return typed
