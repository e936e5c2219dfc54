"""A graph of half precision that computes in float32.

Gradients and squared margins of networks in float16 under- and overflow, and those in bfloat16 have three digits. So
such a network is measured in float32: with the weights that it has, exactly, and with all that it computes from them
to float32's precision. That changes logits by as much as half precision rounds them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

__all__ = ["HALVES", "widen_graph", "widened"]

HALVES = (torch.float16, torch.bfloat16)


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision as float32, any other as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def widen_graph(graph: fx.Graph) -> None:
    """Let calls that ask for half precision ask for float32."""

    def wide(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value

    for node in graph.nodes:
        if node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(wide, (tuple(node.args), dict(node.kwargs)))
