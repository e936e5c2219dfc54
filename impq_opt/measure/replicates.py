"""The measuring loop: independent chunks, their mean and standard error, stopping, resuming and sharing.

The unit of everything is the chunk: one portion of samples with its own seed, an independent replicate of the estimate. Means
and standard errors are over chunks; a run stops between chunks; it resumes after the last chunk; and machines take
chunks in turn. Results are folded in the order of chunks, wherever they were computed, so the numbers do not depend on how
many processes there were.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from impq_opt.data.dataset import Dataset
from impq_opt.errors import DataError, FileError, OptionError
from impq_opt.files import atomic_write
from impq_opt.measure.metrics import Metric
from impq_opt.measure.survey import Survey

__all__ = ["Progress", "Replicates", "Sampling", "replicate"]

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, float], None]  # samples done, samples at most, relative error

_LEAST_CHUNKS = 8  # a standard error from fewer is not trusted to stop on


@dataclass(frozen=True)
class Sampling:
    """Which samples are used, and when there are enough.

    Parameters
    ----------
    samples : int, optional
        At most so many; all of the data unless given.
    chunk : int, optional
        Samples per replicate: a sixteenth of the samples, at most 256, unless given.
    relative_error : float, optional
        Stop when the standard error of ``quantile`` of the groups is below this share of their value.
    quantile : float
    seed : int
        Of the order of the samples, of signs and of draws.
    """

    samples: int | None = None
    chunk: int | None = None
    relative_error: float | None = None
    quantile: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError("must be at least 1", where=name, value=value)
        if self.relative_error is not None and not 0 < self.relative_error < math.inf:
            raise OptionError("must be above 0", where="relative-error", value=self.relative_error)
        if not 0 < self.quantile <= 1:
            raise OptionError("must be in (0, 1]", where="quantile", value=self.quantile)

    def rows(self, data: Dataset) -> list[torch.Tensor]:
        """Return the rows of each chunk."""
        total = min(len(data), self.samples or len(data))
        size = self.chunk or max(1, min(256, total // 16))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))[:total]
        return list(order.split(size))

    def generator(self, chunk: int) -> torch.Generator:
        """Return the random numbers of a chunk: independent of all others, the same wherever it is computed."""
        state = np.random.SeedSequence([self.seed, chunk]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


class Replicates:
    """Weighted mean over chunks (G, C) of an estimate, and its standard error.

    Chunks count by their samples. The standard error is that of a ratio of sums over independent chunks.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.chunks = self.samples = 0
        self.squares = 0  # of the samples per chunk
        self.sums = np.zeros((3, *shape))  # of n e, of n^2 e and of n^2 e^2

    def add(self, value: FloatArray, samples: int) -> None:
        """Add the estimate (G, C) of one chunk."""
        self.chunks += 1
        self.samples += samples
        self.squares += samples * samples
        self.sums[0] += samples * value
        self.sums[1] += samples**2 * value
        self.sums[2] += (samples * value) ** 2

    @property
    def mean(self) -> FloatArray:
        """The measurement (G, C)."""
        mean: FloatArray = self.sums[0] / self.samples
        return mean

    @property
    def stderr(self) -> FloatArray:
        """Its standard error (G, C); NaN after a single chunk."""
        if self.chunks < 2:
            return np.full(self.sums.shape[1:], np.nan)
        mean = self.mean
        spread = self.sums[2] - 2 * mean * self.sums[1] + mean**2 * self.squares
        spread = np.maximum(spread, 0) * self.chunks / (self.chunks - 1)
        error: FloatArray = np.sqrt(spread) / self.samples
        return error

    def relative_error(self, quantile: float) -> float:
        """Return the standard error that ``quantile`` of the groups with damage stay below, as a share of their mean."""
        mean, stderr = self.mean[:, 0], self.stderr[:, 0]
        alive = mean > 0
        if self.chunks < 2:
            return math.inf
        return float(np.quantile(stderr[alive] / mean[alive], quantile)) if alive.any() else 0.0

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the state, for resuming."""
        from safetensors.numpy import save

        state = {"chunks": self.chunks, "samples": self.samples, "squares": self.squares}
        atomic_write(path, save({"sums": self.sums}, {"state": json.dumps(state), "fingerprint": fingerprint}))

    def restore(self, path: Path, fingerprint: str) -> None:
        """Take up the state of an interrupted run; raise FileError where it was another run."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                sums = file.get_tensor("sums")
            state = json.loads(metadata["state"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FileError("is not the state of a measurement", where=str(path), value=str(error)) from None
        if metadata.get("fingerprint") != fingerprint or sums.shape != self.sums.shape:
            raise FileError(
                "holds the state of another measurement",
                where=str(path),
                hint="delete it, or repeat the command with the options, network and data that it was made with",
            )
        self.sums = sums.copy()
        self.chunks, self.samples, self.squares = state["chunks"], state["samples"], state["squares"]


def replicate(
    survey: Survey,
    data: Dataset,
    metric: Metric,
    sampling: Sampling,
    *,
    columns: int,
    identity: str = "",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    autocast: bool = False,
) -> Replicates:
    """Measure chunk after chunk until the samples are used up or the error is small enough.

    Under ``torchrun`` every process takes every n-th chunk.

    Parameters
    ----------
    identity : str
        What distinguishes this run, for ``checkpoint``: a file written after every round and removed by the caller.
    """
    rank, world = _world()
    rows = sampling.rows(data)
    fingerprint = hashlib.sha256(f"{identity}|{sampling}|{len(data)}|{columns}".encode()).hexdigest()
    result = Replicates((len(survey), columns))
    if checkpoint is not None and checkpoint.exists():
        result.restore(checkpoint, fingerprint)
    device = next(iter(survey.network.tensors.values())).device

    def compute(chunk: int) -> FloatArray:
        x, labels = data.rows(rows[chunk])
        if metric.labels and labels is None:
            raise DataError("has no labels, which this metric needs", where=f"data {data.name}", value=metric.unit)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            x = prepare(x, device)
            return metric.chunk(survey, x, None if labels is None else labels.to(device), sampling.generator(chunk))

    total = sum(len(r) for r in rows)
    while result.chunks < len(rows) and not _enough(result, sampling):
        first = result.chunks
        mine = compute(first + rank) if first + rank < len(rows) else np.zeros((len(survey), columns))
        for chunk, value in enumerate(_gather(mine, world), first):
            if chunk < len(rows) and not _enough(result, sampling):
                result.add(value, len(rows[chunk]))
        if checkpoint is not None and rank == 0:
            result.save(checkpoint, fingerprint)
        if progress is not None:
            progress(result.samples, total, result.relative_error(sampling.quantile))
    return result


def prepare(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a batch to the device, pictures channels last."""
    x = x.to(device)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _enough(result: Replicates, sampling: Sampling) -> bool:
    wanted = sampling.relative_error
    return (
        wanted is not None and result.chunks >= _LEAST_CHUNKS and result.relative_error(sampling.quantile) <= wanted
    )


def _world() -> tuple[int, int]:
    """Return rank and number of processes, joining the group that ``torchrun`` prepared."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")  # what is exchanged is float64 on the CPU
    return dist.get_rank(), dist.get_world_size()


def _gather(value: FloatArray, world: int) -> Iterator[FloatArray]:
    """Yield every process's array, in the order of ranks."""
    if world == 1:
        yield value
        return
    import torch.distributed as dist

    mine = torch.from_numpy(np.ascontiguousarray(value))
    parts = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(parts, mine)
    yield from (part.numpy() for part in parts)
