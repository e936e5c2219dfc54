"""Rounding up or down as numbers in between, which a descent moves and a regularizer drives to either end."""

from __future__ import annotations

import torch
from torch import Tensor

from impq_opt.calibrate.rounding import Cells
from impq_opt.quantize.methods.uniform import inverse

__all__ = ["RATE", "Soft", "exponent"]

# Of the paper: how far the sigmoid is stretched beyond 0 and 1, the exponents of the regularizer from first to last,
# and the share of steps before it begins.
_BELOW, _ABOVE, _SHARP, _WARM = -0.1, 1.1, (20.0, 2.0), 0.2
RATE = 0.02  # of the descent
# Inside of a cell: a latent weight at its edge may round to either side.
_INSIDE = 0.49


class Soft:
    """Weights between the level below and the level above (Nagel et al. 2020, equations 22 to 24).

    Parameters
    ----------
    weight : Tensor (groups, outputs, length)
        The latent weight, which says where the numbers begin.
    cells : Cells

    Attributes
    ----------
    raised : Tensor (groups, outputs, length)
        What is learned: positive where a weight is rounded up.
    """

    def __init__(self, weight: Tensor, cells: Cells) -> None:
        self._weight, self._cells = weight, cells
        place = weight * inverse(cells.step) - cells.offset
        self._low = torch.minimum(torch.maximum(place.floor(), cells.least), cells.most)
        share = (place - self._low).clamp(0.01, 0.99)
        self.raised = torch.logit((share - _BELOW) / (_ABOVE - _BELOW)).requires_grad_()

    def _up(self) -> Tensor:
        return (torch.sigmoid(self.raised) * (_ABOVE - _BELOW) + _BELOW).clamp(0, 1)

    def values(self) -> Tensor:
        """Return the weights (groups, outputs, length) as they are now."""
        cells = self._cells
        return (torch.minimum(self._low + self._up(), cells.most) + cells.offset) * cells.step

    def undecided(self, exponent: float) -> Tensor:
        """Return how far each weight (groups, outputs, length) is from either level, from 0 to 1."""
        return 1 - (2 * self._up() - 1).abs().pow(exponent)

    def decided(self) -> Tensor:
        """Return latent weights that are rounded as learned, as near to what they were as that allows."""
        cells = self._cells
        code = torch.minimum(self._low + (self.raised.detach() > 0), cells.most) + cells.offset
        ends = ((code - _INSIDE) * cells.step, (code + _INSIDE) * cells.step)
        return torch.maximum(torch.minimum(self._weight, torch.maximum(*ends)), torch.minimum(*ends))


def exponent(step: int, steps: int) -> float:
    """Return the exponent of the regularizer at a step; 0 before it begins."""
    past = (step / steps - _WARM) / (1 - _WARM)
    return _SHARP[1] + (_SHARP[0] - _SHARP[1]) * (1 - past) if past > 0 else 0.0
