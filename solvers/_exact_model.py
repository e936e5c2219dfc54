"""Exact amounts around a base allocation: what the core search needs, in integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import ceil_float, exact_int_sum, exact_sum
from impq_opt.instance import Direction, Instance
from impq_opt.solvers._exact_core import Core
from impq_opt.solvers._exact_scan import Pool

__all__ = ["Model", "RelativeCore"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Sums over a core stay below 2**60 units, so that differences of sums stay in int64.
_CORE_BITS = 60
_CLAMP = 1 << 61


@dataclass(frozen=True, eq=False)
class RelativeCore:
    """A core in integers relative to the base, and how to read its gains.

    kept (n, K): the choices that are not ruled out; the others have the numbers of the base's. One unit is worth
    2**-shift of damage; ``offset`` is the damage that a relative gain of 0 stands for, where damage is minimised.
    """

    core: Core
    kept: npt.NDArray[np.bool_]
    shift: int
    offset: Fraction


class Model:
    """An instance as the exact strategy sees it: an objective, a capacity, and exact sums of both."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.by_cost = instance.direction is Direction.COST
        if not self.by_cost:
            assert instance.limit is not None
            self.capacity = Fraction(instance.limit - instance.base_cost)
        elif instance.bound is None:
            self.capacity = Fraction(1 << 1023)
        else:
            self.capacity = instance.bound - instance.base_damage

    @cached_property
    def _tied(self) -> Mapping[int, list[tuple[int, IntArray]]]:
        """Members of each tied group, with their columns for its candidates."""
        return {
            int(group): list(zip(members.tolist(), tie.columns, strict=True))
            for tie in self.instance.ties
            for group, members in zip(tie.groups, tie.members, strict=True)
        }

    def damage_at(self, place: int, column: int) -> Fraction | None:
        """Return the exact damage of a tied group at a candidate; None where the group is no tie."""
        members = self._tied.get(place)
        if members is None:
            return None
        problem = self.instance.problem
        total = Fraction(0)
        for member, columns in members:
            row = problem.damage.at(np.array([member]), problem.candidates.of(member))[0]
            total += Fraction(float(row[columns[min(column, len(columns) - 1)]]))
        return total

    def damage_of(self, places: IntArray, pool: Pool, columns: npt.NDArray[np.integer]) -> Fraction:
        """Return the exact damage of one candidate for each group of ``pool``."""
        chosen = pool.chosen(columns)[1]
        total = exact_sum(chosen)
        if self.instance.ties:
            for row in np.flatnonzero([int(p) in self._tied for p in places]).tolist():
                exact = self.damage_at(int(places[row]), int(columns[row]))
                assert exact is not None
                total += exact - Fraction(float(chosen[row]))
        return total

    def core(
        self,
        places: IntArray,
        pool: Pool,
        base: IntArray,
        kept: npt.NDArray[np.bool_],
        slack: Fraction,
        better: Fraction | None,
        most: Fraction | None,
    ) -> RelativeCore:
        """Return the integer core of some groups.

        Parameters
        ----------
        places (n,), pool, base (n,), kept (n, K)
            The groups, the candidate each takes in the base, and the candidates that are not ruled out.
        slack : Fraction
            What the base leaves of the capacity.
        better : Fraction, optional
            Only answers whose objective is below the base's by more than this are of interest.
        most : Fraction, optional
            No answer of interest does more damage.
        """
        kept = kept.copy()
        if most is not None:
            kept &= pool.damage <= ceil_float(max(most, Fraction(0)))
        rows = np.arange(len(pool))
        kept[rows, base] = True
        units, shift, inexact = self._units(places, pool, kept)
        base_units = units[rows, base]
        damages = np.where(kept, units - base_units[:, None], 0)
        costs = np.where(kept, pool.cost - pool.cost[rows, base][:, None], 0)
        # What rounding took off the base's own damages.
        lost = self.damage_of(places, pool, base) * Fraction(2) ** shift - exact_int_sum(base_units)
        if self.by_cost:
            target = _CLAMP if better is None else math.ceil(-better) - 1
            room = math.floor(slack * Fraction(2) ** shift + lost)
            return RelativeCore(Core(costs, damages, _clamped(room), target, doubt=inexact), kept, shift, Fraction(0))
        target = _CLAMP if better is None else math.ceil(lost - better * Fraction(2) ** shift) - 1
        core = Core(damages, costs, _clamped(math.floor(slack)), _clamped(target), blur=inexact)
        return RelativeCore(core, kept, shift, -lost / Fraction(2) ** shift)

    def _units(self, places: IntArray, pool: Pool, kept: npt.NDArray[np.bool_]) -> tuple[IntArray, int, int]:
        """Return damages (n, K) in units of 2**-shift, rounded down, the shift, and how many groups were rounded."""
        damages = np.where(kept, pool.damage, 0.0)
        largest = float(damages.max(initial=0.0))
        exponent = math.frexp(largest)[1] if largest else -1100
        shift = _CORE_BITS - exponent - max(len(pool) - 1, 1).bit_length()
        scaled = np.ldexp(damages, shift)
        units = np.floor(scaled)
        rounded = (units != scaled).any(axis=1)
        whole = units.astype(np.int64)
        if self.instance.ties:
            for row in np.flatnonzero([int(p) in self._tied for p in places]).tolist():
                for column in np.flatnonzero(kept[row]).tolist():
                    exact = self.damage_at(int(places[row]), column)
                    assert exact is not None
                    whole[row, column] = math.floor(exact * Fraction(2) ** shift)
                rounded[row] = True
        return whole, shift, int(rounded.sum())


def _clamped(value: int) -> int:
    return max(min(value, _CLAMP), -_CLAMP)
