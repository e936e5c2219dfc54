"""How far the logits move with one group quantized at a time."""

from __future__ import annotations

from torch import Tensor

from impq_opt.groups.damage import DamageTable
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import Compare, Sweep, shift
from impq_opt.types import FloatArray

__all__ = ["OutputError"]


class OutputError(Sweep):
    """``mean_x mean_i (u_i - mean_j u_j)^2``: u the shifts of the logits with group g at b bits, all else in float.

    What moves all logits alike changes no decision, and is left out. Unlike the divergence it counts every class and
    every sample alike, however sure the network is of it.
    """

    unit = "squared logit"
    states = True

    def against(self, logits: Tensor, labels: Tensor | None) -> Compare:
        inside = (~logits.isneginf()).to(logits)
        share = inside / inside.sum(1, keepdim=True)

        def error(changed: Tensor) -> Tensor:
            shifts = shift(logits, changed)
            centred = shifts - (share * shifts).sum(1, keepdim=True)
            return (share * centred.square()).sum(1)

        return error

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        return DamageTable(mean, stderr)
