"""The Gaussian form of the mismatch: the tail of every margin's noise instead of Chebyshev's bound on it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from impq_opt.errors import UnsupportedError
from impq_opt.groups.damage import DamageTable
from impq_opt.measure.margins import margins
from impq_opt.measure.pool import Chunk
from impq_opt.measure.shifts import Shifts
from impq_opt.measure.survey import Survey
from impq_opt.measure.taps import Taps
from impq_opt.types import FloatArray

__all__ = ["MOST_MARGINS", "Gaussian", "noise_by_margin", "tail"]

MOST_MARGINS = 9  # of networks with many classes: the next margins are wider and their tails vanish


class Gaussian:
    """``mean_x sum_i Q(m_i / sigma_i)`` with ``sigma_i^2 = step^2 / 12 sum_h |d(Z_i - Z_y)/dh|^2``, group by group.

    The noise of a margin is a sum of many small independent ones, so its tail is that of a Gaussian, of which
    Chebyshev's bound is far off. Each term is at most 1/2, so no sample carries the sum. Tails of several groups do
    not add up: as a damage it ranks, and the sum over groups underestimates where many groups each contribute little.
    """

    unit = "mismatch probability, linearised Gaussian"
    labels = False
    margins = False
    noise = True

    def columns(self, survey: Survey) -> int:
        return len(survey.bits)

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        if survey.grouping.fine:
            raise UnsupportedError("the metric 'gaussian' is measured per layer or kernel, not per slice or block")
        if survey.network.decisions > 1:
            raise UnsupportedError("the metric 'gaussian' takes samples of one decision, not of several")
        table = torch.zeros(len(survey), len(survey.bits), dtype=torch.float64)
        size = survey.estimator.batch
        for x, weights in zip(part.x.split(size), part.weights.split(size), strict=True):
            for margin, taps in _by_margin(survey, x, MOST_MARGINS, survey.shifts):
                spread = _variances(survey, taps, len(x)).sqrt()  # (n, G, K)
                table += torch.einsum("n,ngk->gk", weights, tail(margin[:, None, None], spread))
        return table.numpy()

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        return DamageTable(np.maximum(mean, 0), stderr)


def tail(margin: Tensor, spread: Tensor) -> Tensor:
    """Return Q(margin / spread), the chance that Gaussian noise crosses the margin; 0 without noise."""
    ratio = margin / spread.clamp_min(torch.finfo(torch.float64).tiny)
    return 0.5 * torch.erfc(ratio / math.sqrt(2))


def noise_by_margin(survey: Survey, x: Tensor, most: int = MOST_MARGINS) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield margins (n,) and ``range^2 sum_h |d(Z_i - Z_y)/dh|^2`` (n, G), the smallest margin first.

    Ties are left out: their margin comes as infinite.
    """
    for margin, taps in _by_margin(survey, x, most):
        yield margin, _noise(survey, taps, len(x)).cpu()


def _by_margin(survey: Survey, x: Tensor, most: int, shifts: Shifts | None = None) -> Iterator[tuple[Tensor, Taps]]:
    """Yield margins (n,), the smallest first, with the taps after each was propagated."""
    taps = Taps(survey.network, shifts=shifts)
    logits = taps.forward(x)
    gaps = margins(logits)
    count = min(most, logits.shape[1] - 1)
    inverse, order = gaps.inverse.double().topk(count, dim=1)
    for place in range(count):
        rival = logits.gather(1, order[:, place : place + 1])
        winner = logits.gather(1, gaps.predicted[:, None])
        taps.backward((rival - winner).sum(), keep=place + 1 < count)
        yield (1 / inverse[:, place]).cpu(), taps


def _noise(survey: Survey, taps: Taps, samples: int) -> Tensor:
    columns = []
    for site in survey.network.weights:
        squares = taps.weights.get(site.name)
        spans = survey.kernel_spans[site.name].square()
        whole = spans.new_zeros(samples, site.shape[0]) if squares is None else squares.double() * spans
        columns.append(survey.grouping.sum(site, whole))
    for node in survey.network.activations:
        squares = taps.activations.get(node.name)
        span = survey.ranges[node.name].span ** 2
        columns.append((spans.new_zeros(samples) if squares is None else squares.double())[:, None] * span)
    return torch.cat(columns, dim=1)


def _variances(survey: Survey, taps: Taps, samples: int) -> Tensor:
    """Return the variance (n, G, K) of a margin's noise at every candidate; for errors that are none, their effect."""
    steps = torch.tensor([4.0**-b / 12 for b in survey.bits], dtype=torch.float64)
    variances = _noise(survey, taps, samples).cpu()[:, :, None] * steps
    for site in survey.unlike_noise:
        squares = taps.weights.get(site.name)
        if squares is None or survey.shifts is None:
            continue
        error = survey.shifts.errors[site.name].double().square().mean(2)  # (K, out)
        random = [survey.grouping.sum(site, squares.double() * part) for part in error]
        coherent = taps.shifts[site.name].double()
        variances[:, survey.rows(site)] = torch.maximum(torch.stack(random, dim=2), coherent).cpu()
    return variances
