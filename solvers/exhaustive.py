"""Exhaustive search: every assignment, for small problems and for tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError, Solver
from impq_opt.instance.instance import Instance, Row
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers._best import Incumbent

__all__ = ["Exhaustive"]

# Sums of n float64 in any order are within n 2^-53 of the exact sum; decide by exact sums what lies closer.
_CLOSE = 1e-9
# Assignments whose interactions are added up together.
_CHUNK = 4096


@dataclass(frozen=True)
class Exhaustive(Solver):
    """Look at every assignment; what the other strategies are tested against.

    Parameters
    ----------
    limit : int
        Most assignments to look at; a larger problem returns no answer and says so.

    Raises
    ------
    OptionError
        For less than one assignment.
    """

    name: ClassVar[str] = "exhaustive"
    summary: ClassVar[str] = "every assignment; for small problems"
    proves: ClassVar[str] = "optimal"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs", "peaks", "interactions"})

    limit: int = 2_000_000

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise OptionError("must be positive", where="exhaustive.limit", value=self.limit)

    def run(self, instance: Instance, control: Control) -> Claim:
        digits = float(np.log10(instance.widths).sum())  # the product of a million widths would take seconds
        if digits > 100 or math.prod(instance.widths.tolist()) > self.limit:
            return Claim(stop=Stop.STATE_LIMIT, statistics={"log10_assignments": digits, "limit": self.limit})
        try:
            return self._run(instance, control)
        except ExpiredError:
            return Claim(stop=Stop.TIME_LIMIT)

    def _run(self, instance: Instance, control: Control) -> Claim:
        widths = instance.widths.tolist()
        states = math.prod(widths)
        cost_table, damage_table = instance.tables
        shift = _shift(damage_table)
        damage_table = np.ldexp(damage_table, -shift)
        cost = np.zeros(1, dtype=np.int64)
        damage = np.zeros(1)
        for group, width in enumerate(widths):
            cost = (cost[:, None] + cost_table[group, :width]).reshape(-1)
            damage = (damage[:, None] + damage_table[group, :width]).reshape(-1)
            control.check()
        if instance.pairs is not None:
            pairs = instance.pairs
            for left, right, table in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.dense(), strict=True):
                cost += table[self._column(widths, left), self._column(widths, right)]
                control.check()
        if instance.peaks:
            cost = np.max([self._step(widths, step) for step in instance.peaks], axis=0)
        blur = 1e-300
        interactions = instance.problem.interactions
        if instance.interacting and interactions is not None:
            damage, more = damage + np.ldexp(self._together(instance, states, control), -shift), interactions.reach
            blur += math.ldexp((more + float(instance.tables[1].max(axis=1).sum())) * _CLOSE, -shift)
        first, second = (cost, damage) if instance.objective.whole else (damage, cost)
        order = np.lexsort((np.arange(states), second, first))
        if instance.bound is not None:
            most = nearest_float((instance.bound - instance.base_damage) / 2**shift)
            order = order[damage[order] <= most + abs(most) * _CLOSE + blur]
        best = Incumbent(instance)
        for number in order.tolist():
            if best.value is not None and self._worse(first[number], best.value, instance, shift, blur):
                break
            if control.expired():
                return Claim(best.choice, stop=Stop.TIME_LIMIT)
            best.offer(np.array(np.unravel_index(number, widths), dtype=np.int64))
        lower = math.inf if best.value is None else best.value
        return Claim(best.choice, lower, enumeration=Enumeration(len(widths), states))

    @staticmethod
    def _together(instance: Instance, states: int, control: Control) -> npt.NDArray[np.float64]:
        """Return what groups damage together in every assignment, in their order."""
        interactions, widths = instance.problem.interactions, instance.widths.tolist()
        assert interactions is not None
        parts = []
        for start in range(0, states, _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, states))
            choices = np.stack(np.unravel_index(numbers, widths), axis=1)
            parts.append(interactions.totals(np.stack([instance.lift(choice) for choice in choices])))
            control.check()
        return np.concatenate(parts)

    @staticmethod
    def _step(widths: list[int], step: Row) -> npt.NDArray[np.int64]:
        """Return one step of a peak for every assignment, in their order."""
        total = np.full(1, step.base)
        for group, width in enumerate(widths):
            total = (total[:, None] + step.table[group, :width]).reshape(-1)
        return total

    @staticmethod
    def _column(widths: list[int], group: int) -> npt.NDArray[np.int64]:
        """Return the candidate of ``group`` in every assignment, in their order."""
        inner = math.prod(widths[group + 1 :])
        return np.tile(np.repeat(np.arange(widths[group]), inner), math.prod(widths[:group]))

    @staticmethod
    def _worse(value: np.int64 | np.float64, best: int | Fraction, instance: Instance, shift: int, blur: float) -> bool:
        """Return whether no later assignment can beat ``best``; for damages, beyond rounding."""
        if instance.objective.whole:
            return int(value) + instance.base_cost >= best
        damage = float(value) + nearest_float(instance.base_damage / 2**shift)
        least = nearest_float(Fraction(best) / 2**shift)
        return damage > least + abs(least) * _CLOSE + blur


def _shift(damage: npt.NDArray[np.float64]) -> int:
    """Return what power of two to divide damages by so that their sums stay in float64."""
    with np.errstate(over="ignore"):
        return 0 if math.isfinite(2.0 * damage.max(axis=1).sum()) else 64
