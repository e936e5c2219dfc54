"""LQ-Net: sums of learned scales, each with its sign for weights, and each there or not for activations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from impq_opt.quantize.methods.activation import ActivationQuantizer, below, kind_of
from impq_opt.quantize.methods.base import exact
from impq_opt.quantize.methods.basis import KEPT, Basis, size, solved
from impq_opt.quantize.methods.checks import through
from impq_opt.quantize.methods.codebook import between

__all__ = ["LQActivation", "LQNet"]

_QUARTER = 0.6745  # half of a normal variable's values lie within so many deviations


@dataclass(frozen=True)
class LQNet(Basis):
    """Levels (+-1, ..., +-1) v for a basis v of K scales a kernel; thresholds are the middles between levels.

    Each training step moves v by a tenth of the way to (B'B + 1e-4 I)^-1 B'w, B the codes. It begins with what fits the
    weights: ten such steps, the whole way, from the paper's 0.6745 s 2^j / 2^(K-1), s the root mean square of the
    weights (in the paper that of fresh ones), and from equal steps that span the largest; the better of both.

    Activations have levels (0 or 1, ..., 0 or 1) v with one basis a tensor, the paper's 0.6745 * 2 / (2^K - 1) 2^j to
    begin with. In training each forward pass moves it as far, to the least squares of its batch, after rounding. The
    gradient is that of min(x, top level) for x >= 0. The paper has no rule for those that are not the output of a
    rectifier: they are rounded as in IMPQ.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a basis.
    """

    name = "lq-net"
    summary = "2^B sums of B scales with signs, fitted to each output kernel by least squares"
    source = "LQ-Nets (Zhang, Yang, Ye and Hua, ECCV 2018), authors' code"
    activations = "2^B sums of B scales, fitted to each batch"
    leaves_float = ("first", "last")

    over: str = "kernel"

    def factors(self, bits: int) -> Tensor:
        return _signs(bits)

    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        powers = torch.tensor([2.0 ** (place + 1 - bits) for place in range(bits)]).to(values)
        return [_QUARTER * size(values) * powers, values.abs().amax(1, keepdim=True) / 2 * powers]

    def activation(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> ActivationQuantizer:
        if signed:
            return super().activation(bits, span, label, signed=True)
        return LQActivation(self.spec, self.width(bits), label)


class LQActivation(ActivationQuantizer):
    """Levels that are sums of a basis (K,), which follows the batches in training mode."""

    basis: Tensor

    def __init__(self, method: str, bits: int, label: str = "") -> None:
        super().__init__(method, bits, label)
        self.register_buffer("basis", _QUARTER * 2 / (2**bits - 1) * 2.0 ** torch.arange(bits))

    @property
    def span(self) -> float:
        return float(self.table()[-1])

    def table(self) -> Tensor:
        """Return the levels (2^K,), which rise."""
        return self._levels().sort().values

    def _levels(self) -> Tensor:
        return (_bits(self.bits).to(self.basis) * self.basis).sum(
            1
        )  # autocast would take a product of matrices in bfloat16

    def codes(self, values: Tensor) -> Tensor:
        return self._places(values, self.table()).to(kind_of(self.bits))

    def values(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.table()[codes.long()].to(dtype)

    def forward(self, values: Tensor) -> Tensor:
        table = self.table()
        places = self._places(values, table)
        # In the order in memory that the values have.
        rounded = torch.empty_like(values).copy_(table[places])
        passed = through(below(values, table[-1]), rounded)
        if self.training:
            self._follow(exact(values.detach()), places)
        return passed

    def _places(self, values: Tensor, table: Tensor) -> Tensor:
        wide = exact(values.detach())
        return torch.searchsorted(between(table.to(wide.dtype)[None])[0], wide.contiguous(), right=True)

    @torch.no_grad()
    def _follow(self, values: Tensor, places: Tensor) -> None:
        factors = _bits(self.bits).to(self.basis.device, torch.float64)
        own = factors[self._levels().argsort(stable=True)]
        flat = places.flatten()
        count = torch.bincount(flat, minlength=len(own)).double()
        total = torch.bincount(flat, values.flatten().double(), minlength=len(own))
        self.basis.mul_(KEPT).add_((1 - KEPT) * solved(own[None], count[None], total[None])[0])


@cache
def _bits(bits: int) -> Tensor:
    return (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).float()


@cache
def _signs(bits: int) -> Tensor:
    return _bits(bits) * 2 - 1
