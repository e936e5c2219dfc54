"""A network's forward as a graph of calls that write nothing, by torch.export."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from impq_opt.data.batch import Several
from impq_opt.errors import DataError, first_line
from impq_opt.tracing.names import symbolic_names
from impq_opt.tracing.nodes import attribute_of, call_names, op_of
from impq_opt.tracing.purity import make_pure
from impq_opt.tracing.regions import inline_regions

__all__ = ["Exported", "export"]

_ASSERTIONS = frozenset(["_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"])
_ONE_SIZE = ("Constraints violated", "specialized", "specialization", "not in range")
_BY_VALUE = ("data-dependent", "GuardOnDataDependent", "unbacked", "dynamic control flow")


@dataclass(frozen=True, eq=False)
class Exported:
    """What torch.export makes of a network in eval mode.

    Parameters
    ----------
    graph : fx.Graph
        Its output is a tuple of all tensors that the network returns, however they are nested.
    structure : TreeSpec
        How they are nested.
    constants : dict of str to Tensor
        Tensors that the graph names and that are no parameters or buffers.
    labels : dict of Node to str
        The names of calls.
    old_labels : dict of str to Node
        Those of packed networks of version 1.
    """

    graph: fx.Graph
    structure: pytree.TreeSpec
    constants: dict[str, Tensor]
    labels: dict[fx.Node, str]
    old_labels: dict[str, fx.Node]


def export(network: nn.Module, example: Tensor | Several) -> Exported:
    """Return the graph of a plain network in eval mode, for batches of any size.

    Raises
    ------
    DataError
        The network does what a graph cannot hold.
    """
    program = _program(network, example)
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(module.graph, copies))
    inline_regions(graph, module)
    old_labels = symbolic_names(graph)
    make_pure(graph)
    labels = call_names(graph)
    _refuse_unknown_sizes(labels)
    for node in reversed(graph.nodes):
        if op_of(node) in _ASSERTIONS and not node.users:
            graph.erase_node(node)
    own = {
        name for part in (network.named_parameters, network.named_buffers) for name, _ in part(remove_duplicate=False)
    }
    named = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    constants = {name: attribute_of(module, name) for name in sorted(named - own)}
    return Exported(graph, program.call_spec.out_spec, constants, labels, old_labels)


def _refuse_unknown_sizes(labels: Mapping[fx.Node, str]) -> None:
    """Raise where a tensor has as many elements as the values of the input make it have, as boolean indices do."""
    for node, label in labels.items():
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, Tensor) else ()
        if any(not isinstance(size, int) and size.node.hint is None for size in sizes):
            raise DataError(
                "has a tensor whose size depends on the values of the input, so it is no one graph",
                where=f"network: {label}",
                hint="keep all elements: choose by torch.where, or multiply by the mask",
            )


def _program(network: nn.Module, example: Tensor | Several) -> Any:
    args, kwargs = (example.args, example.kwargs) if isinstance(example, Several) else ((example,), {})
    batch = {0: torch.export.Dim.DYNAMIC}
    # By name where all are given by name; torch.export wants the names of the forward, in its order, else.
    shapes = dict.fromkeys(kwargs, batch) if kwargs else (batch,) * len(args)
    try:
        return torch.export.export(network, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises many kinds, all of which mean the same here
        if not any(sign in str(error) for sign in _ONE_SIZE):
            raise _untraceable(error) from error
        silenced = logging.getLogger("torch._guards")  # prints what it raises
        before, silenced.disabled = silenced.disabled, True
        try:  # what follows Python's own code keeps a size that len() or int() makes a number
            return torch.export.export(network, args, kwargs, dynamic_shapes=shapes, strict=True)
        except Exception:
            raise _untraceable(error) from error
        finally:
            silenced.disabled = before


def _untraceable(error: Exception) -> DataError:
    text = str(error)
    if any(sign in text for sign in _ONE_SIZE):
        return DataError(
            "works for one size of batch only: its forward has that size as a number",
            where="network",
            hint="take it from x.shape[0], or leave it to view and reshape as -1",
        )
    if any(sign in text for sign in _BY_VALUE):
        return DataError(
            "does other calls for other values of its input, so it is no one graph",
            where="network",
            hint="compute both sides of the branch and choose by torch.where",
        )
    line = first_line(error)
    return DataError(
        f"cannot be traced by torch.export, which says: {line.rstrip('.')}",
        where="network",
        hint="its forward must take tensors (n, ...), for any n, without branching on values",
    )
