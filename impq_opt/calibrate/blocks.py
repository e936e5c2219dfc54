"""The parts of a graph between calls that all the rest depends on: residual blocks, and layers of plain sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from impq_opt.calibrate.layers import Layer
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule

__all__ = ["Block", "blocks_of"]


@dataclass(frozen=True, eq=False)
class Block:
    """Calls one after the other, whose last is all that calls behind them read of them and of any layer before.

    Parameters
    ----------
    layers : tuple of Layer
    nodes : tuple of Node
        The calls in order.
    """

    layers: tuple[Layer, ...]
    nodes: tuple[fx.Node, ...]

    @property
    def start(self) -> str:
        """The name of the first call."""
        return self.nodes[0].name

    @property
    def end(self) -> str:
        """The name of the last call."""
        return self.nodes[-1].name


def blocks_of(quantized: TracedModule, traced: Network, layers: Sequence[Layer]) -> tuple[list[Block], list[Layer]]:
    """Return the blocks in the order of their calls, and layers behind the last cut, which are in none.

    A graph is cut at a call where nothing else is alive that depends on a quantized layer. Calls without layers belong
    to the block before: so a norm and a rectifier go with their convolution.

    Parameters
    ----------
    quantized : TracedModule
    traced : Network
        The float network, whose calls have the same names.
    layers : sequence of Layer
        Of the quantized network.
    """
    by_node = {layer.use.node: layer for layer in layers}
    blocks: list[Block] = []
    nodes: list[fx.Node] = []
    own: list[Layer] = []
    cuts = _cuts(list(quantized.traced_graph.nodes), by_node, traced)
    for node in quantized.traced_graph.nodes:
        if node.name in by_node:
            own.append(by_node[node.name])
        if node.op not in ("placeholder", "get_attr"):
            nodes.append(node)
        if node not in cuts:
            continue
        if own or not blocks:
            blocks.append(Block(tuple(own), tuple(nodes)))
        else:
            blocks[-1] = Block(blocks[-1].layers, (*blocks[-1].nodes, *nodes))
        nodes, own = [], []
    return [block for block in blocks if block.layers], own


def _cuts(nodes: Sequence[fx.Node], layers: Iterable[str], traced: Network) -> set[fx.Node]:
    """Return the calls behind which they are all that is alive and depends on a layer."""
    order = {node: place for place, node in enumerate(nodes)}
    found = set(layers)
    depends: set[fx.Node] = set()
    ends: dict[fx.Node, int] = {}
    cuts = set()
    for place, node in enumerate(nodes):
        if node.op == "output":
            break
        if node.name in found or any(source in depends for source in node.all_input_nodes):
            depends.add(node)
            ends[node] = max((order[user] for user in node.users), default=place)
        alive = {source for source, end in ends.items() if end > place}
        ends = {source: ends[source] for source in alive}
        of_float = traced.nodes.get(node.name)
        if alive == {node} and of_float is not None and isinstance(of_float.meta.get("val"), Tensor):
            cuts.add(node)
    return cuts
