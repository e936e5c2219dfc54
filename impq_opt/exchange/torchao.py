"""torchao: an ``FqnToConfig``, applied with ``torchao.quantization.quantize_``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from impq_opt.exchange.base import Precision, Writer, need
from impq_opt.problem.allocation import Allocation

__all__ = ["TorchAo"]


@dataclass(frozen=True)
class TorchAo(Writer):
    """``{module: IntxWeightOnlyConfig}``, or with 8-bit dynamic inputs ``Int8DynamicActivationIntxWeightConfig``.

    Modules are named in full, so torchao's order of precedence does not matter. The file holds what
    ``torchao.core.config.config_from_dict`` reads.

    Bits are counted as a backend packs them, ExecuTorch's for example. torchao's own tensors keep a whole byte a weight
    at any of these bits, so a model that is saved from Python is no smaller at 2 bits than at 8.

    Parameters
    ----------
    group_size : int
        Elements that share a float32 scale; 0 for one scale an output channel.
    """

    name: ClassVar[str] = "torchao"
    summary: ClassVar[str] = "FqnToConfig for torchao.quantization.quantize_"
    source: ClassVar[str] = "https://docs.pytorch.org/ao/main/generated/torchao.quantization.FqnToConfig.html"
    package: ClassVar[str] = "torchao"
    limits: ClassVar[str] = (
        "one precision a layer of 1 to 8 bits, inputs of 8 bits (linear layers only) or none, "
        "no convolution of one input channel; torchao's own tensors take a byte a weight until a backend packs them"
    )
    inputs: ClassVar[tuple[int, ...]] = (8, 16)

    group_size: int = 0

    def precisions(self) -> tuple[Precision, ...]:
        overhead = 32 + 8 if self.group_size else 0  # float32 scale, int8 zero point
        stored = [Precision(str(b), b, f"int{b}", self.group_size, overhead) for b in range(1, 9)]
        return (*stored, Precision("16", 16))

    def config(self, allocation: Allocation) -> dict[str, Any]:
        entries = {
            layer.name.removesuffix(".weight"): self._entry(layer.weight.entry, layer.input_bits)
            for layer in self.layers(allocation)
        }
        return _tagged("FqnToConfig", 1, fqn_to_config=entries, module_fqn_to_config=entries)

    def native(self, allocation: Allocation) -> Any:
        """Return a ``torchao.quantization.FqnToConfig``; pass it to ``quantize_(model, config, filter_fn=None)``."""
        return need("torchao.core.config", "an FqnToConfig", "torchao").config_from_dict(self.config(allocation))

    def _entry(self, dtype: str | None, input_bits: float | None) -> dict[str, Any] | None:
        if dtype is None:
            return None
        size = self.group_size
        grain = _tagged("PerGroup", 1, group_size=size) if size else _tagged("PerAxis", 1, axis=0)
        weights = {"_type": "torch.dtype", "_data": dtype}
        if input_bits == 8:
            return _tagged("Int8DynamicActivationIntxWeightConfig", 2, weight_dtype=weights, weight_granularity=grain)
        return _tagged("IntxWeightOnlyConfig", 2, weight_dtype=weights, granularity=grain)


def _tagged(kind: str, version: int, **data: Any) -> dict[str, Any]:
    """Return an object as torchao.core.config writes it."""
    return {"_type": kind, "_version": version, "_data": data}
