"""Binary weight networks: the sign, times the mean size of a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.quantize.methods.base import Moment
from impq_opt.quantize.methods.codebook import Codebook, CodebookQuantizer

__all__ = ["BWN"]


@dataclass(frozen=True)
class BWN(Codebook):
    """Levels +-alpha, alpha = mean |w|, which with the signs minimises ||w - alpha b||; 0 counts as positive.

    Before every step the latent weights lose their mean over input channels at each place and are clamped to +-1. The
    latent gradient is g (1/n + alpha [|w| < 1]) (1 - 1/c) n for n weights of a kernel and c input channels: that of the
    authors' code for SGD, which is not zero outside of +-1.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share alpha.
    """

    name = "bwn"
    summary = "the sign times the mean size of an output kernel"
    source = "BWN (Rastegari et al., XNOR-Net, ECCV 2016), authors' code"
    training = "centred and clamped before each step, gradient by size"
    widths = (1,)
    straight_through = False
    leaves_float = ("first", "last")

    over: str = "kernel"

    def scales(self, values: Tensor, bits: int) -> Tensor:
        return values.abs().mean(1, keepdim=True)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        return torch.cat([-scales, scales], dim=1)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        return torch.zeros_like(table[:, :1])

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Binary(shape, bits, sizes, self)


class _Binary(CodebookQuantizer):
    def latent(self, values: Tensor, scales: Tensor, codes: Tensor, bits: int) -> Tensor:
        count, inputs = values.shape[1], self.shape[1] if len(self.shape) > 1 else 1
        with torch.no_grad():
            factor = (1 / count + scales * (values.abs() < 1)) * (1 - 1 / inputs) * count
        return values * factor

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        if weight.ndim > 1:
            weight -= weight.mean(1, keepdim=True)
        weight.clamp_(-1, 1)
