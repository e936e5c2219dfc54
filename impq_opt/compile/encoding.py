"""How real inputs become 8-bit codes: exactly, where they are pixels of 256 values that were normalized."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import Encoding
from impq_opt.errors import DataError
from impq_opt.types import FloatArray

__all__ = ["encoding_between", "encoding_of"]

_CODES = 256
_ALIKE = 1e-6  # steps of channels that differ by no more are one: float32 tells them to about so much
_NEAR = 0.02  # how far from a multiple of the step a value may be, in steps


def encoding_between(low: float, high: float, channels: int) -> Encoding:
    """Return the encoding whose first code is ``low`` and whose last ``high``, in every channel.

    Raises
    ------
    DataError
        They are not finite, or not in this order.
    """
    if not (np.isfinite([low, high]).all() and low < high):
        raise DataError("must be two finite numbers, the smaller first", where="input range", value=f"{low}:{high}")
    scale = (high - low) / (_CODES - 1)
    return Encoding(np.full(channels, scale), np.full(channels, -128 - low / scale))


def encoding_of(samples: npt.ArrayLike) -> Encoding:
    """Return the encoding of samples (n, channels, ...).

    Where the values of a channel are multiples of one step, at most 256 of them, that step is its scale, and its codes
    are exact; else the channel's ends are those of all samples.

    Raises
    ------
    DataError
        Values that are not finite, or all the same.
    """
    x = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(x).all():
        raise DataError("has values that are not finite", where="data")
    channels = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) if x.ndim > 2 else x.reshape(1, -1)
    low, high = float(x.min()), float(x.max())
    if low == high:
        raise DataError("has one value only, which tells no range", where="data", value=low)
    steps = [_step(np.unique(channel)) for channel in channels]
    if any(step is None for step in steps):
        return encoding_between(low, high, x.shape[1])
    scale = np.array([step for step in steps if step is not None])
    if (np.abs(scale / scale.mean() - 1) < _ALIKE).all():
        scale = np.full(len(scale), scale.mean())
    return Encoding(*(np.broadcast_to(part, x.shape[1:2]).copy() for part in (scale, _zeros(channels, scale))))


def _zeros(channels: FloatArray, scale: FloatArray) -> FloatArray:
    zero = -128 - channels.min(1) / scale
    whole = np.rint(zero)
    return np.where(np.abs(zero - whole) < _ALIKE * _CODES, whole, zero)


def _step(values: FloatArray) -> float | None:
    """Return the step that sorted values are multiples of from the least, if they are at most 256 such; else None."""
    if not 2 <= len(values) <= _CODES * 4:  # float32 may have a value twice, in its last bits
        return None
    gaps = np.diff(values)
    span = float(values[-1] - values[0])
    gaps = gaps[gaps > span / (4 * _CODES)]
    if not len(gaps):
        return None
    steps = round(span / float(gaps.min()))
    if not 1 <= steps < _CODES:
        return None
    places = (values - values[0]) * (steps / span)
    return span / steps if bool((np.abs(places - np.rint(places)) < _NEAR).all()) else None
