"""The grid of signed integers whose range is symmetric about zero, as most formats of integers have it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from impq_opt.quantize.methods.uniform import Uniform

__all__ = ["Integer"]


@dataclass(frozen=True)
class Integer(Uniform):
    """Levels ``code step``, codes from -2^(B-1) to 2^(B-1) - 1, step = 2 M / (2^B - 1) for the largest size M.

    M lies half a step inside the positive end, and half a step outside the negative one. All 2^B codes are used, as by
    ``zero``; that grid hits M, and its steps are shorter by a share of 2^-B. At one bit the levels are -2M and 0.

    Parameters
    ----------
    over, statistic
        See :class:`~impq_opt.quantize.methods.uniform.Uniform`.
    """

    name = "integer"
    summary = "2^B levels, one at zero, steps of twice the largest weight of each output kernel over 2^B - 1"
    source = "torchao, compressed-tensors and GPTQ"
    has_zero = True
    offset = 0.0

    def factor(self, bits: int) -> float:
        return 2 / (2**bits - 1)

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        return {"scale": values.abs().amax(dim=shared, keepdim=True) if shared else values.abs()}

    def spans(self, weight: Tensor) -> Tensor | None:
        return None  # steps do not halve with each bit
