"""Which samples are looked at, which of them are propagated back, and with which weight.

E is a mean over the distribution that the samples come from, and its standard error says so: it covers which samples
happened to be in the pool, which of them were propagated, and the random signs. Two things make it small:

* *Taking by importance.* A forward pass over the pool tells ``sum_i 1 / margin_i^2`` of every sample. A sample is
  taken for the backward pass with a chance in proportion to it, those with the smallest margins surely, and weighed by
  the inverse of its chance (Horvitz and Thompson 1952; two-phase sampling). A uniform part bounds the weights.
* *Conceding.* With margins of positive density at zero the mean of ``1 / margin^2`` has no limit: over N samples it
  grows like N, and a single sample carries most of it. The share q of the pool with the smallest margins is left out
  of E and counted as lost whatever the precision: the mismatch is at most ``q + sum_g 4^-B_g E_g``, still a bound, and
  one whose variance is finite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.data.decisions import shares
from impq_opt.errors import DataError, OptionError
from impq_opt.measure.margins import margins
from impq_opt.tracing.graph import Network
from impq_opt.types import FloatArray

__all__ = ["Chunk", "Pool", "look_at", "take", "world"]

# Samples that tell how far margins in bfloat16 are off; how many times that is far enough not to look again.
_TRIAL, _FAR = 256, 4
_UNIFORM = 0.2  # share of what is taken that ignores the margins: no weight exceeds 1 / _UNIFORM of the mean one


@dataclass(frozen=True, eq=False)
class Chunk:
    """Samples of one replicate: inputs (n, ...), labels (n,), weights (n,) that make sums means, random numbers.

    Labels are (n, decisions) where a sample holds several.
    """

    x: Tensor
    labels: Tensor | None
    weights: Tensor
    generator: torch.Generator

    def shares(self, decisions: int) -> Tensor:
        """Return the weights (n, decisions) of decisions; see :func:`impq_opt.data.decisions.shares`."""
        return shares(self.weights, None if self.labels is None else self.labels.cpu(), decisions)


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples that E is the mean over.

    Parameters
    ----------
    rows : Tensor (N,) int64
        Rows of the data set, in random order.
    tail : Tensor (N,) float64
        ``sum_i 1 / margin_i^2`` of each; empty where margins were not looked at.
    conceded : Tensor (N,) bool
        Those left out.
    ties : int
        Margins that are exactly zero; they are left out too.
    """

    rows: Tensor
    tail: Tensor
    conceded: Tensor
    ties: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kept(self) -> Tensor:
        """Places (n,) in the pool of the samples that are not conceded."""
        return (~self.conceded).nonzero()[:, 0]

    def tail_share(self, share: float) -> float:
        """Return how much of ``sum 1 / margin^2`` the given share of the kept samples carries."""
        ordered = self.tail[self.kept].sort(descending=True).values
        total = float(ordered.sum())
        return float(ordered[: max(1, round(share * len(ordered)))].sum()) / total if total else 0.0

    def chances(self, count: int) -> Tensor:
        """Return the chance (N,), float64, that a sample is taken, so that ``count`` of the pool are on average.

        In proportion to its importance, at most 1; conceded samples have none.
        """
        kept = self.kept
        chance = (~self.conceded).double()
        if count >= len(kept):
            return chance
        tail = self.tail[kept]
        share = (1 - _UNIFORM) * tail / tail.sum() + _UNIFORM / len(kept)
        ordered = share.sort(descending=True).values
        # With the k most important taken surely, the others share count - k; k is the first that leaves none above 1.
        scale = (count - torch.arange(len(ordered))) / ordered.flip(0).cumsum(0).flip(0)
        sure = int((scale * ordered <= 1).nonzero()[0])
        chance[kept] = (share * scale[sure]).clamp(max=1)
        return chance


