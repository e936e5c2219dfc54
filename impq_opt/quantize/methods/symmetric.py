"""The grid that is symmetric about zero, as many integer kernels want it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from impq_opt.quantize.methods.uniform import Uniform

__all__ = ["Symmetric"]


@dataclass(frozen=True)
class Symmetric(Uniform):
    """Levels from -M to M in equal steps M / (2^(B-1) - 1), zero in the middle: three at 2 bits, at one zero alone.

    Parameters
    ----------
    over, statistic
        See :class:`~impq_opt.quantize.methods.uniform.Uniform`.
    """

    name = "symmetric"
    summary = "2^B - 1 levels, symmetric about zero, the outermost at the largest weight of each output kernel"
    source = "the restricted range of integer kernels"
    has_zero = True
    offset = 0.0

    def limits(self, bits: int) -> tuple[int, int]:
        return -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1

    def factor(self, bits: int) -> float:
        return 1 / max(1, 2 ** (bits - 1) - 1)

    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        return {"scale": values.abs().amax(dim=shared, keepdim=True) if shared else values.abs()}

    def spans(self, weight: Tensor) -> Tensor | None:
        return None  # steps do not halve with each bit
