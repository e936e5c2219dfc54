"""Scores as tools write them: NaN is told by layer, infinity is not allowed, negative ones count from the least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from impq_opt.errors import FileError
from impq_opt.groups.names import GroupNames
from impq_opt.problem.unmeasured import few
from impq_opt.types import FloatArray

__all__ = ["shifted", "table"]


def table(rows: Sequence[Sequence[float]], names: Sequence[str], what: str) -> FloatArray:
    """Return rows as an array (G, K), short ones filled up with their last value; +inf is not allowed, and stays.

    Raises
    ------
    FileError
        Where a value is NaN or -inf, with the name of its group.
    """
    width = max(map(len, rows))
    values = np.array([[*row, *[row[-1]] * (width - len(row))] for row in rows], dtype=np.float64)
    wrong = np.isnan(values) | np.isneginf(values)
    if wrong.any():
        group, column = np.argwhere(wrong)[0].tolist()
        raise FileError(
            "must be a number, or inf where it is not allowed",
            where=f"{names[group]}: {what}[{column}]",
            value=float(values[group, column]),
            hint="measure the layer again, or leave it out",
        )
    return values


def shifted(damage: FloatArray, names: GroupNames) -> tuple[FloatArray, Mapping[str, Any]]:
    """Return damage (G, K) with each group's smallest value at 0 where it was negative, and what provenance says of it.

    A measured loss can fall, and scores are often differences to a base. A constant a group changes no comparison of
    allocations, so this is the one rule for all formats. ``damage_offset`` is the sum that was taken off.

    Raises
    ------
    FileError
        Where a score is so far from its group's smallest that float64 does not hold the difference.
    """
    lowest = np.minimum(damage.min(axis=1), 0.0)
    groups = np.flatnonzero(lowest < 0)
    if not len(groups):
        return damage, {}
    note = {"groups": len(groups), "such_as": few(names, groups)}
    with np.errstate(over="ignore"):
        counted = damage - lowest[:, None]
    beyond = np.isinf(counted) & np.isfinite(damage)  # infinity would mean that it is not allowed
    if beyond.any():
        group, column = np.argwhere(beyond)[0].tolist()
        raise FileError(
            "is further from the group's smallest score than float64 tells",
            where=names[group],
            value=float(damage[group, column]),
        )
    return counted, {"damage_offset": float(lowest.sum()), "negative_scores": note}
