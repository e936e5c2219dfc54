"""compressed-tensors, as vLLM and llm-compressor read it: config groups, one a precision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.exchange.base import LEFT_ALONE, Layer, Precision, Writer, need, typed
from impq_opt.exchange.choice import Chooser, Said, first_rules
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["CompressedTensors"]


@dataclass(frozen=True)
class CompressedTensors(Writer, Chooser):
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
    rounding: ClassVar[str] = "integer"
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

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return what a quantization_config, or the config.json around it, says: what it ignores has 16 bits."""
        config = typed(configuration, _Config)
        config = config.quantization_config or config
        rules: list[tuple[str, Any]] = [(_expression(target), 16) for target in config.ignore]
        for group in config.config_groups.values():
            bits = group.weights.num_bits if group.weights else 16
            rules += [(_expression(target), bits) for target in group.targets]
        modules = {layer: layer.removesuffix(".weight") for layer in problem.names.layers}
        types = dict(zip(problem.names.layers, map(problem.types.get, problem.names.labels), strict=True))
        found = first_rules(rules, [*modules.values(), *filter(None, types.values())], anchored=True, where="targets")
        said = {layer: found.get(module, found.get(types[layer] or "")) for layer, module in modules.items()}
        return {layer: (str(bits),) for layer, bits in said.items() if bits is not None}

    def checkpoint(
        self, name: str, bits: int, codes: npt.NDArray[np.int64], steps: npt.NDArray[np.floating[Any]]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Return ``weight_packed``, ``weight_scale`` and ``weight_shape`` of the format ``pack-quantized``.

        Codes are in words of 32 bits, the lowest bit first, in every row anew (compressed_tensors,
        compressors/pack_quantized).
        """
        spread = (codes[:, :, None] >> np.arange(bits)) & 1
        stream = np.packbits(spread.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
        words = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 4))).view("<i4")
        base = name.removesuffix(".weight")
        return {
            f"{base}.weight_packed": words.astype(np.int32),
            f"{base}.weight_scale": steps,
            f"{base}.weight_shape": np.array(codes.shape, dtype=np.int64),
        }

    def native(self, allocation: Allocation) -> Any:
        """Return a ``compressed_tensors.quantization.QuantizationConfig``."""
        peer = need("compressed_tensors.quantization", "a QuantizationConfig", "compressed-tensors")
        return peer.QuantizationConfig.model_validate(self.config(allocation))


def _weights(bits: int, group_size: int) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "strategy": "group", "group_size": group_size, "symmetric": True}


_INPUT = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}


def _expression(target: str) -> str:
    """Return a target, a name or ``re:`` and an expression, as an expression."""
    return target.removeprefix("re:") if target.startswith("re:") else f"^{re.escape(target)}$"


class _Weights(msgspec.Struct):
    num_bits: int = 8


class _Group(msgspec.Struct):
    targets: list[str]
    weights: _Weights | None = None


class _Config(msgspec.Struct):
    """What is needed of a quantization_config, or of the config.json that holds it."""

    config_groups: dict[str, _Group] = {}
    ignore: list[str] = []
    quantization_config: _Config | None = None
