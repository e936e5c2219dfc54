"""Levels as whole numbers times a scale, whatever method they come from; where they are not, nothing can be compiled.

A grid is judged by its levels alone: a weight's codes and what they stand for, an activation's codes and where they
begin. So every method whose steps are equal will do, with a level at zero or with zero halfway between two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.compile.program import IntTensor
from impq_opt.errors import DataError
from impq_opt.quantize import ActivationQuantizer, Unpacked, quantized_weights
from impq_opt.types import FloatArray, IntArray

__all__ = ["Coded", "WholeWeight", "coded_of", "coded_of_packed", "whole_activation", "whole_weight"]

# How far a level may be from its whole number of steps, in steps: levels are rounded to float32.
_NEAR = 0.01
_MOST_BITS = 8


@dataclass(frozen=True, eq=False)
class Coded:
    """A quantized weight: its codes, the values that they stand for, and the precision of every element.

    Parameters
    ----------
    codes, values : Tensor (out, ...)
    bits : ndarray of int64 (out, ...)
    method : str
        Named in errors.
    """

    codes: Tensor
    values: Tensor
    bits: IntArray
    method: str


@dataclass(frozen=True, eq=False)
class WholeWeight:
    """A weight ``scales[k] (factor codes[k] + offsets[k])`` of O output kernels.

    Parameters
    ----------
    codes : ndarray of uint8 (O, inputs, height, width)
    bits : ndarray of int64 (O,)
    factor : int
        1 or 2.
    offsets : ndarray of int64 (O,)
    scales : ndarray of float64 (O,)
    """

    codes: np.typing.NDArray[np.uint8]
    bits: IntArray
    factor: int
    offsets: IntArray
    scales: FloatArray

    def sizes(self) -> IntArray:
        """Return the sum (O,) of the sizes of the whole numbers of each kernel."""
        whole = self.factor * self.codes.astype(np.int64) + self.offsets.reshape(-1, 1, 1, 1)
        return np.abs(whole).reshape(len(whole), -1).sum(1)


@torch.no_grad()
def coded_of(network: nn.Module) -> dict[str, Coded]:
    """Return the quantized weights of a network as codes, by name."""
    return {
        name: Coded(
            weight.quantizer.codes(weight.latent).cpu(),
            weight.value.cpu(),
            np.repeat(weight.quantizer.group_bits, weight.quantizer.group_sizes).reshape(weight.quantizer.shape),
            weight.quantizer.method.spec,
        )
        for name, weight in quantized_weights(network).items()
    }


def coded_of_packed(packed: Unpacked) -> dict[str, Coded]:
    """Return the same of what a packed file holds."""
    return {
        name: Coded(held.codes, packed.state[name], held.bits, held.method) for name, held in packed.weights.items()
    }


def whole_weight(name: str, coded: Coded) -> WholeWeight:
    """Return a weight as whole numbers.

    Raises
    ------
    DataError
        Several precisions or scales in one output kernel, more than 8 bits, or levels that are no whole numbers.
    """
    kernels = len(coded.codes)
    bits = coded.bits.reshape(kernels, -1)
    if (bits != bits[:, :1]).any():
        raise DataError(
            "has output kernels of several precisions each, which no sub-layer has",
            where=name,
            hint="allocate by layer or by kernel: --groups kernel",
        )
    if bits.max() > _MOST_BITS:
        raise DataError(
            f"has weights of more than {_MOST_BITS} bits",
            where=name,
            value=int(bits.max()),
            hint="solve with --bits 1:8",
        )
    codes = coded.codes.reshape(kernels, -1).numpy().astype(np.int64)
    values = coded.values.detach().reshape(kernels, -1).numpy().astype(np.float64)
    factor, offsets = _line(codes, values)
    whole = factor * codes + offsets[:, None]
    squares = (whole * whole).sum(1)
    scales = (whole * values).sum(1) / np.maximum(squares, 1)
    if (
        not np.isfinite(values).all()
        or (np.abs(values - scales[:, None] * whole) > _NEAR * np.abs(scales[:, None])).any()
    ):
        raise DataError(
            f"has levels that are not whole numbers times one scale a kernel ({coded.method})",
            where=name,
            hint="a grid of equal steps with a range a kernel or tensor can be compiled: mid-rise, zero, symmetric, "
            "asymmetric",
        )
    shape = (*coded.codes.shape, *(1,) * (4 - coded.codes.ndim))
    return WholeWeight(codes.astype(np.uint8).reshape(shape), bits[:, 0].copy(), factor, offsets, scales)


def _line(codes: IntArray, values: FloatArray) -> tuple[int, IntArray]:
    """Return factor and offsets (O,) of codes and values (O, n): where the line through two levels says zero is."""
    rows = np.arange(len(codes))
    first, last = codes.argmin(1), codes.argmax(1)
    low, high = codes[rows, first], codes[rows, last]
    rise = values[rows, last] - values[rows, first]
    two = (high > low) & (rise != 0)  # two levels; else there is one, which is 0 or one step
    step = rise / np.where(high > low, high - low, 1)
    halves = np.rint(2 * (np.divide(values[rows, first], step, out=np.zeros_like(step), where=two) - low))
    factor = 2 if (halves[two] % 2 != 0).any() else 1
    alone = (values[rows, first] != 0) - factor * low
    return factor, np.where(two, halves // (3 - factor), alone).astype(np.int64)


@torch.no_grad()
def whole_activation(name: str, shape: tuple[int, ...], quantizer: ActivationQuantizer) -> IntTensor:
    """Return the tensor that a quantizer puts out, its codes as the program has them.

    Raises
    ------
    DataError
        Its levels are no equal steps with zero at one of them, or values are not rounded to the nearest.
    """
    bits = quantizer.bits
    codes = torch.arange(2**bits)
    values = quantizer.values(codes, torch.float64).cpu()
    scale = float(values[-1] - values[0]) / (2**bits - 1)
    zero = -float(values[0]) / scale if scale > 0 else float("nan")
    line = scale * (codes - zero)
    inner = values[1:-1].float()
    even = scale > 0 and abs(zero - round(zero)) < _NEAR and bool(((values - line).abs() < _NEAR * scale).all())
    if not even or any((quantizer.codes(inner + share * scale).cpu() != codes[1:-1]).any() for share in (-0.45, 0.45)):
        raise DataError(
            f"has levels that are not equal steps with zero among them ({quantizer.method})",
            where=quantizer.label,
            hint="round activations as mid-rise does",
        )
    signed = round(zero) == 2 ** (bits - 1)
    return IntTensor(name, shape, bits, signed, scale, 0 if signed else round(zero))
