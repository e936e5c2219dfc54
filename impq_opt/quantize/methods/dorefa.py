"""DoReFa-Net: equal steps of the tangent of weights between -1 and 1, and of activations between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impq_opt.quantize.methods.activation import ActivationQuantizer, kind_of
from impq_opt.quantize.methods.base import exact
from impq_opt.quantize.methods.codebook import Codebook

__all__ = ["Clipped", "DoReFa"]


@dataclass(frozen=True)
class DoReFa(Codebook):
    """Levels 2 c / (2^k - 1) - 1: 2 Q_k(tanh w / (2 max |tanh w|) + 1/2) - 1, Q_k(x) = round(x (2^k - 1)) / (2^k - 1).

    At one bit sign(w) mean |w|, where the gradient passes unchanged; at more it is that of tanh w / max |tanh w|, the
    rounding aside. A tie goes to the upper level, so 0 becomes +1 / (2^k - 1).

    Activations are Q_k(clamp(x, 0, 1)), whose gradient passes where 0 <= x <= 1. The paper has no rule for those that
    are not the output of a rectifier: they are rounded as in IMPQ.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share max |tanh w|, or mean |w|; the layer in the paper.
    """

    name = "dorefa"
    summary = "2^B equal steps from -1 to 1, of tanh w over its largest; at one bit the sign times the mean size"
    source = "DoReFa-Net (Zhou et al., 2016), authors' code"
    training = "gradient of tanh w over its largest"
    activations = "2^B equal steps on [0, 1]"
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

    def activation(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> ActivationQuantizer:
        if signed:
            return super().activation(bits, span, label, signed=True)
        return Clipped(self.spec, self.width(bits), label)


class Clipped(ActivationQuantizer):
    """Levels c t / (2^B - 1) for the code c = round((2^B - 1) clamp(x, 0, t) / t), with t = 1."""

    def __init__(self, method: str, bits: int, label: str = "") -> None:
        super().__init__(method, bits, label)
        self.steps = 2**bits - 1

    @property
    def span(self) -> float:
        return float(self.top(torch.float32))

    def top(self, dtype: torch.dtype) -> float | Tensor:
        """Return the largest level."""
        return 1.0

    def clipped(self, values: Tensor) -> Tensor:
        """Return clamp(x, 0, t), in the type of the arithmetic, with its gradient."""
        return exact(values).clamp(0, 1)

    def codes(self, values: Tensor) -> Tensor:
        clipped = self.clipped(values).detach()
        return (clipped * (self.steps / self.top(clipped.dtype))).round_().to(kind_of(self.bits))

    def values(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        wide = codes.to(torch.promote_types(dtype, torch.float32))
        return wide.mul_(self.top(wide.dtype)).div_(self.steps).to(dtype)

    def forward(self, values: Tensor) -> Tensor:
        clipped = self.clipped(values)
        rounded: Tensor = _Steps.apply(clipped, self.top(clipped.dtype), self.steps, values.dtype)  # type: ignore[no-untyped-call]
        return rounded


class _Steps(torch.autograd.Function):
    """Rounding of values from 0 to ``top`` to equal steps, whose gradient is the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(clipped: Tensor, top: float | Tensor, steps: int, dtype: torch.dtype) -> Tensor:
        return (clipped * (steps / top)).round_().mul_(top).div_(steps).to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0].to(ctx.dtype), None, None, None
