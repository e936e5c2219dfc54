"""Grids of equal steps, whose precisions may differ from group to group inside one tensor.

They are deterministic functions of the latent float tensor, applied at every forward pass, with straight-through
gradients. Nothing here knows problems or networks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.errors import OptionError
from impq_opt.quantize.methods import load_method
from impq_opt.quantize.methods.base import MOST_BITS, Method, Quantizer, check_choice, check_sizes, exact, whole_bits

__all__ = ["Uniform", "WeightQuantizer"]

_ROWS = range(MOST_BITS + 1)
# Ranges below this are zero: 1 / step would overflow.
_LEAST_STEP = 2.0**-120


@dataclass(frozen=True)
class Uniform(Method):
    """A grid ``(code + offset) step`` with 2^B codes; the step is a factor times the scale of a range.

    Parameters
    ----------
    over : {"kernel", "group", "tensor"}
        The weights that share one scale: an output kernel, a group of the allocation, or the whole tensor.
    """

    offset: ClassVar[float]

    over: str = "kernel"

    def __post_init__(self) -> None:
        check_choice("over", self.over, ("kernel", "group", "tensor"))

    @abstractmethod
    def factor(self, bits: int) -> float:
        """Return the step at ``bits`` in units of the scale."""

    @abstractmethod
    def scale(self, values: Tensor, shared: tuple[int, ...]) -> Tensor:
        """Return the scale of each range; ``shared`` are its dimensions, which stay, none where a range is a weight."""

    def scale_one_bit(self, values: Tensor, shared: tuple[int, ...]) -> Tensor | None:
        """Return the scale of groups of one bit, half their step, where they have one of their own."""
        return None

    def limits(self, bits: int) -> tuple[int, int]:
        """Return the least and the largest code at ``bits``."""
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def levels(self, bits: int) -> int:
        least, most = self.limits(bits)
        return most - least + 1

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> WeightQuantizer:
        return WeightQuantizer(shape, bits, sizes, self)

    def spans(self, weight: Tensor) -> Tensor | None:
        """Return ``2 max abs(w)`` (out,), float64, of the range of every output kernel; None over groups."""
        largest = weight.detach().flatten(1).abs().amax(1).double()
        if self.over == "group":
            return None
        return 2 * (largest if self.over == "kernel" else largest.max().expand(len(largest)))


class WeightQuantizer(Quantizer):
    """Quantizer of one weight on a uniform grid; see :class:`Uniform`.

    Parameters
    ----------
    shape, bits, sizes
        As in :meth:`Method.quantizer`.
    method : Uniform or str, optional
        ``mid-rise`` unless given.

    Raises
    ------
    OptionError
        A precision that is not one of 1 to 16 bits, or groups that are not the weight.
    """

    method: Uniform
    least: Tensor
    most: Tensor
    factors: Tensor
    single: Tensor

    def __init__(
        self,
        shape: tuple[int, ...] | torch.Size,
        bits: npt.ArrayLike,
        sizes: npt.ArrayLike,
        method: Uniform | str | None = None,
    ) -> None:
        super().__init__()
        chosen = load_method(method or "mid-rise")
        assert isinstance(chosen, Uniform)
        self.shape, self.method = tuple(shape), chosen
        widths = whole_bits(bits, chosen.widths, f"{chosen.name} has")
        runs = check_sizes(self.shape, widths, sizes)
        self.group_bits, self.group_sizes = widths, runs
        self.view, self.shared, spread = _view(self.shape, widths, runs, chosen.over)
        rows = [(*chosen.limits(b), chosen.factor(b)) if b in chosen.widths else (0, 0, 0.0) for b in _ROWS]
        least, most, factors = (
            torch.tensor(column).float()[torch.from_numpy(spread)] for column in zip(*rows, strict=True)
        )
        # Not persistent: they follow from the allocation, and a latent state dict stays that of the float network.
        self.register_buffer("least", least, persistent=False)
        self.register_buffer("most", most, persistent=False)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("single", torch.from_numpy(spread == 1), persistent=False)
        self.has_single = bool((spread == 1).any())

    def scales(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scale of each range, and that of one-bit groups where they have one of their own."""
        values = exact(weight.detach()).reshape(self.view)
        single = self.method.scale_one_bit(values, self.shared) if self.has_single else None
        return self.method.scale(values, self.shared), single

    def steps(self, scale: Tensor, single: Tensor | None) -> Tensor:
        """Return the step of every weight, broadcastable to ``view``."""
        step = scale * self.factors
        return step if single is None else torch.where(self.single, 2 * single, step)

    def codes(self, weight: Tensor) -> Tensor:
        step = self.steps(*self.scales(weight))
        values = exact(weight.detach()).reshape(self.view)
        signed = _codes(values, step, self.least, self.most, self.method.offset)
        kind = torch.uint8 if float((self.most - self.least).max()) < 256 else torch.int32
        return (signed - self.least).reshape(self.shape).to(kind)

    def side(self, weight: Tensor) -> dict[str, Tensor]:
        scale, single = self.scales(weight)
        return {"scale": scale} if single is None else {"scale": scale, "scale_one_bit": single}

    def values(self, codes: Tensor, side: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        scale = side["scale"]
        signed = codes.reshape(self.view).to(scale.dtype) + self.least
        values = (signed + self.method.offset) * self.steps(scale, side.get("scale_one_bit"))
        return values.reshape(self.shape).to(dtype or scale.dtype)

    def rounded(self, weight: Tensor) -> Tensor:
        step = self.steps(*self.scales(weight))
        rounded: Tensor = _Round.apply(weight, step, self.least, self.most, self.method.offset, self.view)  # type: ignore[no-untyped-call]
        return rounded

    def extra_repr(self) -> str:
        bits = self.group_bits
        return f"{self.method.spec}, {len(bits)} groups, {bits.min()}..{bits.max()} bits"


class _Round(torch.autograd.Function):
    """Rounding to a uniform grid, whose gradient is the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: Tensor, step: Tensor, least: Tensor, most: Tensor, offset: float, view: tuple[int, ...]
    ) -> Tensor:
        codes = _codes(exact(weight).reshape(view), step, least, most, offset)
        return codes.add_(offset).mul_(step).reshape(weight.shape).to(weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return gradients[0], None, None, None, None, None


def _codes(weight: Tensor, step: Tensor, least: Tensor, most: Tensor, offset: float) -> Tensor:
    """Return the signed codes, as whole floats; a range whose weights are all zero has step 0 and codes 0."""
    inverse = step.abs().clamp_(min=_LEAST_STEP).reciprocal_().copysign_(step)
    return (weight * inverse).sub_(offset).round_().clamp_(least, most)


def _view(
    shape: tuple[int, ...], bits: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], over: str
) -> tuple[tuple[int, ...], tuple[int, ...], npt.NDArray[np.int64]]:
    """Return how to look at the weight, the dimensions that share a scale, and bits that broadcast to it.

    Layers, kernels and slices are looked at in the weight's own shape, which keeps its memory format; blocks as
    (ranges, runs, run length); groups of unequal sizes as runs of one element.
    """
    total, count = math.prod(shape), len(bits)
    even = bool((sizes == sizes[0]).all())
    if over == "group" and not even:
        raise OptionError(
            "ranges over groups need groups of one size in each weight",
            where="range.over",
            value=over,
            hint="use kernel",
        )
    for leading in range(min(3, len(shape) + 1)):  # one group; a group per kernel; a group per slice
        if even and count == math.prod(shape[:leading]):
            spread = bits.reshape(*shape[:leading], *(1,) * (len(shape) - leading))
            first = {"kernel": 1, "group": leading, "tensor": 0}[over]
            return shape, tuple(range(first, len(shape))), spread
    rows = {"kernel": shape[0], "group": count, "tensor": 1}[over]
    if even and count % rows == 0:
        return (rows, count // rows, total // count), (1, 2), bits.reshape(rows, count // rows, 1)
    return (rows, total // rows, 1), (1, 2), np.repeat(bits, sizes).reshape(rows, total // rows, 1)
