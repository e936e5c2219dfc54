"""Quantized language models held against the float one, window by window of a text.

Tokens of a window hang together, so windows are what is independent: each gives one mean, and intervals are those of
Student's t over them. Networks are run on the same windows, so differences between them are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, device
from torch.nn import functional
from torch.nn.utils import parametrize

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.data.decisions import by_decision
from impq_opt.measure.metrics.kl import divergence
from impq_opt.measure.sweeps import shift
from impq_opt.validate.sweep import Logits

__all__ = ["Language", "Mean", "Windows", "held_against", "language_of", "mean_of"]


@dataclass(frozen=True)
class Mean:
    """A mean over windows with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Language:
    """What quantizing did to a language model.

    Parameters
    ----------
    windows : int
    kl : Mean
        Divergence from the float network's decisions, nat a token.
    perplexity, float_perplexity : float, optional
        Where the data have labels.
    rise : Mean, optional
        Of the cross-entropy over the float network's, nat a token; paired.
    ahead : Mean, optional
        By how much the divergence is larger than that of the first network of the call, paired; None of itself.
    """

    windows: int
    kl: Mean
    perplexity: float | None
    float_perplexity: float | None
    rise: Mean | None
    ahead: Mean | None = None

    @classmethod
    def read(cls, plain: Mapping[str, Any] | None) -> Language | None:
        """Return what ``dataclasses.asdict`` has made plain."""
        if plain is None:
            return None
        means = {name: Mean(**value) for name, value in plain.items() if isinstance(value, Mapping)}
        return cls(**dict(plain) | means)


@dataclass(frozen=True, eq=False)
class Windows:
    """Of one network: divergence, cross-entropy and share of other decisions in each window (n,), float64.

    Cross-entropies are NaN where the data have no labels.
    """

    kl: Tensor
    loss: Tensor
    wrong: Tensor


@torch.no_grad()
def held_against(
    reference: Logits,
    networks: Sequence[Logits],
    data: Dataset,
    place: device,
    batch: int,
    decisions: int,
    decided: Callable[[int], None],
) -> tuple[Windows, list[Windows]]:
    """Return what the float network does in each window, and each of the others beside it.

    ``decided`` is told of so many more samples that one of the networks has decided on.
    """
    rows: list[list[Tensor]] = [[] for _ in range(len(networks) + 1)]
    with parametrize.cached():  # weights are rounded once, not for every batch
        for index in torch.arange(len(data)).split(batch):
            inputs, labels = data.rows(index)
            x = prepare(inputs, place)
            flat, weights = by_decision(labels, torch.ones(len(index), dtype=torch.float64), decisions)
            first = reference(x)
            for found, network in zip(rows, (None, *networks), strict=True):
                logits = first if network is None else network(x)
                found.append(_looked_at(first, logits, flat, weights).unflatten(0, (len(index), -1)).sum(1))
                decided(len(index))
    before, *others = (Windows(*torch.cat(found).unbind(1)) for found in rows)
    return before, others


def _looked_at(before: Tensor, logits: Tensor, labels: Tensor | None, weights: Tensor) -> Tensor:
    """Return divergence, cross-entropy and difference (m, 3) of each decision, times the weights (m,)."""
    parts = []
    for place in range(0, len(logits), 256):  # in float64, some decisions at a time
        rows = slice(place, place + 256)
        old, new = before[rows].double(), logits[rows].double()
        kl = divergence(old.softmax(1), shift(old, new))
        loss = torch.full_like(kl, math.nan)
        if labels is not None:
            loss = functional.cross_entropy(new, labels[rows].to(new.device), reduction="none")
        parts.append(torch.stack([kl, loss, (old.argmax(1) != new.argmax(1)).double()], dim=1).cpu())
    found = torch.cat(parts)
    return torch.where(weights[:, None] > 0, found * weights[:, None], 0.0)


def mean_of(values: Tensor, confidence: float) -> Mean:
    """Return the mean of values (n,), one a window, and Student's interval; infinite of a single window."""
    from scipy.stats import t

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Mean(mean, -math.inf, math.inf)
    half = float(t.ppf(0.5 + confidence / 2, count - 1)) * float(values.std()) / math.sqrt(count)
    return Mean(mean, mean - half, mean + half)


def language_of(before: Windows, own: Windows, first: Windows, confidence: float) -> Language:
    """Return what is told of a network, beside the float one and the first of the call."""
    labelled = bool(before.loss.isfinite().all())
    return Language(
        windows=len(own.kl),
        kl=mean_of(own.kl, confidence),
        perplexity=math.exp(float(own.loss.mean())) if labelled else None,
        float_perplexity=math.exp(float(before.loss.mean())) if labelled else None,
        rise=mean_of(own.loss - before.loss, confidence) if labelled else None,
        ahead=None if own is first else mean_of(own.kl - first.kl, confidence),
    )
