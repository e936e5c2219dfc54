"""GPTQModel: the ``dynamic`` field of a QuantizeConfig."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from impq_opt.exchange.base import LEFT_ALONE, Precision, Writer, typed
from impq_opt.exchange.choice import Chooser, Said, first_rules
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["GptqModel"]


@dataclass(frozen=True)
class GptqModel(Writer, Chooser):
    """``{"+:^layer$": {"bits": 4, "group_size": 128}, "-:^lm_head$": {}}``: a ``-`` leaves a layer as it is.

    Parameters
    ----------
    group_size : int
        Elements that share a scale of 16 bits and a zero point of the weights' bits.
    """

    name: ClassVar[str] = "gptqmodel"
    summary: ClassVar[str] = "dynamic field of GPTQModel's QuantizeConfig"
    source: ClassVar[str] = "https://github.com/ModelCloud/GPTQModel#dynamic-quantization"
    rounding: ClassVar[str] = "integer"
    limits: ClassVar[str] = "one precision a layer of 2, 3, 4 or 8 bits, weights only; q/k/v and gate/up agree in vLLM"
    fused: ClassVar[bool] = True
    short: ClassVar[bool] = True  # inputs have a number of a group each, of ceil(inputs / group_size)

    group_size: int = 128

    def precisions(self) -> tuple[Precision, ...]:
        size = self.group_size
        stored = [Precision(str(b), b, {"bits": b, "group_size": size}, size, 16 + b) for b in (2, 3, 4, 8)]
        return (*stored, LEFT_ALONE)

    def config(self, allocation: Allocation) -> dict[str, Any]:
        rules = {}
        for layer in self.layers(allocation):
            sign = "-" if layer.weight.entry is None else "+"
            rules[f"{sign}:^{re.escape(layer.name.removesuffix('.weight'))}$"] = layer.weight.entry or {}
        return {"dynamic": rules}

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return what a QuantizeConfig says: its rules, the first that matches, and else its own ``bits``."""
        config = typed(configuration, _Config)
        rules = []
        for rule, entry in config.dynamic.items():
            bits = 16 if rule.startswith("-:") else entry.get("bits", config.bits)
            rules.append((rule.removeprefix("-:").removeprefix("+:"), bits))
        modules = {layer: layer.removesuffix(".weight") for layer in dict.fromkeys(problem.names.layers)}
        found = first_rules(rules, modules.values(), anchored=True, where="dynamic")
        said = {layer: found.get(module, config.bits) for layer, module in modules.items()}
        return {layer: (str(bits),) for layer, bits in said.items() if bits is not None}


class _Config(msgspec.Struct):
    """What is needed of a QuantizeConfig."""

    dynamic: dict[str, dict[str, Any]] = {}
    bits: int | None = None
