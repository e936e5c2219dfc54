"""Batch-norms as part of the layers in front of them, for passes that ask for logits and their gradients only.

In eval mode a batch-norm multiplies each output of a layer by a number and adds another. A layer whose weights are
multiplied by those numbers does both, which saves a pass over a large tensor, forward and backward. The gradient of the
weights is that of the multiplied ones times the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import batch_shape, op_of

__all__ = ["Fold", "find_folds", "folded_module"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, eq=False)
class Fold:
    """What a layer takes in: the node of the batch-norm, its factors (out,) in float64, and weight and bias then."""

    norm: str
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def of_weight(self, weight: Tensor) -> Fold:
        """Return the fold of the layer with another weight (out, ...)."""
        return replace(self, weight=_folded(weight, self.scale))


def find_folds(nodes: Iterable[fx.Node], tensors: Mapping[str, Tensor]) -> dict[str, Fold]:
    """Return the folds of a graph in eval mode, by the node of the layer; only a batch-norm reads its output."""
    folds = {}
    for norm in nodes:
        layer = norm.args[0] if norm.args else None
        if op_of(norm) != "batch_norm" or not isinstance(layer, fx.Node) or not _takes_in(layer, norm):
            continue
        weight, bias = (_tensor(argument, tensors) for argument in (*layer.args[1:3], None)[:2])
        gamma, beta, mean, variance = (_tensor(argument, tensors) for argument in norm.args[1:5])
        if weight is None or mean is None or variance is None:
            continue
        scale = (variance.double() + float(norm.args[7])).rsqrt()  # type: ignore[arg-type]
        scale = scale if gamma is None else scale * gamma.double()
        shift = ((0.0 if bias is None else bias.double()) - mean.double()) * scale
        shift = shift if beta is None else shift + beta.double()
        folds[layer.name] = Fold(norm.name, scale, _folded(weight, scale), shift.to(weight.dtype))
    return folds


def folded_module(module: TracedModule, folds: Mapping[str, Fold]) -> fx.GraphModule:
    """Return a module of the same outputs that has the folded layers and not their batch-norms."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(module.traced_graph, copies))
    folded = fx.GraphModule(module, graph)
    nodes = {node.name: copy for node, copy in copies.items()}
    for name, fold in folds.items():
        layer, norm = nodes[name], nodes[fold.norm]
        with folded.graph.inserting_before(layer):
            parts = []
            for part in ("weight", "bias"):
                folded.register_buffer(f"_folded_{name}_{part}", getattr(fold, part))
                parts.append(folded.graph.get_attr(f"_folded_{name}_{part}"))
        layer.args = (layer.args[0], *parts, *layer.args[3:])
        norm.replace_all_uses_with(layer)
        folded.graph.erase_node(norm)
    folded.graph.lint()
    folded.recompile()
    return folded


def _folded(weight: Tensor, scale: Tensor) -> Tensor:
    wide = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return torch.empty_like(weight).copy_(wide)


def _takes_in(layer: fx.Node, norm: fx.Node) -> bool:
    channels_second = op_of(layer) in _CONVOLUTIONS or (op_of(layer) == "linear" and len(batch_shape(layer)) == 2)
    training = norm.args[5]
    return channels_second and not training and len(layer.users) == 1 and not layer.kwargs


def _tensor(argument: object, tensors: Mapping[str, Tensor]) -> Tensor | None:
    return tensors.get(argument.name) if isinstance(argument, fx.Node) else None
