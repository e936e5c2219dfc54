"""FIT: empirical Fisher trace times squared step (Zandonati et al. 2022, arXiv:2210.08502)."""

from __future__ import annotations

import numpy as np
from torch.nn import functional

from impq_opt.groups.damage import DamageTable
from impq_opt.measure.estimators import Squares, propagate
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.measure.taps import Taps
from impq_opt.types import FloatArray

__all__ = ["Fit"]


class Fit:
    """``(range / (2^b - 1))^2`` times the trace of the empirical Fisher, of weights and of activations."""

    unit = "squared step times Fisher trace"
    labels = True
    margins = False
    squared_range = True

    def columns(self, survey: Survey) -> int:
        return 1

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        assert part.labels is not None
        total = Squares({}, {})
        taps = Taps(survey.network, fine=survey.grouping.fine)
        size = survey.estimator.batch
        for x, labels, weights in zip(
            part.x.split(size),
            part.labels.split(size),
            part.weights.sqrt().split(size),
            strict=True,
        ):
            logits = taps.forward(x).float()
            # d loss / d logits is softmax - onehot: with it held fixed the loss becomes a combination of logits.
            slope = logits.detach().softmax(1) - functional.one_hot(labels, logits.shape[1])
            propagate(taps, logits, iter([slope * weights.to(slope)[:, None]]), total)
        return survey.fold(total)

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        scale = 1 / np.square(np.exp2(np.asarray(survey.bits)) - 1)
        return DamageTable(mean * scale, stderr * scale)
