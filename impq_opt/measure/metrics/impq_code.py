"""The metric of the IMPQ authors' public code, which differs from the slides."""

from __future__ import annotations

import numpy as np
import torch

from impq_opt.groups.damage import DamageTable
from impq_opt.groups.first_power import first_power_factor
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["ImpqCode"]


class ImpqCode:
    """``mean_h(E_h) mean|w| 2^-b`` for weights, ``sum_h(E_h) clip 2^-b`` for activations.

    E_h is here without the range: the plain sum of squared gradients over squared margins. It ranks groups; it bounds
    nothing.
    """

    unit = "authors' code score"
    labels = False
    margins = True

    def columns(self, survey: Survey) -> int:
        return 1

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        squares = survey.squares(part)
        return survey.fold(
            squares,
            weight=lambda site: torch.ones(site.shape[0], 1, dtype=torch.float64),
            activation=lambda site: [1.0],
        )

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        means, sizes = [], []
        for site in survey.network.weights:
            size = survey.network.weight_tensor(site).abs().double().flatten(1)  # (out, inputs)
            total = survey.grouping.sum(site, size if survey.grouping.fine else size.sum(1)).cpu().numpy()
            count = survey.grouping.sizes(site)
            means.append(total / count)
            sizes.append(count)
        spans = np.array([survey.ranges[site.name].span for site in survey.network.activations])
        ones, weights = np.ones(len(spans)), np.repeat((True, False), (survey.weight_groups, len(spans)))
        factor = first_power_factor(
            weights,
            np.concatenate([*sizes, ones]).astype(np.int64),
            np.concatenate([*means, ones]),
            np.concatenate([np.ones(survey.weight_groups), spans]),
        )
        steps = np.exp2(-np.asarray(survey.bits))
        scale = factor[:, None] * steps
        return DamageTable(mean * scale, stderr * scale)
