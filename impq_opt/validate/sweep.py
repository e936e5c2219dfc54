"""Several networks over the same samples: each batch is read and prepared once, and every network decides on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import networkx as nx
import torch
from torch import Tensor, device
from torch.nn.utils import parametrize

from impq_opt.data.batch import Several, prepare
from impq_opt.data.dataset import Dataset

__all__ = ["Logits", "batch_size", "decide", "together"]

Logits = Callable[["Tensor | Several"], Tensor]

# What a pass may hold at once decides how many samples it takes. It is a number of the program and not of the machine:
# batches of another size round their sums in another way, and decisions are the same wherever they are made.
_PASS = 512 * 2**20  # bytes of tensors between layers
_MOST = 64
_WEIGHTS = 2 * 2**30  # bytes of quantized weights held in one sweep


def batch_size(graph: nx.DiGraph) -> int:
    """Return how many samples a pass through ``graph`` takes; see :class:`~impq_opt.tracing.graph.Network`."""
    return max(1, min(_MOST, _PASS // (4 * max(1, _most_alive(graph)))))


def _most_alive(graph: nx.DiGraph) -> int:
    """Return the largest number of elements of one sample that are held at once; views count as copies."""
    order = {node: place for place, node in enumerate(graph)}
    ends = defaultdict(list)
    for node in graph:
        ends[max((order[reader] for reader in graph.successors(node)), default=order[node])].append(node)
    size = {node: int(torch.Size(shape).numel()) for node, shape in graph.nodes(data="shape")}
    alive = most = 0
    for node, place in order.items():
        alive += size[node]
        most = max(most, alive + size[node])  # a quantizer behind the node makes a second one
        alive -= sum(size[ended] for ended in ends[place])
    return most


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
