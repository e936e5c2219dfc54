"""The bound held against reality: how often a really quantized network decides differently from the float network.

The bound is over random rounding noise, a union over classes and Chebyshev's inequality; a network is rounded once,
not at random. So the two are different things, and are reported side by side: the bound of the problem, what is
measured, with a confidence interval, and, where asked, the same bound and estimates on the samples at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from impq_opt.measure.api import CALIBRATION
from impq_opt.measure.estimators import Estimator
from impq_opt.measure.grouping import Grouping
from impq_opt.measure.survey import ActivationRange, Survey, calibrate
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.problem.problem import Problem
from impq_opt.quantize import ActivationQuantizer, load_method
from impq_opt.tracing.trace import trace
from impq_opt.types import FloatArray
from impq_opt.validate.on_samples import OnSamples, bounds_on_samples
from impq_opt.validate.sweep import Logits, batch_size, decide, together

__all__ = ["Progress", "Reality", "Validation", "interval"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reality:
    """One allocation, on held-out samples.

    Parameters
    ----------
    bound : float
        The problem's own: total damage, plus the share of samples that were conceded when it was measured.
    here, clipped, gaussian : float, optional
        On these samples: the bound as it stands; the mean of min(1, bound of the sample); the mean over samples of the
        Gaussian tails of its margins, each sample at most 1. None where not asked for, and for groups finer than
        kernels.
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
        How many of them are looked at one margin at a time, for the bounds on samples; ten passes each. All serve the
        mismatch.
    confidence : float
        Of the interval of the mismatch.

    Raises
    ------
    DataError
        The problem's groups are not those of this network.
    """

    @kept_memory()
    def __init__(
        self, network: nn.Module, problem: Problem, data: Dataset, *, samples: int = 0, confidence: float = 0.95
    ) -> None:
        data = fitted(network, data)
        self.problem, self.data, self.confidence = problem, data, confidence
        example, _ = data.rows(torch.arange(min(2, len(data))))
        self.device = next(network.parameters()).device
        self.network = trace(network, prepare(example, self.device))
        self._batch = batch_size(self.network.graph)
        self._match()
        self._grouping = _grouping(problem, self.network.weights)
        self.samples = min(samples, len(data)) if self._grouping else 0
        self._float: tuple[Tensor, Tensor | None] | None = None

    def hold(self, bits: npt.ArrayLike) -> Reality:
        """Quantize as allocated, bits (G,), and compare."""
        return self.hold_all([bits])[0]

    @kept_memory()
    def hold_all(self, allocations: Sequence[npt.ArrayLike], progress: Progress | None = None) -> list[Reality]:
        """Compare every allocation, bits (G,) each: the data are read once for as many as fit into memory.

        Parameters
        ----------
        allocations : sequence of array (G,)
        progress : callable, optional
            Told what is going on, how much of it is done, and how much there is.

        Raises
        ------
        DataError
            Not one precision per group, or none of its candidates.
        """
        widths = [np.asarray(bits, dtype=np.float64) for bits in allocations]
        bounds = [self._bound(bits) for bits in widths]
        decisions = self._decisions(widths, progress)
        looks = self._looks(widths, progress) if self.samples and widths else [None] * len(widths)
        return [self._reality(*row) for row in zip(bounds, decisions, looks, strict=True)]

    def _reality(self, bound: float, decisions: Tensor, look: OnSamples | None) -> Reality:
        assert self._float is not None
        before, labels = self._float
        wrong = int((decisions != before).sum())
        low, high = interval(wrong, len(decisions), self.confidence)
        right = [None if labels is None else float((d == labels).double().mean()) for d in (decisions, before)]
        here, clipped, gaussian = look or (None, None, None)
        return Reality(
            bound=bound,
            here=here,
            clipped=clipped,
            gaussian=gaussian,
            mismatch=wrong / len(decisions),
            low=low,
            high=high,
            accuracy=right[0],
            float_accuracy=right[1],
            samples=len(decisions),
            looked_at=self.samples,
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
        rows = torch.arange(min(CALIBRATION, len(self.data))).split(self._batch)
        found = calibrate(network, (prepare(self.data.rows(some)[0], self.device) for some in rows))
        self.ranges = {
            name: ActivationRange(
                over.span if problem.ranges is None else float(problem.ranges[wanted[name]]), over.signed, "problem"
            )
            for name, over in found.items()
        }
        assert all(kinds[wanted[name]] == ACTIVATION for name in self.ranges)

    def _bound(self, widths: FloatArray) -> float:
        problem = self.problem
        if widths.shape != (len(problem),):
            raise DataError("must have one precision per group", where="allocation", value=widths.shape)
        columns = problem.candidates.columns(widths)
        if (columns < 0).any():
            group = int((columns < 0).argmax())
            raise DataError(
                "is no candidate of the group",
                where=f"allocation: {problem.names[group]}",
                value=float(widths[group]),
                hint=f"it may take {', '.join(f'{b:g}' for b in problem.candidates.of(group))}",
            )
        conceded = float(problem.provenance.get("conceded", 0.0))
        return float(problem.damage.chosen(problem.candidates, columns).sum()) + conceded

    # -- running -------------------------------------------------------------------------------------------------

    def _decisions(self, widths: list[FloatArray], progress: Progress | None) -> list[Tensor]:
        """Return the decisions (n,) of each allocation's network; the float network decides in the first sweep."""
        count = together(4 * int(self.problem.sizes[self.problem.weights()].sum()))
        decided = _counter("decisions", progress, len(self.data) * (len(widths) + (self._float is None)))
        found: list[Tensor] = []
        for start in range(0, len(widths), count):
            networks = [self._quantized(bits) for bits in widths[start : start + count]]
            before: list[Logits] = [self.network.run] if self._float is None else []
            made, labels = decide([*before, *networks], self.data, self.device, self._batch, decided)
            if before:
                self._float = made[0], labels
            found += made[len(before) :]
        return found

    def _quantized(self, widths: FloatArray) -> Logits:
        tensors: dict[str, Tensor] = {}
        for site in self.network.weights:
            rows = self.problem.names.select(site.name)
            weight = self.network.weight_tensor(site)
            method = load_method(self.problem.grid(site.name))
            quantizer = method.quantizer(weight.shape, widths[rows], self.problem.sizes[rows]).to(weight.device)
            with torch.no_grad():
                tensors |= dict.fromkeys(self.network.weight_node(site), quantizer(weight))
        quantizers = {}
        for node in self.network.activations:
            over = self.ranges[node.name]
            bits = float(widths[self.problem.names.index_of(node.name)])
            quantizers[node.node] = ActivationQuantizer(bits, over.span, node.name, signed=over.signed)

        def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
            rounded: Tensor = quantizers[node](out)
            return rounded

        return lambda x: self.network.run(x, visit, tensors, frozenset(quantizers))

    # -- bounds on samples ---------------------------------------------------------------------------------------

    def _looks(self, widths: list[FloatArray], progress: Progress | None) -> list[OnSamples]:
        assert self._grouping is not None
        survey = Survey(self.network, self._grouping, Estimator(), self.ranges)
        place = np.array([self.problem.names.index_of(name) for name in survey.names])
        looked_at = _counter("bounds on samples", progress, self.samples)
        ordered = [bits[place] for bits in widths]
        return bounds_on_samples(survey, self.data, torch.arange(self.samples), ordered, self.device, looked_at)


def _counter(what: str, progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return a function that is told of parts of a whole and tells ``progress`` how much is done."""
    done = 0

    def add(part: int) -> None:
        nonlocal done
        done += part
        if progress is not None:
            progress(what, done, total)

    return add


def _grouping(problem: Problem, sites: Sequence[Any]) -> Grouping | None:
    """Return how the weights of a problem are grouped, where by layer or by kernel."""
    shapes = dict(zip(problem.names.labels, problem.names.shapes, strict=True))
    if all(shapes[site.name] == () for site in sites):
        return Grouping("layer")
    return Grouping("kernel") if all(shapes[site.name] == site.shape[:1] for site in sites) else None


def interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share: it covers the truth at least as often as it says."""
    from scipy.stats import beta

    tail_share = (1 - confidence) / 2
    low = float(beta.ppf(tail_share, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail_share, count + 1, total - count)) if count < total else 1.0
    return low, high
