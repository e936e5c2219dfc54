"""Several networks over the same samples: each batch is read and prepared once, and every network decides on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, device, nn
from torch.nn.utils import parametrize

from impq_opt.data.batch import Several, prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.data.dataset import Dataset

__all__ = ["Logits", "Progress", "counter", "decide", "deciding", "together"]

Logits = Callable[["Tensor | Several"], Tensor]
Progress = Callable[[str, int, int], None]

_WEIGHTS = 2 * 2**30  # bytes of quantized weights held in one sweep


def together(weights: int) -> int:
    """Return how many networks of so many bytes of weights go over the data in one sweep."""
    return max(1, _WEIGHTS // max(1, weights))


def deciding(network: nn.Module) -> Logits:
    """Return what gives the logits of a network, however it returns them."""
    return lambda x: logits_of(call(network, x))


def counter(what: str, progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return a function that is told of parts of a whole and tells ``progress`` how much is done."""
    done = 0
    if progress is not None:
        progress(what, done, total)

    def add(part: int) -> None:
        nonlocal done
        done += part
        if progress is not None:
            progress(what, done, total)

    return add


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
