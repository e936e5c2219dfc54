"""The rise of the loss with one group quantized and all else in float, as measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from impq_opt.exchange.scores import shifted
from impq_opt.groups.damage import DamageTable
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import Compare, Sweep
from impq_opt.types import FloatArray

__all__ = ["LossDelta"]


class LossDelta(Sweep):
    """Cross-entropy with group g at b bits minus that of the float network.

    A loss can fall. Then the group's damages count from its smallest, as all negative scores in this package do: no
    comparison of allocations changes by it.
    """

    unit = "rise of the loss"
    labels = True

    def against(self, logits: Tensor, labels: Tensor | None) -> Compare:
        assert labels is not None
        base = functional.cross_entropy(logits, labels, reduction="none")
        return lambda changed: functional.cross_entropy(changed, labels, reduction="none") - base

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        return DamageTable(shifted(mean, survey.names)[0], stderr)

    def record(self, survey: Survey, mean: FloatArray) -> Mapping[str, Any]:
        """Return what was taken off negative differences."""
        return shifted(mean, survey.names)[1]
