"""The grid whose ends are those of the weights, with a whole zero point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from impq_opt.quantize.methods.uniform import Uniform, inverse

__all__ = ["Asymmetric"]


@dataclass(frozen=True)
class Asymmetric(Uniform):
    """Levels ``(code - z) step``, codes from 0 to 2^B - 1, step (high - low) / (2^B - 1), z = round(-low / step).

    ``low`` is the least weight of a range or 0, ``high`` the largest or 0, so that zero is a level (Jacob et al. 2018,
    arXiv:1712.05877, equation 1). At one bit the levels are zero and the whole range
    towards the larger end.

    Parameters
    ----------
    over, statistic
        See :class:`~impq_opt.quantize.methods.uniform.Uniform`.
    """

    name = "asymmetric"
    summary = "2^B equal steps from the least to the largest weight of each output kernel, one level at zero"
    source = "Jacob et al., Quantization and training of neural networks, CVPR 2018"
    has_zero = True
    offset = 0.0

    def limits(self, bits: int) -> tuple[int, int]:
        return 0, 2**bits - 1

    def factor(self, bits: int) -> float:
        return 1 / (2**bits - 1)

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        if not shared:
            return {"scale": values.abs(), "low": values.clamp(max=0)}
        low = values.amin(dim=shared, keepdim=True).clamp_(max=0)
        return {"scale": values.amax(dim=shared, keepdim=True).clamp_(min=0) - low, "low": low}

    def grid(self, side: Mapping[str, Tensor], factors: Tensor, spread: Tensor) -> tuple[Tensor, Tensor | float]:
        step = side["scale"] * factors
        return step, (side["low"] * inverse(step)).round_()

    def spans(self, weight: Tensor) -> Tensor | None:
        return None  # steps do not halve with each bit
