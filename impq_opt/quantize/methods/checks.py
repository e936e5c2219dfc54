"""What all quantizers ask of precisions, groups and options, and the module that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError, nearest
from impq_opt.groups.candidates import FLOAT_BITS

__all__ = [
    "ALL_WIDTHS",
    "FLOAT_BITS",
    "MOST_BITS",
    "Kept",
    "check_choice",
    "check_sizes",
    "exact",
    "through",
    "whole_bits",
    "widths_text",
]

# Codes are whole numbers held in float32 while training; 16 bits leave that exact with room to spare.
MOST_BITS = 16
ALL_WIDTHS = range(1, MOST_BITS + 1)


class Kept(nn.Module):
    """A module whose buffers move with the network and keep their type."""

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        """Move buffers with the network, and keep their type: whole numbers of 16 bits do not fit half precision."""
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            assert moved is not None
            self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        return self


def whole_bits(
    bits: npt.ArrayLike, widths: Sequence[int] = ALL_WIDTHS, who: str = "integer quantizers take"
) -> npt.NDArray[np.int64]:
    """Return precisions as whole numbers.

    Raises
    ------
    OptionError
        Unless each is one of ``widths``; ``who`` begins the sentence.
    """
    asked = np.atleast_1d(np.asarray(bits, dtype=np.float64))
    wrong = ~np.isin(asked, widths)
    if wrong.any():
        raise OptionError(
            f"{who} whole precisions of {widths_text(widths)}",
            where="bits",
            value=float(asked[wrong][0]),
        )
    return asked.astype(np.int64)


def widths_text(widths: Sequence[int]) -> str:
    """Return precisions as people read them: ``1 to 16 bits``, ``2 bits``."""
    ends = f"{min(widths)} to {max(widths)}" if len(widths) > 1 else f"{widths[0]}"
    return ends + (" bit" if ends == "1" else " bits")


def check_sizes(shape: tuple[int, ...], bits: npt.NDArray[np.int64], sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the sizes of groups; raise OptionError unless there is one for each precision and they are the weight."""
    runs = np.asarray(sizes, dtype=np.int64)
    if bits.shape != runs.shape or runs.sum() != math.prod(shape) or (runs < 1).any():
        raise OptionError(
            "group sizes must add up to the weight",
            where="sizes",
            value=int(runs.sum()),
            hint=f"the weight has shape {list(shape)}",
        )
    return runs


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise OptionError unless an option has one of its known values."""
    if value not in known:
        raise OptionError("unknown choice", where=f"range.{name}", value=value, hint=nearest(str(value), known))


def exact(weight: Tensor) -> Tensor:
    """Return the weight in the type of the arithmetic: float32 for half precision, whose steps would not be equal."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def through(taking: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded``, whose gradient goes to ``taking`` unchanged."""
    passed: Tensor = _Through.apply(taking, rounded)  # type: ignore[no-untyped-call]
    return passed


class _Through(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(taking: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].to(ctx.dtype), None
