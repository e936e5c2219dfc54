"""torchao: an ``FqnToConfig``, applied with ``torchao.quantization.quantize_``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from impq_opt.exchange.base import CONVOLUTIONS, LEFT_ALONE, Precision, Writer, need
from impq_opt.problem.allocation import Allocation

__all__ = ["TorchAo"]


@dataclass(frozen=True)
class TorchAo(Writer):
    """``{module: IntxWeightOnlyConfig}``, or with 8-bit dynamic inputs ``Int8DynamicActivationIntxWeightConfig``.

    Modules are named in full, so torchao's order of precedence does not matter. The file holds what
    ``torchao.core.config.config_from_dict`` reads.

    torchao's own tensors keep a whole byte a weight at any of these bits, and so it is counted: a model that is saved
    from Python is no smaller at 2 bits than at 8. (Its one packed type on CPUs, a prototype for 4 bits, is no type that
    ``config_from_dict`` knows, and what one processor packs another reads as other weights.)

    Parameters
    ----------
    group_size : int
        Elements that share a scale, which has the type of the model's weights, and a zero point of a byte; 0 for one
        an output channel.
    packed : bool
        Count weights at their own bits, as a backend packs them that the model goes on to, ExecuTorch's for example.
    """

    name: ClassVar[str] = "torchao"
    summary: ClassVar[str] = "FqnToConfig for torchao.quantization.quantize_"
    source: ClassVar[str] = "https://docs.pytorch.org/ao/main/generated/torchao.quantization.FqnToConfig.html"
    package: ClassVar[str] = "torchao"
    rounding: ClassVar[str] = "integer"
    limits: ClassVar[str] = (
        "one precision a layer of 1 to 8 bits, each of which takes a byte a weight; inputs of 8 bits (linear layers "
        "only) or none; no recurrent layers, MultiheadAttention, or convolutions but Conv2d of several input channels"
    )
    inputs: ClassVar[tuple[int, ...]] = (8, 16)
    uncut: ClassVar[frozenset[str]] = CONVOLUTIONS
    unsupported: ClassVar[frozenset[str]] = CONVOLUTIONS - {"Conv2d"}

    group_size: int = 0
    packed: bool = False

    def precisions(self) -> tuple[Precision, ...]:
        held: Literal["codes", "bytes"] = "codes" if self.packed else "bytes"
        zero = 8 if self.group_size else 0
        stored = [Precision(str(b), b, f"int{b}", self.group_size, zero, scales=1, held=held) for b in range(1, 9)]
        return (*stored, LEFT_ALONE)

    def config(self, allocation: Allocation) -> dict[str, Any]:
        names, types = allocation.problem.names, allocation.problem.types
        kinds = {layer: types.get(label) for layer, label in zip(names.layers, names.labels, strict=True)}
        entries = {}
        for layer in self.layers(allocation):
            if layer.input_bits == 8 and kinds[layer.name] not in (None, "Linear"):
                raise self._refusal("offers inputs of 8 bits to Linear alone", layer.name, f"is {kinds[layer.name]}")
            entries[layer.name.removesuffix(".weight")] = self._entry(layer.weight.entry, layer.input_bits)
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
