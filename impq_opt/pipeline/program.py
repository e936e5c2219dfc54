"""The quantized network as a program of torch.export, which torch alone loads."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from impq_opt.data.batch import Structure, mapped
from impq_opt.errors import first_line
from impq_opt.quantize import unpack_into

__all__ = ["program_bytes"]


def program_bytes(network: nn.Module, packed: Path, example: Structure) -> tuple[bytes | None, str]:
    """Return the file of a program that computes what a packed network does, for batches of any size.

    Parameters
    ----------
    network : nn.Module
        The float network.
    packed : Path
    example : Tensor, tuple of Tensor or dict of str to Tensor
        Inputs (2, ...).

    Returns
    -------
    bytes or None, str
        What ``torch.export.load`` reads; and why there is none, or "".
    """
    plain = unpack_into(network, packed, example=example).eval().cpu()
    for tensor in (*plain.parameters(), *plain.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)  # saved whole, not as a view of a file
    batch = torch.export.Dim("batch", min=1)
    given = mapped(Tensor.cpu, example)
    inputs = (given,) if isinstance(given, Tensor) else given if isinstance(given, tuple) else ()
    keywords = given if isinstance(given, dict) else {}
    if keywords:
        plain.forward = _named(plain.forward, tuple(keywords))
    # Shapes have the structure of the arguments: whoever takes any number of them has a tuple of them.
    taken = inspect.signature(plain.forward).bind(*inputs, **keywords)
    shapes = tree_map(lambda _: {0: batch}, taken.arguments)
    try:
        with torch.no_grad():
            program = torch.export.export(plain, inputs, keywords, dynamic_shapes=shapes)
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
    except Exception as error:
        return None, f"torch.export makes no program of the quantized network: {first_line(error)}"
    return buffer.getvalue(), ""


def _named(forward: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Return a function that says which keywords it takes: torch.export knows no shapes of any number of them."""

    def called(*inputs: Any, **keywords: Any) -> Any:
        return forward(*inputs, **keywords)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
