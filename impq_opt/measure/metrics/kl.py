"""How far the decisions' probabilities are from those of the float network, with one group quantized at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.errors import OptionError
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.interactions import Factors
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import Compare, Sweep, batches, check_table, shift, sweep
from impq_opt.measure.together import factors_of, gram_columns, gram_of, width_of_gram
from impq_opt.types import FloatArray

__all__ = ["Kl", "divergence"]

_HELD = 2**28  # bytes of shifts at once


@dataclass(frozen=True)
class Kl(Sweep):
    """``mean_x KL(p || q)``: p the float network's softmax, q that with group g at b bits and all else in float.

    No label and no gradient: it holds for any grid, and for errors that no first-order score sees. A forward pass from
    the group on for each group and candidate.

    Parameters
    ----------
    interactions : bool
        Measure from the same passes what groups do together. To second order the divergence is
        ``1/2 mean_x u' (diag p - p p') u`` with u the shift of the logits, and shifts of several groups nearly add up.
        So a group has a vector of all samples and classes, ``sqrt(p / 2n) (u - p'u)``, whose square is its divergence,
        and twice the products of vectors are what pairs do together. The vectors are told in a basis that has their
        Gram matrix, and have the length that the divergence itself has: far from the float network the second order
        is off, and then the angle between shifts is the better part of what it says.
    """

    interactions: bool = False
    unit = "nat"

    def columns(self, survey: Survey) -> int:
        width = len(survey.bits)
        if not self.interactions:
            return width
        columns = width_of_gram(len(survey), width)
        each = 8 * len(survey) * width * survey.network.classes * survey.network.decisions
        if each > 4 * _HELD:
            raise OptionError(
                "of so many decisions and classes do not fit into memory", where="interactions",
                value=f"{survey.network.decisions} by {survey.network.classes} a sample",
                hint="the metric fisher measures them by random probes",
            )  # fmt: skip
        return columns

    def against(self, logits: Tensor, labels: Tensor | None) -> Compare:
        chances = logits.softmax(1)
        return lambda changed: divergence(chances, shift(logits, changed))

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        """Return the divergences (G, K), and with interactions what :mod:`impq_opt.measure.together` wants."""
        if not self.interactions:
            return super().chunk(survey, part)
        count, width = len(survey), len(survey.bits)
        table, gram = np.zeros((count, width)), torch.zeros(count * width, count * width, dtype=torch.float64)
        each = 8 * count * width * survey.network.classes * survey.network.decisions
        size = min(survey.estimator.batch, max(1, _HELD // each))
        for x, _, weights in batches(part, size, survey.network.decisions):
            logits, changes = sweep(survey, x, self.after)
            vectors = torch.zeros(count, width, *logits.shape, dtype=torch.float64)
            chances, scale = logits.softmax(1), (weights / 2).sqrt()[:, None]
            for group, column, changed in changes:
                shifts = shift(logits, changed)
                table[group, column] += float(divergence(chances, shifts).cpu() @ weights)
                vectors[group, column] = scale * (chances.sqrt() * _centred(chances, shifts)).cpu()
            flat = vectors.flatten(2).flatten(0, 1)
            gram += flat @ flat.T
        check_table(survey, table)
        return gram_columns(table, gram.numpy())

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        width = len(survey.bits)
        return DamageTable(mean[:, :width], stderr[:, :width])

    def together(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> Factors | None:
        """Return what groups do together, where it was measured."""
        return factors_of(mean, stderr, len(survey.bits)) if self.interactions else None

    def record(self, survey: Survey, mean: FloatArray) -> dict[str, Any]:
        """Return by how much the second order is off: divergences over it, both summed over groups."""
        if not self.interactions:
            return {}
        width = len(survey.bits)
        squares = gram_of(mean, width).diagonal().reshape(len(mean), width).sum(0)
        ratio = np.divide(mean[:, :width].sum(0), squares, out=np.ones(width), where=squares > 0)
        return {
            "interactions": {"divergence_over_second_order": dict(zip(_names(survey), ratio.tolist(), strict=True))}
        }


def _names(survey: Survey) -> Iterator[str]:
    return (f"{bits:g}" for bits in survey.bits)


def _centred(chances: Tensor, shifts: Tensor) -> Tensor:
    """Return shifts (n, classes) without their mean under the chances, which moves all logits alike."""
    return shifts - (chances * shifts).sum(1, keepdim=True)


def divergence(chances: Tensor, shifts: Tensor) -> Tensor:
    """Return KL(p || q), nat (n,), of chances p (n, classes) and those whose logits are higher by ``shifts``.

    With the mean shift under p taken off it is ``log sum_i p_i exp(c_i) = log(1 + sum_i p_i (exp(c_i) - 1 - c_i))``,
    whose terms are squares for small shifts: nothing cancels, however small it is.
    """
    centred = _centred(chances, shifts)
    small = (chances * (torch.expm1(centred) - centred)).sum(1).log1p()
    large = (chances.log() + centred).logsumexp(1)
    return torch.where(centred.amax(1) > 1, large, small)
