"""Limits on few groups, such as the activations in memory at one step: kept by looking at every combination.

A price says little about a limit that two or three groups share: their candidates are too coarse. Such a limit needs no
price: as a function of its groups that is 0 where it is kept and infinite elsewhere it takes part in elimination.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum
from impq_opt.instance.instance import Instance, Row

__all__ = ["LocalLimit", "is_local", "local_limits", "without_constant", "without_slack"]

# Combinations of a limit's groups: five of eight candidates.
_LARGEST = 1 << 15


@dataclass(frozen=True, eq=False)
class LocalLimit:
    """Groups (m,) in order, and which of their combinations (K, ..., K) keep the limit."""

    groups: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]


def is_local(row: Row) -> bool:
    """Return whether ``row`` depends on so few groups that every combination of theirs can be looked at."""
    if row.pairs is not None:
        return False
    return len(row.touched) < _LARGEST.bit_length() and row.table.shape[1] ** len(row.touched) <= _LARGEST


def local_limits(instance: Instance) -> list[LocalLimit]:
    """Return the local limits of ``instance``."""
    limits = []
    for row in filter(is_local, instance.budgets):
        groups = row.touched
        width = row.table.shape[1]
        rest = exact_int_sum(row.table[:, 0]) - exact_int_sum(row.table[groups, 0])
        total = np.zeros((width,) * len(groups), dtype=np.int64)
        for axis, group in enumerate(groups.tolist()):
            shape = [1] * len(groups)
            shape[axis] = width
            total += row.table[group].reshape(shape)
        limits.append(LocalLimit(groups, total <= int(row.room) - rest))
    return limits


def without_constant(instance: Instance) -> Instance | None:
    """Return ``instance`` without the budgets that no choice changes; None where one of them is broken."""
    kept = []
    for row in instance.budgets:
        if row.pairs is not None or len(row.touched):
            kept.append(row)
        elif row.broken_by(row.base + exact_int_sum(row.table[:, :1])):
            return None
    return instance if len(kept) == len(instance.budgets) else replace(instance, budgets=tuple(kept))


def without_slack(instance: Instance) -> Instance | None:
    """Return ``instance`` without the budgets that every choice keeps; None where none keeps one of them."""
    kept = []
    for row in instance.budgets:
        least, most = row.ends
        if row.pairs is None and row.broken_by(least):
            return None
        # Tied damages are rounded down in tables, so the most of them proves nothing.
        if row.pairs is not None or row.broken_by(most) or (len(row.touched) and not row.whole):
            kept.append(row)
    return instance if len(kept) == len(instance.budgets) else replace(instance, budgets=tuple(kept))
