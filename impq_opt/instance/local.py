"""Limits on few groups, such as the activations in memory at one step: kept by looking at every combination.

A price says little about a limit that two or three groups share: their candidates are too coarse. Such a limit needs no
price: as a function of its groups that is 0 where it is kept and infinite elsewhere it takes part in elimination.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum
from impq_opt.instance.instance import Budget, Instance

__all__ = ["LocalLimit", "is_local", "local_limits", "without_constant"]

# Combinations of a limit's groups: five of eight candidates.
_LARGEST = 1 << 15


@dataclass(frozen=True, eq=False)
class LocalLimit:
    """Groups (m,) in order, and which of their combinations (K, ..., K) keep the limit."""

    groups: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]


def is_local(budget: Budget) -> bool:
    """Return whether ``budget`` depends on so few groups that every combination of theirs can be looked at."""
    if budget.pairs is not None:
        return False
    return len(budget.touched) < _LARGEST.bit_length() and budget.table.shape[1] ** len(budget.touched) <= _LARGEST


def local_limits(instance: Instance) -> list[LocalLimit]:
    """Return the local limits of ``instance``."""
    found = []
    for budget in instance.budgets:
        if not is_local(budget):
            continue
        groups = budget.touched
        width = budget.table.shape[1]
        rest = exact_int_sum(budget.table[:, 0]) - exact_int_sum(budget.table[groups, 0])
        total = np.zeros((width,) * len(groups), dtype=np.int64)
        for axis, group in enumerate(groups.tolist()):
            shape = [1] * len(groups)
            shape[axis] = width
            total += budget.table[group].reshape(shape)
        found.append(LocalLimit(groups, total <= budget.limit - budget.base - rest))
    return found


def without_constant(instance: Instance) -> Instance | None:
    """Return ``instance`` without the budgets that no choice changes; None where one of them is broken."""
    kept = []
    for budget in instance.budgets:
        if budget.pairs is not None or len(budget.touched):
            kept.append(budget)
        elif budget.base + exact_int_sum(budget.table[:, :1]) > budget.limit:
            return None
    return instance if len(kept) == len(instance.budgets) else replace(instance, budgets=tuple(kept))
