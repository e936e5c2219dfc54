"""After DBQ: sums of two scaled ternary branches, whose steps are sigmoids in training that become steeper."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.quantize.methods.base import Moment
from impq_opt.quantize.methods.basis import Basis, size
from impq_opt.quantize.methods.codebook import CodebookQuantizer, StartedQuantizer, between

__all__ = ["DBQ", "annealed"]

_BRANCHES = tuple(product((-1.0, 0.0, 1.0), repeat=2))
# Equal steps of about least squared error for nine levels of a normal variable; branches of three steps and of one.
_STEP = 0.53
# How steep sigmoids are, in gaps between levels, at the beginning and at the end of training.
_STEEP = (5.0, 200.0)


@dataclass(frozen=True)
class DBQ(Basis):
    """Levels a1 z1 + a2 z2 with z1, z2 of {-1, 0, 1}: nine of them, in codes of 4 bits.

    In training each step from a level to the next, gap g at threshold t, is g F(k (w - t) / g), F the logistic
    function; gradients go to the weights, a1 and a2. k rises from 5 to 200 in equal ratios. a1 and a2 begin at the
    least squared error; what is learned are their logarithms relative to that, so that one rate suits all layers. These
    are choices made here; hence "after".

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share both scales; the layer in the paper.
    """

    name = "dbq"
    summary = "sums of two scaled ternary branches: nine levels a layer, zero among them"
    source = "after DBQ (Dbouk, Sanghvi, Mehendale and Shanbhag, ECCV 2020)"
    training = "scales learned, sigmoids that become steeper"
    widths = (4,)
    has_zero = True
    straight_through = False

    def levels(self, bits: int) -> int:
        return len(_BRANCHES)

    def factors(self, bits: int) -> Tensor:
        return torch.tensor(_BRANCHES)

    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        branches = values.new_tensor([3.0, 1.0])
        return [_STEP * size(values) * branches, values.abs().amax(1, keepdim=True) / 4 * branches]

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Annealed(shape, bits, sizes, self)


class _Annealed(StartedQuantizer):
    method: DBQ
    columns = 2
    steep = _STEEP[0]

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: DBQ
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        self.moved = nn.Parameter(torch.zeros(self.rows[4], 2))

    def scales(self, values: Tensor, bits: int) -> Tensor:
        return super().scales(values, bits) * self.moved.to(values.dtype).exp()

    def relaxed(self, weight: Tensor) -> Tensor:
        return self.joined(weight, self._annealed)

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        self.steep = _STEEP[0] * (_STEEP[1] / _STEEP[0]) ** moment.share
        super().before_step(weight, moment)

    def _annealed(self, values: Tensor, bits: int) -> Tensor:
        return annealed(values, self.method.table(self.scales(values, bits), bits), self.steep)


def annealed(values: Tensor, table: Tensor, steep: float) -> Tensor:
    """Return values (R, n) taken up levels (R, L) by sigmoids at the middles, ``steep`` in units of their gaps."""
    gaps = table.diff(dim=1)
    # Levels that fall together have no step between them; they must not divide by zero either.
    widths = gaps.clamp_min(1e-6 * float(table.detach().abs().amax()) + 1e-30)
    shares = (steep * (values[..., None] - between(table)[:, None]) / widths[:, None]).sigmoid()
    return table[:, :1] + (gaps[:, None] * shares).sum(-1)
