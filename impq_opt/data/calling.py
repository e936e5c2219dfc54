"""Calling a network on what it takes, and finding the logits in what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from impq_opt.data.batch import Several
from impq_opt.errors import DataError

STATES = "last_hidden_state"  # of an encoder without a head

__all__ = ["call", "flat_logits", "logits_of", "place_of_logits", "register"]


def call(network: Callable[..., Any], inputs: Tensor | Several) -> Any:
    """Return what the network gives back for one tensor, or for several by position or keyword."""
    return network(*inputs.args, **inputs.kwargs) if isinstance(inputs, Several) else network(inputs)


def logits_of(output: Any) -> Tensor:
    """Return the logits (n, classes) in what a network gives back, as :func:`place_of_logits` finds them.

    Of samples with several decisions, those of one after the other: (n * decisions, classes).

    Raises
    ------
    DataError
        There is no such tensor, or it is not clear which it is.
    """
    if isinstance(output, Tensor):
        return flat_logits(output)
    register(output)
    leaves = pytree.tree_flatten_with_path(output)[0]
    shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for _, leaf in leaves]
    logits: Tensor = leaves[place_of_logits([path for path, _ in leaves], shapes)][1]
    return flat_logits(logits)


def flat_logits(logits: Tensor) -> Tensor:
    """Return logits (n, decisions, classes) as (n * decisions, classes), and any others as they are."""
    return logits.flatten(0, 1) if logits.ndim == 3 else logits


def place_of_logits(paths: Sequence[tuple[Any, ...]], shapes: Sequence[tuple[int, ...]]) -> int:
    """Return which of the outputs of a network, out of all nesting, are the logits (n, classes).

    That which is called ``logits``, which may have a dimension of decisions in the middle, as language models have one
    at each token; of a tuple or list the first of two dimensions, of a mapping or dataclass the only one. Where there
    are none, the ``last_hidden_state`` of an encoder's tokens stands for them.

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
    called = [
        place for place, shape in enumerate(shapes) if len(shape) in (2, 3) and "logits" in pytree.keystr(paths[place])
    ]
    if not flat and not called:
        states = (place for place, shape in enumerate(shapes) if len(shape) == 3)
        called = [place for place in states if STATES in pytree.keystr(paths[place])]
    if not flat and not called:
        raise DataError(
            "is not a classifier: its output must be one tensor of logits (samples, classes)",
            where="network",
            value=next((shape for shape in shapes if shape), "no tensor"),
            hint="wrap it in a module that returns logits, or (samples, decisions, classes) under the name 'logits'",
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
