"""Output kernels ordered by precision, so that a sub-layer writes channels that lie together, and readers told so.

Tensors that are added up, pooled, or given another scale channel by channel have one order. It is free where layers
alone write them: then kernels are ordered by their precision in the layer with the most weights, and within that by the
next one. It follows from others where tensors are concatenated or flattened, and it is the network's own at the input,
at the logits, and where groups of channels are read. Whoever reads a tensor finds its channels where they are now: a
layer in the order of its weights, a move in its places. A layer whose output has another order than its own precisions
ask for writes each sub-layer's channels to where they belong.
"""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np

from impq_opt.compile.program import Add, Concat, Flatten, Layer, Move, Operation, Part, Pool, Program
from impq_opt.types import IntArray

__all__ = ["by_precision"]


def by_precision(program: Program) -> Program:
    """Return a program of the same outputs whose channels are ordered by the precision of the kernels behind them."""
    orders = _orders(program)
    places = {name: np.argsort(order) for name, order in orders.items()}
    return replace(program, operations=tuple(_moved(program, op, orders, places) for op in program.operations))


def _orders(program: Program) -> dict[str, IntArray]:
    """Return which channel of the network is at each place of every tensor."""
    alike: nx.Graph = nx.Graph()
    alike.add_nodes_from(program.tensors)
    for op in program.operations:
        if isinstance(op, (Add, Pool)) or (isinstance(op, Move) and _keeps_channels(program, op)):
            alike.add_edges_from((source, op.target) for source in op.sources)
        elif isinstance(op, Layer):
            alike.add_edges_from((source, op.target) for source in op.added)
    classes = {name: min(part) for part in nx.connected_components(alike) for name in part}
    derived: dict[str, list[Concat | Flatten]] = {}
    layers: dict[str, list[Layer]] = {}
    for op in program.operations:
        if isinstance(op, (Concat, Flatten)):
            derived.setdefault(classes[op.target], []).append(op)
        elif isinstance(op, Layer):
            layers.setdefault(classes[op.target], []).append(op)
    fixed = _fixed(program, classes, derived)
    orders: dict[str, IntArray] = {}

    def order(name: str) -> IntArray:
        kind = classes[name]
        if kind not in orders:
            if kind in fixed:
                orders[kind] = np.arange(program.tensors[name].shape[0])
            elif kind in derived:
                orders[kind] = _derived(program, derived[kind][0], [order(s) for s in derived[kind][0].sources])
            else:
                orders[kind] = _sorted(layers.get(kind, []), program.tensors[name].shape[0])
        return orders[kind]

    return {name: order(name) for name in program.tensors}


def _keeps_channels(program: Program, move: Move) -> bool:
    return np.array_equal(move.channels, np.arange(program.tensors[move.source].shape[0]))


def _fixed(program: Program, classes: dict[str, str], derived: dict[str, list[Concat | Flatten]]) -> set[str]:
    """Return the classes that keep the network's order, and with them those that theirs would follow from."""
    fixed = {classes[program.input], classes[program.output]}
    for layer in program.layers:
        inputs, channels = layer.parts[0].codes.shape[1], program.tensors[layer.source].shape[0]
        if 1 < inputs < channels:
            fixed.add(classes[layer.source])
    follows: nx.DiGraph = nx.DiGraph()
    follows.add_nodes_from(classes.values())
    for kind, makers in derived.items():
        follows.add_edges_from((kind, classes[source]) for maker in makers for source in maker.sources)
        if len(makers) > 1:
            fixed.add(kind)
    for part in nx.strongly_connected_components(follows):
        if len(part) > 1 or any(follows.has_edge(kind, kind) for kind in part):
            fixed |= part
    return fixed.union(*(nx.descendants(follows, kind) for kind in fixed))


def _derived(program: Program, maker: Concat | Flatten, orders: list[IntArray]) -> IntArray:
    if isinstance(maker, Flatten):
        _, *inner = program.tensors[maker.source].shape
        each = int(np.prod(inner))
        return (orders[0][:, None] * each + np.arange(each)).reshape(-1)
    starts = np.cumsum([0, *(len(order) for order in orders)])
    return np.concatenate([order + start for order, start in zip(orders, starts, strict=False)])


def _sorted(layers: list[Layer], channels: int) -> IntArray:
    keys = []
    for layer in sorted(layers, key=lambda layer: sum(part.codes.size for part in layer.parts)):
        bits = np.zeros(channels, dtype=np.int64)
        for part in layer.parts:
            bits[part.channels] = part.bits
        keys.append(bits)
    return np.lexsort([np.arange(channels), *keys])


def _moved(program: Program, op: Operation, orders: dict[str, IntArray], places: dict[str, IntArray]) -> Operation:
    """Return an operation on tensors in their new orders."""
    order = orders[op.target]
    if isinstance(op, Layer):
        channels = program.tensors[op.source].shape[0]
        parts = (
            _moved_part(part, channels, orders[op.source], places[op.source], places[op.target]) for part in op.parts
        )
        return replace(op, parts=tuple(parts))
    if isinstance(op, Add):
        rescale = op.rescale
        multipliers, addends = rescale.multipliers[:, order], rescale.addends[order]
        return replace(op, rescale=replace(rescale, multipliers=multipliers, addends=addends))
    if isinstance(op, Move):
        taken = op.channels[order]
        return replace(op, channels=np.where(taken < 0, -1, places[op.source][np.maximum(taken, 0)]))
    return op


def _moved_part(part: Part, channels: int, order: IntArray, place: IntArray, target: IntArray) -> Part:
    """Return a part that reads ``channels`` in a new order and writes to new places, ascending."""
    kernels = np.argsort(target[part.channels])
    inputs = part.codes.shape[1]
    rescale = part.rescale
    return replace(
        part,
        codes=part.codes[kernels][:, order] if inputs == channels else part.codes[kernels],
        offsets=part.offsets[kernels],
        channels=target[part.channels][kernels],
        reads=place[part.reads[kernels]] if inputs == 1 < channels else part.reads[kernels],
        rescale=replace(rescale, multipliers=rescale.multipliers[kernels], addends=rescale.addends[kernels]),
        added=part.added[:, kernels],
    )
