"""The bound held against reality: how often a really quantized network decides differently from the float network.

The bound is over random rounding noise, a union over classes and Chebyshev's inequality; a network is rounded once,
not at random. So the two are different things, and are reported side by side: the bound of the problem; the same
bound on the samples at hand, and with each sample counted for at most 1; the Gaussian estimate; and what is measured,
with a confidence interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.errors import DataError, nearest
from impq_opt.groups.arrays import ACTIVATION
from impq_opt.measure.estimators import Estimator
from impq_opt.measure.grouping import Grouping
from impq_opt.measure.metrics.gaussian import noise_by_margin, tail
from impq_opt.measure.survey import ActivationRange, Survey, calibrate
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.problem.problem import Problem
from impq_opt.quantize import ActivationQuantizer, load_method
from impq_opt.tracing.trace import trace
from impq_opt.types import FloatArray

__all__ = ["Reality", "Validation", "interval"]

_BATCH = 64


@dataclass(frozen=True)
class Reality:
    """One allocation, on held-out samples.

    Parameters
    ----------
    bound : float
        The problem's own: total damage, plus the share of samples that were conceded when it was measured.
    here, clipped, gaussian : float, optional
        On these samples: the bound as it stands; the mean of min(1, bound of the sample); the mean over samples of the
        Gaussian tails of its margins, each sample at most 1. None for groups finer than kernels.
    mismatch, low, high : float
        Share of samples decided differently, and its Clopper-Pearson interval.
    accuracy, float_accuracy : float, optional
        Where there are labels.
    samples, looked_at : int
        Samples for the mismatch, and for the bounds on samples.
    """

    bound: float
    here: float | None
    clipped: float | None
    gaussian: float | None
    mismatch: float
    low: float
    high: float
    accuracy: float | None
    float_accuracy: float | None
    samples: int
    looked_at: int


class Validation:
    """A network, a problem that was measured on it, and held-out data.

    Parameters
    ----------
    network : nn.Module
    problem : Problem
    data : Dataset
        Samples that the problem was not measured on, and the network not trained on.
    samples : int
        How many of them are looked at one margin at a time, for the bounds on samples; all serve the mismatch.
    confidence : float
        Of the interval of the mismatch.

    Raises
    ------
    DataError
        The problem's groups are not those of this network.
    """

    @kept_memory()
    def __init__(
        self, network: nn.Module, problem: Problem, data: Dataset, *, samples: int = 512, confidence: float = 0.95
    ) -> None:
        data = fitted(network, data)
        self.problem, self.data, self.samples, self.confidence = problem, data, min(samples, len(data)), confidence
        example, _ = data.rows(torch.arange(min(2, len(data))))
        self.device = next(network.parameters()).device
        self.network = trace(network, prepare(example, self.device))
        self.network.widen()
        self._match()
        self.float_decisions = self._decide({}, {})
        self._noise: list[tuple[Tensor, Tensor]] | None = None

    @kept_memory()
    def hold(self, bits: npt.ArrayLike) -> Reality:
        """Quantize as allocated, bits (G,), and compare."""
        widths = np.asarray(bits, dtype=np.float64)
        choice = self._choice(widths)
        conceded = float(self.problem.provenance.get("conceded", 0.0))
        bound = float(self.problem.damage.chosen(self.problem.candidates, choice).sum()) + conceded
        decisions = self._decide(*self._quantizers(widths))
        wrong = int((decisions != self.float_decisions).sum())
        low, high = interval(wrong, len(decisions), self.confidence)
        _, labels = self.data.rows(torch.arange(len(self.data)))
        right = [
            None if labels is None else float((d == labels).double().mean()) for d in (decisions, self.float_decisions)
        ]
        here, clipped, gaussian = self._on_samples(widths)
        return Reality(
            bound,
            here,
            clipped,
            gaussian,
            wrong / len(decisions),
            low,
            high,
            right[0],
            right[1],
            len(decisions),
            self.samples,
        )

    # -- matching ------------------------------------------------------------------------------------------------

    def _match(self) -> None:
        """Keep the sites that the problem has groups for, and find the quantizers' ranges."""
        problem, network = self.problem, self.network
        kinds = np.zeros(len(problem), dtype=np.int8) if problem.kinds is None else problem.kinds
        labels = problem.names.labels
        first = problem.names.offsets[:-1]
        wanted = {label: int(row) for label, row in zip(labels, first, strict=True)}
        known = [site.name for site in network.weights] + [site.name for site in network.activations]
        strange = [label for label in labels if label not in known]
        if strange:
            raise DataError(
                "has no such group, which the problem has",
                where="network",
                value=strange[0],
                hint=nearest(strange[0], known),
            )
        network.weights = tuple(site for site in network.weights if site.name in wanted)
        network.activations = tuple(site for site in network.activations if site.name in wanted)
        for site in network.weights:
            rows = problem.names.select(site.name)
            if int(problem.sizes[rows].sum()) != int(np.prod(site.shape)):
                raise DataError("has another number of weights than the problem", where=f"network: {site.name}")
        batches = (prepare(self.data.rows(r)[0], self.device) for r in torch.arange(self.samples).split(_BATCH))
        found = calibrate(network, batches)
        self.ranges = {
            name: ActivationRange(
                over.span if problem.ranges is None else float(problem.ranges[wanted[name]]), over.signed, "problem"
            )
            for name, over in found.items()
        }
        assert all(kinds[wanted[name]] == ACTIVATION for name in self.ranges)

    def _choice(self, widths: FloatArray) -> npt.NDArray[np.int64]:
        problem = self.problem
        if widths.shape != (len(problem),):
            raise DataError("must have one precision per group", where="allocation", value=widths.shape)
        chosen = np.empty(len(problem), dtype=np.int64)
        for group, width in enumerate(widths.tolist()):
            column = problem.candidates.position(
                0 if problem.candidates.set_of is None else int(problem.candidates.set_of[group]), width
            )
            if column is None:
                raise DataError(
                    "is no candidate of the group", where=f"allocation: {problem.names[group]}", value=width
                )
            chosen[group] = column
        return chosen

    # -- running -------------------------------------------------------------------------------------------------

    def _quantizers(self, widths: FloatArray) -> tuple[dict[str, Tensor], dict[str, ActivationQuantizer]]:
        tensors: dict[str, Tensor] = {}
        for site in self.network.weights:
            rows = self.problem.names.select(site.name)
            weight = self.network.weight_tensor(site)
            method = load_method(self.problem.grid(site.name))
            quantizer = method.quantizer(weight.shape, widths[rows], self.problem.sizes[rows]).to(weight.device)
            with torch.no_grad():
                rounded = quantizer(weight.to(self.network.stored_type(site))).to(weight.dtype)
                tensors |= dict.fromkeys(self.network.weight_node(site), rounded)
        quantizers = {}
        for node in self.network.activations:
            over = self.ranges[node.name]
            bits = float(widths[self.problem.names.index_of(node.name)])
            quantizers[node.node] = ActivationQuantizer(bits, over.span, node.name, signed=over.signed)
        return tensors, quantizers

    def _decide(self, tensors: dict[str, Tensor], quantizers: dict[str, ActivationQuantizer]) -> Tensor:
        """Return the decision (n,) on every sample."""

        def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
            rounded: Tensor = quantizers[node](out)
            return rounded

        decisions = []
        with torch.no_grad():
            for rows in torch.arange(len(self.data)).split(_BATCH):
                x = prepare(self.data.rows(rows)[0], self.device)
                decisions.append(self.network.run(x, visit, tensors, frozenset(quantizers)).argmax(1).cpu())
        return torch.cat(decisions)

    # -- bounds on samples ---------------------------------------------------------------------------------------

    def _on_samples(self, widths: FloatArray) -> tuple[float | None, float | None, float | None]:
        grouping = self._grouping()
        if grouping is None:
            return None, None, None
        survey = Survey(self.network, grouping, Estimator(), self.ranges)
        place = np.array([self.problem.names.index_of(name) for name in survey.names])
        steps = torch.from_numpy(4.0 ** -widths[place] / 12)
        if self._noise is None:  # the same for every allocation
            self._noise = list(self._look(survey))
        bound = torch.zeros(self.samples, dtype=torch.float64)
        gauss = torch.zeros_like(bound)
        start = 0
        for margin, noise in self._noise:  # (places, n) and (places, n, G)
            variance = noise @ steps
            finite = torch.isfinite(margin)
            part = slice(start, start + margin.shape[1])
            bound[part] = torch.where(finite, variance / margin**2, torch.zeros(())).sum(0)
            gauss[part] = torch.where(finite, tail(margin, variance.sqrt()), torch.zeros(())).sum(0)
            start = part.stop
        return float(bound.mean()), float(bound.clamp(max=1).mean()), float(gauss.clamp(max=1).mean())

    def _look(self, survey: Survey) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.arange(self.samples).split(_BATCH):
            margins, noises = zip(*noise_by_margin(survey, prepare(self.data.rows(rows)[0], self.device)), strict=True)
            yield torch.stack(margins), torch.stack(noises)

    def _grouping(self) -> Grouping | None:
        shapes = {self.problem.names.shapes[self.problem.names.labels.index(s.name)] for s in self.network.weights}
        if shapes == {()}:
            return Grouping("layer")
        return Grouping("kernel") if all(len(shape) == 1 for shape in shapes) and self._rows_are_kernels() else None

    def _rows_are_kernels(self) -> bool:
        return all(len(self.problem.names.select(site.name)) == site.shape[0] for site in self.network.weights)


def interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share: it covers the truth at least as often as it says."""
    from scipy.stats import beta

    tail_share = (1 - confidence) / 2
    low = float(beta.ppf(tail_share, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail_share, count + 1, total - count)) if count < total else 1.0
    return low, high


def uniform_bits(problem: Problem, bits: Iterable[float]) -> Iterator[tuple[float, FloatArray]]:
    """Yield each of ``bits`` with the allocation (G,) that gives it to all groups."""
    for width in bits:
        yield width, np.full(len(problem), float(width))
