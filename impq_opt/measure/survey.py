"""What is measured: a traced network, its groups, and the quantizers' ranges. Every metric reads this one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.errors import DataError
from impq_opt.groups.arrays import ACTIVATION, WEIGHT
from impq_opt.groups.names import GroupNames
from impq_opt.measure.estimators import Estimator, Squares
from impq_opt.measure.grouping import Grouping, kernel_ranges
from impq_opt.measure.pool import Chunk
from impq_opt.measure.premise import Premise, examine
from impq_opt.measure.shifts import Shifts, rounding_errors
from impq_opt.networks.own import unwrapped
from impq_opt.quantize.methods import Method, load_method
from impq_opt.tracing.graph import Network
from impq_opt.tracing.sites import ActivationSite, WeightSite
from impq_opt.types import BoolArray, FloatArray

__all__ = ["ActivationRange", "Survey", "calibrate", "types_of"]


@dataclass(frozen=True)
class ActivationRange:
    """The span of an activation's quantizer.

    Parameters
    ----------
    span : float
        The clip value of an unsigned quantizer on [0, span]; the full width of a symmetric one on [-span/2, span/2].
    signed : bool
    rule : {"batch-norm", "rectifier", "measured"}
        Where it comes from: the largest ``beta + 6 |gamma|`` of the batch-norm in front of the rectifier, the end of
        ReLU6 and its like, or the largest value of the calibration samples.
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
        return ActivationRange(site.clip, False, site.rule)
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
    grids : mapping of str to Method
        How each weight site is rounded; ``mid-rise`` where it is not named.
    assume_noise : bool
        Take rounding errors for noise without a look at them: for weights that stand for others, as quantized ones do
        for the latent ones that will be rounded.
    types : mapping of str to str
        Kind of layer, by label, as :func:`types_of` has it.
    weights_only : bool
        Activations will be left out of the problem: a metric need not look at them, and their damages count nothing.
    """

    network: Network
    grouping: Grouping
    estimator: Estimator
    ranges: dict[str, ActivationRange]
    bits: tuple[float, ...] = field(default=(1, 2, 3, 4, 5, 6, 7, 8))
    grids: Mapping[str, Method] = field(default_factory=dict)
    assume_noise: bool = False
    types: Mapping[str, str] = field(default_factory=dict)
    weights_only: bool = False

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
        weights = [self.grouping.ranges(site, self.kernel_spans[site.name]) for site in self.network.weights]
        activations = [self.ranges[site.name].span for site in self.network.activations]
        return np.concatenate([*weights, np.array(activations, dtype=np.float64)])

    @cached_property
    def kernel_spans(self) -> dict[str, Tensor]:
        """Range (out,) of the quantizer of every output kernel, by weight site."""
        ranges = {}
        for site in self.network.weights:
            weight = self.network.weight_tensor(site)
            spans = self.grid(site).spans(weight)
            ranges[site.name] = kernel_ranges(weight) if spans is None else spans
        return ranges

    def rows(self, site: WeightSite) -> slice:
        """Return the groups of a weight site."""
        label = self.network.weights.index(site)
        return slice(int(self.names.offsets[label]), int(self.names.offsets[label + 1]))

    def grid(self, site: WeightSite) -> Method:
        """Return how the weights of a site are rounded."""
        return self.grids.get(site.name) or load_method("mid-rise")

    @cached_property
    def premises(self) -> dict[str, Premise]:
        """What the rounding errors of every weight site look like."""
        if self.assume_noise:
            return {site.name: Premise() for site in self.network.weights}
        network = self.network
        return {
            s.name: examine(network.weight_tensor(s), self.grid(s), network.stored_type(s)) for s in network.weights
        }

    @cached_property
    def unlike_noise(self) -> tuple[WeightSite, ...]:
        """The weight sites whose rounding errors are no noise: their damages rest on the errors as they are."""
        return tuple(site for site in self.network.weights if not self.premises[site.name].holds)

    @cached_property
    def exact(self) -> BoolArray:
        """Which groups (G,) every candidate leaves as they are: all weights lie on the grid, and are not all 0."""
        dead = np.zeros(len(self), dtype=bool)
        errors = {} if self.shifts is None else self.shifts.errors
        for site in self.unlike_noise:
            squares = errors[site.name].double().square()
            totals = self.grouping.sum(site, squares if self.grouping.fine else squares.sum(2))
            dead[self.rows(site)] = (totals == 0).all(0).cpu().numpy()
        return dead & (self.spans > 0)

    @cached_property
    def shifts(self) -> Shifts | None:
        """The errors (K, out, inputs) of those sites at every candidate; None where there are none."""
        errors = {site.name: self.errors(site) for site in self.unlike_noise}
        return Shifts(self.grouping, errors) if errors else None

    def errors(self, site: WeightSite) -> Tensor:
        """Return the rounding errors (K, out, inputs) of a site at every candidate."""
        weight, sizes = self.network.weight_tensor(site), self.grouping.sizes(site)
        return rounding_errors(weight, self.grid(site), self.bits, sizes, self.network.stored_type(site))

    @cached_property
    def all_errors(self) -> dict[str, Tensor]:
        """The rounding errors (K, out, inputs) of every weight site at every candidate."""
        return {site.name: self.errors(site) for site in self.network.weights}

    @cached_property
    def kernel_errors(self) -> dict[str, Tensor]:
        """Mean squared rounding error (out, K), float64, of every output kernel at every candidate, by weight site.

        ``step^2 / 12`` where errors are taken for noise without a look at them.
        """
        if not self.assume_noise:
            return {site.name: self.errors(site).double().square().mean(2).T for site in self.network.weights}
        steps = torch.tensor([4.0**-b / 12 for b in self.bits], dtype=torch.float64)
        return {name: spans.square()[:, None] * steps.to(spans) for name, spans in self.kernel_spans.items()}

    def squares_over_noise(self, bits: FloatArray) -> FloatArray:
        """Return how many times ``step^2 / 12`` the mean squared error of each group (G,) is at its ``bits`` (G,).

        1 where errors are noise; elsewhere as measured, of errors that are taken not to add up.
        """
        factors = np.ones(len(self))
        for site in self.unlike_noise:
            rows, weight = self.rows(site), self.network.weight_tensor(site)
            widths, place = np.unique(bits[rows], return_inverse=True)
            sizes, stored = self.grouping.sizes(site), self.network.stored_type(site)
            squares = rounding_errors(weight, self.grid(site), widths.tolist(), sizes, stored).double().square()
            totals = self.grouping.sum(site, squares if self.grouping.fine else squares.sum(2)).cpu().numpy()
            assumed = np.square(self.spans[rows]) * 4.0 ** -bits[rows] / 12
            measured = totals[place, np.arange(len(place))] / sizes
            factors[rows] = np.divide(measured, assumed, out=np.ones(len(measured)), where=assumed > 0)
        return factors

    def squares(self, part: Chunk) -> Squares:
        """Return the estimated sum over the samples of a chunk, times their weights, of squared gradients of margins.

        And of the squared shifts of margins by the rounding errors that are no noise.
        """
        return self.estimator.estimate(
            self.network, part.x, part.shares(self.network.decisions), part.generator,
            fine=self.grouping.fine, shifts=self.shifts,
        )  # fmt: skip

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
        weight : callable (WeightSite) -> Tensor (out, C) or (out, inputs, C), optional
            Factor of each output kernel, in each of C columns; the square of its range unless given. Of each weight
            where groups are finer than kernels.
        activation : callable (ActivationSite) -> (C,), optional
            Factor of each activation; the square of its range unless given.

        Returns
        -------
        ndarray of float64 (G, C)
        """
        rows = []
        for site in self.network.weights:
            factors = self.kernel_spans[site.name].square()[:, None] if weight is None else weight(site)
            slopes = squares.weights.get(site.name)
            if slopes is None:  # the logits do not depend on this layer
                rows.append(np.zeros((math.prod(self.grouping.shape(site)), factors.shape[-1])))
                continue
            columns = factors.to(slopes).movedim(-1, 0)  # (C, out) or (C, out, inputs)
            scaled = columns.reshape(*columns.shape, *(1,) * (slopes.ndim + 1 - columns.ndim)) * slopes
            rows.append(self.grouping.sum(site, scaled).T.cpu().numpy())
        for node in self.network.activations:
            column = [self.ranges[node.name].span ** 2] if activation is None else activation(node)
            rows.append(squares.activations.get(node.name, 0.0) * np.asarray(column, dtype=np.float64)[None])
        return np.concatenate(rows)


def types_of(module: nn.Module, network: Network) -> dict[str, str]:
    """Return by label the class of the module that a weight is of or that an activation is called after."""
    modules = dict(unwrapped(module).named_modules())
    owners = {site.name: site.parameter.rpartition(".")[0] for site in network.weights}
    owners |= {site.name: site.name for site in network.activations}
    types = {}
    for label, owner in owners.items():
        known = modules.get(owner.partition(".parametrizations")[0])
        if known is not None and owner:
            types[label] = type(known).__name__.removeprefix("Parametrized")
    return types
