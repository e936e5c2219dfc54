"""A traced network as a module: the calls of the graph, with parameters, buffers and modes where they always were."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from impq_opt.tracing.nodes import module_of, op_of

__all__ = ["TracedModule", "trainable"]

# Where calls say whether they are in training: 0 is the first argument.
_TRAINING = {
    "alpha_dropout": 2,
    "batch_norm": 5,
    "dropout": 2,
    "feature_alpha_dropout": 2,
    "feature_dropout": 2,
    "gru": 6,
    "instance_norm": 5,
    "lstm": 6,
    "rnn_relu": 6,
    "rnn_tanh": 6,
    "rrelu": 3,
}
_ATTENTION_DROPOUT = 4  # place of scaled_dot_product_attention's argument


class TracedModule(nn.Module):
    """Runs a graph whose ``get_attr`` nodes name parameters and buffers of this module.

    Parameters
    ----------
    root : nn.Module
        The network that was traced: its parameters and buffers are shared, under their names, its modes are copied.
        Its modules are not: containers stand in their place.
    graph : fx.Graph
    constants : mapping of str to Tensor
        Tensors that the graph names and the network has as no parameter or buffer.

    Attributes
    ----------
    takes : dict
        What was traced with, as :func:`~impq_opt.tracing.example.describe_input` has it.

    Notes
    -----
    An ``fx.GraphModule`` would do, but loses parametrizations of parameters of its own when it is copied.
    """

    takes: dict[str, Any]

    def __init__(self, root: nn.Module, graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        made: dict[int, nn.Module] = {}
        for path, module in root.named_modules(remove_duplicate=False):
            parent, _, name = path.rpartition(".")
            container = self if not path else made.get(id(module)) or nn.Module()
            if id(module) not in made:
                made[id(module)] = container
                _adopt(container, module)
            if path:
                self.get_submodule(parent)._modules[name] = container
        for path, tensor in constants.items():
            parent, _, name = path.rpartition(".")
            self.get_submodule(parent).register_buffer(name, tensor, persistent=False)
        self._traced_graph = graph
        self.recompile()

    @property
    def traced_graph(self) -> fx.Graph:
        """The graph; call :meth:`recompile` after changing it."""
        return self._traced_graph

    def recompile(self) -> None:
        """Make :meth:`forward` what the graph says."""
        code = self._traced_graph.python_code("self")
        names = dict(code.globals)
        exec(compile(code.src, "<traced network>", "exec"), names)  # the graph's own text
        self._traced_call = cast(Callable[..., Any], names["forward"])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._traced_call(self, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TracedModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        tensor = next((t for part in (self.parameters(), self.buffers()) for t in part), None)
        places = {node.kwargs["device"] for node in self._traced_graph.nodes if node.kwargs.get("device") is not None}
        if tensor is not None and places - {tensor.device}:  # tensors that the calls make follow the parameters
            for node in self._traced_graph.nodes:
                if node.kwargs.get("device") is not None:
                    node.kwargs = {**node.kwargs, "device": tensor.device}
            self.recompile()
        return self


def trainable(module: TracedModule, structure: pytree.TreeSpec) -> TracedModule:
    """Return a copy that can be trained, with outputs that are nested as ``structure`` says.

    Dropout and batch-norms heed :meth:`~torch.nn.Module.train` and ``eval``, of the whole and of its parts. What was on
    in eval mode stays on. What a network does in training alone, without a call in eval mode, such as leaving out whole
    branches at random, is not there.
    """
    copied = copy.deepcopy(module)
    graph = copied.traced_graph
    for node in list(graph.nodes):
        place, owner = _TRAINING.get(op_of(node)), _owner(copied, module_of(node))
        with graph.inserting_before(node):
            if place is not None and place < len(node.args) and node.args[place] is False:
                mode = _mode(graph, owner)
                node.update_arg(place, mode)
                if op_of(node) == "batch_norm":
                    _count_batches(copied, node, owner, mode)
        if getattr(copied.get_submodule(owner), "attention_dropout", 0.0):
            _drop_attention(copied, node, owner)
    _nest(copied, structure)
    graph.lint()
    copied.recompile()
    return copied


def _mode(graph: fx.Graph, owner: str) -> fx.Node:
    return graph.create_node("get_attr", f"{owner}.training".lstrip("."))


def _count_batches(module: TracedModule, norm: fx.Node, owner: str, mode: fx.Node) -> None:
    held, graph = module.get_submodule(owner), module.traced_graph
    if getattr(held, "num_batches_tracked", None) is not None:
        count = graph.create_node("get_attr", f"{owner}.num_batches_tracked".lstrip("."))
        momentum = getattr(held, "momentum", norm.args[6])
        norm.update_arg(6, graph.call_function(_momentum, (count, mode, momentum)))


def _drop_attention(module: TracedModule, node: fx.Node, owner: str) -> None:
    """Put the dropout of torch's attention where it is in training; in eval mode there is no call of it."""
    chance: Any = module.get_submodule(owner).attention_dropout
    graph = module.traced_graph
    if op_of(node) == "scaled_dot_product_attention":
        with graph.inserting_before(node):
            dropped = graph.call_function(operator.mul, (chance, _mode(graph, owner)))
        if len(node.args) > _ATTENTION_DROPOUT:
            node.update_arg(_ATTENTION_DROPOUT, dropped)
        else:
            node.update_kwarg("dropout_p", dropped)
    elif op_of(node) == "softmax":
        with graph.inserting_after(node):
            after = graph.call_function(torch.ops.aten.dropout.default, (node, chance, False))
        node.replace_all_uses_with(after, delete_user_cb=lambda user: user is not after)
        with graph.inserting_before(after):
            after.update_arg(2, _mode(graph, owner))


def _nest(module: TracedModule, structure: pytree.TreeSpec) -> None:
    """Make the graph return its outputs as the network did."""
    graph = module.traced_graph
    output = next(node for node in graph.nodes if node.op == "output")
    if structure == pytree.tree_structure(0):
        output.args = (output.args[0][0],)
        return
    module._traced_structure = structure  # type: ignore[assignment]
    with graph.inserting_before(output):
        nested = graph.create_node("get_attr", "_traced_structure")
        output.args = (graph.call_function(pytree.tree_unflatten, (output.args[0], nested)),)


def _adopt(container: nn.Module, module: nn.Module) -> None:
    container.training = module.training
    container._parameters.update(module._parameters)
    container._buffers.update(module._buffers)
    container._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        container.momentum = module.momentum  # type: ignore[assignment]
    if isinstance(module, nn.MultiheadAttention):
        container.attention_dropout = module.dropout


def _owner(module: nn.Module, path: str) -> str:
    """Return the innermost module on a path that is there."""
    known = dict(module.named_modules(remove_duplicate=False))
    while path not in known:
        path = path.rpartition(".")[0]
    return path


def _momentum(count: Tensor, training: bool, momentum: float | None) -> float:
    """Count a batch in training; return the weight of its statistics: their mean over batches without a momentum."""
    if training:
        count.add_(1)
    return (1.0 / float(count) if training else 0.0) if momentum is None else momentum
