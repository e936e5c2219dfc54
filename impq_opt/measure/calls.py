"""Per-sample gradients of weights through calls without a formula of their own: products, look-ups, recurrent layers.

The call is repeated sample by sample on what it read, and torch's own derivative of it is taken. Every sample passes
once, so that the work is that of a backward pass of the call; what it costs more is the number of small calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from impq_opt.tracing.graph import Network
from impq_opt.tracing.nodes import batch_place, op_of
from impq_opt.tracing.sites import Use, WeightSite

__all__ = ["call_gradients", "is_table", "table_squares"]


def call_gradients(
    network: Network, site: WeightSite, use: Use, args: tuple[Any, ...], grad: Tensor, place: int | None
) -> Iterator[Tensor]:
    """Yield each sample's gradient (out, inputs) of a weight through one call.

    Parameters
    ----------
    network : Network
    site : WeightSite
    use : Use
        One with an operand.
    args : tuple
        What the call was called with.
    grad : Tensor
        Gradient of its output, or of the output at ``place`` where it has several.
    """
    node, wide = network.nodes[use.node], torch.promote_types(grad.dtype, torch.float32)
    names = pytree.tree_leaves(node.args, is_leaf=_is_leaf)
    values, nesting = pytree.tree_flatten(args)
    weight = network.weight_tensor(site).to(wide).requires_grad_()
    dimension, samples = _dimension(node, place), len(grad.movedim(_dimension(node, place), 0))
    for sample in range(samples):
        with torch.enable_grad():
            operand = _operand(network, use, weight)
            own = [
                operand if isinstance(name, fx.Node) and name.name == use.operand else _part(name, value, sample, wide)
                for name, value in zip(names, values, strict=True)
            ]
            out = node.target(*pytree.tree_unflatten(own, nesting), **node.kwargs)
            out = out if place is None else out[place]
        (gradient,) = torch.autograd.grad(out, weight, grad.narrow(dimension, sample, 1).to(out.dtype))
        yield gradient.flatten(1)


def table_squares(indices: Tensor, grad: Tensor, shape: tuple[int, ...], *, fine: bool) -> Tensor:
    """Return what a look-up does to its table: squared gradients by sample and row (n, rows), or summed over samples.

    Parameters
    ----------
    indices : Tensor (n, ...)
    grad : Tensor (n, ..., columns)
        Padding is a row like all others: it is rounded as they are.
    shape : (rows, columns)
    fine : bool
        Return (rows, columns), summed over samples.
    """
    total = grad.new_zeros(*(shape if fine else (len(grad), shape[0])))
    for sample, (own, slope) in enumerate(zip(indices.flatten(1), grad.flatten(1, -2), strict=True)):
        rows, place = own.unique(return_inverse=True)
        squares = slope.new_zeros(len(rows), shape[1]).index_add_(0, place, slope).square()
        if fine:
            total[rows] += squares
        else:
            total[sample, rows] = squares.sum(1)
    return total


def is_table(network: Network, use: Use) -> bool:
    """Return whether a call looks up rows of a parameter."""
    return op_of(network.nodes[use.node]) == "embedding" and not use.views


def _operand(network: Network, use: Use, weight: Tensor) -> Any:
    """Return what the call reads of a weight: a view of it, made as the network makes it."""
    operand: Any = weight
    for name in use.views:
        view = network.nodes[name]
        operand = view.target(operand, *view.args[1:], **view.kwargs)
    return operand


def _dimension(node: fx.Node, place: int | None) -> int:
    """Return where the samples are in the output of a call."""
    if place is not None:
        node = next(user for user in node.users if user.args[1] == place)
    batch = batch_place(node)
    assert batch is not None  # such calls are no uses of weights
    return batch[0]


def _part(name: Any, value: Any, sample: int, wide: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    value = value.to(wide) if value.is_floating_point() else value
    batch = batch_place(name)
    return value if batch is None else value.narrow(batch[0], sample, 1)


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, (tuple, list, dict))
