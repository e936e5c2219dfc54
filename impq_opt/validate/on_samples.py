"""The bound on the samples at hand: as it stands, with each sample counted for at most 1, and as Gaussian tails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, device

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.measure.metrics.gaussian import noise_by_margin, tail
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["OnSamples", "bounds_on_samples"]

_BATCH = 64


class OnSamples(NamedTuple):
    """Means over samples: of the bound; of min(1, bound of the sample); of the tails of its margins, at most 1."""

    here: float
    clipped: float
    gaussian: float


def bounds_on_samples(
    survey: Survey,
    data: Dataset,
    rows: Tensor,
    widths: Sequence[FloatArray],
    place: device,
    looked_at: Callable[[int], None],
) -> list[OnSamples]:
    """Return the bounds of allocations on the samples ``rows`` (n,) of the data, from one look for all of them.

    Parameters
    ----------
    survey : Survey
        By layers or kernels: noise is told apart for samples, not for single weights.
    widths : sequence of ndarray (G,)
        Bits of the survey's groups, one array an allocation.
    looked_at : callable
        Told of so many more samples.
    """
    steps = [torch.from_numpy(4.0**-bits / 12 * survey.squares_over_noise(bits)) for bits in widths]
    sums: list[tuple[Tensor, Tensor]] = []
    for part in rows.split(_BATCH):
        bound = torch.zeros(len(widths), len(part), dtype=torch.float64)
        tails = torch.zeros_like(bound)
        for margin, noise in noise_by_margin(survey, prepare(data.rows(part)[0], place)):  # (n,) and (n, G)
            finite = torch.isfinite(margin)  # ties have no margin
            apart, kept = margin[finite], noise[finite]
            for row, step in enumerate(steps):
                variance = kept @ step
                bound[row, finite] += variance / apart**2
                tails[row, finite] += tail(apart, variance.sqrt())
        sums.append((bound, tails))
        looked_at(len(part))
    bounds, tails = (torch.cat(some, dim=1) for some in zip(*sums, strict=True))
    # Row by row: what one allocation gets does not depend on the others, to the last bit.
    return [
        OnSamples(float(bound.mean()), float(bound.clamp(max=1).mean()), float(crossed.clamp(max=1).mean()))
        for bound, crossed in zip(bounds, tails, strict=True)
    ]
