"""What the very rounding errors of a group do to the margins, to first order: gradient times error, summed over it.

Noise has no preferred direction, and then the mean square of this sum is that of its terms. Errors that are equal where
weights are equal can add up, and then it is larger: nothing but the sum itself tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from impq_opt.measure.grouping import Grouping
from impq_opt.quantize.methods import MOST_BITS, Method
from impq_opt.tracing.sites import WeightSite
from impq_opt.types import IntArray

__all__ = ["Shifts", "rounded", "rounding_errors", "whole_below"]


def rounded(weight: Tensor, method: Method, bits: float, sizes: IntArray, stored: torch.dtype | None = None) -> Tensor:
    """Return ``weight`` with all its groups, of ``sizes`` (G,), at one precision.

    ``stored`` is the type that the network has it in, to which rounded weights are rounded as well.
    """
    quantizer = method.quantizer(weight.shape, np.full(len(sizes), bits), sizes).to(weight.device)
    with torch.no_grad():
        value = quantizer.rounded(weight.detach().to(stored or weight.dtype))
    return value.to(weight.dtype)


def whole_below(bits: float) -> float:
    """Return the precision of the quantizer that stands for ``bits``: the next whole one below, of 1 to 16."""
    return float(min(max(1.0, np.floor(bits)), MOST_BITS))


def rounding_errors(
    weight: Tensor, method: Method, bits: Sequence[float], sizes: IntArray, stored: torch.dtype | None = None
) -> Tensor:
    """Return the errors (K, out, inputs) at each precision, of weights that the network has in the type ``stored``.

    Where there is no quantizer of a precision, because it is not whole or above 16 bits, they are those of the next one
    below, as much smaller as steps are.
    """
    exact = weight.detach()
    errors = []
    for width in bits:
        whole = whole_below(width)
        error = (rounded(weight, method, whole, sizes, stored) - exact).flatten(1)
        errors.append(error if whole == width else error * 2.0 ** (whole - width))
    return torch.stack(errors)


@dataclass(frozen=True, eq=False)
class Shifts:
    """Rounding errors of some weights.

    Parameters
    ----------
    grouping : Grouping
    errors : mapping of str to Tensor (K, out, inputs)
        By weight site, at each of K precisions.
    """

    grouping: Grouping
    errors: Mapping[str, Tensor]

    def of_gradient(self, site: WeightSite, gradient: Tensor) -> Tensor:
        """Return the shifts (n, groups, K) for gradients (n, out, inputs) of the weights."""
        errors = self.errors[site.name].to(gradient)
        if self.grouping.fine:
            columns = [self.grouping.sum(site, gradient * error) for error in errors]
        else:
            products = torch.einsum("noi,koi->kno", gradient, errors)
            columns = [self.grouping.sum(site, product) for product in products]
        return torch.stack(columns, dim=2)

    def scaled(self, site: WeightSite, scale: Tensor) -> Shifts:
        """Return the errors of one weight whose layer has taken in a batch-norm that multiplies by ``scale`` (out,)."""
        errors = self.errors[site.name]
        return Shifts(self.grouping, {site.name: errors * scale.to(errors)[:, None]})
