"""The score of the IMPQ authors' public code, which grows with the first power of the step."""

from __future__ import annotations

import numpy as np

from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["first_power_factor"]


def first_power_factor(weights: BoolArray, sizes: IntArray, magnitudes: FloatArray, spans: FloatArray) -> FloatArray:
    """Return the factor (G,) from summed squared gradients to the score at a step of 1; at B bits it is 2^-B of that.

    ``mean_h(E_h) mean abs(w)`` for weights, ``sum_h(E_h) clip`` for activations, where E_h is without the range.

    Parameters
    ----------
    weights : ndarray of bool (G,)
        Which groups are weights.
    sizes : ndarray of int64 (G,)
    magnitudes : ndarray of float64 (G,)
        Mean absolute weight of a group.
    spans : ndarray of float64 (G,)
        Clip value of an activation's quantizer.
    """
    factor: FloatArray = np.where(weights, magnitudes / sizes, spans)
    return factor
