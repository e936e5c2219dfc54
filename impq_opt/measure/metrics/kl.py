"""How far the decisions' probabilities are from those of the float network, with one group quantized at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from impq_opt.groups.damage import DamageTable
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import Compare, Sweep, shift
from impq_opt.types import FloatArray

__all__ = ["Kl", "divergence"]


class Kl(Sweep):
    """``mean_x KL(p || q)``: p the float network's softmax, q that with group g at b bits and all else in float.

    No label and no gradient: it holds for any grid, and for errors that no first-order score sees. A forward pass from
    the group on for each group and candidate.
    """

    unit = "nat"

    def against(self, logits: Tensor, labels: Tensor | None) -> Compare:
        chances = logits.softmax(1)
        return lambda changed: divergence(chances, shift(logits, changed))

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        return DamageTable(mean, stderr)


def divergence(chances: Tensor, shifts: Tensor) -> Tensor:
    """Return KL(p || q), nat (n,), of chances p (n, classes) and those whose logits are higher by ``shifts``.

    With the mean shift under p taken off it is ``log sum_i p_i exp(c_i) = log(1 + sum_i p_i (exp(c_i) - 1 - c_i))``,
    whose terms are squares for small shifts: nothing cancels, however small it is.
    """
    centred = shifts - (chances * shifts).sum(1, keepdim=True)
    small = (chances * (torch.expm1(centred) - centred)).sum(1).log1p()
    large = (chances.log() + centred).logsumexp(1)
    return torch.where(centred.amax(1) > 1, large, small)
