"""Ternary weight networks: three levels, one scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.codebook import Codebook

__all__ = ["TWN", "outside"]


@dataclass(frozen=True)
class TWN(Codebook):
    """Levels {-a, 0, a}: t = sign(w) where |w| > 0.7 mean |w|, else 0, and a = <t, w> / <t, t>, its least squares.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share threshold and scale; the layer in the paper.
    """

    name = "twn"
    summary = "{-a, 0, a}, the threshold at 0.7 of the mean size of a layer's weights"
    source = "TWN (Li, Zhang and Liu, 2016)"
    widths = (2,)
    has_zero = True

    def levels(self, bits: int) -> int:
        return 3

    def scales(self, values: Tensor, bits: int) -> Tensor:
        size = values.abs()
        beyond = size > _threshold(size)
        return (size * beyond).sum(1, keepdim=True) / beyond.sum(1, keepdim=True).clamp_min(1)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        return torch.cat([-scales, torch.zeros_like(scales), scales], dim=1)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        return outside(_threshold(values.abs()))


def _threshold(size: Tensor) -> Tensor:
    return 0.7 * size.mean(1, keepdim=True)


def outside(threshold: Tensor) -> Tensor:
    """Return thresholds (R, 2) for the three codes of w < -d, |w| <= d and w > d, for d (R, 1)."""
    return torch.cat([-threshold, torch.nextafter(threshold, torch.full_like(threshold, torch.inf))], dim=1)
