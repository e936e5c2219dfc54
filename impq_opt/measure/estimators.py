"""Estimators of E from weighted samples. Each is without bias (``top`` for its own sum).

==============  =================================================================================
``importance``  random signs at samples taken in proportion to ``sum_i 1 / margin_i^2``
``signs``       random signs at every sample, one backward pass for all classes
``batch``       random signs, squared after summing over a batch: the least work and the most noise
``exact``       one backward pass per class: the definition
``top``         one backward pass for each of the smallest margins, like the IMPQ authors' code
==============  =================================================================================

The second moment of random signs is the sum of squares (Hutchinson 1990), so one pass replaces ``classes - 1``. Which
samples are taken, and with which weights, is decided in :mod:`impq_opt.measure.pool`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from impq_opt.errors import OptionError, UnsupportedError, nearest
from impq_opt.measure.margins import Margins, margins, one_by_one, random_signs, top
from impq_opt.measure.shifts import Shifts
from impq_opt.measure.taps import Taps
from impq_opt.tracing.graph import Network

__all__ = ["ESTIMATORS", "Estimator", "Squares", "propagate"]

ESTIMATORS = ("importance", "signs", "batch", "exact", "top")


@dataclass
class Squares:
    """Weighted sums over samples of squared gradients.

    Per weight site (out,) or (out, inputs), per activation site a number; of squared shifts by rounding errors, per
    weight site that has them, (groups, K).
    """

    weights: dict[str, Tensor]
    activations: dict[str, float]
    shifts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, taps: Taps) -> None:
        """Add what a backward pass left in ``taps``."""
        for name, squares in taps.weights.items():
            part = (squares if taps.fine else squares.sum(0)).double()
            self.weights[name] = self.weights[name] + part if name in self.weights else part
        for name, squares in taps.shifts.items():
            part = squares.double().sum(0)
            self.shifts[name] = self.shifts[name] + part if name in self.shifts else part
        for name, squares in taps.activations.items():
            self.activations[name] = self.activations.get(name, 0.0) + float(squares.double().sum())


@dataclass(frozen=True)
class Estimator:
    """How a chunk of samples becomes an estimate.

    Parameters
    ----------
    name : str
        One of :data:`ESTIMATORS`.
    draws : int
        ``importance``: samples propagated per chunk, on average.
    probes : int
        ``signs``, ``batch``: independent sets of signs per sample.
    margins : int
        ``top``: how many margins.
    batch : int
        Samples propagated together.
    """

    name: str = "importance"
    draws: int = 16
    probes: int = 1
    margins: int = 4
    batch: int = 32

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise OptionError(
                "unknown estimator", where="estimator", value=self.name, hint=nearest(self.name, ESTIMATORS)
            )
        for option in ("draws", "probes", "margins", "batch"):
            if getattr(self, option) < 1:
                raise OptionError("must be at least 1", where=f"estimator.{option}", value=getattr(self, option))

    def estimate(
        self,
        network: Network,
        x: Tensor,
        weights: Tensor,
        generator: torch.Generator,
        *,
        fine: bool,
        shifts: Shifts | None = None,
    ) -> Squares:
        """Return the sum over samples ``x`` (n, ...) of ``weights`` (n,) times the squared gradients of margins.

        Where samples hold several decisions, over these, of weights (n, decisions): signs of their own tell them apart
        in one pass, so the estimates that draw no signs are of classifiers alone. With ``shifts``, of squared shifts of
        margins as well.

        Raises
        ------
        UnsupportedError
            ``exact`` or ``top``, of samples with several decisions.
        """
        if self.name in ("exact", "top") and network.decisions > 1:
            raise UnsupportedError(
                f"the estimator {self.name!r} takes samples of one decision, not of {network.decisions}"
            )
        total = Squares({}, {})
        taps = Taps(network, fine=fine, whole=self.name == "batch", shifts=shifts)
        for part, factors in zip(x.split(self.batch), weights.sqrt().split(self.batch), strict=True):
            logits = taps.forward(part)
            scale = factors.to(logits.device, torch.float32).reshape(-1, 1)
            combinations = (scale * one for one in self._coefficients(margins(logits), generator))
            propagate(taps, logits, combinations, total)
        return total

    def _coefficients(self, gaps: Margins, generator: torch.Generator) -> Iterator[Tensor]:
        if self.name == "exact":
            yield from one_by_one(gaps)
        elif self.name == "top":
            yield from top(gaps, self.margins)
        else:
            for _ in range(self.probes):
                yield random_signs(gaps, generator) / self.probes**0.5


def propagate(taps: Taps, logits: Tensor, combinations: Iterator[Tensor], total: Squares) -> None:
    """Add the squared gradients of each combination (n, classes) of ``logits`` to ``total``."""
    if bool(logits.isneginf().any()):  # masked classes count nothing
        logits = logits.masked_fill(logits.isneginf(), 0)
    current = next(combinations, None)
    while current is not None:
        following = next(combinations, None)
        taps.backward((logits * current.to(logits.dtype)).sum(), keep=following is not None)
        total.add(taps)
        current = following
