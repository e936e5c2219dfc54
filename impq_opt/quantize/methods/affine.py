"""The grid between the least and the largest weight that hits the larger of them, and zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.quantize.methods.asymmetric import Asymmetric

__all__ = ["Affine"]

_LEAST = 1e-7  # of a step, as MLX has it


@dataclass(frozen=True)
class Affine(Asymmetric):
    """Levels ``(code + z) step``, codes from 0 to 2^B - 1, that hit zero and the end m of the range of larger size.

    A step of s = (high - low) / (2^B - 1), at least 1e-7, with the sign that is not m's, puts m at z = round(m / s)
    steps; then the step is made m / z. So ``asymmetric`` has whole steps between its ends, and this one a whole number
    of steps from zero to m. ``low`` and ``high`` are the least and the largest weight, whether or not zero lies between
    them.

    Parameters
    ----------
    over, statistic
        See :class:`~impq_opt.quantize.methods.uniform.Uniform`.
    """

    name = "affine"
    summary = "2^B equal steps from the least to the largest weight, levels at zero and at the larger end"
    source = "MLX (mlx.core.quantize)"

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        if not shared:
            return {"scale": torch.zeros_like(values), "edge": values}
        low, high = values.amin(dim=shared, keepdim=True), values.amax(dim=shared, keepdim=True)
        below = low.abs() > high.abs()
        return {"scale": high - low, "edge": torch.where(below, low, high)}

    def grid(self, side: Mapping[str, Tensor], factors: Tensor, spread: Tensor) -> tuple[Tensor, Tensor | float]:
        edge = side["edge"]
        step = (side["scale"] * factors).clamp(min=_LEAST)
        step = torch.where(edge < 0, step, -step)
        zero = (edge / step).round()
        return torch.where(zero != 0, edge / torch.where(zero != 0, zero, 1), step), zero
