"""The quantizers of the IMPQ paper, with precisions that may differ from group to group inside one tensor.

Both are deterministic functions of the latent float tensor, applied at every forward pass, with straight-through
gradients. Nothing here knows problems or networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError, nearest

__all__ = ["MOST_BITS", "ActivationQuantizer", "WeightQuantizer", "WeightRange"]

# Codes are whole numbers held in float32 while training; 16 bits leave that exact with room to spare.
MOST_BITS = 16

# Steps of the uniform mid-rise quantizer of least mean squared error for a unit normal variable, 1 to 8 bits
# (J. Max, "Quantizing for minimum distortion", IRE Trans. Information Theory 6, 1960, table II; 6 bits and more by the
# same equation, minimised numerically). Beyond 8 bits overload no longer matters and the largest weight is used.
_NORMAL_STEPS = (1.5958, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)


# Ranges below this are zero: 1 / step would overflow.
_LEAST_STEP = 2.0**-120


@dataclass(frozen=True)
class WeightRange:
    """What a weight quantizer spans, recomputed from the latent weights at every forward pass.

    Parameters
    ----------
    over : {"kernel", "group", "tensor"}
        The weights that share one scale: an output kernel (the authors' code), a group of the allocation, or the
        whole tensor.
    statistic : {"max", "normal"}
        ``max``: the span is 2 max abs(w), as in the paper. ``normal``: the step of least squared error for normal
        weights of the same root mean square, per precision (Max 1960); it clips outliers and pays at 3 bits and less.
    one_bit : {"max", "mean"}
        Levels of a group of one bit: +- max abs(w) / 2, which is the paper's formula, or +- mean abs(w) (BWN).
    """

    over: str = "kernel"
    statistic: str = "max"
    one_bit: str = "max"

    def __post_init__(self) -> None:
        allowed = {"over": ("kernel", "group", "tensor"), "statistic": ("max", "normal"), "one_bit": ("max", "mean")}
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values:
                raise OptionError(
                    "unknown choice", where=f"range.{name}", value=value, hint=nearest(str(value), values)
                )

    def factor(self, bits: int) -> float:
        """Return the step of ``bits`` bits in units of the scale (largest or root mean square weight)."""
        if self.statistic == "normal" and bits <= len(_NORMAL_STEPS):
            return _NORMAL_STEPS[bits - 1]
        # Beyond the table the root mean square is taken to span +-4.
        return 2.0 ** (1 - bits) * (4.0 if self.statistic == "normal" else 1.0)


class WeightQuantizer(nn.Module):
    """Mid-rise uniform quantizer of a weight tensor, for use as a torch parametrization.

    With scale M of a weight's range, ``code = clamp(round(w / step - 1/2), -2^(B-1), 2^(B-1) - 1)`` and
    ``value = (code + 1/2) step``, where step = 2 M 2^-B: there is no zero level (IMPQ, authors' code, which clamps w/2M
    to +-(0.5 - 1e-6) instead of the code; the values are the same). The gradient passes unchanged to the latent weight.

    Parameters
    ----------
    shape : sequence of int
        Of the weight; output kernels first.
    bits : array of int (G,)
        Precision of each group; groups are consecutive runs of the weight in C order.
    sizes : array of int (G,)
        Elements of each group; together they are the weight.
    scheme : WeightRange
    """

    least: Tensor
    most: Tensor
    factors: Tensor
    single: Tensor

    def __init__(
        self,
        shape: tuple[int, ...] | torch.Size,
        bits: npt.ArrayLike,
        sizes: npt.ArrayLike,
        scheme: WeightRange | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.scheme = tuple(shape), scheme or WeightRange()
        widths = _whole_bits(bits)
        runs = np.asarray(sizes, dtype=np.int64)
        if widths.shape != runs.shape or runs.sum() != math.prod(self.shape) or (runs < 1).any():
            raise OptionError(
                "group sizes must add up to the weight",
                where="sizes",
                value=int(runs.sum()),
                hint=f"the weight has shape {list(self.shape)}",
            )
        self.view, self.shared, spread = _view(self.shape, widths, runs, self.scheme.over)
        table = np.array([0.0] + [self.scheme.factor(b) for b in range(1, MOST_BITS + 1)])
        half = torch.from_numpy(np.exp2(spread - 1)).float()
        self.group_bits, self.group_sizes = widths, runs
        # Not persistent: they follow from the allocation, and a latent state dict stays that of the float network.
        self.register_buffer("least", -half, persistent=False)
        self.register_buffer("most", half - 1, persistent=False)
        self.register_buffer("factors", torch.from_numpy(table[spread]).float(), persistent=False)
        self.register_buffer("single", torch.from_numpy(spread == 1), persistent=False)
        self.has_single = bool((spread == 1).any())

    @property
    def means_one_bit(self) -> bool:
        """Whether groups of one bit have a scale of their own, mean abs(w)."""
        return self.has_single and self.scheme.one_bit == "mean"

    def scales(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scale of each range, and mean abs(w) where one-bit groups have a scale of their own."""
        values = weight.detach().reshape(self.view)
        if not self.shared:  # every weight has a range of its own; torch takes no dimensions for all
            return values.abs(), values.abs() if self.means_one_bit else None
        order = math.inf if self.scheme.statistic == "max" else 2
        scale = torch.linalg.vector_norm(values, order, dim=self.shared, keepdim=True)
        if self.scheme.statistic != "max":
            scale = scale / math.sqrt(values.numel() / scale.numel())
        return scale, values.abs().mean(dim=self.shared, keepdim=True) if self.means_one_bit else None

    def steps(self, scale: Tensor, mean: Tensor | None) -> Tensor:
        """Return the step of every weight, broadcastable to ``view``."""
        step = scale * self.factors
        return step if mean is None else torch.where(self.single, 2 * mean, step)

    def codes(self, weight: Tensor) -> Tensor:
        """Return the integer codes, of the weight's shape, from 0 to 2^B - 1, as uint8 or int32."""
        step = self.steps(*self.scales(weight))
        signed = _codes(weight.detach().reshape(self.view), step, self.least, self.most)
        kind = torch.uint8 if float(self.most.max()) < 128 else torch.int32
        return (signed - self.least).reshape(self.shape).to(kind)

    def values(self, codes: Tensor, scale: Tensor, mean: Tensor | None) -> Tensor:
        """Return the weights that ``codes`` stand for: the very values that the forward pass used."""
        signed = codes.reshape(self.view).to(scale.dtype) + self.least
        return ((signed + 0.5) * self.steps(scale, mean)).reshape(self.shape)

    def forward(self, weight: Tensor) -> Tensor:
        step = self.steps(*self.scales(weight))
        rounded: Tensor = _RoundWeight.apply(weight, step, self.least, self.most, self.view)  # type: ignore[no-untyped-call]
        return rounded

    def extra_repr(self) -> str:
        return f"{len(self.group_bits)} groups, {self.group_bits.min()}..{self.group_bits.max()} bits, {self.scheme}"


class ActivationQuantizer(nn.Module):
    """Uniform quantizer of one activation tensor, with step = span 2^-B.

    Unsigned, ``value = step * clamp(round(x / step), 0, 2^B - 1)``: the span is the clip value, the top level is
    clip (1 - 2^-B), the gradient passes where 0 < x < clip (IMPQ, authors' code). Signed, for tensors that are not the
    output of a rectifier: codes from -2^(B-1) to 2^(B-1) - 1, gradient inside +- span / 2.

    Parameters
    ----------
    bits : int
    span : float
        Length of the represented interval, positive.
    label : str
        The activation group that it quantizes.
    signed : bool
    """

    def __init__(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> None:
        super().__init__()
        self.bits, self.label, self.signed = int(_whole_bits([bits])[0]), label, signed
        if not (math.isfinite(span) and span > 0):
            raise OptionError("must be positive and finite", where="span", value=span)
        self.span = float(span)
        self.step = self.span * 2.0**-self.bits
        least = -(2 ** (self.bits - 1)) if signed else 0
        self.codes = (least, least + 2**self.bits - 1)
        self.inside = (-self.span / 2, self.span / 2) if signed else (0.0, self.span)

    def forward(self, values: Tensor) -> Tensor:
        rounded: Tensor = _RoundActivation.apply(values, self.step, self.codes, self.inside)  # type: ignore[no-untyped-call]
        return rounded

    def extra_repr(self) -> str:
        return f"{self.bits} bits, span {self.span:g}" + ", signed" * self.signed


class _RoundWeight(torch.autograd.Function):
    """Mid-rise rounding whose gradient is the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, step: Tensor, least: Tensor, most: Tensor, view: tuple[int, ...]) -> Tensor:
        return _codes(weight.reshape(view), step, least, most).add_(0.5).mul_(step).reshape(weight.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        return gradients[0], None, None, None, None


class _RoundActivation(torch.autograd.Function):
    """Uniform rounding whose gradient is that of a clamp to the interval ``inside``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, step: float, codes: tuple[int, int], inside: tuple[float, float]) -> Tensor:
        # In place, these four passes cost a tenth of torch.fake_quantize_per_tensor_affine on a CPU.
        return (values.float() * (1 / step)).round_().clamp_(*codes).mul_(step).to(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, _, _, ctx.inside = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (values,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], values, *ctx.inside), None, None, None


def _codes(weight: Tensor, step: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Return the signed codes, as whole floats; a range whose weights are all zero has step 0 and codes 0."""
    inverse = step.clamp(min=_LEAST_STEP).reciprocal_()
    return (weight * inverse).sub_(0.5).round_().clamp_(least, most)


def _whole_bits(bits: npt.ArrayLike) -> npt.NDArray[np.int64]:
    widths = np.atleast_1d(np.asarray(bits, dtype=np.float64))
    wrong = (widths != np.rint(widths)) | (widths < 1) | (widths > MOST_BITS)
    if wrong.any():
        raise OptionError(
            f"integer quantizers take whole precisions of 1 to {MOST_BITS} bits",
            where="bits",
            value=float(widths[wrong][0]),
        )
    return widths.astype(np.int64)


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
