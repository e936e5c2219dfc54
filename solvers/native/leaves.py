"""The leaves of stars at some prices: ``minima`` and ``choices`` of ``_stars.c``.

What they do where nothing is compiled stands in ``lagrange.oracle``, which also knows leaves of other forms; it is told
by None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impq_opt.solvers import native
from impq_opt.solvers.native import COMPILED, Limits
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Leaves", "choices", "minima"]


@dataclass(frozen=True, eq=False)
class Leaves:
    """Leaves whose costs with their centre are products of two levels.

    tables (R, K, L): their own rows. coefficients (S, L): of the products. levels (K, L), centre_levels (C, K). owner
    (L,): the centre of each.
    """

    tables: FloatArray
    coefficients: FloatArray
    levels: FloatArray
    owner: IntArray
    centre_levels: FloatArray


def minima(
    leaves: Leaves, weights: list[float], slope_weights: list[float], allowed: BoolArray, limits: Limits = COMPILED
) -> FloatArray | None:
    """Return the sum (C, K) of the leaves' least values for each ``allowed`` candidate (C, K) of their centres.

    ``weights`` (R,) and ``slope_weights`` (S,) are the prices of the rows; others than the allowed hold no meaning.
    """
    if native.stars is None or not limits.hold(1, leaves.tables.shape[1]):
        return None
    sums = np.zeros(allowed.shape)
    native.stars.minima(*_arguments(leaves, weights, slope_weights), np.ascontiguousarray(allowed), sums)
    return sums


def choices(
    leaves: Leaves, weights: list[float], slope_weights: list[float], taken: IntArray, limits: Limits = COMPILED
) -> IntArray | None:
    """Return each leaf's best candidate (L,) where its centre takes ``taken`` (C,); see :func:`minima`."""
    if native.stars is None or not limits.hold(1, leaves.tables.shape[1]):
        return None
    choice = np.empty(len(leaves.owner), dtype=np.int64)
    taken = np.ascontiguousarray(taken, dtype=np.int64)
    native.stars.choices(*_arguments(leaves, weights, slope_weights), taken, choice)
    return choice


def _arguments(
    leaves: Leaves, weights: list[float], slope_weights: list[float]
) -> tuple[int, int, int, int, int, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, IntArray, FloatArray]:
    rows, columns, count = leaves.tables.shape
    return (
        rows,
        len(slope_weights),
        count,
        columns,
        len(leaves.centre_levels),
        np.ascontiguousarray(leaves.tables),
        np.array(weights, dtype=np.float64),
        np.ascontiguousarray(leaves.coefficients),
        np.array(slope_weights, dtype=np.float64),
        np.ascontiguousarray(leaves.levels),
        np.ascontiguousarray(leaves.owner),
        np.ascontiguousarray(leaves.centre_levels),
    )
