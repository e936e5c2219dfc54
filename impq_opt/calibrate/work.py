"""What a part of calibration works on: both networks, samples to calibrate on, and held-out ones to be judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from torch.nn.utils import parametrize

from impq_opt.calibrate.graphs import graph_of
from impq_opt.data.batch import Several, prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.data.dataset import Dataset
from impq_opt.tracing.batches import batch_size, most_alive
from impq_opt.tracing.graph import Network

__all__ = ["Closeness", "Progress", "Reference", "Work"]

Progress = Callable[[str, int, int], None]
Known = TypeVar("Known")

_TOGETHER = 2 * 2**30  # bytes of tensors between layers, where all samples take each layer together
_KEPT = 2**29  # bytes of the float network's chances that are kept
_SIGMAS = 2.0  # standard errors of the mean difference that are noise


@dataclass(frozen=True, eq=False)
class Closeness:
    """How close the decisions of a network are to those of the float network, on held-out samples.

    Parameters
    ----------
    kl : float
        Mean of the Kullback-Leibler divergence of its class probabilities from the float network's, in nats; infinite
        where one of its logits is not finite.
    stderr : float
        Standard error of that mean.
    agreement : float
        Share of samples that both decide alike.
    each : Tensor (n,) float64
        The divergence of every sample.
    """

    kl: float
    stderr: float
    agreement: float
    each: Tensor = field(repr=False)

    def to_dict(self) -> dict[str, float]:
        """Return it as plain values, without those of each sample."""
        return {"kl": self.kl, "stderr": self.stderr, "agreement": self.agreement}

    def worse_than(self, other: Closeness) -> bool:
        """Return whether the divergence is larger by more than two standard errors of the mean paired difference."""
        if not (math.isfinite(self.kl) and math.isfinite(other.kl)):
            return math.isfinite(other.kl)
        difference = self.each - other.each
        return float(difference.mean()) > _SIGMAS * _stderr(difference)


class Reference:
    """The float network on the samples: what is known of it is computed once, for all copies that are held against it.

    Parameters
    ----------
    network : Network
        In float.
    data : Dataset
        As the network takes it.
    rows, held : Tensor (n,) int64
        The samples to calibrate on, and those to be judged by.
    """

    def __init__(self, network: Network, data: Dataset, rows: Tensor, held: Tensor) -> None:
        self.network, self.data, self.rows, self.held = network, data, rows, held
        self.device = next(iter(network.tensors.values())).device
        self.batch = batch_size(network.graph)
        self._known: dict[str, Any] = {}

    def known(self, what: str, compute: Callable[[], Known]) -> Known:
        """Return what is computed of the float network and the samples alone, at the first call under this name."""
        if what not in self._known:
            self._known[what] = compute()
        kept: Known = self._known[what]
        return kept


class Work:
    """A quantized network under calibration, the float network, and the samples.

    Parameters
    ----------
    network : nn.Module
        The quantized network, in eval mode, which is changed.
    reference : Reference
        The float network, on the same device, and the samples.
    progress : callable, optional
        Told what is going on, how much of it is done, and how much there is.

    Attributes
    ----------
    float : Network
        The float network.
    quantized : TracedModule
        The quantized network as a graph: the very tensors, and the nodes of ``float`` under their names.
    now : Closeness
        Of the quantized network as it is, before the part at hand changes it.
    """

    def __init__(self, network: nn.Module, reference: Reference, progress: Progress | None = None) -> None:
        self.network, self.reference, self.float = network, reference, reference.network
        self.data, self.rows, self.held = reference.data, reference.rows, reference.held
        self.device, self.batch = reference.device, reference.batch
        self.quantized = graph_of(network, self.float).eval()
        self._progress = progress
        # Of tens of thousands of classes at each token they are computed again whenever they are wanted.
        size = 8 * len(self.held) * self.float.decisions * self.float.classes
        self._kept = reference.known("chances", self._decided) if size <= _KEPT else None
        self.now = self.closeness(network)

    def _decided(self) -> list[Tensor]:
        return [self._wanted(x) for x in self._read(self.held, "float network")]

    def batches(
        self, what: str, *, samples: int | None = None, passes: int = 1, done: int = 0
    ) -> Iterator[Tensor | Several]:
        """Yield the samples to calibrate on, the first ``samples`` of them if given, in batches of nearly equal size.

        ``what`` is going on, in so many passes, of which some are done.
        """
        rows = self.rows if samples is None else self.rows[:samples]
        yield from self._read(rows, what, passes, done)

    def fitting(self, *, networks: int = 1) -> int:
        """Return how many of the samples to calibrate on go through so many networks together, layer by layer."""
        each = 4 * networks * most_alive(self.float.graph)
        return min(len(self.rows), max(self.batch, _TOGETHER // each))

    def told(self, rows: int) -> tuple[str, ...]:
        """Return a sentence where not all samples went through together."""
        return (f"on {rows} of the samples, whose tensors fit into memory together",) if rows < len(self.rows) else ()

    @torch.no_grad()
    def closeness(self, network: nn.Module) -> Closeness:
        """Return how close a network is to the float network on the held-out samples."""
        each, alike = [], []
        with parametrize.cached():  # weights are rounded once, not for every batch
            for place, x in enumerate(self._read(self.held, "held-out samples")):
                wanted = self._wanted(x) if self._kept is None else self._kept[place]
                logits = logits_of(call(network, x)).double()
                each.append(kl_div(log_softmax(logits, 1), wanted, reduction="none", log_target=True).sum(1).cpu())
                alike.append((logits.argmax(1) == wanted.argmax(1)).cpu())
        divergence = torch.cat(each).nan_to_num(nan=math.inf, posinf=math.inf)
        divergence = divergence.view(-1, self.float.decisions).mean(1)  # samples are what is independent
        agreement = float(torch.cat(alike).double().mean())
        kl = float(divergence.mean())
        return Closeness(kl, _stderr(divergence) if math.isfinite(kl) else math.inf, agreement, divergence)

    def _wanted(self, x: Tensor | Several) -> Tensor:
        """Return the logarithms of the float network's chances (n, classes)."""
        return log_softmax(self.float.logits(x).double(), 1)

    def _read(self, rows: Tensor, what: str, passes: int = 1, done: int = 0) -> Iterator[Tensor | Several]:
        """Yield rows in batches of nearly equal size, so that their statistics count alike."""
        read, total = done * len(rows), passes * len(rows)
        for part in torch.tensor_split(rows, math.ceil(len(rows) / self.batch)):
            yield prepare(self.data.rows(part)[0], self.device)
            read += len(part)
            if self._progress is not None:
                self._progress(what, read, total)


def _stderr(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
