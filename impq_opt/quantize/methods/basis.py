"""Levels that are sums of a few scales: each code says with which factors the scales are added up."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.quantize.methods.base import Moment, exact
from impq_opt.quantize.methods.codebook import Codebook, CodebookQuantizer, between

__all__ = ["KEPT", "Basis", "BasisQuantizer", "size", "solved", "step"]

_RIDGE = 1e-4
_SWEEPS = 10
KEPT = 0.9


@dataclass(frozen=True)
class Basis(Codebook):
    """Levels ``factors @ v`` for scales v (P,) of a range, sorted; thresholds are the middles between them."""

    training = "scales move to least squares before each step"

    @abstractmethod
    def factors(self, bits: int) -> Tensor:
        """Return the factors (L, P) of the scales in each level, in any order."""

    @abstractmethod
    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        """Return scales (R, P) to begin with, each from another side."""

    def scales(self, values: Tensor, bits: int) -> Tensor:
        """Return the scales of least squared error that ten steps of least squares from each start come to."""
        starts = self.starts(values, bits)
        repeated, scales = values.repeat(len(starts), 1), torch.cat(starts)
        for _ in range(_SWEEPS):
            before, scales = scales, step(self, repeated, scales, bits)
            if torch.equal(before, scales):
                break
        table = self.table(scales, bits)
        codes = torch.searchsorted(between(table), repeated, right=True)
        errors = torch.linalg.vector_norm(table.gather(1, codes) - repeated, dim=1)
        best = errors.reshape(len(starts), -1).argmin(0)
        return scales.reshape(len(starts), len(values), -1)[best, torch.arange(len(values), device=best.device)]

    def table(self, scales: Tensor, bits: int) -> Tensor:
        with torch.autocast(scales.device.type, enabled=False):  # training in bfloat16 is no reason for coarse levels
            return (scales @ self.factors(bits).to(scales).T).sort(dim=1).values

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return BasisQuantizer(shape, bits, sizes, self)


class BasisQuantizer(CodebookQuantizer):
    """Quantizer whose scales follow the weights: before each training step by a tenth of the way to least squares.

    Until the first step they are those of :meth:`Basis.scales`, a function of the weights.
    """

    method: Basis

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: Basis
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        for width in self.used:
            # Zeros until the first step: scales of zero would be those of weights that are all zero.
            self.register_buffer(f"basis_{width}", torch.zeros(self.rows[width], method.factors(width).shape[1]))

    def scales(self, values: Tensor, bits: int) -> Tensor:
        kept = self._buffers[f"basis_{bits}"]
        assert kept is not None
        return kept.to(values.dtype) if bool(kept.any()) else self.method.scales(values, bits)

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        for bits, own in self._own(exact(weight).reshape(self.view)):
            scales = self.scales(own, bits)
            moved = KEPT * scales + (1 - KEPT) * step(self.method, own, scales, bits)
            kept = self._buffers[f"basis_{bits}"]
            assert kept is not None
            kept.copy_(moved)


def step(method: Basis, values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Return the scales v (R, P) that minimise ||w - B v||^2 + 1e-4 ||v||^2 for the codes B that ``scales`` give."""
    factors = method.factors(bits).to(values.device, torch.float64)
    levels = scales.double() @ factors.T
    order = levels.argsort(dim=1, stable=True)
    codes = torch.searchsorted(between(levels.gather(1, order)), values.double().contiguous(), right=True)
    own = factors[order]  # (R, L, P), as sorted
    # Weights of one code enter by their number and their sum alone.
    precise = values.double()
    count = torch.zeros_like(levels).scatter_add_(1, codes, torch.ones_like(precise))
    total = torch.zeros_like(levels).scatter_add_(1, codes, precise)
    return solved(own, count, total).to(values.dtype)


def solved(factors: Tensor, count: Tensor, total: Tensor) -> Tensor:
    """Return (B'B + 1e-4 I)^-1 B'x (R, P) of ``count`` values (R, L) with ``factors`` (R, L, P), by their ``total``."""
    squares = (factors * count[..., None]).mT @ factors
    products = (total[:, None] @ factors)[:, 0]
    ridge = _RIDGE * torch.eye(squares.shape[-1], dtype=torch.float64, device=factors.device)
    scales: Tensor = torch.linalg.solve(squares + ridge, products)
    return scales


def size(values: Tensor) -> Tensor:
    """Return the root mean square (R, 1)."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return norm / values.shape[1] ** 0.5
