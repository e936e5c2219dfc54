"""Real factors as whole multipliers and a shift."""

from __future__ import annotations

import math

import numpy as np

from impq_opt.compile.program import SHIFTED_BITS, IntTensor, Rescale
from impq_opt.errors import DataError
from impq_opt.types import FloatArray

__all__ = ["rescale_to"]

_MULTIPLIER_BITS = 32  # with sign


def rescale_to(
    target: IntTensor,
    factors: FloatArray,
    constants: FloatArray,
    sizes: FloatArray,
    ends: tuple[float, float],
    where: str,
) -> Rescale:
    """Return how sums become codes of ``target``: as exactly as 32-bit multipliers and 53-bit sums allow.

    Parameters
    ----------
    target : IntTensor
    factors : ndarray of float64 (..., channels)
        What one unit of a sum stands for.
    constants : ndarray of float64 (channels,)
        Added, in real units.
    sizes : ndarray of float64 (..., channels)
        The largest size of the sums.
    ends : (float, float)
        Real ends of a rectifier behind; infinite where there is none.
    where : str
        The layer, for errors.

    Raises
    ------
    DataError
        Numbers that are not finite, or too far apart.
    """
    multipliers, addends = factors / target.scale, constants / target.scale + target.zero
    if not (np.isfinite(multipliers).all() and np.isfinite(addends).all()):
        raise DataError("has a scale or bias that is not finite", where=where)
    largest = float((np.abs(multipliers) * sizes).reshape(-1, len(constants)).sum(0).max()) + float(
        np.abs(addends).max()
    )
    fits_sum = SHIFTED_BITS - 2 - math.ceil(math.log2(largest + 2))
    fits_multiplier = _MULTIPLIER_BITS - 2 - math.ceil(math.log2(max(float(np.abs(multipliers).max()), 2.0**-60)))
    shift = min(fits_sum, fits_multiplier, SHIFTED_BITS - 2)
    if shift < 1:
        raise DataError("has scales too far apart for multipliers of 32 bits", where=where)
    low, high = (
        min(max(round(end / target.scale + target.zero), target.low), target.high) if math.isfinite(end) else default
        for end, default in zip(ends, (target.low, target.high), strict=True)
    )
    return Rescale(
        np.rint(np.ldexp(multipliers, shift)).astype(np.int64),
        np.rint(np.ldexp(addends, shift)).astype(np.int64) + (1 << (shift - 1)),
        shift,
        low,
        high,
    )
