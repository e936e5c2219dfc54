"""A problem whose candidates are encodings: true bits, rows that blocks divide, exact sizes of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.costs import TableCost
from impq_opt.encodings import Encoding
from impq_opt.errors import ProblemError
from impq_opt.groups.arrays import group_names
from impq_opt.groups.candidates import gather_sets
from impq_opt.groups.damage import DamageTable
from impq_opt.problem.problem import Problem

__all__ = ["SIZE", "encoded_problem", "weight_errors"]

SIZE = "size"
"""The cost of a matrix in bits with what its rows and itself have one of, where an encoding has such."""


def encoded_problem(
    shapes: Mapping[str, tuple[int, int]],
    encodings: Sequence[Encoding],
    damage: Callable[[str, Sequence[Encoding]], Sequence[float]],
    **fields: Any,
) -> Problem:
    """Return the problem of matrices that may each be stored in those of ``encodings`` that can hold their rows.

    Storage is minimised, at the exact bits of each encoding. Where one has numbers that rows or the whole matrix have
    one of, such as NVFP4's scale, the cost ``size`` counts them too and is minimised instead.

    Parameters
    ----------
    shapes : mapping of str to (rows, length)
        Of each matrix.
    encodings : sequence of Encoding
    damage : callable (name, encodings) -> sequence of float
        What each of the encodings that the matrix may have damages, in that order.
    **fields
        Further fields of :class:`Problem`.

    Raises
    ------
    ProblemError
        Where none of the encodings can hold the rows of a matrix, or as :class:`Problem` does.
    """
    offered = [[one for one in encodings if one.holds(length)] for _, length in shapes.values()]
    for (name, (_, length)), row in zip(shapes.items(), offered, strict=True):
        if not row:
            raise ProblemError(
                f"has rows of {length}, and no encoding holds them",
                where=name,
                value=[one.name for one in encodings],
                hint=f"blocks of {', '.join(map(str, sorted({one.block for one in encodings})))} weights divide a row",
            )
    candidates = gather_sets(
        [tuple(float(one.bits) for one in row) for row in offered], [tuple(one.name for one in row) for row in offered]
    )
    damages, sizes = np.zeros((2, len(shapes), candidates.width))
    whole = sizes.astype(np.int64)
    for group, ((name, shape), row) in enumerate(zip(shapes.items(), offered, strict=True)):
        damages[group, : len(row)] = damage(name, row)
        whole[group, : len(row)] = [one.size(*shape) for one in row]
    if "costs" not in fields and any(one.row_bits or one.matrix_bits for one in encodings):
        term = TableCost.from_array(whole, name=SIZE, unit="bit", source="blocks, rows and matrices")
        fields = {"costs": (term,), "objective": {SIZE: 1}} | fields
    return Problem(
        names=group_names(list(shapes), len(shapes)),
        candidates=candidates,
        sizes=np.array([rows * length for rows, length in shapes.values()]),
        lengths=np.array([length for _, length in shapes.values()]),
        damage=DamageTable(damages),
        **fields,
    )


def weight_errors(matrix: npt.ArrayLike, encodings: Sequence[Encoding]) -> list[float]:
    """Return ``|W - Q(W)|^2 / |W|^2`` of a matrix (rows, length) at each of ``encodings``; 0 where it is all zeros.

    These are the terms of the linearity theorem (Malinovskii et al., arXiv:2411.17525, 2024), whose coefficients say
    how much depends on a matrix, and are not known from its weights.

    Raises
    ------
    ProblemError
        As :meth:`Encoding.round` does.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    whole = float(np.square(weights).sum())
    return [float(np.square(one.round(weights) - weights).sum()) / (whole or 1.0) for one in encodings]
