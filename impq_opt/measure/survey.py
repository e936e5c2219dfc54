"""What is measured: a traced network, its groups, and the quantizers' ranges. Every metric reads this one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.errors import DataError
from impq_opt.groups.arrays import ACTIVATION, WEIGHT
from impq_opt.groups.names import GroupNames
from impq_opt.measure.estimators import Estimator, Squares
from impq_opt.measure.grouping import Grouping, kernel_ranges
from impq_opt.tracing.graph import Network
from impq_opt.tracing.sites import ActivationSite, WeightSite
from impq_opt.types import FloatArray

__all__ = ["ActivationRange", "Survey", "calibrate"]


@dataclass(frozen=True)
class ActivationRange:
    """The span of an activation's quantizer.

    Parameters
    ----------
    span : float
        The clip value of an unsigned quantizer on [0, span]; the full width of a symmetric one on [-span/2, span/2].
    signed : bool
    rule : {"batch-norm", "measured"}
        Where it comes from: the largest ``beta + 6 |gamma|`` of the batch-norm in front of the rectifier, or the
        largest value of the calibration samples.
    """

    span: float
    signed: bool
    rule: str


def calibrate(network: Network, batches: Iterable[Tensor]) -> dict[str, ActivationRange]:
    """Return the range of every activation site by name, from samples and from the network's batch-norms.

    A tensor that was never negative gets an unsigned quantizer. One that was always zero keeps range 1: its group is
    dead.
    """
    low = dict.fromkeys((site.node for site in network.activations), math.inf)
    high = dict.fromkeys(low, -math.inf)

    def see(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        least, most = (float(v) for v in torch.aminmax(out))
        low[node], high[node] = min(low[node], least), max(high[node], most)
        return out

    with torch.no_grad():
        for x in batches:
            network.run(x, see, watch=frozenset(low))
    return {site.name: _range(site, low[site.node], high[site.node]) for site in network.activations}


def _range(site: ActivationSite, low: float, high: float) -> ActivationRange:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("an activation is not finite", where=f"network: {site.name}", value=(low, high))
    if low < 0:
        return ActivationRange(2 * max(-low, high), True, "measured")
    if math.isfinite(site.clip):
        return ActivationRange(site.clip, False, "batch-norm")
    return ActivationRange(high or 1.0, False, "measured")


@dataclass(frozen=True, eq=False)
class Survey:
    """Groups of a network, in the order of the problem: weight sites, then activation sites.

    Parameters
    ----------
    network : Network
    grouping : Grouping
    estimator : Estimator
    ranges : dict of str to ActivationRange
        By activation site.
    bits : tuple of float
        The candidates.
    """

    network: Network
    grouping: Grouping
    estimator: Estimator
    ranges: dict[str, ActivationRange]
    bits: tuple[float, ...] = field(default=(1, 2, 3, 4, 5, 6, 7, 8))

    @cached_property
    def names(self) -> GroupNames:
        """Names of the G groups."""
        return self.grouping.names(self.network)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Elements of each group (G,)."""
        weights = [self.grouping.sizes(site) for site in self.network.weights]
        activations = np.array([math.prod(site.shape) for site in self.network.activations], dtype=np.int64)
        return np.concatenate([*weights, activations])

    @cached_property
    def kinds(self) -> npt.NDArray[np.int8]:
        """Weight or activation, (G,)."""
        return np.where(np.arange(len(self)) < self.weight_groups, WEIGHT, ACTIVATION).astype(np.int8)

    @property
    def weight_groups(self) -> int:
        """How many groups are weights; they come first."""
        return len(self) - len(self.network.activations)

    @cached_property
    def spans(self) -> FloatArray:
        """Range of each group's quantizer (G,)."""
        weights = [self.grouping.ranges(site, self.network.weight_tensor(site)) for site in self.network.weights]
        activations = [self.ranges[site.name].span for site in self.network.activations]
        return np.concatenate([*weights, np.array(activations, dtype=np.float64)])

    @cached_property
    def kernel_spans(self) -> dict[str, Tensor]:
        """Range (out,) of the quantizer of every output kernel, by weight site."""
        return {site.name: kernel_ranges(self.network.weight_tensor(site)) for site in self.network.weights}

    def squares(self, x: Tensor, weights: Tensor, generator: torch.Generator) -> Squares:
        """Return the estimated sum over ``x`` (n, ...), times ``weights`` (n,), of squared gradients of the margins."""
        return self.estimator.estimate(self.network, x, weights, generator, fine=self.grouping.fine)

    def fold(
        self,
        squares: Squares,
        weight: Callable[[WeightSite], Tensor] | None = None,
        activation: Callable[[ActivationSite], Sequence[float] | FloatArray] | None = None,
    ) -> FloatArray:
        """Sum squared gradients over each group, times a factor.

        Parameters
        ----------
        squares : Squares
        weight : callable (WeightSite) -> Tensor (out, C), optional
            Factor of each output kernel, in each of C columns; the square of its range unless given.
        activation : callable (ActivationSite) -> (C,), optional
            Factor of each activation; the square of its range unless given.

        Returns
        -------
        ndarray of float64 (G, C)
        """
        rows = []
        for site in self.network.weights:
            factors = self.kernel_spans[site.name].square()[:, None] if weight is None else weight(site)
            found = squares.weights.get(site.name)
            if found is None:  # the logits do not depend on this layer
                rows.append(np.zeros((math.prod(self.grouping.shape(site)), factors.shape[1])))
                continue
            per_kernel = factors.to(found).T.reshape(-1, len(found), *(1,) * (found.ndim - 1))
            scaled = per_kernel * found  # (C, out) or (C, out, inputs)
            rows.append(self.grouping.sum(site, scaled).T.cpu().numpy())
        for node in self.network.activations:
            column = [self.ranges[node.name].span ** 2] if activation is None else activation(node)
            rows.append(squares.activations.get(node.name, 0.0) * np.asarray(column, dtype=np.float64)[None])
        return np.concatenate(rows)
