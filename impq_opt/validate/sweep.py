"""Several networks over the same samples: each batch is read and prepared once, and every network decides on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, device
from torch.nn.utils import parametrize

from impq_opt.data.batch import Several, prepare
from impq_opt.data.dataset import Dataset

__all__ = ["Logits", "decide", "together"]

Logits = Callable[["Tensor | Several"], Tensor]

_WEIGHTS = 2 * 2**30  # bytes of quantized weights held in one sweep


def together(weights: int) -> int:
    """Return how many networks of so many bytes of weights go over the data in one sweep."""
    return max(1, _WEIGHTS // max(1, weights))


@torch.no_grad()
def decide(
    networks: Sequence[Logits], data: Dataset, place: device, batch: int, decided: Callable[[int], None]
) -> tuple[Tensor, Tensor | None]:
    """Return the decision (R, n) of each of R networks on every sample, and the labels (n,) where there are any.

    ``decided`` is told of so many more samples that one of the networks has decided on.
    """
    decisions: list[list[Tensor]] = [[] for _ in networks]
    labels: list[Tensor] = []
    with parametrize.cached():  # weights are rounded once, not for every batch
        for rows in torch.arange(len(data)).split(batch):
            inputs, truth = data.rows(rows)
            x = prepare(inputs, place)
            for network, made in zip(networks, decisions, strict=True):
                made.append(network(x).argmax(1).cpu())
                decided(len(rows))
            labels += [] if truth is None else [truth]
    return torch.stack([torch.cat(made) for made in decisions]), torch.cat(labels) if labels else None
