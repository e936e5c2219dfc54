"""The mid-rise grid of the IMPQ paper: 2^B levels on both sides of zero, and none at it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.base import check_choice
from impq_opt.quantize.methods.uniform import Uniform

__all__ = ["MidRise"]

# Steps of the uniform mid-rise quantizer of least mean squared error for a unit normal variable, 1 to 8 bits
# (J. Max, "Quantizing for minimum distortion", IRE Trans. Information Theory 6, 1960, table II; 6 bits and more by the
# same equation, minimised numerically). Beyond 8 bits overload no longer matters and the largest weight is used.
_NORMAL_STEPS = (1.5958, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)


@dataclass(frozen=True)
class MidRise(Uniform):
    """Levels ``(code + 1/2) step``, codes from -2^(B-1) to 2^(B-1) - 1, with step = 2 M 2^-B for the scale M.

    This is what IMPQ rounds weights by. The authors' code clamps w/2M to +-(0.5 - 1e-6) instead of the code; the values
    are the same. A weight of exactly 0 becomes +step/2: for pruned weights take ``zero``.

    Activations have levels ``code step``, zero among them: codes from 0 to 2^B - 1 and step = clip 2^-B behind a
    rectifier, elsewhere codes from -2^(B-1) to 2^(B-1) - 1 and step = span 2^-B.

    Parameters
    ----------
    over : {"kernel", "group", "tensor"} or a number
        The weights that share one scale: an output kernel (the authors' code), a group of the allocation, the whole
        tensor, or so many consecutive ones.
    statistic : {"max", "mse", "normal"}
        ``max``: the span is 2 max abs(w), as in the paper. ``mse``: the span of least squared error, per precision.
        ``normal``: the step of least squared error for normal weights of the same root mean square, per precision (Max
        1960); it clips outliers and pays at 3 bits and less.
    one_bit : {"max", "mean"}
        Levels of a group of one bit: +- max abs(w) / 2, which is the paper's formula, or +- mean abs(w) (BWN).
    """

    name = "mid-rise"
    summary = "2^B levels, none at zero, that span the largest weight of each output kernel"
    source = "IMPQ (Gonugondla and Shanbhag, ICASSP 2022), authors' code"
    activations = "2^B equal steps from 0 to below a given clip value"
    offset = 0.5
    statistics = ("max", "mse", "normal")

    one_bit: str = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("one_bit", self.one_bit, ("max", "mean"))

    def factor(self, bits: int) -> float:
        if self.statistic == "normal" and bits <= len(_NORMAL_STEPS):
            return _NORMAL_STEPS[bits - 1]
        # Beyond the table the root mean square is taken to span +-4.
        return 2.0 ** (1 - bits) * (4.0 if self.statistic == "normal" else 1.0)

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        if not shared:
            return {"scale": values.abs()}
        order = 2 if self.statistic == "normal" else math.inf
        scale: Tensor = torch.linalg.vector_norm(values, order, dim=shared, keepdim=True)
        return {"scale": scale / math.sqrt(values.numel() / scale.numel()) if self.statistic == "normal" else scale}

    def side(
        self, values: Tensor, shared: tuple[int, ...], spread: Tensor, importance: Tensor | None = None
    ) -> dict[str, Tensor]:
        side = super().side(values, shared, spread, importance)
        if self.one_bit == "mean" and bool((spread == 1).any()):
            # Half the step, so that both scales are in one unit.
            side["scale_one_bit"] = _mean(values.abs(), shared, importance)
        return side

    def grid(self, side: Mapping[str, Tensor], factors: Tensor, spread: Tensor) -> tuple[Tensor, Tensor | float]:
        step, offset = super().grid(side, factors, spread)
        single = side.get("scale_one_bit")
        return step if single is None else torch.where(spread == 1, 2 * single, step), offset

    def spans(self, weight: Tensor) -> Tensor | None:
        return super().spans(weight) if self.one_bit == "max" else None


def _mean(sizes: Tensor, shared: tuple[int, ...], importance: Tensor | None) -> Tensor:
    """Return the means over ranges, weighted where weights count differently; the plain ones where none counts."""
    if not shared:
        return sizes
    plain = sizes.mean(dim=shared, keepdim=True)
    if importance is None:
        return plain
    total = importance.expand(sizes.shape).sum(dim=shared, keepdim=True)
    mean = (sizes * importance).sum(dim=shared, keepdim=True) / total
    return torch.where(total > 0, mean, plain)
