"""How often a network is right."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torch.nn.utils import parametrize

from impq_opt.data.calling import call, logits_of
from impq_opt.memory import kept_memory
from impq_opt.training.batches import labelled, placed
from impq_opt.training.samples import Samples
from impq_opt.training.seeds import processes

__all__ = ["accuracy"]


@kept_memory()
def accuracy(network: nn.Module, data: Samples, *, batch: int = 500, channels_last: bool = True) -> float:
    """Return the share of ``data`` that the network labels right; processes share the work.

    Raises
    ------
    DataError
        The data have no labels.
    """
    rank, world = processes()
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    with torch.inference_mode(), parametrize.cached():
        hits = torch.zeros((), dtype=torch.int64, device=device)
        for rows in list(torch.split(torch.arange(len(data)), batch))[rank::world]:
            inputs, labels = placed(*labelled(data, rows), device, channels_last=channels_last)
            hits += (logits_of(call(network, inputs)).argmax(1) == labels).sum()
        if world > 1:
            distributed.all_reduce(hits)
    network.train(training)
    return int(hits) / len(data)
