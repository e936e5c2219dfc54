"""What a choice costs and damages, exactly, and which limits it breaks. Imports no solver."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.errors import SolverError
from impq_opt.instance.instance import Instance
from impq_opt.instance.row import Value
from impq_opt.types import IntArray

__all__ = ["Assessment", "assess"]


@dataclass(frozen=True)
class Assessment:
    """What a choice costs and damages, exactly, which of them is minimised, and which limits are broken."""

    cost: int
    damage: Fraction
    objective: Value
    broken: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        """Whether every limit is met."""
        return not self.broken


def assess(instance: Instance, choice: IntArray) -> Assessment:
    """Recompute everything about a choice (size,) of the free groups.

    Raises
    ------
    SolverError
        Where it is no choice of the instance.
    """
    if not isinstance(choice, np.ndarray) or choice.shape != (instance.size,) or choice.dtype.kind not in "iu":
        raise SolverError(f"a choice must be {instance.size} integers, got {choice!r:.80}")
    if choice.size and (int(choice.min()) < 0 or bool((choice >= instance.widths).any())):
        raise SolverError("a choice is outside its group's candidates")
    choice = choice.astype(np.int64, copy=False)
    cost, damage = instance.cost_of(choice), instance.damage_of(choice)
    broken = []
    for row in instance.limits:
        own = cost if row.whole else damage
        if row.broken_by(own if row.of_blocks else row.at(choice)):
            broken.append(row.name)
    return Assessment(cost, damage, cost if instance.objective.whole else damage, tuple(broken))
