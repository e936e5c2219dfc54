"""Groups that count in damage and in limits on few groups only: settled first, at their least damage.

Whatever the others choose, and whatever is minimised, less damage of theirs is no worse. Activations are such groups
where weights are stored and the peak of activation memory is limited.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from impq_opt.instance.elimination import Factor, least_sum
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import LocalLimit, is_local, local_limits
from impq_opt.types import IntArray

__all__ = ["idle_groups", "least_damage"]


def idle_groups(instance: Instance) -> IntArray:
    """Return the groups that are in no other row but damage and limits on few groups, nor limited with one that is.

    None where no limit is on few groups.
    """
    limits = local_limits(instance)
    if not limits:
        return np.empty(0, dtype=np.int64)
    budgets = [budget for budget in instance.budgets if not is_local(budget)] + list(instance.peaks)
    busy = np.zeros(instance.size, dtype=bool)
    for table in (instance.tables[0], *(budget.table for budget in budgets)):
        busy |= (table != table[:, :1]).any(axis=1)
    for pairs in (instance.pairs, *(budget.pairs for budget in budgets)):
        if pairs is not None:
            busy[pairs.left] = busy[pairs.right] = True
    while any(busy[limit.groups].any() and not busy[limit.groups].all() for limit in limits):
        for limit in limits:
            busy[limit.groups] |= busy[limit.groups].any()
    return np.flatnonzero(~busy)


def least_damage(instance: Instance, groups: IntArray) -> IntArray | None:
    """Return the columns (n,) of least damage of idle groups that keep their limits, exactly; None where none do.

    Empty where elimination would take too much memory.
    """
    inside = np.zeros(instance.size, dtype=bool)
    inside[groups] = True
    choice = instance.tables[1].argmin(axis=1)
    limits = [limit for limit in local_limits(instance) if inside[limit.groups].all()]
    limited = np.unique(np.concatenate([limit.groups for limit in limits])) if limits else groups[:0]
    damages = [[Fraction(d) for d in row[:width]] for row, width in _rows(instance, limited)]
    scale = math.lcm(*(d.denominator for row in damages for d in row))
    largest = sum(int(max(row) * scale) for row in damages) + 1
    width = instance.tables[1].shape[1]
    factors: list[Factor] = []
    for group, row in zip(limited.tolist(), damages, strict=True):
        values = [int(d * scale) for d in row]
        # Python's whole numbers: no sum rounds. Columns past the last candidate are none.
        factors.append(((group,), np.array([*values, *[largest] * (width - len(values))], dtype=object)))
    factors += [_penalty(limit, largest) for limit in limits]
    least, columns, exact = least_sum(factors)
    if least >= largest:
        return None
    choice[limited] = [columns[group] for group in limited.tolist()]
    return choice[groups] if exact else groups[:0]


def _rows(instance: Instance, groups: IntArray) -> list[tuple[list[float], int]]:
    damage = instance.tables[1]
    return list(zip(damage[groups].tolist(), instance.widths[groups].tolist(), strict=True))


def _penalty(limit: LocalLimit, largest: int) -> Factor:
    table = np.zeros(limit.kept.shape, dtype=object)
    table[~limit.kept] = largest
    return tuple(limit.groups.tolist()), table
