"""compressed-tensors, as vLLM and llm-compressor read it: config groups, one a precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from impq_opt.exchange.base import LEFT_ALONE, Layer, Precision, Writer, need
from impq_opt.problem.allocation import Allocation

__all__ = ["CompressedTensors"]


@dataclass(frozen=True)
class CompressedTensors(Writer):
    """A ``quantization_config`` with concrete targets: no rule of precedence is left to the reader.

    Parameters
    ----------
    group_size : int
        Elements that share a symmetric scale, which compressed-tensors stores as wide as the model's weights.
    """

    name: ClassVar[str] = "compressed-tensors"
    summary: ClassVar[str] = "quantization_config with config groups, as vLLM and llm-compressor read it"
    source: ClassVar[str] = "https://github.com/vllm-project/compressed-tensors (QuantizationConfig)"
    package: ClassVar[str] = "compressed-tensors"
    limits: ClassVar[str] = (
        "one precision a layer of 4 or 8 bits, inputs of 8 bits or none, fused layers (q/k/v, gate/up) agree"
    )
    fused: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, ...]] = (8, 16)

    group_size: int = 128

    def precisions(self) -> tuple[Precision, ...]:
        size = self.group_size
        stored = [Precision(str(b), b, _weights(b, size), size, scales=1) for b in (4, 8)]
        return (*stored, LEFT_ALONE)

    def config(self, allocation: Allocation) -> dict[str, Any]:
        groups: dict[tuple[int, bool], list[Layer]] = {}
        ignored = []
        for layer in self.layers(allocation):
            if layer.weight.entry is None:
                ignored.append(layer.name.removesuffix(".weight"))
            else:
                groups.setdefault((layer.weight.bits, layer.input_bits == 8), []).append(layer)
        return {
            "quant_method": "compressed-tensors",
            "format": "mixed-precision" if len(groups) > 1 else "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {
                f"group_{place}": {
                    "targets": [layer.name.removesuffix(".weight") for layer in layers],
                    "weights": layers[0].weight.entry,
                    "input_activations": _INPUT if quantized else None,
                    "format": "int-quantized" if quantized else "pack-quantized",
                }
                for place, ((_, quantized), layers) in enumerate(sorted(groups.items()))
            },
            "ignore": ignored,
        }

    def native(self, allocation: Allocation) -> Any:
        """Return a ``compressed_tensors.quantization.QuantizationConfig``."""
        peer = need("compressed_tensors.quantization", "a QuantizationConfig", "compressed-tensors")
        return peer.QuantizationConfig.model_validate(self.config(allocation))


def _weights(bits: int, group_size: int) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "strategy": "group", "group_size": group_size, "symmetric": True}


_INPUT = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
