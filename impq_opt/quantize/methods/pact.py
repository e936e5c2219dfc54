"""PACT: activations clipped at a learned value, weights by DoReFa-Net."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError
from impq_opt.quantize.methods.activation import ActivationQuantizer, below
from impq_opt.quantize.methods.base import exact
from impq_opt.quantize.methods.dorefa import Clipped, DoReFa

__all__ = ["PACT"]

# A learned clip value may fall to zero or below, where steps would have no length: nothing but its gradient is left.
_LEAST = 2.0**-100


@dataclass(frozen=True)
class PACT(DoReFa):
    """Activations y = clamp(x, 0, a) in 2^k equal steps of [0, a]; weights as ``dorefa`` rounds them.

    The clip value a of each tensor is learned: its gradient is the sum of those where x >= a, and where 0 <= x < a they
    pass to x. It is a parameter among the others, so weight decay is the paper's penalty lambda a^2.

    The paper begins at one value for all tensors, 10; unless ``start`` says so each begins where its own tensor was
    measured to end. Its rule is for outputs of rectifiers: other tensors are rounded as in IMPQ.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share max |tanh w|, or mean |w|; the layer in the paper.
    start : float
        Where all clip values begin; 0 for that of each tensor.
    """

    name = "pact"
    summary = "weights as dorefa; activations in 2^B equal steps up to a learned clip value"
    source = "PACT (Choi et al., 2018)"
    activations = "2^B equal steps on [0, a], a learned"

    start: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.start) and self.start >= 0):
            raise OptionError("must be a positive clip value, or 0", where="pact: start", value=self.start)

    def activation(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> ActivationQuantizer:
        if signed:
            return super().activation(bits, span, label, signed=True)
        return _Learned(self.spec, self.width(bits), self.start or span, label)


class _Learned(Clipped):
    def __init__(self, method: str, bits: int, clip: float, label: str) -> None:
        super().__init__(method, bits, label)
        if not (math.isfinite(clip) and clip > 0):
            raise OptionError("must be positive and finite", where="span", value=clip)
        self.clip = nn.Parameter(torch.tensor(float(clip)))

    def top(self, dtype: torch.dtype) -> Tensor:
        return exact(self.clip.detach()).to(dtype).clamp_min(_LEAST)

    def clipped(self, values: Tensor) -> Tensor:
        top = self.top(exact(values).dtype)
        return below(values, self.clip + (top - self.clip).detach())
