"""How many samples a pass through a network takes, by what it holds at once between its layers."""

from __future__ import annotations

from collections import defaultdict

import networkx as nx
import torch

__all__ = ["batch_size", "most_alive"]

# What a pass may hold at once decides how many samples it takes. It is a number of the program and not of the machine:
# batches of another size round their sums in another way, and decisions are the same wherever they are made.
_PASS = 512 * 2**20  # bytes of tensors between layers
_MOST = 64


def batch_size(graph: nx.DiGraph) -> int:
    """Return how many samples a pass through ``graph`` takes; see :class:`~impq_opt.tracing.graph.Network`."""
    return max(1, min(_MOST, _PASS // (4 * max(1, most_alive(graph)))))


def most_alive(graph: nx.DiGraph) -> int:
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
