"""The bins of UNIQ: equally probable ones of a normal distribution, each with its median."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.codebook import Codebook

__all__ = ["UNIQ"]


@dataclass(frozen=True)
class UNIQ(Codebook):
    """Levels mu + sigma Phi^-1((c + 1/2) 2^-B) for bins between mu + sigma Phi^-1(c 2^-B), with a layer's mu and sigma.

    So normal weights fall into each of the 2^B bins alike, and a level is the median of its bin. The paper trains with
    uniform noise in place of rounding, a few layers at a time; these are its levels at test.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share mean and deviation; the layer in the paper.
    """

    name = "uniq"
    summary = "the medians of 2^B equally probable bins of a normal distribution with a layer's mean and deviation"
    source = "UNIQ (Baskin et al., 2018): its levels at test"

    def scales(self, values: Tensor, bits: int) -> Tensor:
        deviation, mean = torch.std_mean(values, dim=1, correction=0)
        return torch.stack([mean, deviation], dim=1)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        return _at(scales, (torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        return _at(self.scales(values, bits), torch.arange(1, 2**bits, dtype=torch.float64) / 2**bits)


def _at(scales: Tensor, shares: Tensor) -> Tensor:
    """Return the points (R, L) that leave these shares of a normal distribution below them."""
    return scales[:, :1] + scales[:, 1:] * torch.special.ndtri(shares).to(scales)
