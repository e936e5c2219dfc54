"""The weights of DoReFa-Net: equal steps between -1 and 1, of what a hyperbolic tangent makes of the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.codebook import Codebook

__all__ = ["DoReFa"]


@dataclass(frozen=True)
class DoReFa(Codebook):
    """Levels 2 c / (2^k - 1) - 1: 2 Q_k(tanh w / (2 max |tanh w|) + 1/2) - 1, Q_k(x) = round(x (2^k - 1)) / (2^k - 1).

    At one bit sign(w) mean |w|, where the gradient passes unchanged; at more it is that of tanh w / max |tanh w|, the
    rounding aside. A tie goes to the upper level, so 0 becomes +1 / (2^k - 1).

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share max |tanh w|, or mean |w|; the layer in the paper.
    """

    name = "dorefa"
    summary = "2^B equal steps from -1 to 1, of tanh w over its largest; at one bit the sign times the mean size"
    source = "DoReFa-Net (Zhou et al., 2016), weights, authors' code"
    training = "gradient of tanh w over its largest"
    straight_through = False
    needs_training = True
    leaves_float = ("first", "last")

    def scales(self, values: Tensor, bits: int) -> Tensor:
        # At more than one bit the levels are the same for all weights.
        return values.abs().mean(1, keepdim=True) if bits == 1 else values.new_empty(len(values), 0)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        if bits == 1:
            return torch.cat([-scales, scales], dim=1)
        top = 2**bits - 1
        levels = (2 * torch.arange(top + 1, device=scales.device, dtype=scales.dtype) - top) / top
        return levels.expand(len(scales), -1)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        if bits == 1:
            return torch.zeros_like(table[:, :1])
        top = 2**bits - 1
        return ((2 * torch.arange(top, device=table.device, dtype=table.dtype) + 1 - top) / top).expand(len(table), -1)

    def curve(self, values: Tensor, bits: int) -> Tensor:
        if bits == 1:
            return values
        bent = values.tanh()
        return bent / bent.abs().amax(1, keepdim=True).clamp_min(torch.finfo(bent.dtype).tiny)