def take(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Return the places (m,) taken, each with its ``chance`` (n,); m is the sum of the chances, rounded up or down.

    Systematic sampling, in the order of the chances, so that every stretch of them is represented.
    """
    order = chance.argsort(stable=True)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    ticks = (chance[order].cumsum(0) - start).ceil()
    taken: Tensor = order[torch.diff(ticks, prepend=ticks.new_zeros(1)) > 0]
    return taken.sort().values


def look_at(
    network: Network, data: Dataset, rows: Tensor, *, concede: float = 0.0, batch: int = 32, bf16: bool = False
) -> Pool:
    """Return the pool of ``rows`` after a forward pass over it, shared among processes.

    With ``bf16`` the pass is in bfloat16, and where that is too coarse to tell whether a sample is conceded, or how
    important it is, a second one in float32: how far off margins are is seen on the first samples. No estimate is
    biased by it; samples are only taken with a slightly worse chance.

    Raises
    ------
    DataError
        Logits that are not finite, or that are equal for all classes of every sample.
    """
    if not 0 <= concede < 1:
        raise OptionError("must be a share of the samples, at least 0 and below 1", where="concede", value=concede)
    if concede and network.decisions > 1:
        raise OptionError("goes with one decision a sample", where="concede", value=network.decisions)
    looked = _look(network, data, rows, batch, bf16)
    if bf16:
        looked[looked[:, 2] > 0, 1] = 0.0  # what is tied in bfloat16 may not be
        exact, trial = _look(network, data, rows[:_TRIAL], batch, False)[:, 1], looked[:_TRIAL, 1]
        error = torch.where(trial > 0, (exact - trial).abs(), 0.0).max()
        nearest = looked[:, 1].sort().values[int(concede * len(rows))]
        again = (looked[:, 1] <= nearest + _FAR * error).nonzero()[:, 0]
        looked[again] = _look(network, data, rows[again], batch, False)
    tail, smallest, ties = looked[:, 0], looked[:, 1], int(looked[:, 2].sum())
    if not bool(tail.any()):
        raise DataError("all logits of every sample are equal", where="network", hint="it decides nothing to measure")
    conceded = torch.zeros(len(rows), dtype=torch.bool)
    conceded[smallest.argsort(stable=True)[: int(concede * len(rows))]] = True
    return Pool(rows, tail, conceded, ties)


def _look(network: Network, data: Dataset, rows: Tensor, batch: int, bf16: bool) -> Tensor:
    """Return sum_i 1 / margin_i^2, the smallest margin, and the ties of each row (n, 3)."""
    device = next(iter(network.tensors.values())).device
    rank, processes = world()
    looked = torch.zeros(len(rows), 3, dtype=torch.float64)
    for place in range(rank * batch, len(rows), processes * batch):
        x, labels = data.rows(rows[place : place + batch])
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network.logits(prepare(x, device))
        inverse = margins(logits).inverse.double().cpu()
        ties = (inverse == 0).sum(1) - 1 - logits.isneginf().sum(1).cpu()
        parts = [part.view(-1, network.decisions) for part in (inverse.square().sum(1), inverse.amax(1), ties)]
        share = shares(torch.ones(len(parts[0]), dtype=torch.float64), labels, network.decisions)
        tail, largest, tied = parts[0] * share, parts[1] * (share > 0), parts[2] * (share > 0)
        looked[place : place + batch] = torch.stack([tail.sum(1), 1 / largest.amax(1), tied.sum(1)], dim=1)
    _sum(looked)
    return looked


def world() -> tuple[int, int]:
    """Return rank and number of processes, joining the group that ``torchrun`` prepared."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")  # what is exchanged is float64 on the CPU
    return dist.get_rank(), dist.get_world_size()


def _sum(values: Tensor) -> None:
    """Add up, in place, what the processes found; each row is zero but in one of them."""
    if world()[1] > 1:
        import torch.distributed as dist

        dist.all_reduce(values)


def gather(value: FloatArray) -> Iterator[FloatArray]:
    """Yield every process's array, in the order of ranks."""
    processes = world()[1]
    if processes == 1:
        yield value
        return
    import torch.distributed as dist

    mine = torch.from_numpy(np.ascontiguousarray(value))
    parts = [torch.empty_like(mine) for _ in range(processes)]
    dist.all_gather(parts, mine)
    yield from (part.numpy() for part in parts)
