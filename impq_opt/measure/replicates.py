"""The measuring loop: independent chunks, their mean and standard error, stopping, resuming and sharing.

The unit of everything is the chunk: one portion of the pool, with its own seed, an independent replicate of the
estimate. Means and standard errors are over chunks; a run stops between chunks; it
resumes after the last chunk; and machines take chunks in turn. Results are folded in the order of chunks, wherever
they were computed, so the numbers do not depend on how many processes there were.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError, OptionError, nearest
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure.metrics import Metric
from impq_opt.measure.pool import Chunk, Pool, gather, take, world
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["Chunks", "Progress", "Replicates", "Sampling", "replicate"]

Law = Callable[[FloatArray, FloatArray], PowerLaw | DamageTable]
Progress = Callable[[int, int, float], None]  # chunks done, chunks at most, relative error

LOOKS = ("float32", "bfloat16")
_LEAST_CHUNKS = 8  # a standard error from fewer is not trusted to stop on


@dataclass(frozen=True)
class Sampling:
    """Which samples are used, and when there are enough.

    Parameters
    ----------
    samples : int, optional
        Size of the pool; all of the data unless given.
    chunk : int, optional
        Samples of the pool per replicate: a thirty-second of it, at most 256, unless given.
    relative_error : float, optional
        Stop when the standard error of ``quantile`` of the groups is below this share of their value.
    quantile : float
    concede : float
        Share of the pool, with the smallest margins, that is given up; see :mod:`impq_opt.measure.pool`.
    seed : int
        Of the order of the samples, of which are propagated, and of signs.
    look : {"float32", "bfloat16"}
        Precision of the first pass over the pool, which tells which samples are important; see
        :func:`impq_opt.measure.pool.look_at`.
    """

    samples: int | None = None
    chunk: int | None = None
    relative_error: float | None = None
    quantile: float = 0.95
    concede: float = 0.0
    seed: int = 0
    look: str = "float32"

    def __post_init__(self) -> None:
        for name in ("samples", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError("must be at least 1", where=name, value=value)
        if self.relative_error is not None and not 0 < self.relative_error < math.inf:
            raise OptionError("must be above 0", where="relative-error", value=self.relative_error)
        if not 0 < self.quantile <= 1:
            raise OptionError("must be in (0, 1]", where="quantile", value=self.quantile)
        if not 0 <= self.concede < 1:
            raise OptionError("must be at least 0 and below 1", where="concede", value=self.concede)
        if self.look not in LOOKS:
            raise OptionError("unknown precision", where="look", value=self.look, hint=nearest(self.look, LOOKS))

    def rows(self, data: Dataset) -> Tensor:
        """Return the rows of the pool, in random order."""
        total = min(len(data), self.samples or len(data))
        return torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))[:total]

    def generator(self, chunk: int) -> torch.Generator:
        """Return the random numbers of a chunk: independent of all others, the same wherever it is computed."""
        state = np.random.SeedSequence([self.seed, chunk]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


class Chunks:
    """The chunks of a measurement, by number.

    Parameters
    ----------
    draws : int, optional
        Samples propagated per chunk, by importance, on average; all that are not conceded unless given.
    least : int
        Samples of the pool per chunk at least, unless ``sampling`` says how many.
    """

    def __init__(self, data: Dataset, pool: Pool, sampling: Sampling, draws: int | None = None, least: int = 1) -> None:
        self.data, self.pool, self.sampling = data, pool, sampling
        size = sampling.chunk or max(least, min(256, len(pool) // 32))
        self._places = torch.arange(len(pool)).split(size)
        self._chance = pool.chances(len(pool) if draws is None else draws * len(self._places))
        self.count = len(self._places)

    def samples(self, chunk: int) -> int:
        """Return how many samples of the pool a chunk stands for; chunks count in proportion to it."""
        return len(self._places[chunk])

    def places(self, chunk: int) -> Tensor:
        """Return the places (m,) in the pool of the samples of a chunk that are propagated."""
        return self._take(chunk, self.sampling.generator(chunk))

    def get(self, chunk: int, device: torch.device) -> Chunk:
        """Return the samples, weights and random numbers of a chunk."""
        generator = self.sampling.generator(chunk)
        places = self._take(chunk, generator)
        weights = 1 / (self._chance[places] * self.samples(chunk))
        x, labels = self.data.rows(self.pool.rows[places])
        return Chunk(prepare(x, device), None if labels is None else labels.to(device), weights, generator)

    def _take(self, chunk: int, generator: torch.Generator) -> Tensor:
        places = self._places[chunk]
        return places[take(self._chance[places], generator)]


class Replicates:
    """Weighted mean over chunks (G, C) of an estimate, and its standard error.

    Chunks count by their samples. The standard error is that of a ratio of sums over independent chunks.

    Parameters
    ----------
    shape : (G, C)
    law : callable (mean, standard error) -> damages
    """

    def __init__(self, shape: tuple[int, int], law: Law) -> None:
        self.law = law
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
        """Return the relative standard error that ``quantile`` of the groups with damage stay below.

        That of a group's damages added up over its candidates, which are one error, not several.
        """
        if self.chunks < 2:
            return math.inf
        damage = self.law(self.mean, self.stderr)
        value = damage.sensitivity if isinstance(damage, PowerLaw) else damage.values
        assert damage.stderr is not None
        value, stderr = (array.reshape(len(value), -1).sum(1) for array in (value, damage.stderr))
        alive = value > 0
        return float(np.quantile(stderr[alive] / value[alive], quantile)) if alive.any() else 0.0

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
        except (OSError, SafetensorError, KeyError, ValueError):
            raise FileError("is not the state of a measurement", where=str(path)) from None
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
    chunks: Chunks,
    metric: Metric,
    *,
    columns: int,
    identity: str = "",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    autocast: bool = False,
) -> Replicates:
    """Measure chunk after chunk until there are no more or the error is small enough.

    Under ``torchrun`` every process takes every n-th chunk.

    Parameters
    ----------
    identity : str
        What distinguishes this run, for ``checkpoint``: a file written after every round and removed by the caller.
    """
    rank, _ = world()
    sampling = chunks.sampling
    shape = (len(survey), columns)
    fingerprint = hashlib.sha256(f"{identity}|{sampling}|{len(chunks.data)}|{columns}".encode()).hexdigest()
    result = Replicates(shape, lambda mean, stderr: metric.law(survey, mean, stderr))
    if checkpoint is not None and checkpoint.exists():
        result.restore(checkpoint, fingerprint)
    device = next(iter(survey.network.tensors.values())).device

    def compute(chunk: int) -> FloatArray:
        if chunk >= chunks.count or not len(chunks.places(chunk)):  # small chunks may hold nothing of importance
            return np.zeros(shape)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return metric.chunk(survey, chunks.get(chunk, device))

    while result.chunks < chunks.count and not _enough(result, sampling):
        first = result.chunks
        for chunk, value in enumerate(gather(compute(first + rank)), first):
            if chunk < chunks.count and not _enough(result, sampling):
                result.add(value, chunks.samples(chunk))
        if checkpoint is not None and rank == 0:
            result.save(checkpoint, fingerprint)
        if progress is not None and rank == 0:
            progress(result.chunks, chunks.count, result.relative_error(sampling.quantile))
    return result


def _enough(result: Replicates, sampling: Sampling) -> bool:
    wanted = sampling.relative_error
    return wanted is not None and result.chunks >= _LEAST_CHUNKS and result.relative_error(sampling.quantile) <= wanted
