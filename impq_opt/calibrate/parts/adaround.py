"""Rounding up or down, learned for each layer by what it gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from impq_opt.calibrate.layers import Layer
from impq_opt.calibrate.rounding import Cells, Choice, Rounding, moments
from impq_opt.calibrate.soft import RATE, Soft, exponent
from impq_opt.calibrate.work import Work
from impq_opt.errors import OptionError
from impq_opt.quantize.methods.base import exact

__all__ = ["AdaRound"]

_WEIGHT = 0.1  # of the regularizer


@dataclass(frozen=True)
class AdaRound(Rounding):
    """Learn for every weight whether it is rounded up or down, layer after layer.

    The squared difference between what a layer gives and what it gives in the float network is made small, by gradient
    descent on numbers between down and up that a regularizer drives to either end. Both depend on second moments of
    the inputs alone, so each step is one product with them. Scales are held, as by ``gptq``. Kernels that
    come no closer than they were stay as they are.

    Parameters
    ----------
    steps : int
        Of Adam, for each layer.
    """

    networks = 2
    name = "adaround"
    summary = "rounding up or down learned by what each layer gives"
    source = "Nagel et al., Up or down? Adaptive rounding for post-training quantization (ICML 2020)"

    steps: int = 300

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError("must be at least 1", where="adaround.steps", value=self.steps)

    def chosen(self, work: Work, layer: Layer, weight: Tensor, cells: Cells, *reads: Iterable[Tensor]) -> Choice:
        node = work.float.nodes[layer.use.node].args[1]
        assert isinstance(node, fx.Node)
        own, cross = moments(layer, *reads)
        target = exact(work.float.tensors[node.name]).reshape(weight.shape).double() @ cross
        with torch.enable_grad():
            better = _learned(weight, cells, own, target, self.steps)
        return Choice(
            better.to(layer.weight.latent.dtype).to(weight.dtype), lambda rounded: _error(rounded, own, target)
        )


def _error(rounded: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error (groups, outputs) of each kernel's output, less that of a kernel of zeros."""
    wide = rounded.double()
    return ((wide @ own - 2 * target) * wide).sum(2)


def _learned(weight: Tensor, cells: Cells, own: Tensor, target: Tensor, steps: int) -> Tensor:
    """Return weights (groups, outputs, length) that round up or down as learned."""
    soft = Soft(weight, cells)
    optimizer = torch.optim.Adam([soft.raised], RATE)
    # Errors of a kernel in units of what it could be at worst: rates and the regularizer mean the same in any layer.
    own, target = own.to(weight.dtype), target.to(weight.dtype)
    unit = (own.diagonal(dim1=1, dim2=2)[:, None] * cells.step.square()).sum(2).clamp(min=1e-30)
    for step in range(steps):
        values = soft.values()
        loss = (((values @ own - 2 * target) * values).sum(2) / unit).sum()
        if sharp := exponent(step, steps):
            loss = loss + _WEIGHT * soft.undecided(sharp).mean(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return soft.decided()
