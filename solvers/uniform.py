"""Uniform: one precision for every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.instance import Direction, Instance
from impq_opt.solver import Claim, Control, Solver

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(Solver):
    """The best single precision; groups that may not take it take their next higher candidate, or their highest.

    The baseline of every table in the field. It can fail where an allocation exists.
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "one precision for all groups, the best that is feasible"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets"})

    def run(self, instance: Instance, control: Control) -> Claim:
        bits = instance.bits
        best, best_value = None, None
        for level in np.unique(bits).tolist():
            reached = np.where(bits >= level, bits, np.inf)
            choice = reached.argmin(axis=1)
            short = np.isinf(reached.min(axis=1))
            choice[short] = bits[short].argmax(axis=1)
            if not instance.is_feasible(choice):
                continue
            cost = instance.direction is Direction.COST
            value = instance.cost_of(choice) if cost else instance.damage_of(choice)
            if best_value is None or value < best_value:
                best, best_value = choice, value
        return Claim(best)
