"""Trained ternary quantization: three levels, of which the two outer ones are learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.quantize.methods.codebook import Codebook, CodebookQuantizer
from impq_opt.quantize.methods.twn import outside

__all__ = ["TTQ"]


@dataclass(frozen=True)
class TTQ(Codebook):
    """Levels {-Wn, 0, Wp}: outside of +-0.05 max |w|, with Wp and Wn learned from 1 on, under weight decay as all.

    The gradient of Wp is the sum of g where the level is Wp, that of Wn minus the sum where it is -Wn; the latent
    gradient is g times Wp, 1, Wn in the three regions.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share threshold and levels; the layer in the paper.
    """

    name = "ttq"
    summary = "{-Wn, 0, Wp} with learned Wn and Wp, the threshold at 0.05 of a layer's largest weight"
    source = "TTQ (Zhu, Han, Mao and Dally, ICLR 2017)"
    training = "both levels learned, gradient scaled by them"
    widths = (2,)
    has_zero = True
    straight_through = False
    needs_training = True
    leaves_float = ("first", "last")

    def levels(self, bits: int) -> int:
        return 3

    def scales(self, values: Tensor, bits: int) -> Tensor:
        return values.new_ones(len(values), 2)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        positive, negative = scales[:, :1], scales[:, 1:]
        return torch.cat([-negative, torch.zeros_like(positive), positive], dim=1)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        return outside(0.05 * values.abs().amax(1, keepdim=True))

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Trained(shape, bits, sizes, self)


class _Trained(CodebookQuantizer):
    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: TTQ
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        self.positive, self.negative = (nn.Parameter(torch.ones(self.rows[2], 1)) for _ in range(2))

    def scales(self, values: Tensor, bits: int) -> Tensor:
        return torch.cat([self.positive, self.negative], dim=1).to(values.dtype)

    def latent(self, values: Tensor, scales: Tensor, codes: Tensor, bits: int) -> Tensor:
        positive, negative = scales[:, :1], scales[:, 1:]
        above, below = codes == 2, codes == 0
        factor = torch.where(above, positive, torch.where(below, negative, 1.0)).detach()
        return values * factor + positive * above - negative * below
