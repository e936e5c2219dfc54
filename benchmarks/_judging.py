"""How close a quantized network is to the float one on samples that judge, and what is shown of it.

Kept of each network are whether it is right on each sample, whether it decides as the float network does, and means
over 50 parts of the samples of two numbers: the divergence of its probabilities from the float network's, and its loss
above the float network's. So any two networks can be compared in pairs later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.nn.utils import parametrize

from impq_opt.data import Dataset
from impq_opt.data.batch import prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.pipeline.differences import Difference, difference

__all__ = ["MEASURES", "ahead", "bits_of", "has", "judgement", "level", "logits_on", "text_of"]

SHARES = {"accuracy": "right", "agreement": "alike"}  # of samples, and what of each sample is kept
MEASURES = (*SHARES, "kl", "loss")
PARTS = 50
Row = dict[str, Any]


@torch.no_grad()
def logits_on(network: nn.Module, judged: Dataset) -> tuple[Tensor, Tensor | None]:
    """Return logits (n, classes), and labels (n,) where there are any."""
    logits, labels = [], []
    with parametrize.cached():  # weights are rounded once, not for every batch
        for rows in torch.arange(len(judged)).split(64):
            inputs, truth = judged.rows(rows)
            logits.append(logits_of(call(network, prepare(inputs, torch.device("cpu")))))
            labels += [] if truth is None else [truth]
    return torch.cat(logits), torch.cat(labels) if labels else None


def judgement(network: nn.Module, judged: Dataset, reference: Tensor) -> Row:
    """Return what is kept of a network, beside the logits (n, classes) of the float network."""
    logits, labels = logits_on(network, judged)
    chances, wanted = (log_softmax(x.double(), 1) for x in (logits, reference))
    each = kl_div(chances, wanted, reduction="none", log_target=True).sum(1)
    found: Row = {"alike": text_of(logits.argmax(1) == reference.argmax(1)), "kl": _means(each)}
    if labels is None:
        return found
    losses = (cross_entropy(x, labels, reduction="none") for x in (chances, wanted))
    right = text_of(logits.argmax(1) == labels)
    return {"right": right, **found, "loss": _means(next(losses) - next(losses))}


def _means(values: Tensor) -> list[float]:
    return [float(f"{float(part.mean()):.5g}") for part in values.tensor_split(min(PARTS, len(values)))]


def has(rows: Sequence[Row], by: str) -> bool:
    """Return whether a measure was taken of all of the networks."""
    return all(SHARES.get(by, by) in row for row in rows)


def level(rows: Sequence[Row], by: str) -> str:
    """Return the mean of a measure over networks, for people."""
    if by in SHARES:
        return f"{np.mean([float(bits_of(row[SHARES[by]]).double().mean()) for row in rows]):.2%}"
    return f"{np.mean([row[by] for row in rows]):.4g}"


def ahead(rows: Sequence[Row], default: Sequence[Row], by: str) -> tuple[float, float, str]:
    """Return the difference of networks to others, by seed, where larger is better; its error; and both for people."""
    pairs = list(zip(rows, default, strict=False))
    if by in SHARES:
        field = SHARES[by]
        each = [difference(bits_of(a[field]), bits_of(b[field])) for a, b in pairs]
        counts = np.mean([(pair.gained, pair.lost, pair.samples) for pair in each], axis=0)
        seen = Difference(*(round(count) for count in counts.tolist()))
        low, high = seen.interval(0.95)
        return seen.value, (high - low) / 2, f"{100 * seen.value:+.2f} +- {50 * (high - low):.2f}"
    parts = np.mean([np.subtract(a[by], b[by]) for a, b in pairs], axis=0)
    error = float(student.ppf(0.975, len(parts) - 1) * parts.std(ddof=1)) / len(parts) ** 0.5
    mean = float(parts.mean())
    return -mean, error, f"{mean:+.3g} +- {error:.2g}"


def text_of(right: Tensor) -> str:
    """Return which samples (n,) are right as hexadecimal digits, the first sample first, behind their number."""
    return f"{len(right)}:{np.packbits(right.numpy()).tobytes().hex()}"


def bits_of(text: str) -> Tensor:
    """Return what :func:`text_of` was given."""
    count, _, digits = text.partition(":")
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)].copy()).bool()
