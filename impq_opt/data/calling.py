"""Calling a network on what it takes, and finding the logits in what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from impq_opt.data.batch import Several
from impq_opt.errors import DataError

__all__ = ["call", "logits_of", "place_of_logits", "register"]


def call(network: Callable[..., Any], inputs: Tensor | Several) -> Any:
    """Return what the network gives back for one tensor, or for several by position or keyword."""
    return network(*inputs.args, **inputs.kwargs) if isinstance(inputs, Several) else network(inputs)


def logits_of(output: Any) -> Tensor:
    """Return the logits (n, classes) in what a network gives back, as :func:`place_of_logits` finds them.

    Raises
    ------
    DataError
        There is no such tensor, or it is not clear which it is.
    """
    if isinstance(output, Tensor):
        return output
    register(output)
    leaves = pytree.tree_flatten_with_path(output)[0]
    shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for _, leaf in leaves]
    logits: Tensor = leaves[place_of_logits([path for path, _ in leaves], shapes)][1]
    return logits


def place_of_logits(paths: Sequence[tuple[Any, ...]], shapes: Sequence[tuple[int, ...]]) -> int:
    """Return which of the outputs of a network, out of all nesting, are the logits (n, classes).

    That which is called ``logits``; of a tuple or list the first of two dimensions, of a mapping or dataclass the only
    one.

    Parameters
    ----------
    paths : sequence of tuple
        Where each output is, as :func:`torch.utils._pytree.tree_flatten_with_path` tells.
    shapes : sequence of tuple of int
        () for what is no tensor.

    Raises
    ------
    DataError
        None is of two dimensions, or several are and nothing tells them apart.
    """
    flat = [place for place, shape in enumerate(shapes) if len(shape) == 2]
    called = [place for place in flat if "logits" in pytree.keystr(paths[place])]
    if not flat:
        raise DataError(
            "is not a classifier: its output must be one tensor of logits (samples, classes)",
            where="network",
            value=next((shape for shape in shapes if shape), "no tensor"),
            hint="wrap it in a module that returns the logits",
        )
    if not called and len(flat) > 1 and not isinstance(paths[flat[0]][0], pytree.SequenceKey):
        raise DataError(
            "returns several tensors of two dimensions by name, and none is called 'logits'",
            where="network",
            value=[pytree.keystr(paths[place]) for place in flat],
            hint="wrap it in a module that returns the logits",
        )
    return (called or flat)[0]


def register(output: Any) -> None:
    """Tell torch how to take apart what a network gives back, where it is a dataclass of the caller's own."""
    kind = type(output)
    if dataclasses.is_dataclass(output) and kind not in pytree.SUPPORTED_NODES:
        pytree.register_dataclass(kind)
