"""UNIQ: equally probable bins of a normal distribution, each with its median; in training noise, a layer at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.quantize.methods.base import Moment
from impq_opt.quantize.methods.codebook import Codebook, CodebookQuantizer

__all__ = ["UNIQ"]


@dataclass(frozen=True)
class UNIQ(Codebook):
    """Levels mu + sigma Phi^-1((c + 1/2) 2^-B) for bins between mu + sigma Phi^-1(c 2^-B), with a layer's mu and sigma.

    So normal weights fall into each of the 2^B bins alike, and a level is the median of its bin. In training each layer
    has a stage of equal length, in the order of the network: layers before it are rounded and frozen, those behind it
    in float, and its own weights get noise: w^ = mu + sigma Phi^-1(u + e), u = Phi((w - mu)/sigma) and e uniform in
    +-2^-(B+1), kept between the outermost levels. By w it has the slope phi((w - mu)/sigma) / phi((w^ - mu)/sigma), mu
    and sigma taken as constants. Stages pass once, and biases and norms are not frozen.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share mean and deviation; the layer in the paper.
    """

    name = "uniq"
    summary = "the medians of 2^B equally probable bins of a normal distribution with a layer's mean and deviation"
    source = "UNIQ (Baskin et al., 2018), weights"
    training = "uniform noise, a layer at a time"
    straight_through = False

    def scales(self, values: Tensor, bits: int) -> Tensor:
        deviation, mean = torch.std_mean(values, dim=1, correction=0)
        return torch.stack([mean, deviation], dim=1)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        return _at(scales, (torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        return _at(self.scales(values, bits), torch.arange(1, 2**bits, dtype=torch.float64) / 2**bits)

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Noisy(shape, bits, sizes, self)


class _Noisy(CodebookQuantizer):
    method: UNIQ
    turn = 0  # before, at or behind the layer of the stage: -1 rounded and frozen, 0 noisy, 1 in float

    def frozen(self, weight: Tensor) -> Tensor | None:
        return torch.ones((), dtype=torch.bool, device=weight.device) if self.turn < 0 else None

    def relaxed(self, weight: Tensor) -> Tensor:
        return weight if self.turn else self.joined(weight, self._noisy)

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        stage = int(moment.share * moment.places)
        self.turn = (moment.place > stage) - (moment.place < stage)

    def _noisy(self, values: Tensor, bits: int) -> Tensor:
        mean, deviation = self.scales(values.detach(), bits).split(1, dim=1)
        shares = torch.special.ndtr((values - mean) / deviation.clamp_min(torch.finfo(deviation.dtype).tiny))
        half = 2.0 ** -(bits + 1)
        noisy = (shares + half * (2 * torch.rand_like(shares) - 1)).clamp(half, 1 - half)
        return mean + deviation * torch.special.ndtri(noisy)


def _at(scales: Tensor, shares: Tensor) -> Tensor:
    """Return the points (R, L) that leave these shares of a normal distribution below them."""
    return scales[:, :1] + scales[:, 1:] * torch.special.ndtri(shares).to(scales)
