"""What training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional

from impq_opt.data.calling import call, logits_of
from impq_opt.training.batches import Batch

__all__ = ["Objective", "Scored", "cross_entropy"]


class Scored(NamedTuple):
    """A batch as it was judged: the loss to go down from (a scalar), and the logits (m, classes) that are counted."""

    loss: Tensor
    logits: Tensor


class Objective(Protocol):
    """A network and a batch to a loss; terms on parameters or on another network's outputs are added here."""

    def __call__(self, network: Callable[..., Any], batch: Batch) -> Scored:
        """Run the network on the batch, under autocast where the settings say so."""
        ...


def cross_entropy(network: Callable[..., Any], batch: Batch) -> Scored:
    """Return the mean cross entropy against the labels."""
    logits = logits_of(call(network, batch.inputs))
    return Scored(functional.cross_entropy(logits, batch.labels), logits)
