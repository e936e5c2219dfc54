"""What batch-norms of a network would do with one group quantized, had their statistics been estimated again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impq_opt.calibrate.graphs import norms_of
from impq_opt.tracing.graph import Network

__all__ = ["Renormalized"]


class Renormalized:
    """Batch-norms with statistics moved as a change in front of them moves those of the samples at hand.

    Statistics of few samples are noise beside the running ones. So the float network keeps its own, and with a group
    changed a mean moves by the difference to the float network's mean on the same samples, a variance by the ratio: a
    change that does nothing moves nothing, however few the samples.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self._norms: dict[str, tuple[Tensor | None, Tensor, float]] = {}
        for node, norm in norms_of(network.module).items():
            beta = network.tensors.get(node.args[2].name) if node.args[2] is not None else None  # type: ignore[union-attr]
            if not node.args[5]:  # else it normalizes by its batch anyway
                self._norms[node.name] = beta, network.tensors[node.args[4].name], norm.epsilon  # type: ignore[union-attr]
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.watch = frozenset(self._norms)

    def see(self, node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Keep the moments of what a batch-norm of the float network puts out (n, channels, ...)."""
        self._moments[node] = _moments(out)
        return out

    def change(self, node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Return what it would put out with its statistics moved."""
        beta, running, epsilon = self._norms[node]
        (variance, mean), (before, center) = _moments(out), self._moments[node]
        ratio = torch.where(before > 0, variance / before, 1.0)
        factor = ((running.double() + epsilon) / (running.double() * ratio + epsilon)).sqrt()
        shift = (center - mean) * factor
        if beta is not None:
            shift += beta.double() * (1 - factor)
        shape = (-1, *[1] * (out.ndim - 2))
        return torch.addcmul(shift.to(out).view(shape), out, factor.to(out).view(shape))


def _moments(out: Tensor) -> tuple[Tensor, Tensor]:
    """Return variance and mean (channels,), float64, over samples and places."""
    dims = [0, *range(2, out.ndim)]
    variance, mean = torch.var_mean(out.float() if out.element_size() < 4 else out, dims, correction=0)
    return variance.double(), mean.double()
