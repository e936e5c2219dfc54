"""Quantized networks as graphs: the calls of the float network, on the tensors of the quantized one.

Batch-norms, and what stands behind a weight, are found in the graph of calls and not by names or classes of modules. A
network whose activations are quantized is such a graph already. Of one that keeps its own modules, the float network's
graph is taken, with the quantized one's parameters, buffers and quantizers in it: the very tensors, so that what is
changed in one is changed in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from impq_opt.data.batch import Several
from impq_opt.errors import DataError
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import attribute_of, op_of

__all__ = ["Norm", "graph_of", "held", "inputs_of", "norms_of"]


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch-norm: the name of its module, its running statistics (channels,), and its epsilon."""

    name: str
    mean: Tensor
    variance: Tensor
    epsilon: float


def graph_of(quantized: nn.Module, traced: Network) -> TracedModule:
    """Return a quantized copy of a traced network as a graph that shares its tensors and quantizers.

    Raises
    ------
    DataError
        It is no copy of that network.
    """
    if isinstance(quantized, TracedModule):
        own = {node.name for node in quantized.traced_graph.nodes}
        if not own >= {node.name for node in traced.nodes.values() if node.op == "call_function"}:
            raise DataError("is no quantized copy of the float network: it makes other calls", where="network")
        return quantized
    graph = traced.copy()
    known = dict(graph.named_modules(remove_duplicate=False))
    for path, module in quantized.named_modules(remove_duplicate=False):
        if "parametrizations" in path.split("."):
            continue
        if path not in known:
            raise DataError(
                "is no quantized copy of the float network: it has another module", where=f"network: {path}"
            )
        _share(known[path], module)
    return graph


def _share(container: nn.Module, module: nn.Module) -> None:
    """Give a container of a graph the tensors of a module, and the quantizers of its weights."""
    container._parameters.update(module._parameters)
    container._buffers.update(module._buffers)
    if not parametrize.is_parametrized(module) or parametrize.is_parametrized(container):
        return
    for name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
        container._parameters[name] = chain.original
        for part in chain:
            parametrize.register_parametrization(container, name, part)


def norms_of(module: TracedModule) -> dict[fx.Node, Norm]:
    """Return the batch-norms of a graph that have running statistics, by their calls."""
    norms = {}
    for node in module.traced_graph.nodes:
        if op_of(node) == "batch_norm" and node.args[3] is not None and node.args[4] is not None:
            mean, variance = (held(module, argument) for argument in node.args[3:5])
            if mean is not None and variance is not None:
                name = str(node.args[3].target).rpartition(".")[0]
                norms[node] = Norm(name, mean, variance, float(node.args[7]))
    return norms


def held(module: TracedModule, argument: object) -> Tensor | None:
    """Return the parameter or buffer that an argument of a call stands for, as it is now."""
    got = isinstance(argument, fx.Node) and argument.op == "get_attr"
    return attribute_of(module, str(argument.target)) if got else None  # type: ignore[attr-defined]


def inputs_of(module: TracedModule, batch: Tensor | Several) -> tuple[Any, ...]:
    """Return a batch as the arguments of a graph, in its order."""
    if isinstance(batch, Tensor):
        return (batch,)
    names = [str(node.target) for node in module.traced_graph.nodes if node.op == "placeholder"]
    return batch.args or tuple(batch.kwargs[name] for name in names)
