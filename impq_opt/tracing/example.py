"""What a network takes, as a problem's provenance keeps it, and an example made from that, to trace with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from impq_opt.data.batch import Several, parts_of
from impq_opt.errors import DataError
from impq_opt.tracing.nodes import EXAMPLES

__all__ = ["describe_input", "example_of"]


def describe_input(x: Tensor | Several) -> dict[str, Any]:
    """Return what tells how to make inputs like ``x`` (n, ...): a sample's shape, the type, whole numbers' range.

    Of several inputs, that of each, by its place or keyword.
    """
    if isinstance(x, Several):
        return {"inputs": {name: describe_input(part) for name, part in parts_of(x.inputs).items()}}
    about: dict[str, Any] = {"shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch.")}
    if not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool) and x.numel():
        about["range"] = [int(x.min()), int(x.max())]
    return about


def example_of(about: Any) -> Tensor | Several:
    """Return random inputs (2, ...) as :func:`describe_input` tells: the same at every call, and all of them different.

    Raises
    ------
    DataError
        ``about`` is no such description.
    """
    try:
        assert isinstance(about, Mapping)
        if "inputs" in about:
            parts: dict[str, Any] = {name: example_of(part) for name, part in about["inputs"].items()}
            return Several(tuple(parts.values()) if all(name.isdecimal() for name in parts) else parts)
        shape = [EXAMPLES, *(int(size) for size in about["shape"])]
        kind = getattr(torch, about["dtype"])
        assert isinstance(kind, torch.dtype)
        generator = torch.Generator().manual_seed(0)
        if kind.is_floating_point or kind.is_complex:
            return torch.randn(shape, generator=generator).to(kind)
        low, high = (int(end) for end in about.get("range", (0, 1)))
        return torch.randint(low, high + 1, shape, generator=generator).to(kind)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            "does not describe what the network takes",
            where="provenance: input",
            value=about,
            hint='as measure writes it: {"shape": [3, 32, 32], "dtype": "float32"}',
        ) from error
