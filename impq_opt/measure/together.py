"""What groups do together, told by the products of vectors, one a group and candidate, as columns that chunks add up.

Behind the damages (G, K) are, in every row, what all groups at one candidate do together (K), and of each group the
products of its vectors with those of every group and candidate (K G K).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from impq_opt.errors import OptionError
from impq_opt.groups.interactions import Factors
from impq_opt.types import FloatArray

__all__ = ["factors_of", "gram_columns", "gram_of", "width_of_gram"]

MOST_ROWS = 2048  # of the Gram matrix, one a group and candidate
# Of the Gram matrix of shifts of length 1, what small eigenvalues may come to that are left out.
_LOST = 1e-6


def width_of_gram(groups: int, width: int) -> int:
    """Return how many columns there are for so many groups and candidates.

    Raises
    ------
    OptionError
        There are too many.
    """
    rows = groups * width
    if rows > MOST_ROWS:
        raise OptionError(
            f"are measured for at most {MOST_ROWS} pairs of group and candidate",
            where="interactions",
            value=rows,
            hint="measure layers, or fewer candidates",
        )
    return 2 * width + rows * width


def gram_columns(table: FloatArray, gram: FloatArray) -> FloatArray:
    """Return the columns of damages ``table`` (G, K) and products ``gram`` (G K, G K)."""
    count, width = table.shape
    products = gram.reshape(count, width, count, width)
    alike = np.einsum("gkhk->k", products) - np.einsum("gkgk->k", products)
    return np.concatenate([table, np.broadcast_to(alike, (count, width)), gram.reshape(count, -1)], axis=1)


def gram_of(mean: FloatArray, width: int) -> FloatArray:
    """Return the products (G K, G K) in the mean of columns."""
    return mean[:, 2 * width :].reshape(len(mean) * width, len(mean) * width)


def factors_of(mean: FloatArray, stderr: FloatArray, width: int) -> Factors:
    """Return what groups do together.

    Vectors get the lengths that damages have. Standard errors are a share of each number, the same at one candidate:
    such that what all groups do together at that candidate has the error that was seen of it.
    """
    count, gram = len(mean), gram_of(mean, width)
    squares = gram.diagonal().reshape(count, width)
    damage = np.maximum(mean[:, :width], 0)
    longer = np.sqrt(np.divide(damage, squares, out=np.zeros_like(damage), where=squares > 0))
    values = _vectors(gram).reshape(count, width, -1) * longer[:, :, None]
    if not np.isfinite(stderr).all():  # of a single chunk
        return Factors(values)
    errors = np.abs(values)
    seen = stderr[0, width : 2 * width] * damage.sum(0) / np.maximum(squares.sum(0), np.finfo(float).tiny)
    for column, error in enumerate(seen):
        one = Factors(values, errors).error(np.full(count, column))
        errors[:, column] *= error / one if one else 0.0
    return Factors(values, errors)


def _vectors(gram: FloatArray) -> NDArray[np.float64]:
    """Return rows (N, r) whose products are those of ``gram`` (N, N), as few columns as do.

    All rows count alike, however short: 8 bits have shifts a thousandth of those of 2 bits.
    """
    lengths = np.sqrt(np.maximum(gram.diagonal(), 0))
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    values, basis = np.linalg.eigh(gram * inverse[:, None] * inverse)
    values, basis = np.maximum(values[::-1], 0), basis[:, ::-1]
    lost = values[::-1].cumsum()[::-1] - values  # by leaving out what comes behind
    keep = 1 + int((lost > _LOST * values.sum()).sum())
    vectors: FloatArray = lengths[:, None] * basis[:, :keep] * np.sqrt(values[:keep])
    return vectors
