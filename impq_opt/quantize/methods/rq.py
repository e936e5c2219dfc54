"""Relaxed quantization: equal steps, with noise of a learned scale that makes rounding a random choice in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from impq_opt.errors import OptionError
from impq_opt.quantize.methods.basis import size
from impq_opt.quantize.methods.codebook import Codebook, CodebookQuantizer, StartedQuantizer
from impq_opt.quantize.methods.mid_rise import MidRise

__all__ = ["RQ", "RQST", "log_probabilities"]

# Levels on either side of the nearest one that noise may choose.
_REACH = 2
_NORMAL = MidRise(statistic="normal")


@dataclass(frozen=True)
class RQ(Codebook):
    """Levels a c + b for codes c from -2^(B-1) to 2^(B-1) - 1, with learned a and b; at test the nearest is taken.

    In training logistic noise of a learned scale s is added to the weight, so it falls to level g with a probability p
    of F((g + a/2 - w)/s) - F((g - a/2 - w)/s), F the logistic function, scaled to sum to 1 over the five levels around
    the weight. The choice is relaxed: levels are mixed by softmax((log p + Gumbel noise) / temperature); gradients go
    to the weight, a, b and s.

    It begins at the step of least squared error for normal weights, b = 0 (a/2 at one bit) and s = a/3. What is learned
    are the logarithms of a and s relative to that, and b relative to a, so that one rate suits all layers.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a, b and s.
    temperature : float
        Positive.
    """

    name = "rq"
    summary = "2^B equal steps of learned length and offset, for each layer"
    source = "after RQ (Louizos et al., ICLR 2019)"
    training = "grid and noise learned, choices relaxed"
    straight_through = False

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise OptionError("must be positive and finite", where=f"{self.name}.temperature", value=self.temperature)

    def mixture(self, logits: Tensor) -> Tensor:
        """Return how much each level (..., L) counts in training, for logits with Gumbel noise."""
        return (logits / self.temperature).softmax(-1)

    def scales(self, values: Tensor, bits: int) -> Tensor:
        step = _NORMAL.factor(bits) * size(values)
        return torch.cat([step, step / 2 if bits == 1 else torch.zeros_like(step)], dim=1)

    def table(self, scales: Tensor, bits: int) -> Tensor:
        codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), device=scales.device)
        return scales[:, :1] * codes + scales[:, 1:]

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Relaxed(shape, bits, sizes, self)


@dataclass(frozen=True)
class RQST(RQ):
    """As ``rq``, but in training the weight is the one level that was drawn; the gradient is that of the mixture.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a, b and s.
    temperature : float
        Positive, of the mixture.
    """

    name = "rq-st"
    summary = "as rq, but for what training does"
    source = "after RQ-ST (Louizos et al., ICLR 2019)"
    training = "grid and noise learned, choices drawn"

    def mixture(self, logits: Tensor) -> Tensor:
        soft = super().mixture(logits)
        drawn = functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return drawn + (soft - soft.detach())


class _Relaxed(StartedQuantizer):
    method: RQ
    columns = 2

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: RQ
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        for width in self.used:
            self.register_parameter(f"moved_{width}", nn.Parameter(torch.zeros(self.rows[width], 3)))

    def scales(self, values: Tensor, bits: int) -> Tensor:
        begun, moved = super().scales(values, bits), self._parameters[f"moved_{bits}"]
        assert moved is not None
        step = begun[:, :1] * moved[:, :1].to(values.dtype).exp()
        return torch.cat([step, begun[:, 1:] + step * moved[:, 1:2].to(values.dtype)], dim=1)

    def relaxed(self, weight: Tensor) -> Tensor:
        return self.joined(weight, self._mixed)

    def _mixed(self, values: Tensor, bits: int) -> Tensor:
        scales, moved = self.scales(values, bits), self._parameters[f"moved_{bits}"]
        assert moved is not None
        step, offset = scales[:, :1], scales[:, 1:]
        places = (values - offset) / step.clamp_min(torch.finfo(step.dtype).tiny)
        codes, logits = log_probabilities(places, moved[:, 2:].to(values.dtype).exp() / 3, bits)
        gumbel = -torch.empty_like(logits).exponential_().clamp_min(torch.finfo(logits.dtype).tiny).log()
        return step * (self.method.mixture(logits + gumbel) * codes).sum(-1) + offset


def log_probabilities(places: Tensor, noise: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the codes (..., 5) around places (...), in steps, and the logarithms of how probable noise makes each.

    Codes that the grid has not are no choice: their logarithm is -inf. As F(b) - F(a) = F(b) F(-a) (1 - e^(a - b)),
    whose last factor is the same for all codes, no difference of two numbers near 1 is taken.
    """
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    nearest = places.detach().round().clamp(least, most)
    codes = nearest[..., None] + torch.arange(-_REACH, _REACH + 1, device=places.device)
    away = codes - places[..., None]
    upper, lower = (away + 0.5) / noise[..., None], (away - 0.5) / noise[..., None]
    logits = functional.logsigmoid(upper) + functional.logsigmoid(-lower)
    return codes, logits.masked_fill((codes < least) | (codes > most), -torch.inf).log_softmax(-1)
