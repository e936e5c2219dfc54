"""Real factors as whole multipliers and a shift."""

from __future__ import annotations

import math

import numpy as np

from impq_opt.compile.program import SHIFTED_BITS, IntTensor, Rescale
from impq_opt.errors import DataError
from impq_opt.types import FloatArray

__all__ = ["ends_in", "rescale_to"]

_MULTIPLIER_BITS = 32  # with sign


def rescale_to(
    target: IntTensor,
    factors: FloatArray,
    constants: FloatArray,
    sizes: FloatArray,
    ends: tuple[float, float],
    where: str,
    *,
    narrow: int | None = None,
    most: int = SHIFTED_BITS - 2,
) -> Rescale:
    """Return how sums become codes of ``target``: as exactly as 32-bit multipliers and 53-bit sums allow.

    Parameters
    ----------
    target : IntTensor
    factors : ndarray of float64 (terms, channels)
        What one unit of a sum stands for.
    constants : ndarray of float64 (channels,)
        Added, in real units.
    sizes : ndarray of float64 (terms, channels)
        The largest size of the sums.
    ends : (float, float)
        Real ends of a rectifier behind; infinite where there is none.
    where : str
        The layer, for errors.
    narrow : int, optional
        Multipliers of the first so many terms have 32 bits, those of the others 53; all unless given.
    most : int
        The largest shift.

    Raises
    ------
    DataError
        Numbers that are not finite, or too far apart.
    """
    multipliers, addends = factors / target.scale, constants / target.scale + target.zero
    if not (np.isfinite(multipliers).all() and np.isfinite(addends).all()):
        raise DataError("has a scale or bias that is not finite", where=where)
    largest = float((np.abs(multipliers) * sizes).sum(0).max()) + float(np.abs(addends).max())
    fits_sum = SHIFTED_BITS - 2 - math.ceil(math.log2(largest + 2))
    fits_multiplier = (
        _MULTIPLIER_BITS - 2 - math.ceil(math.log2(max(float(np.abs(multipliers[:narrow]).max()), 2.0**-60)))
    )
    shift = min(fits_sum, fits_multiplier, most)
    if shift < 1:
        raise DataError("has scales too far apart for multipliers of 32 bits", where=where)
    low, high = ends_in(target, ends)
    return Rescale(
        np.rint(np.ldexp(multipliers, shift)).astype(np.int64),
        np.rint(np.ldexp(addends, shift)).astype(np.int64) + (1 << (shift - 1)),
        shift,
        low,
        high,
    )


def ends_in(target: IntTensor, ends: tuple[float, float]) -> tuple[int, int]:
    """Return the least and the largest code of a tensor between real ends."""
    low, high = (
        min(max(round(end / target.scale + target.zero), target.low), target.high) if math.isfinite(end) else default
        for end, default in zip(ends, (target.low, target.high), strict=True)
    )
    return low, high
