"""What a quantizer of activations is, and the uniform one of the IMPQ paper.

Activations are rounded at every forward pass. Nothing here knows methods, problems or networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from impq_opt.errors import OptionError
from impq_opt.quantize.methods.checks import Kept, exact, whole_bits

__all__ = ["ActivationQuantizer", "UniformActivation", "below", "kind_of"]


class ActivationQuantizer(Kept, ABC):
    """A method on one activation tensor.

    Whole codes stand for the rounded values: ``values(codes(x))`` is ``forward(x)``, bit for bit. Arithmetic is in
    float32, or in float64 for tensors of float64; rounded values have the type of ``x``. What is learned is in
    parameters and persistent buffers, which training moves, in training mode :meth:`forward` too, and which a packed
    file keeps.

    Parameters
    ----------
    method : str
        The method whose rule it is, with options, as :func:`impq_opt.quantize.load_method` reads it.
    bits : int
    label : str
        The activation group that it quantizes.
    signed : bool
        Both signs are represented.
    """

    def __init__(self, method: str, bits: int, label: str, *, signed: bool = False) -> None:
        super().__init__()
        self.method, self.bits, self.label, self.signed = method, bits, label, signed

    @property
    @abstractmethod
    def span(self) -> float:
        """Length of the represented interval, as it is now."""

    def stretch(self, span: float) -> None:
        """Represent an interval of another length from now on, where it is given; what is fixed or learned stays."""

    @abstractmethod
    def codes(self, values: Tensor) -> Tensor:
        """Return the codes, of the shape of ``values``, whole numbers from 0 to 2^B - 1, as uint8 or int32."""

    @abstractmethod
    def values(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values of type ``dtype`` that ``codes`` stand for."""

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded values, with the method's gradient."""

    def extra_repr(self) -> str:
        return f"{self.method}, {self.bits} bits, span {self.span:g}" + ", signed" * self.signed


class UniformActivation(ActivationQuantizer):
    """Uniform quantizer with step = span 2^-B, of a span that is given.

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

    Raises
    ------
    OptionError
        The bits are not whole ones of 1 to 16, or the span is not positive and finite.
    """

    def __init__(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> None:
        super().__init__("mid-rise", int(whole_bits([bits])[0]), label, signed=signed)
        least = -(2 ** (self.bits - 1)) if signed else 0
        self.ends = (least, least + 2**self.bits - 1)
        self.stretch(span)

    @property
    def span(self) -> float:
        return self._span

    def stretch(self, span: float) -> None:
        """Represent an interval of another length from now on.

        Raises
        ------
        OptionError
            It is not positive and finite.
        """
        if not (math.isfinite(span) and span > 0):
            raise OptionError("must be positive and finite", where="span", value=span)
        self._span = float(span)
        self.step = self._span * 2.0**-self.bits
        self.inside = (-self._span / 2, self._span / 2) if self.signed else (0.0, self._span)

    def codes(self, values: Tensor) -> Tensor:
        signed = (exact(values) * (1 / self.step)).round_().clamp_(*self.ends)
        return (signed - self.ends[0]).to(kind_of(self.bits))

    def values(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        signed = codes.to(torch.promote_types(dtype, torch.float32)) + self.ends[0]
        return (signed * self.step).to(dtype)

    def forward(self, values: Tensor) -> Tensor:
        rounded: Tensor = _RoundUniform.apply(values, self.step, self.ends, self.inside)  # type: ignore[no-untyped-call]
        return rounded


def below(values: Tensor, top: Tensor) -> Tensor:
    """Return ``values`` between 0 and ``top``, a number that has the gradient of what lies at it or above."""
    wide = exact(values)
    return torch.where(wide < top, wide.clamp_min(0), top.to(wide.dtype))


def kind_of(bits: int) -> torch.dtype:
    """Return the type of codes."""
    return torch.uint8 if bits <= 8 else torch.int32


class _RoundUniform(torch.autograd.Function):
    """Uniform rounding whose gradient is that of a clamp to the interval ``inside``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, step: float, codes: tuple[int, int], inside: tuple[float, float]) -> Tensor:
        # In place, these four passes cost a tenth of torch.fake_quantize_per_tensor_affine on a CPU.
        return (exact(values) * (1 / step)).round_().clamp_(*codes).mul_(step).to(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, _, _, ctx.inside = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (values,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], values, *ctx.inside), None, None, None
