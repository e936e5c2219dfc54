"""Rounding weight by weight, each error made good by the weights that are not rounded yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.calibrate.layers import Layer
from impq_opt.calibrate.rounding import Cells, Choice, Rounding, moments
from impq_opt.calibrate.work import Work
from impq_opt.errors import OptionError
from impq_opt.quantize.methods.checks import check_choice

__all__ = ["GPTQ", "compensated", "output_error"]

_BLOCK = 128  # columns whose errors reach the columns behind them together


@dataclass(frozen=True)
class GPTQ(Rounding):
    """Choose the codes of each kernel by the error of what its layer gives, and not by that of each weight.

    The weights of a kernel are rounded one after the other. What rounding one changes in the output is made good by
    those that are left, as second moments of the layer's inputs say. Inputs are those of the quantized network, with
    the layers in front already rounded so. Scales stay what they are for the float weight, and are held from then on.
    A kernel that comes no closer so than it was stays as it is.

    Parameters
    ----------
    damping : float
        Added to the diagonal of the moments, as a share of its mean.
    order : {"given", "activation"}
        Inputs as they lie, or those with the largest squares first.
    """

    networks = 1
    name = "gptq"
    summary = "codes chosen by the error of what each layer gives"
    source = "Frantar et al., GPTQ (ICLR 2023), after Hassibi and Stork's optimal brain surgeon"

    damping: float = 0.01
    order: str = "activation"

    def __post_init__(self) -> None:
        if not 0 < self.damping < float("inf"):
            raise OptionError("must be positive and finite", where="gptq.damping", value=self.damping)
        check_choice("order", self.order, ("given", "activation"))

    def chosen(self, work: Work, layer: Layer, weight: Tensor, cells: Cells, *reads: Iterable[Tensor]) -> Choice:
        (hessian,) = moments(layer, *reads)
        better = compensated(weight, cells, hessian, self.damping, self.order, layer.weight.latent.dtype)
        return Choice(better, lambda rounded: output_error(weight, rounded, hessian))


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> Tensor:
    """Return the mean squared error (groups, outputs) of what each kernel gives; see :func:`.rounding.moments`."""
    change = (rounded - weight).double()
    return ((change @ hessian) * change).sum(2)


def compensated(
    weight: Tensor, cells: Cells, hessian: Tensor, damping: float, order: str, dtype: torch.dtype
) -> Tensor:
    """Return weights (groups, outputs, length) whose rounding errors make each other good.

    Rounded to their cells they are the answer: each is what it was and what the ones before it left to it.

    Parameters
    ----------
    weight : Tensor (groups, outputs, length)
    cells : Cells
    hessian : Tensor (groups, length, length) float64
    damping, order
        See :class:`GPTQ`.
    dtype : dtype
        The type that the weights are kept in.
    """
    squares = hessian.diagonal(dim1=1, dim2=2)
    places = squares.argsort(dim=1, descending=True) if order == "activation" else torch.arange(squares.shape[1])
    places = places.to(hessian.device).expand(squares.shape)
    upper = _inverse_root(hessian, damping, places)
    wide = places[:, None, :].expand(weight.shape)
    left = weight.double().gather(2, wide)
    own = Cells(*(part.gather(2, wide) for part in (cells.step, cells.offset, cells.least, cells.most)))
    kept = torch.empty_like(weight)
    for start in range(0, weight.shape[2], _BLOCK):
        end = min(start + _BLOCK, weight.shape[2])
        errors = torch.zeros_like(left[..., start:end])
        for column in range(start, end):
            kept[..., column] = left[..., column].to(dtype).to(kept.dtype)
            rounded = own.rounded(kept[..., column], (..., column)).double()
            error = (left[..., column] - rounded) / upper[:, None, column, column]
            left[..., column:end] -= error[..., None] * upper[:, None, column, column:end]
            errors[..., column - start] = error
        left[..., end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(kept).scatter_(2, wide, kept)


def _inverse_root(hessian: Tensor, damping: float, places: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of damped moments, in the order of ``places``."""
    ordered = hessian.gather(1, places[:, :, None].expand(hessian.shape)).gather(
        2, places[:, None].expand(hessian.shape)
    )
    squares = ordered.diagonal(dim1=1, dim2=2)
    share = (damping * squares.mean(1, keepdim=True)).clamp(min=torch.finfo(torch.float64).tiny ** 0.5)
    damped = ordered + torch.diag_embed(share.expand(squares.shape))
    inverted = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverted, upper=True)
