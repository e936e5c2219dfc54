"""The best of several allocations that keep the limits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from impq_opt.instance import Direction, Instance

__all__ = ["best_feasible"]

IntArray = npt.NDArray[np.int64]


def best_feasible(instance: Instance, choices: Iterable[IntArray]) -> IntArray | None:
    """Return the first of the best ``choices`` (size,) that keep all limits, decided exactly; None where none does."""
    best, best_value = None, None
    for choice in choices:
        if not instance.is_feasible(choice):
            continue
        by_cost = instance.direction is Direction.COST
        value = instance.cost_of(choice) if by_cost else instance.damage_of(choice)
        if best_value is None or value < best_value:
            best, best_value = choice, value
    return best
