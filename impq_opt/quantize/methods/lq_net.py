"""The weights of LQ-Net: sums of learned scales, each with its sign."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from impq_opt.quantize.methods.basis import Basis, size

__all__ = ["LQNet"]


@dataclass(frozen=True)
class LQNet(Basis):
    """Levels (+-1, ..., +-1) v for a basis v of K scales a kernel; thresholds are the middles between levels.

    Each training step moves v by a tenth of the way to (B'B + 1e-4 I)^-1 B'w, B the codes. It begins with what fits the
    weights: ten such steps, the whole way, from the paper's 0.6745 s 2^j / 2^(K-1), s the root mean square of the
    weights (in the paper that of fresh ones), and from equal steps that span the largest; the better of both.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a basis.
    """

    name = "lq-net"
    summary = "2^B sums of B scales with signs, fitted to each output kernel by least squares"
    source = "LQ-Nets (Zhang, Yang, Ye and Hua, ECCV 2018), weights, authors' code"
    leaves_float = ("first", "last")

    over: str = "kernel"

    def factors(self, bits: int) -> Tensor:
        return _signs(bits)

    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        powers = torch.tensor([2.0 ** (place + 1 - bits) for place in range(bits)]).to(values)
        return [0.6745 * size(values) * powers, values.abs().amax(1, keepdim=True) / 2 * powers]


@cache
def _signs(bits: int) -> Tensor:
    codes = torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1
    return codes.float() * 2 - 1
