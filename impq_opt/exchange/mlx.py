"""MLX: the ``quantization`` section of a model's config.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from impq_opt.errors import OptionError
from impq_opt.exchange.base import CONVOLUTIONS, Precision, Writer, typed
from impq_opt.exchange.choice import Chooser, Said
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["Mlx"]


@dataclass(frozen=True)
class Mlx(Writer, Chooser):
    """Affine quantization in groups: ``{"group_size": 64, "bits": 4, "layer": {"bits": 5, "group_size": 64}}``.

    Parameters
    ----------
    group_size : {32, 64, 128}
        Elements that share a scale and a bias, each as wide as the model's weights.
    """

    name: ClassVar[str] = "mlx"
    summary: ClassVar[str] = "quantization section of an mlx-lm config.json"
    source: ClassVar[str] = "https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/utils.py"
    rounding: ClassVar[str] = "affine"
    limits: ClassVar[str] = (
        "one precision a layer of 2, 3, 4, 5, 6 or 8 bits, weights only; rows are a multiple of the group; no "
        "convolutions"
    )
    unsupported: ClassVar[frozenset[str]] = CONVOLUTIONS  # mlx.nn.quantize takes linear layers and embeddings

    group_size: int = 64

    def __post_init__(self) -> None:
        if self.group_size not in (32, 64, 128):
            raise OptionError("must be 32, 64 or 128", where="mlx.group_size", value=self.group_size)

    def precisions(self) -> tuple[Precision, ...]:
        size = self.group_size
        stored = [Precision(str(b), b, {"group_size": size, "bits": b}, size, scales=2) for b in (2, 3, 4, 5, 6, 8)]
        return (*stored, Precision("16", 16, False, held="network"))

    def config(self, allocation: Allocation) -> dict[str, Any]:
        entries = {layer.name.removesuffix(".weight"): layer.weight.entry for layer in self.layers(allocation)}
        # mlx-lm reads the precision of layers that are not named from the section itself: the commonest one.
        common = Counter(entry["bits"] for entry in entries.values() if entry).most_common(1)
        default = {"group_size": self.group_size, "bits": common[0][0] if common else 8}
        return {"quantization": default | entries}

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return what the section ``quantization`` of a config.json says, of layers that it does not name too."""
        section = typed(configuration, _Config).quantization
        common = section.get("bits")
        chosen: dict[str, Said] = {}
        for layer in dict.fromkeys(problem.names.layers):
            entry = section.get(layer.removesuffix(".weight"), True)
            bits = 16 if entry is False else entry.get("bits", common) if isinstance(entry, dict) else common
            if bits is not None:
                chosen[layer] = (str(bits),)
        return chosen


class _Config(msgspec.Struct):
    """What is needed of a config.json."""

    quantization: dict[str, Any]
