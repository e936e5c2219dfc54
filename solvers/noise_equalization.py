"""Noise equalisation: every group gets the precision that makes its damage nearest to a common level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.solvers._best import best_feasible
from impq_opt.types import IntArray

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
        return best_feasible(instance, self._levels(instance), control)

    def _levels(self, instance: Instance) -> Iterator[IntArray]:
        cost, damage = instance.tables
        with np.errstate(divide="ignore"):
            level = np.log2(damage)
        anchor = np.where(damage > 0, level, np.inf).min(axis=0)
        dead = ~(damage > 0).any(axis=1)
        for target in np.unique(anchor[np.isfinite(anchor)]).tolist() or [0.0]:
            distance = np.where(damage > 0, np.abs(level - target), np.inf)
            near = (distance == distance.min(axis=1, keepdims=True)) & np.isfinite(distance)
            # ties to the lower damage; groups that do no damage take their cheapest harmless candidate
            choice = np.where(near, damage, np.inf).argmin(axis=1)
            choice[dead] = cost[dead].argmin(axis=1)
            yield choice
