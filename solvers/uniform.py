"""Uniform: one precision for every group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.solvers._best import best_feasible
from impq_opt.types import IntArray

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(Solver):
    """The best single precision; groups that may not take it take their next higher candidate, or their highest.

    The baseline of every table in the field. It can fail where an allocation exists.
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "one precision for all groups, the best that is feasible"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "interactions"})

    def run(self, instance: Instance, control: Control) -> Claim:
        return best_feasible(instance, self._levels(instance), control)

    def _levels(self, instance: Instance) -> Iterator[IntArray]:
        bits = instance.bits
        for level in np.unique(bits).tolist():
            reached = np.where(bits >= level, bits, np.inf)
            choice = reached.argmin(axis=1)
            short = np.isinf(reached.min(axis=1))
            choice[short] = bits[short].argmax(axis=1)
            yield choice
