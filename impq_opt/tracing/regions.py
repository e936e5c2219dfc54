"""Regions without gradient, or with autocast, as part of the graph that they stand in.

torch.export keeps such a region as a graph of its own. Put in its place, its calls are sites like all others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast

__all__ = ["inline_regions"]

_GRADIENT = torch.ops.higher_order.wrap_with_set_grad_enabled
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast


def inline_regions(graph: fx.Graph, owner: nn.Module) -> None:
    """Replace every region by its calls; what comes out of a region without gradient is detached.

    Parameters
    ----------
    graph : Graph
        Changed in place.
    owner : nn.Module
        Holds what the graph's ``get_attr`` nodes name; it gets the constants of the regions.
    """
    for node in list(graph.nodes):
        if node.target is _GRADIENT:
            enabled, region, *operands = node.args
            _inline(graph, owner, node, region, operands, detached=not enabled)
        elif node.target is _AUTOCAST:
            *mode, region = node.args[:5]
            with graph.inserting_before(node):
                entered = graph.call_function(_enter_autocast, tuple(mode))
            _inline(graph, owner, node, region, node.args[5:], entered=entered)
    graph.lint()


def _inline(
    graph: fx.Graph,
    owner: nn.Module,
    node: fx.Node,
    region: Any,
    operands: Any,
    *,
    detached: bool = False,
    entered: fx.Node | None = None,
) -> None:
    inner = owner.get_submodule(str(region.target))
    assert isinstance(inner, fx.GraphModule)
    inline_regions(inner.graph, inner)
    entries = (n for n in inner.graph.nodes if n.op == "placeholder")
    copies: dict[fx.Node, fx.Node] = dict(zip(entries, operands, strict=True))
    with graph.inserting_before(node):
        outputs: Any = graph.graph_copy(inner.graph, copies)
        if entered is not None:
            graph.call_function(_exit_autocast, (entered,))
        if detached:
            outputs = fx.map_arg(outputs, lambda part: _detached(graph, part))
    for old, copy in copies.items():
        if old.op == "get_attr":
            name = f"{region.target}_{old.target}".replace(".", "_")
            setattr(owner, name, _attribute(inner, str(old.target)))
            copy.target = name
    for user in list(node.users):
        part: Any = outputs
        if isinstance(outputs, (tuple, list)):
            place: Any = user.args[1]  # every reader of a region takes one of its outputs
            part = outputs[place]
            user.replace_all_uses_with(part)
            graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(outputs)
    graph.erase_node(node)
    if not region.users:
        graph.erase_node(region)


def _detached(graph: fx.Graph, node: fx.Node) -> fx.Node:
    detached = graph.call_function(torch.ops.aten.detach.default, (node,))
    detached.meta["val"] = node.meta.get("val")
    return detached


def _attribute(module: nn.Module, path: str) -> Any:
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)
