"""One group at one precision, all else in float, and what the network says then: for every group and candidate.

The network runs once over the samples. At each call that reads a weight or puts out an activation the rest of it is
run again, once for every precision of every group there: what lies in front of a change is never computed twice, and no
more is kept than a pass holds. Weights are on the very grid of the problem, activations on that of its quantizers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.calling import flat_logits
from impq_opt.data.decisions import by_decision
from impq_opt.errors import DataError, OptionError
from impq_opt.measure.margins import check_logits
from impq_opt.measure.norms import Renormalized
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import rounded_activation, rounded_weight
from impq_opt.measure.survey import Survey
from impq_opt.tracing.running import Walk
from impq_opt.tracing.sites import ActivationSite, WeightSite
from impq_opt.types import FloatArray

__all__ = ["Sweep", "batches", "check_table", "shift", "sweep"]

Compare = Callable[[Tensor], Tensor]
AFTER = ("", "statistics")
_TOGETHER = 16  # samples of a chunk, where there are enough
MANY = 200_000  # passes that are announced: minutes for small networks


@dataclass(frozen=True)
class Sweep(ABC):
    """What metrics have in common that hold logits with one group quantized against those of the float network.

    Parameters
    ----------
    after : {"", "statistics"}
        What is done to the network with a group quantized, as calibration does it: ``statistics`` estimates those of
        batch-norms again (:mod:`impq_opt.measure.norms`), on the samples of a chunk, which are a batch then.

    Attributes
    ----------
    unit, labels
        As :class:`~impq_opt.measure.metrics.Metric` has them.
    """

    unit: ClassVar[str]
    labels: ClassVar[bool] = False
    margins: ClassVar[bool] = False

    after: str = ""

    def __post_init__(self) -> None:
        if self.after not in AFTER:
            raise OptionError("is nothing that is done", where="after", value=self.after, hint="statistics is known")

    def least(self, survey: Survey, samples: int) -> int:
        """Return the samples that a chunk has at least, of so many.

        What is estimated on a chunk needs some; and a pass over a few takes less than half as long for each as one over
        four of them. There are eight chunks then, for standard errors.
        """
        return survey.estimator.batch if self.after else max(1, min(_TOGETHER, samples // 8))

    def announced(self, survey: Survey, samples: int) -> str:
        """Return a sentence on the work where it is much, else nothing."""
        groups = survey.weight_groups if survey.weights_only else len(survey)
        passes = groups * len(survey.bits) * samples // 2
        if passes < MANY:
            return ""
        return (
            f"{groups:,} groups at {len(survey.bits)} precisions on {samples:,} samples are {passes:,} passes through "
            "the network; fewer samples, precisions or groups take less"
        )

    @abstractmethod
    def against(self, logits: Tensor, labels: Tensor | None) -> Compare:
        """Return what says of other logits (n, classes) how far each decision (n,) is from the float network's.

        All of them are float64. Damages are means over samples, of means over the decisions of each.
        """

    def columns(self, survey: Survey) -> int:
        return len(survey.bits)

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        table = np.zeros((len(survey), len(survey.bits)))
        for x, labels, weights in batches(part, survey.estimator.batch, survey.network.decisions):
            logits, changes = sweep(survey, x, self.after)
            compare = self.against(logits, labels)
            for group, column, changed in changes:
                table[group, column] += float(compare(changed).cpu() @ weights)
        check_table(survey, table)
        return table


def batches(part: Chunk, size: int, decisions: int = 1) -> Iterator[tuple[Any, Tensor | None, Tensor]]:
    """Yield inputs of at most ``size`` samples at a time, and labels and weights (size * decisions,) of decisions."""
    labels = [None] * len(part.weights) if part.labels is None else part.labels.split(size)
    for x, own, weights in zip(part.x.split(size), labels, part.weights.split(size), strict=False):
        yield x, *by_decision(own, weights, decisions)


def check_table(survey: Survey, table: FloatArray) -> None:
    """Raise DataError where a number (G, K) is none."""
    wrong = np.argwhere(~np.isfinite(table))
    if len(wrong):
        group, column = wrong[0].tolist()
        raise DataError(
            "with it at that precision logits are no numbers any more",
            where=f"network: {survey.names[group]}",
            value=f"{survey.bits[column]:g} bits",
            hint="check the weights, or leave the candidate out",
        )


def shift(logits: Tensor, changed: Tensor) -> Tensor:
    """Return what is added to each logit (n, classes); 0 at classes that the float network masks."""
    return torch.where(logits.isneginf(), 0.0, changed - logits)


@torch.no_grad()
def sweep(survey: Survey, x: Tensor, after: str = "") -> tuple[Tensor, Iterator[tuple[int, int, Tensor]]]:
    """Return the float network's logits (n, classes), and an iterator over those with one group at one precision.

    Parameters
    ----------
    survey : Survey
    x : Tensor (n, ...) or Several
    after : {"", "statistics"}
        As in :class:`Sweep`.

    Returns
    -------
    logits : Tensor of float64 (n, classes)
    changes : iterator of (group, column, logits)
        In the order of the network's calls. A group that the logits do not depend on may be left out.

    Raises
    ------
    DataError
        Logits of the float network that are not numbers.
    """
    walk = survey.network.walk(x)
    norms = Renormalized(survey.network) if after else None
    logits = _logits(survey, walk) if norms is None else _logits(survey, walk, visit=norms.see, watch=norms.watch)
    check_logits(logits)
    return logits, _changes(survey, walk, {} if norms is None else {"visit": norms.change, "watch": norms.watch})


@torch.no_grad()
def _changes(survey: Survey, walk: Walk, norms: Mapping[str, Any]) -> Iterator[tuple[int, int, Tensor]]:
    network = survey.network
    stops: list[tuple[int, int, WeightSite | ActivationSite]] = []
    for site in network.weights:
        stops.append((walk.first_reader(network.weight_node(site)), survey.rows(site).start, site))
    for row, node in enumerate(() if survey.weights_only else network.activations, survey.weight_groups):
        stops.append((walk.place(node.node) + 1, row, node))
    for place, row, stop in sorted(stops, key=lambda part: part[:2]):
        walk.stop_before(place)
        if isinstance(stop, ActivationSite):
            out = walk.output(stop.node)
            for column, bits in enumerate(survey.bits):
                value = rounded_activation(survey, stop, out, bits)
                yield row, column, _logits(survey, walk, outputs={stop.node: value}, **norms)
            continue
        weight, nodes = network.weight_tensor(stop), network.weight_node(stop)
        ends = np.cumsum(survey.grouping.sizes(stop)).tolist()
        for column, bits in enumerate(survey.bits):
            value = rounded_weight(survey, stop, bits).flatten()
            for group, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), row):
                changed = weight.flatten().clone()
                changed[start:end] = value[start:end]
                tensors = dict.fromkeys(nodes, changed.view_as(weight))
                yield group, column, _logits(survey, walk, tensors=tensors, **norms)


def _logits(survey: Survey, walk: Walk, **changes: Any) -> Tensor:
    made: Tensor = walk.finish(**changes)[survey.network.place]
    return flat_logits(made).double()
