"""What every encoding of weights must keep: its size is exact, and what it stores it stores again unchanged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from impq_opt.encodings import Encoding, Family
from impq_opt.encodings.base import Rows
from impq_opt.errors import ImpqError
from impq_opt.testing.rules import rule

__all__ = ["check_encodings"]


def check_encodings(family: Family, *, beside: float = 1.0) -> None:
    """Raise ConformanceError, with the rule and the encoding, unless all encodings of ``family`` keep every rule.

    The rules: the family has a name, a summary and a source, its encodings have names of their own; bits of a weight
    are positive and a float64, and the size of a matrix is theirs times its weights, and what rows and the matrix have
    one of. Rounding gives a float32 matrix of the same shape, twice alike, leaves its argument as it is, keeps zeros
    and finite numbers, is no further from the weights than zeros would be, and rounds each row of a matrix by itself
    where the matrix has nothing that is shared. A matrix whose rows are no whole number of blocks, or with numbers that
    are not finite, is refused in a sentence.

    Parameters
    ----------
    family : Family
    beside : float
        How many times the squared error of zeros is still allowed.

    Raises
    ------
    ConformanceError
    """
    for word in ("name", "summary", "source"):
        rule(bool(getattr(family, word, "")), family, f"it has no {word}")
    encodings = family.encodings()
    names = [one.name for one in encodings]
    rule(
        len({name.casefold() for name in names}) == len(names), family.name, "its encodings have no names of their own"
    )
    for one in encodings:
        _check(one, beside)


def _check(one: Encoding, beside: float) -> None:
    name, length = one.name, max(64, 2 * one.block)
    rule(name == name.casefold() and name.isprintable(), name, "its name has capitals, or cannot be printed")
    rule(one.bits > 0 and Fraction(float(one.bits)) == one.bits, name, "its bits are no positive float64")
    sizes = one.size(3, length), 3 * (length * one.bits + one.row_bits) + one.matrix_bits
    rule(isinstance(sizes[0], int) and sizes[0] == sizes[1], name, f"a matrix takes {sizes[0]} bits, not {sizes[1]}")
    rule(one.holds(length) and one.holds(0), name, "it refuses rows of whole blocks, or of an unknown length")
    for wrong in _wrong(one, length):
        rule(_refused(one, wrong), name, f"a matrix of {wrong.shape} with {wrong.ravel()[0]} is not refused")
    for kind, weights in _weights(length).items():
        where = f"{name}, {kind} weights"
        before = weights.copy()
        try:
            rounded, again = one.round(weights), one.round(weights)
        except ImpqError as error:
            rule("importance matrix" in str(error), where, f"raised {error}")
            continue
        rule(rounded.dtype == np.float32 and rounded.shape == weights.shape, where, "the matrix has another form")
        rule(np.array_equal(weights, before), where, "rounding writes to its argument")
        rule(np.array_equal(rounded, again), where, "it is rounded in two ways")
        rule(bool(np.isfinite(rounded).all()), where, "a rounded weight is not finite")
        lost, all_of_it = (np.square(other, dtype=np.float64).sum() for other in (rounded - weights, weights))
        rule(lost <= beside * all_of_it, where, f"its squared error is {lost:.3g}, that of zeros {all_of_it:.3g}")
        if not one.matrix_bits:
            rule(np.array_equal(one.round(weights[1:2]), rounded[1:2]), where, "a row is rounded by its neighbours")


def _weights(length: int) -> dict[str, Rows]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((3, length)).astype(np.float32)
    outlier = normal.copy()
    outlier[1, 5] = 50.0
    sparse = np.where(rng.random(normal.shape) < 0.9, np.float32(0), normal)
    return {
        "normal": normal,
        "outlying": outlier,
        "sparse": sparse,
        "positive": np.abs(normal),
        "small": normal * np.float32(1e-3),
        "no": np.zeros_like(normal),
    }


def _wrong(one: Encoding, length: int) -> list[Rows]:
    matrix = np.ones((2, length), dtype=np.float32)
    infinite, unknown = matrix.copy(), matrix.copy()
    infinite[0, 0], unknown[0, 0] = np.inf, np.nan
    uneven = [matrix[:, : length - 1]] if one.block > 1 else []
    return [infinite, unknown, matrix[0], *uneven]


def _refused(one: Encoding, matrix: Rows) -> bool:
    try:
        one.round(matrix)
    except ImpqError as error:
        return bool(str(error))
    return False
