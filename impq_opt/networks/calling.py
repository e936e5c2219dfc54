"""Calling a network on what it takes, and finding the logits in what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from impq_opt.data.batch import Several
from impq_opt.errors import DataError

__all__ = ["call", "logits_of"]


def call(network: nn.Module, inputs: Tensor | Several) -> Any:
    """Return what the network gives back for one tensor, or for several by position or keyword."""
    return network(*inputs.args, **inputs.kwargs) if isinstance(inputs, Several) else network(inputs)


def logits_of(output: Any) -> Tensor:
    """Return the logits (n, classes) in what a network gives back.

    A tensor; the first of a tuple or list; of a mapping, a dataclass or a named tuple what is called ``logits``, or
    else its only tensor of two dimensions.

    Raises
    ------
    DataError
        There is no such tensor, or there are several.
    """
    if isinstance(output, Tensor):
        return output
    named = _named(output)
    if named is None:
        if isinstance(output, (tuple, list)) and output:
            return logits_of(output[0])
        raise DataError("must return logits (n, classes)", where="network", value=type(output).__name__)
    if named.get("logits") is not None:
        return logits_of(named["logits"])
    candidates = [name for name, value in named.items() if isinstance(value, Tensor) and value.ndim == 2]
    if len(candidates) != 1:
        raise DataError(
            "must return logits (n, classes): one tensor, the first of a tuple, or what is called 'logits'",
            where="network",
            value=sorted(map(str, named)),
            hint="wrap it in a module that returns the logits alone",
        )
    chosen: Tensor = named[candidates[0]]
    return chosen


def _named(output: Any) -> dict[Any, Any] | None:
    """Return the parts of an output that has names for them."""
    if isinstance(output, Mapping):
        return dict(output)
    if dataclasses.is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    return None
