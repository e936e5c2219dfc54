"""The quantizer of activations, and the public names of those of weights.

Activations are rounded by the rule of the IMPQ paper, at every forward pass, with straight-through gradients. Nothing
here knows problems or networks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError
from impq_opt.quantize.methods import MOST_BITS, whole_bits
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.quantize.methods.uniform import WeightQuantizer

__all__ = ["MOST_BITS", "ActivationQuantizer", "WeightQuantizer", "WeightRange"]

# What the options of the mid-rise grid were called before there were other grids.
WeightRange = MidRise


class ActivationQuantizer(nn.Module):
    """Uniform quantizer of one activation tensor, with step = span 2^-B.

    Unsigned, ``value = step * clamp(round(x / step), 0, 2^B - 1)``: the span is the clip value, the top level is
    clip (1 - 2^-B), the gradient passes where 0 < x < clip (IMPQ, authors' code). Signed, for tensors that are not the
    output of a rectifier: codes from -2^(B-1) to 2^(B-1) - 1, gradient inside +- span / 2.

    Parameters
    ----------
    bits : int
    span : float
        Length of the represented interval, positive.
    label : str
        The activation group that it quantizes.
    signed : bool
    """

    def __init__(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> None:
        super().__init__()
        self.bits, self.label, self.signed = int(whole_bits([bits])[0]), label, signed
        least = -(2 ** (self.bits - 1)) if signed else 0
        self.codes = (least, least + 2**self.bits - 1)
        self.stretch(span)

    def stretch(self, span: float) -> None:
        """Represent an interval of another length from now on.

        Raises
        ------
        OptionError
            It is not positive and finite.
        """
        if not (math.isfinite(span) and span > 0):
            raise OptionError("must be positive and finite", where="span", value=span)
        self.span = float(span)
        self.step = self.span * 2.0**-self.bits
        self.inside = (-self.span / 2, self.span / 2) if self.signed else (0.0, self.span)

    def forward(self, values: Tensor) -> Tensor:
        rounded: Tensor = _RoundActivation.apply(values, self.step, self.codes, self.inside)  # type: ignore[no-untyped-call]
        return rounded

    def extra_repr(self) -> str:
        return f"{self.bits} bits, span {self.span:g}" + ", signed" * self.signed


class _RoundActivation(torch.autograd.Function):
    """Uniform rounding whose gradient is that of a clamp to the interval ``inside``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, step: float, codes: tuple[int, int], inside: tuple[float, float]) -> Tensor:
        # In place, these four passes cost a tenth of torch.fake_quantize_per_tensor_affine on a CPU.
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        return (exact * (1 / step)).round_().clamp_(*codes).mul_(step).to(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, _, _, ctx.inside = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (values,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], values, *ctx.inside), None, None, None
