"""FIT: the empirical Fisher's diagonal times squared rounding errors (Zandonati et al. 2022, arXiv:2210.08502)."""

from __future__ import annotations

from torch.nn import functional

from impq_opt.measure.estimators import Squares, propagate
from impq_opt.measure.margins import signs
from impq_opt.measure.metrics.measured_error import MeasuredError
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import batches
from impq_opt.measure.taps import Taps

__all__ = ["Fit"]


class Fit(MeasuredError):  # noqa: N818 - no exception
    """The trace of the empirical Fisher, of weights and of activations, times the squared error of the grid that runs.

    The paper has ``(range / (2^b - 1))^2`` for the squared error, whatever the grid does: next to 8 bits, 1.8 times too
    much for the four levels of 2 bits on a mid-rise grid, and less than half for the three of a symmetric one. Here
    traces and errors are those of output kernels, and errors are as in the metric ``measured-error``. Where samples
    hold several decisions, gradients are of the loss at each of them.
    """

    unit = "squared error times Fisher trace"
    labels = True
    margins = False
    squared_range = True

    def squares(self, survey: Survey, part: Chunk) -> Squares:
        assert part.labels is not None
        total = Squares({}, {})
        taps = Taps(survey.network, fine=survey.grouping.fine, shifts=survey.shifts)
        size = survey.estimator.batch
        for x, labels, weights in batches(part, size, survey.network.decisions):
            assert labels is not None
            logits = taps.forward(x).float()
            # d loss / d logits is softmax - onehot: with it held fixed the loss becomes a combination of logits.
            slope = logits.detach().softmax(1) - functional.one_hot(labels, logits.shape[1])
            factors = weights.sqrt().to(slope)[:, None]
            if survey.network.decisions > 1:  # signs tell the decisions of a sample apart
                factors = factors * signs((len(slope), 1), part.generator).to(slope)
            propagate(taps, logits, iter([slope * factors]), total)
        return total
