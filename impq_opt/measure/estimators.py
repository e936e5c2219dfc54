"""Estimators of E from a chunk of samples. Each is without bias for the mean over the chunk (``top`` for its own sum).

==============  =========================================================================================================
``importance``  random signs at samples drawn in proportion to ``sum_i 1 / margin_i^2``, which a forward pass tells
``signs``       random signs at every sample, one backward pass for all classes
``batch``       random signs, squared after summing over a batch: the least work and the most noise
``exact``       one backward pass per class: the definition
``top``         one backward pass for each of the smallest margins, like the IMPQ authors' code
==============  =========================================================================================================

The second moment of random signs is the sum of squares (Hutchinson 1990), so one pass replaces ``classes - 1``. The
inverse square of the margin lets 1 % of the samples carry most of E; drawing those more often, and weighing them less, takes that out of
the variance and leaves the pool's own, which forward passes reduce (importance sampling with a uniform part that bounds the weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.errors import OptionError, nearest
from impq_opt.measure.graph import Network
from impq_opt.measure.margins import Margins, margins, one_by_one, random_signs, top
from impq_opt.measure.taps import Taps

__all__ = ["ESTIMATORS", "Estimator", "Squares"]

ESTIMATORS = ("importance", "signs", "batch", "exact", "top")
_UNIFORM = 0.2  # share of draws that ignore the margins: no weight exceeds 1 / _UNIFORM


@dataclass
class Squares:
    """Mean over samples of squared gradients: per weight site (out,) or (out, inputs), per activation site a number."""

    weights: dict[str, Tensor]
    activations: dict[str, float]
    ties: int = 0

    def add(self, taps: Taps, rows: int) -> None:
        """Add what a backward pass left in ``taps``, divided by ``rows``."""
        for name, squares in taps.weights.items():
            part = (squares if taps.fine else squares.sum(0)).double() / rows
            self.weights[name] = self.weights[name] + part if name in self.weights else part
        for name, squares in taps.activations.items():
            part_sum = float(squares.double().sum()) / rows
            self.activations[name] = self.activations.get(name, 0.0) + part_sum


@dataclass(frozen=True)
class Estimator:
    """How a chunk of samples becomes an estimate.

    Parameters
    ----------
    name : str
        One of :data:`ESTIMATORS`.
    draws : int
        ``importance``: backward passes per chunk.
    probes : int
        ``signs``, ``batch``: independent sets of signs per sample.
    margins : int
        ``top``: how many margins.
    batch : int
        Samples propagated together.
    """

    name: str = "importance"
    draws: int = 32
    probes: int = 1
    margins: int = 4
    batch: int = 32

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise OptionError("unknown estimator", where="estimator", value=self.name, hint=nearest(self.name, ESTIMATORS))
        for option in ("draws", "probes", "margins", "batch"):
            if getattr(self, option) < 1:
                raise OptionError("must be at least 1", where=f"estimator.{option}", value=getattr(self, option))

    def estimate(self, network: Network, x: Tensor, generator: torch.Generator, *, fine: bool) -> Squares:
        """Return the mean over the chunk ``x`` (n, ...) of the squared gradients of its margins."""
        if self.name == "importance":
            return self._importance(network, x, generator, fine)
        total = Squares({}, {})
        taps = Taps(network, fine=fine, whole=self.name == "batch")
        for part in x.split(self.batch):
            logits = taps.forward(part)
            found = margins(logits)
            total.ties += found.ties
            _propagate(taps, logits, self._coefficients(found, generator), total, len(x))
        return total

    def _coefficients(self, found: Margins, generator: torch.Generator) -> Iterator[Tensor]:
        if self.name == "exact":
            yield from one_by_one(found)
        elif self.name == "top":
            yield from top(found, self.margins)
        else:
            for _ in range(self.probes):
                yield random_signs(found, generator) / self.probes**0.5

    def _importance(self, network: Network, x: Tensor, generator: torch.Generator, fine: bool) -> Squares:
        with torch.no_grad():
            pool = [margins(network.run(part)) for part in x.split(self.batch)]
        total = Squares({}, {}, sum(found.ties for found in pool))
        weight = torch.cat([found.inverse.square().sum(1) for found in pool]).double().cpu()
        if not bool(weight.any()):
            return total
        chance = (1 - _UNIFORM) * weight / weight.sum() + _UNIFORM / len(x)
        draws = min(self.draws, len(x))
        rows = _systematic(chance, draws, generator)
        factors = (1 / (draws * chance[rows])).sqrt().float()  # squared gradients weigh 1 / (draws n chance); n comes below
        taps = Taps(network, fine=fine)
        for part, factor in zip(rows.split(self.batch), factors.split(self.batch), strict=True):
            logits = taps.forward(x[part.to(x.device)])
            signs = random_signs(margins(logits), generator) * factor.to(logits.device)[:, None]
            _propagate(taps, logits, iter([signs]), total, len(x))
        return total


def _propagate(taps: Taps, logits: Tensor, combinations: Iterator[Tensor], total: Squares, rows: int) -> None:
    """Add the squared gradients of each combination of ``logits`` to ``total``."""
    current = next(combinations, None)
    while current is not None:
        following = next(combinations, None)
        taps.backward((logits * current.to(logits.dtype)).sum(), keep=following is not None)
        total.add(taps, rows)
        current = following


def _systematic(chance: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return ``draws`` rows, row i expected ``draws * chance_i`` times (systematic resampling), in random order."""
    start = torch.rand((), generator=generator, dtype=torch.float64)
    ticks = (torch.arange(draws, dtype=torch.float64) + start) / draws
    edges = chance.cumsum(0)
    return torch.searchsorted(edges / edges[-1], ticks).clamp_(max=len(chance) - 1)
