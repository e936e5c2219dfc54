"""Max's grid: the levels of least squared error for normal weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.linalg import solve_banded
from scipy.stats import norm
from torch import Tensor

from impq_opt.quantize.methods.basis import size
from impq_opt.quantize.methods.codebook import Codebook
from impq_opt.types import FloatArray

__all__ = ["Normal", "unit_levels"]


@dataclass(frozen=True)
class Normal(Codebook):
    """Levels s x_c: x the 2^B levels of least mean squared error for a unit normal variable, s the root mean square.

    Each level is the mean of what is rounded to it, thresholds are the middles between levels (Lloyd 1957, Max 1960).

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a scale.
    """

    name = "normal"
    summary = "the 2^B levels of least squared error for normal weights of each output kernel's size"
    source = "J. Max, Quantizing for minimum distortion, IRE Trans. Information Theory 6, 1960"

    over: str = "kernel"

    def scales(self, values: Tensor, bits: int) -> Tensor:
        return size(values)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        return scales * torch.from_numpy(unit_levels(bits)).to(scales)


@cache
def unit_levels(bits: int) -> FloatArray:
    """Return the levels (2^B,) for a unit normal variable: each is the mean of its bin, by Newton's method."""
    count = 2**bits
    # Where levels lie densely their number goes with the cube root of the density (Panter and Dite 1951).
    levels = np.sqrt(3) * norm.ppf((np.arange(count) + 0.5) / count)
    for _ in range(100):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        density, share = norm.pdf(edges), np.diff(norm.cdf(edges))
        means = -np.diff(density) / share
        # How the mean of a bin moves with its ends, each of which moves by half with the level on either side.
        low = density[:-1] * (means - np.where(np.isfinite(edges[:-1]), edges[:-1], 0)) / share / 2
        high = density[1:] * (np.where(np.isfinite(edges[1:]), edges[1:], 0) - means) / share / 2
        bands = np.zeros((3, count))
        bands[0, 1:], bands[1], bands[2, :-1] = -high[:-1], 1 - low - high, -low[1:]
        moved = solve_banded((1, 1), bands, means - levels)
        levels = np.sort(levels + moved)
        if np.abs(moved).max() < 1e-12:
            break
    result: FloatArray = (levels - levels[::-1]) / 2
    return result
