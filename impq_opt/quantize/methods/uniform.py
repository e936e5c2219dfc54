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

__all__ = ["Uniform", "WeightQuantizer", "inverse"]

_ROWS = range(MOST_BITS + 1)
# Ranges below this are zero: 1 / step would overflow.
_LEAST_STEP = 2.0**-120
_HELD = "held_"  # names of the buffers of a grid that is kept
# Places of the outermost level that are tried where errors are made least.
_SHARES = 64


@dataclass(frozen=True)
class Uniform(Method):
    """A grid ``(code + offset) step`` with 2^B codes; the step is a factor times the scale of a range.

    Parameters
    ----------
    over : {"kernel", "group", "tensor"} or a number
        The weights that share one scale: an output kernel, a group of the allocation, the whole tensor, or so many
        consecutive ones of a kernel (``"32"``), as formats with blocks have it. The last ones of a kernel have a scale
        of their own where they are fewer; groups are whole kernels then. ``"32/4"`` says so of weights of at most 4
        bits; wider ones have a scale a kernel, and a weight has one precision.
    statistic : {"max", "mse"}
        ``max``: the outermost levels are at the largest weight. ``mse``: they are where the squared error of the range
        is least, at each precision, of 64 places between a 64th of the largest weight and itself; weights beyond are
        clipped.
    """

    offset: ClassVar[float]
    statistics: ClassVar[tuple[str, ...]] = ("max", "mse")

    over: str = "kernel"
    statistic: str = "max"

    def __post_init__(self) -> None:
        block, _, most = self.over.partition("/")
        if not (block.isdecimal() and int(block) > 1 and (most.isdecimal() or "/" not in self.over)):
            check_choice("over", self.over, ("kernel", "group", "tensor"))
        check_choice("statistic", self.statistic, self.statistics)

    @abstractmethod
    def factor(self, bits: int) -> float:
        """Return the step at ``bits`` in units of the scale."""

    @abstractmethod
    def ends(self, values: Tensor, shared: tuple[int, ...]) -> dict[str, Tensor]:
        """Return what tells the grid of each range, ``"scale"`` at least, where nothing is clipped.

        Parameters
        ----------
        values : Tensor
        shared : tuple of int
            The dimensions of ``values`` that a range has, which stay; none where a range is a weight.
        """

    def grid(self, side: Mapping[str, Tensor], factors: Tensor, spread: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return step and offset, broadcastable to the weights.

        Parameters
        ----------
        side : mapping of str to Tensor
            As of :meth:`side`.
        factors, spread : Tensor
            The :meth:`factor` and the precision of every weight, broadcastable.
        """
        return side["scale"] * factors, self.offset

    def side(
        self, values: Tensor, shared: tuple[int, ...], spread: Tensor, importance: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return what tells the grid of each range; of each range at each precision where errors are made least.

        Parameters
        ----------
        values, shared
            As of :meth:`ends`.
        spread : Tensor
            The precision of every weight, broadcastable.
        importance : Tensor, optional
            What a squared error of each weight counts, broadcastable to ``values``: ranges are those of the least sum
            of errors then, whatever the ``statistic``.
        """
        side = self.ends(values, shared)
        if self.statistic != "mse" and importance is None:
            return side
        fitted: dict[str, Tensor] = {}
        for bits in spread.unique().tolist():
            own = self._least_error(values, shared, side, int(bits), importance)
            fitted = {name: torch.where(spread == bits, own[name], fitted.get(name, own[name])) for name in own}
        return fitted

    def _least_error(
        self,
        values: Tensor,
        shared: tuple[int, ...],
        side: Mapping[str, Tensor],
        bits: int,
        importance: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return ``side`` with every range as much shorter as makes its squared error least."""
        factors, spread = torch.tensor(self.factor(bits)).to(values), torch.tensor(bits)
        least, most = (torch.tensor(float(end)).to(values) for end in self.limits(bits))
        best = error = None
        for share in torch.arange(_SHARES, 0, -1).to(values) / _SHARES:
            step, offset = self.grid({name: share * tensor for name, tensor in side.items()}, factors, spread)
            rounded = _codes(values, step, least, most, offset).add_(offset).mul_(step)
            squares = rounded.sub_(values).square_()
            squares = squares if importance is None else squares.mul_(importance)
            total = squares.sum(dim=shared, keepdim=True) if shared else squares
            if best is None or error is None:
                best, error = share.expand(total.shape), total
            else:
                best, error = torch.where(total < error, share, best), torch.minimum(total, error)
        assert best is not None
        return {name: best * tensor for name, tensor in side.items()}

    def over_at(self, bits: npt.NDArray[np.int64]) -> str:
        """Return ``over`` for a weight whose groups have ``bits``.

        Raises
        ------
        OptionError
            It depends on the bits, and the groups differ.
        """
        block, _, most = self.over.partition("/")
        if not most:
            return self.over
        few = bits <= int(most)
        if few.any() and not few.all():
            raise OptionError(
                "ranges that depend on the bits need one precision a weight", where="range.over", value=self.over
            )
        return block if few.any() else "kernel"

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
        """Return ``2 max abs(w)`` (out,), float64, of the range of every output kernel; None over parts of kernels."""
        if self.statistic != "max" or self.over not in ("kernel", "tensor"):
            return None
        largest = weight.detach().flatten(1).abs().amax(1).double()
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
    spread: Tensor

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
        over = chosen.over_at(widths)
        self.view, self.shared, spread = _view(self.shape, widths, runs, over)
        self.block = _short_block(self.shape, over)
        rows = [(*chosen.limits(b), chosen.factor(b)) if b in chosen.widths else (0, 0, 0.0) for b in _ROWS]
        least, most, factors = (
            torch.tensor(column).float()[torch.from_numpy(spread)] for column in zip(*rows, strict=True)
        )
        # Not persistent: they follow from the allocation, and a latent state dict stays that of the float network.
        self.register_buffer("least", least, persistent=False)
        self.register_buffer("most", most, persistent=False)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("spread", torch.from_numpy(spread), persistent=False)

    def hold(self, side: Mapping[str, Tensor]) -> None:
        """Keep a grid, as :meth:`side` told it of a weight, whatever the latent weight becomes.

        It is part of the quantizer's state, and a quantizer that is given such a state holds its grid too.
        """
        for name, tensor in side.items():
            self.register_buffer(f"{_HELD}{name}", tensor.detach().clone())

    @property
    def held(self) -> dict[str, Tensor]:
        """The grid that is held; empty where it follows from the latent weight."""
        return {n.removeprefix(_HELD): b for n, b in self._buffers.items() if n.startswith(_HELD) and b is not None}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        own = prefix + _HELD
        self.hold({name.removeprefix(own): kept for name, kept in state_dict.items() if name.startswith(own)})
        super()._load_from_state_dict(state_dict, prefix, *others)

    def grid(self, side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | float]:
        """Return step and offset of every weight, broadcastable to ``view``."""
        if self.block:
            side = {n: t.repeat_interleave(self.block, 1)[:, : self.view[1]] for n, t in side.items()}
        return self.method.grid(side, self.factors, self.spread)

    def codes(self, weight: Tensor) -> Tensor:
        step, offset = self.grid(self.side(weight))
        values = exact(weight.detach()).reshape(self.view)
        signed = _codes(values, step, self.least, self.most, offset)
        kind = torch.uint8 if float((self.most - self.least).max()) < 256 else torch.int32
        return (signed - self.least).reshape(self.shape).to(kind)

    def side(self, weight: Tensor) -> dict[str, Tensor]:
        return self.held or self._side(exact(weight.detach()).reshape(self.view), None)

    def fitted(self, weight: Tensor, importance: Tensor) -> dict[str, Tensor]:
        """Return the grid of least squared error of a weight, an error counting as much as its ``importance`` says."""
        values, counts = (exact(tensor.detach()).reshape(self.view) for tensor in (weight, importance))
        return self._side(values, counts)

    def _side(self, values: Tensor, importance: Tensor | None) -> dict[str, Tensor]:
        """Return what tells the grid of each range; with a short last one, whole blocks and last ones side by side."""
        if not self.block:
            return self.method.side(values, self.shared, self.spread, importance)
        length = values.shape[1]
        whole, spread = length // self.block * self.block, self.spread[:, :, None]
        parts = []
        for place, size in ((slice(0, whole), self.block), (slice(whole, length), length - whole)):
            if place.stop > place.start:
                counts = None if importance is None else importance[:, place].unflatten(1, (-1, size))
                own = values[:, place].unflatten(1, (-1, size))
                parts.append(self.method.side(own, (2,), spread, counts))
        return {name: torch.cat([part[name] for part in parts], 1)[:, :, 0] for name in parts[0]}

    def values(self, codes: Tensor, side: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        scale = side["scale"]
        signed = codes.reshape(self.view).to(scale.dtype) + self.least
        step, offset = self.grid(side)
        return ((signed + offset) * step).reshape(self.shape).to(dtype or scale.dtype)

    def rounded(self, weight: Tensor) -> Tensor:
        step, offset = self.grid(self.side(weight))
        rounded: Tensor = _Round.apply(weight, step, self.least, self.most, offset, self.view)  # type: ignore[no-untyped-call]
        return rounded

    def extra_repr(self) -> str:
        bits = self.group_bits
        return f"{self.method.spec}, {len(bits)} groups, {bits.min()}..{bits.max()} bits"


class _Round(torch.autograd.Function):
    """Rounding to a uniform grid, whose gradient is the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: Tensor, step: Tensor, least: Tensor, most: Tensor, offset: Tensor | float, view: tuple[int, ...]
    ) -> Tensor:
        codes = _codes(exact(weight).reshape(view), step, least, most, offset)
        return codes.add_(offset).mul_(step).reshape(weight.shape).to(weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return gradients[0], None, None, None, None, None


def _codes(weight: Tensor, step: Tensor, least: Tensor, most: Tensor, offset: Tensor | float) -> Tensor:
    """Return the signed codes, as whole floats; a range whose weights are all zero has step 0 and codes 0."""
    return (weight * inverse(step)).sub_(offset).round_().clamp_(least, most)


def inverse(step: Tensor) -> Tensor:
    """Return ``1 / step``, finite where the step is 0."""
    return step.abs().clamp_(min=_LEAST_STEP).reciprocal_().copysign_(step)


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
    named = not over.isdecimal()
    for leading in range(min(3, len(shape) + 1)):  # one group; a group per kernel; a group per slice
        if named and even and count == math.prod(shape[:leading]):
            spread = bits.reshape(*shape[:leading], *(1,) * (len(shape) - leading))
            first = {"kernel": 1, "group": leading, "tensor": 0}[over]
            return shape, tuple(range(first, len(shape))), spread
    if _short_block(shape, over):
        kernel = math.prod(shape[1:])
        if (sizes % kernel).any():
            raise OptionError(
                f"ranges over {over} weights with a short last one need groups of whole output kernels",
                where="range.over",
                value=f"kernels of {kernel}",
                hint="use kernel for this weight, or a size that divides it",
            )
        return (shape[0], kernel), (1,), np.repeat(bits, sizes // kernel)[:, None]
    rows = {"kernel": shape[0], "group": count, "tensor": 1}.get(over) or total // int(over)
    if even and count % rows == 0:
        return (rows, count // rows, total // count), (1, 2), bits.reshape(rows, count // rows, 1)
    if even and rows % count == 0:
        return (rows, 1, total // rows), (1, 2), np.repeat(bits, rows // count).reshape(rows, 1, 1)
    return (rows, total // rows, 1), (1, 2), np.repeat(bits, sizes).reshape(rows, total // rows, 1)


def _short_block(shape: tuple[int, ...], over: str) -> int:
    """Return of how many weights ranges are where the last one of a kernel has fewer; else 0."""
    return int(over) if over.isdecimal() and math.prod(shape[1:]) % int(over) else 0
