"""A grid with a level at zero, for weights of which many are exactly zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.uniform import Uniform

__all__ = ["Zero"]


@dataclass(frozen=True)
class Zero(Uniform):
    """Levels ``code step``, codes from -2^(B-1) to 2^(B-1) - 1, step = -m 2^(1-B) for m, the weight of largest size.

    So m, with its sign, is the outermost level, zero is one, and both are hit exactly. Steps are as long as those of
    ``mid-rise``, and all 2^B codes are used: four levels at 2 bits, {m, m/2, 0, -m/2}, and {m, 0} at one bit. Weights
    of the other sign that come near to the size of m are clipped to -m (1 - 2^(1-B)). Of m and -m the positive one
    counts as the largest. Rounding twice is rounding once.

    The grid that is symmetric about zero gives up one of its codes for that: its steps are 2^(B-1) / (2^(B-1) - 1)
    times as long, twice at 2 bits, where it has three levels, and at one bit it has nothing but zero.

    Parameters
    ----------
    over, statistic
        See :class:`~impq_opt.quantize.methods.uniform.Uniform`.
    """

    name = "zero"
    summary = "2^B levels, one at zero and the outermost at the largest weight of each output kernel"
    source = "q4_0 of llama.cpp, at every precision"
    has_zero = True
    offset = 0.0

    def factor(self, bits: int) -> float:
        return 2.0 ** (1 - bits)

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        if not shared:
            return {"scale": -values}
        top, bottom = values.amax(dim=shared, keepdim=True), values.amin(dim=shared, keepdim=True)
        return {"scale": -torch.where(top >= -bottom, top, bottom)}
