"""What the calls in front of a tensor say of its range: whether it can be negative, and where it ends.

Measuring asks :func:`clip_of` alone: where it says nothing, samples do. Problems that were not measured fall back on
:func:`clip_in_front`, the rule of the IMPQ authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, fx

from impq_opt.tracing.nodes import op_of
from impq_opt.tracing.operations import KEEP_SIGN

__all__ = ["CLIP", "clip_in_front", "clip_of", "is_rectified"]

CLIP = 4.0  # of an activation that no batch-norm precedes (IMPQ, authors' code)

_RECTIFIERS = frozenset(["relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "softplus"])
_PADS = frozenset(["constant_pad_nd", "pad"])


def is_rectified(node: fx.Node) -> bool:
    """Return whether a tensor cannot be negative because of the calls that make it."""
    op = op_of(node).rstrip("_")
    if op in _RECTIFIERS or (op == "hardtanh" and _ends(node)[0] >= 0):
        return True
    sources = node.all_input_nodes
    return (
        op in KEEP_SIGN
        and not (op in _PADS and _filled_below_zero(node))
        and bool(sources)
        and all(is_rectified(source) for source in sources)
    )


def clip_of(node: fx.Node, tensor: Callable[[object], Tensor | None]) -> tuple[float, str]:
    """Return where a rectifier's output ends, and the rule that says so; NaN and "" where none does.

    ``batch-norm``: the largest over channels of ``beta + 6 |gamma|`` of the batch-norm right in front of it (IMPQ,
    authors' code), at most 6 for ReLU6; ``rectifier``: where ReLU6 and its like end by themselves.
    """
    if op_of(node) not in ("relu", "relu6", "hardtanh"):
        return math.nan, ""
    low, high = (0.0, math.inf) if op_of(node) == "relu" else (0.0, 6.0) if op_of(node) == "relu6" else _ends(node)
    if low != 0:
        return math.nan, ""
    before = node.all_input_nodes[0]
    implied = _implied(before, tensor) if "batch_norm" in op_of(before) else None
    top, rule = (high, "rectifier") if implied is None or implied >= high else (implied, "batch-norm")
    return (top, rule) if 0 < top < math.inf else (math.nan, "")


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
            clip = _implied(source, tensor)
            if clip is not None:
                return clip if 0 < clip < math.inf else CLIP
        if not any(tensor(argument) is not None for argument in source.all_input_nodes):
            front += source.all_input_nodes
    return CLIP


def _implied(norm: fx.Node, tensor: Callable[[object], Tensor | None]) -> float | None:
    """Return the largest over channels of ``beta + 6 |gamma|``; None for a batch-norm without them."""
    gamma, beta = (tensor(argument) for argument in norm.args[1:3])
    return None if gamma is None or beta is None else float((beta + 6 * gamma.abs()).detach().max())


def _ends(node: fx.Node) -> tuple[float, float]:
    """Return the ends of a hardtanh, which are left out of the call where they are -1 and 1."""
    given = dict(zip(("min_val", "max_val"), node.args[1:], strict=False)) | dict(node.kwargs)
    return float(given.get("min_val", -1.0)), float(given.get("max_val", 1.0))  # type: ignore[arg-type]


def _filled_below_zero(node: fx.Node) -> bool:
    """Return whether a call pads with a negative number."""
    filled = node.kwargs.get("value", node.args[-1])
    return isinstance(filled, (int, float)) and filled < 0
