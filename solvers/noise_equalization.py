"""Noise equalisation: every group gets the precision that makes its damage nearest to a common level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.instance import Direction, Instance
from impq_opt.solver import Claim, Control, Solver

__all__ = ["NoiseEqualization"]


@dataclass(frozen=True)
class NoiseEqualization(Solver):
    """B_g = B_min + round(log2 sqrt(E_g / E_min)), the best B_min (Sakr & Shanbhag, ICASSP 2018).

    Stated on damages, which is the same for the law 4^-B E and works for any table: every group takes the candidate
    whose log-damage is nearest to that of the least damaged group at B_min, ties to the higher precision. Sizes play no
    part, which is what an integer program adds.
    """

    name: ClassVar[str] = "noise-equalization"
    summary: ClassVar[str] = "equal damage for all groups, swept over the common level"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets"})

    def run(self, instance: Instance, control: Control) -> Claim:
        _, damage = instance.tables
        with np.errstate(divide="ignore"):
            level = np.log2(damage)
        anchor = np.where(damage > 0, level, np.inf).min(axis=0)
        best, best_value = None, None
        for target in np.unique(anchor[np.isfinite(anchor)]).tolist() or [0.0]:
            distance = np.where(damage > 0, np.abs(level - target), np.inf)
            nearest = distance.min(axis=1)
            near = (distance == nearest[:, None]) & np.isfinite(distance)
            # ties to the lower damage; groups that do no damage take their cheapest harmless candidate
            choice = np.where(near, damage, np.inf).argmin(axis=1)
            dead = ~(damage > 0).any(axis=1)
            choice[dead] = np.where(damage[dead] == 0, instance.tables[0][dead], np.iinfo(np.int64).max).argmin(axis=1)
            if not instance.is_feasible(choice):
                continue
            cost = instance.direction is Direction.COST
            value = instance.cost_of(choice) if cost else instance.damage_of(choice)
            if best_value is None or value < best_value:
                best, best_value = choice, value
        return Claim(best)
