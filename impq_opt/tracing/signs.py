"""What the calls in front of a tensor say of its range: whether it can be negative, and what its batch-norm implies.

For problems that say neither: those that were measured do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, fx

from impq_opt.tracing.nodes import op_of

__all__ = ["CLIP", "clip_in_front", "is_rectified"]

CLIP = 4.0  # of an activation that no batch-norm precedes (IMPQ, authors' code)

_RECTIFIERS = frozenset(["relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "softplus"])
# What is not negative stays so through these.
_KEEP_SIGN = frozenset([
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "add", "alias",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "cat", "clone", "concat", "constant_pad_nd", "contiguous", "detach",
    "dropout", "flatten", "getitem", "max_pool1d", "max_pool2d", "max_pool3d", "mean", "mul", "pad", "permute",
    "reshape", "squeeze", "sum", "to", "transpose", "unsqueeze", "upsample_bilinear2d", "upsample_nearest2d", "view",
])  # fmt: skip


def is_rectified(node: fx.Node) -> bool:
    """Return whether a tensor cannot be negative because of the calls that make it."""
    op = op_of(node).rstrip("_")
    if op in _RECTIFIERS or (op == "hardtanh" and _least(node) >= 0):
        return True
    sources = node.all_input_nodes
    return op in _KEEP_SIGN and bool(sources) and all(is_rectified(source) for source in sources)


def clip_in_front(node: fx.Node, tensor: Callable[[object], Tensor | None]) -> float:
    """Return max over channels of (beta + 6 abs(gamma)) of the batch-norm before an activation, its clip value.

    4 where none is found before a layer with parameters (IMPQ, authors' code). Behind a residual addition it is the
    nearest batch-norm's, that of the main branch, as in the authors' code; what is added is not accounted for.

    Parameters
    ----------
    tensor : callable
        Returns the parameter or buffer that an argument of a call stands for, None for all else.
    """
    front, seen = list(node.all_input_nodes), set[fx.Node]()
    while front:
        source = front.pop(0)
        if source in seen:
            continue
        seen.add(source)
        if op_of(source) == "batch_norm":
            gamma, beta = (tensor(argument) for argument in source.args[1:3])
            if gamma is not None and beta is not None:
                clip = float((beta + 6 * gamma.abs()).detach().max())
                return clip if 0 < clip < math.inf else CLIP
        if not any(tensor(argument) is not None for argument in source.all_input_nodes):
            front += source.all_input_nodes
    return CLIP


def _least(node: fx.Node) -> float:
    least = node.args[1] if len(node.args) > 1 else node.kwargs.get("min_val", -1.0)
    return float(least)  # type: ignore[arg-type]
