"""Per-sample gradients of weights through calls without a formula of their own: products, look-ups, recurrent layers.

The call is repeated on what it read, and torch's own derivative of it is taken, for many samples at once: torch.func
turns the call of one sample into that of a batch, recurrent layers step by step. What it has no rule for, as sums over
bags, goes sample by sample.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from impq_opt.tracing.graph import Network
from impq_opt.tracing.nodes import batch_place, op_of
from impq_opt.tracing.sites import Use, WeightSite

__all__ = ["call_gradients", "is_table", "table_squares"]

_LOOPED = frozenset(["bilinear", "embedding", "embedding_bag"])
_PORTION = 1 << 21  # elements of gradients at once: 8 MiB of float32


@contextlib.contextmanager
def _step_by_step() -> Iterator[None]:
    """Let recurrent layers be made of steps that samples can share, not of one call of a library."""
    kinds = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [kind.set_flags(False)[0] for kind in kinds]
    try:
        yield
    finally:
        for kind, enabled in zip(kinds, before, strict=True):
            kind.set_flags(enabled)


def call_gradients(
    network: Network, site: WeightSite, use: Use, args: tuple[Any, ...], grad: Tensor, place: int | None
) -> Iterator[Tensor]:
    """Yield the gradients (m, out, inputs) of a weight through one call, of some samples each.

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
    leaves, nesting = pytree.tree_flatten(args)
    values = [_widened(value, wide) for value in leaves]
    ours = [isinstance(name, fx.Node) and name.name == use.operand for name in names]
    held = (i for i, value in enumerate(values) if isinstance(value, Tensor) and not ours[i])
    apart = {i: batch[0] for i in held if (batch := batch_place(names[i])) is not None}  # where samples are
    dimension = _dimension(node, place)

    def scalar(weight: Tensor, slope: Tensor, *parts: Tensor) -> Tensor:
        """Return what has the gradient of one sample."""
        operand, own = _operand(network, use, weight), dict(zip(apart, parts, strict=True))
        given = [
            operand if ours[i] else own[i].unsqueeze(apart[i]) if i in own else value for i, value in enumerate(values)
        ]
        out = node.target(*pytree.tree_unflatten(given, nesting), **node.kwargs)
        out = out if place is None else out[place]
        return (out * slope.unsqueeze(dimension).to(out.dtype)).sum()

    weight = network.weight_tensor(site).to(wide)
    batched = [(grad, dimension), *((values[i], at) for i, at in apart.items())]
    gradient = torch.func.grad(scalar)
    together = torch.func.vmap(gradient, in_dims=(None, *(at for _, at in batched)))
    looped = op_of(node) in _LOOPED
    rows = 1 if looped else max(1, _PORTION // weight.numel())
    for start in range(0, grad.shape[dimension], rows):
        some = [part.narrow(at, start, min(rows, part.shape[at] - start)) for part, at in batched]
        if looped:
            one = (part.squeeze(at) for part, (_, at) in zip(some, batched, strict=True))
            yield gradient(weight, *one).flatten(1)[None]
            continue
        with _step_by_step():
            each = together(weight, *some)
        yield each.flatten(2)


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


def _widened(value: Any, wide: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return value.to(wide) if value.is_floating_point() else value


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, (tuple, list, dict))
