"""Graphs without writes: calls that change a tensor in place are replaced by calls that return a new one.

A quantizer behind a call, or a tensor that is kept for the gradient, is then never overwritten. Whoever reads the
tensor later, or a view of it, reads the new one; what is written into a view is scattered into what it is a view of.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, fx

from impq_opt.errors import DataError
from impq_opt.tracing.nodes import module_of, op_of

__all__ = ["make_pure"]

aten = torch.ops.aten
_RESHAPED = frozenset(
    ["_unsafe_view", "flatten", "reshape", "reshape_as", "squeeze", "unflatten", "unsqueeze", "view", "view_as"]
)
_SAME = frozenset(["alias", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh_copy", "to", "type_as"])
_SWAPPED = frozenset(["swapaxes", "swapdims", "t", "transpose"])


def make_pure(graph: fx.Graph) -> None:
    """Replace every write into a tensor that the graph computes; the values that it computes stay the same.

    Writes into parameters and buffers are left: they are state, not values.

    Raises
    ------
    DataError
        A write goes into a view of a kind that cannot be followed back.
    """
    _Purifier(graph).run()
    graph.lint()


class _Purifier:
    """Follows, call by call, which node holds the present value of every tensor that some call has changed."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.source: dict[fx.Node, fx.Node] = {}  # of a view, or of what a write returned
        self.written: set[fx.Node] = set()
        self.writes: dict[fx.Node, int] = {}  # how many, into a tensor that is no view
        self.present: dict[fx.Node, tuple[fx.Node, int]] = {}  # the node with its value after so many writes
        self.made: list[fx.Node] = []

    def run(self) -> None:
        for node in list(self.graph.nodes):
            first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
            write = first is not None and _writes(node) and self._chain(first)[-1].op != "get_attr"
            if write:
                assert first is not None
                self._replace(node, first)
                continue
            with self.graph.inserting_before(node):
                node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), self._fresh)
            if first is not None and _shares(node, first):
                self.source[node] = first
                self.present[node] = node, self.writes.get(self._chain(first)[-1], 0)
        for node in reversed(self.made):
            if not node.users:
                self.graph.erase_node(node)

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        """Return a tensor, what it is a view of, and so on, down to one that is no view."""
        chain = [node]
        while chain[-1] in self.source:
            chain.append(self.source[chain[-1]])
        return chain

    def _fresh(self, node: fx.Node) -> fx.Node:
        """Return the node that holds the present value of the tensor that ``node`` gave."""
        age = self.writes.get(self._chain(node)[-1], 0)
        held, then = self.present.get(node, (node, 0))
        if then != age:
            base = self._fresh(self.source[node])
            held = base if node in self.written else self._make(node.target, (base, *node.args[1:]), node, node.kwargs)
            self.present[node] = held, age
        return held

    def _replace(self, node: fx.Node, target: fx.Node) -> None:
        """Make ``node`` return what it wrote, and let that stand for the tensor and for all that it is a view of."""
        chain = self._chain(target)
        with self.graph.inserting_before(node):
            held = {part: self._fresh(part) for part in chain}
            node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), self._fresh)
        age = self.writes.get(chain[-1], 0) + 1
        with self.graph.inserting_before(node.next):
            value = self._pure(node)
            self.present[node] = self.present[target] = value, age
            for view, base in itertools.pairwise(chain):
                value = value if view in self.written else self._scatter(view, held[base], value)
                self.present[base] = value, age
        self.source[node], self.writes[chain[-1]] = target, age
        self.written.add(node)

    def _pure(self, node: fx.Node) -> fx.Node:
        """Turn a write into its pure twin; return the node that has the tensor's own type."""
        tensor: Any = node.args[0]
        target: Any = node.target
        name = op_of(node).removesuffix("_")
        own = tensor.meta["val"].dtype
        if name == "copy":
            node.target, node.args, node.kwargs = aten.expand_as.default, (node.args[1], tensor), {}
        elif name == "zero":
            node.target = aten.zeros_like.default
        else:
            packet = getattr(aten, name, None)
            if packet is None or name == op_of(node):
                raise _unclear(node)
            own_overload = target._overloadname in packet.overloads()
            node.target = getattr(packet, target._overloadname if own_overload else "default")
        others = (part.meta.get("val") for part in node.all_input_nodes)
        kinds = {other.dtype for other in others if isinstance(other, Tensor) and other.dtype.is_floating_point}
        return self._make(aten.to.dtype, (node, own), node) if kinds - {own} else node

    def _scatter(self, view: fx.Node, base: fx.Node, value: fx.Node) -> fx.Node:
        """Return the tensor ``base`` with ``value`` where ``view`` looked at."""
        op = op_of(view)
        options: Any = view.args[1:]
        if op in _SAME:
            return value
        if op in _RESHAPED:
            return self._make(aten.reshape_as.default, (value, base), base)
        if op in _SWAPPED:
            return self._make(view.target, (value, *options), base)
        if op == "permute":
            order = list(options[0])
            return self._make(aten.permute.default, (value, [order.index(k) for k in range(len(order))]), base)
        if op in ("slice", "select"):
            twin = aten.slice_scatter.default if op == "slice" else aten.select_scatter.default
            return self._make(twin, (base, value, *options), base, view.kwargs)
        if op == "narrow":
            dimension, start, length = options
            return self._make(aten.slice_scatter.default, (base, value, dimension, start, start + length), base)
        raise _unclear(view)

    def _make(self, target: Any, args: tuple[Any, ...], like: fx.Node, kwargs: Any = None) -> fx.Node:
        node = self.graph.call_function(target, args, dict(kwargs or {}))
        node.meta["val"] = like.meta.get("val")
        self.made.append(node)
        return node


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    return alias is not None and alias.is_write


def _shares(node: fx.Node, source: fx.Node) -> bool:
    """Return whether the output is in the memory of ``source``."""
    here, there = (part.meta.get("val") for part in (node, source))
    if node.op != "call_function" or not isinstance(here, Tensor) or not isinstance(there, Tensor):
        return False
    return here.untyped_storage()._cdata == there.untyped_storage()._cdata


def _unclear(node: fx.Node) -> DataError:
    return DataError(
        "writes into a tensor in place, by a call that has no known twin without",
        where=f"network: {module_of(node) or 'forward'}",
        value=op_of(node),
        hint="compute a new tensor instead",
    )
