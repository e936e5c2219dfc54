"""The best of several allocations that keep the limits."""

from __future__ import annotations

from collections.abc import Iterable

from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.instance import Direction, Instance
from impq_opt.problem.allocation import Stop
from impq_opt.types import IntArray

__all__ = ["best_feasible"]


def best_feasible(instance: Instance, choices: Iterable[IntArray], control: Control) -> Claim:
    """Return the first of the best ``choices`` (size,) that keep all limits, decided exactly, as far as time goes."""
    best, best_value = None, None
    for choice in choices:
        if instance.is_feasible(choice):
            by_cost = instance.direction is Direction.COST
            value = instance.cost_of(choice) if by_cost else instance.damage_of(choice)
            if best_value is None or value < best_value:
                best, best_value = choice, value
        if control.expired():
            return Claim(best, stop=Stop.TIME_LIMIT)
    return Claim(best)
