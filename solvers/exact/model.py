"""Exact amounts around a base allocation: what the core search needs, in integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.limits import ABOVE_ALL_DAMAGE, UNLIMITED, clamped
from impq_opt.exactness.sums import UNIT_BITS, exact_units, float_above, units_within
from impq_opt.instance.instance import Instance
from impq_opt.solvers.exact.goal import Goal, LeastCost, LeastDamage
from impq_opt.solvers.native.cores import Relative, exchange, relative, relative_to, rounded_down
from impq_opt.solvers.native.passes import Pool
from impq_opt.solvers.native.program import Core
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Model", "RelativeCore"]


_ABOVE_ALL = Fraction(ABOVE_ALL_DAMAGE)


class RelativeCore(NamedTuple):
    """A core in integers relative to the base, and how to read its gains.

    kept (n, K): the choices that are not ruled out; the others have the numbers of the base's. Where damage is
    minimised, a gain of 1 is worth 2**coarser units of 2**-1074, and one of 0 stands for ``offset`` units.
    """

    core: Core
    kept: BoolArray
    coarser: int
    offset: int


class Model:
    """An instance as the exact strategy sees it: a goal, and exact sums of what is minimised and limited.

    Damages are counted in units of 2**-1074.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.by_cost = instance.objective.whole
        if not self.by_cost:
            assert instance.limit is not None
            self.goal: Goal = LeastDamage(clamped(instance.limit - instance.base_cost))
        elif instance.bound is None:
            self.goal = LeastCost(ABOVE_ALL_DAMAGE << UNIT_BITS)
        else:
            self.goal = LeastCost(units_within(min(instance.bound - instance.base_damage, _ABOVE_ALL)))

    @cached_property
    def _tied(self) -> Mapping[int, FloatArray]:
        """Damages (members, K) behind each tied group at its candidates."""
        return self.instance.tied_damages

    def damage_of(self, places: IntArray, pool: Pool, columns: npt.NDArray[np.integer]) -> int:
        """Return the exact damage of one candidate for each group of ``pool``."""
        chosen = pool.chosen(columns)[1]
        if not self.instance.ties:
            return exact_units(chosen)
        tied = [(row, self._tied[p]) for row, p in enumerate(places.tolist()) if p in self._tied]
        behind = [members[:, min(int(columns[row]), members.shape[1] - 1)] for row, members in tied]
        single = np.ones(len(places), dtype=bool)
        single[[row for row, _ in tied]] = False
        return exact_units(np.concatenate([chosen[single], *behind]))

    def exchange(
        self, pool: Pool, rows: IntArray, base: IntArray, columns: IntArray, kept: BoolArray | None
    ) -> tuple[IntArray, IntArray, int, int]:
        """Return the rows (m,) of ``pool`` that change from ``base`` to ``columns`` (n,), and to which column (m,).

        A column that is not ``kept`` (n, K) stands for the base's. Also return what that saves, cost and damage,
        exactly.
        """
        moved, to, saved, less = exchange(pool, rows, base, columns, kept)
        if self.instance.ties:  # the damages of the pool are rounded sums
            part, places = pool.take(moved), pool.places[moved]
            own = base[np.isin(rows, moved)]
            less = self.damage_of(places, part, own) - self.damage_of(places, part, to)
        return moved, to, saved, less

    def core(
        self,
        places: IntArray,
        pool: Pool,
        base: IntArray,
        kept: BoolArray,
        slack: int,
        better: int | None,
        most: int | None,
        *,
        refine: bool = False,
    ) -> RelativeCore:
        """Return the integer core of some groups.

        Parameters
        ----------
        places (n,), pool, base (n,), kept (n, K)
            The groups, the candidate each takes in the base, and the candidates that are not ruled out.
        slack : int
            What the base leaves of the capacity.
        better : int, optional
            Only answers whose objective is below the base's by more than this are of interest.
        most : int, optional
            No answer of interest does more damage.
        refine : bool
            Tell also how damages are ordered that rounding makes equal.
        """
        kept = kept.copy()
        costs, damages, coarser, inexact, lost = self._relative(places, pool, base, kept, most)
        rank, alike = self._unrounded(places, pool, base, kept) if refine else (None, None)
        if self.by_cost:
            target = UNLIMITED if better is None else -better - 1
            room = (slack + lost) >> coarser
            core = Core(costs, damages, clamped(room), target, doubt=inexact, rank=rank, alike=alike)
            return RelativeCore(core, kept, coarser, 0)
        target = UNLIMITED if better is None else (lost - better - 1) >> coarser
        core = Core(damages, costs, clamped(slack), clamped(target), blur=inexact, rank=rank, alike=alike)
        return RelativeCore(core, kept, coarser, -lost)

    def _relative(
        self, places: IntArray, pool: Pool, base: IntArray, kept: BoolArray, most: int | None
    ) -> tuple[IntArray, IntArray, int, int, int]:
        """Return costs and damages (n, K) beyond the base's, and what rounding did.

        Damages are in units of 2**(coarser - 1074), rounded down. Choices that do more damage than ``most`` are taken
        off ``kept``, the base's never. Also return ``coarser``, the number of rounded groups, and what rounding took
        off the base's own damages, in units of 2**-1074.
        """
        most_damage = math.inf if most is None else float_above(max(most, 0))
        if self.instance.ties:
            core = self._relative_to_tied(places, pool, base, kept, most_damage)
        else:
            core = relative(pool.cost, pool.damage, kept, base, most_damage)
        coarser = UNIT_BITS - core.shift
        return core.cost, core.damage, coarser, core.inexact, core.base_damage - (core.base_units << coarser)

    def _relative_to_tied(self, places: IntArray, pool: Pool, base: IntArray, kept: BoolArray, most: float) -> Relative:
        """Return what :func:`relative` does, the damages of tied groups rounded down from their exact sums."""
        units, shift, rounded = rounded_down(pool.damage, kept, base, most)
        tied = [row for row, place in enumerate(places.tolist()) if place in self._tied]
        sums: dict[int, list[int]] = {}  # rows by the number of members behind them
        for row in tied:
            sums.setdefault(len(self._tied[int(places[row])]), []).append(row)
        for rows in sums.values():
            row_of, column = np.nonzero(kept[rows])
            behind = [self._tied[int(places[row])] for row in rows]
            last = np.array([members.shape[1] for members in behind])[row_of] - 1
            values = _stacked(behind)[row_of, :, np.minimum(column, last)].T  # (members, n)
            units[np.array(rows)[row_of], column] = _floor_sums(values, shift)
        rounded[tied] = True
        own = self.damage_of(places, pool, base)
        return relative_to(pool.cost, units, kept, base, shift, int(rounded.sum()), own)

    def _unrounded(self, places: IntArray, pool: Pool, base: IntArray, kept: BoolArray) -> tuple[IntArray, IntArray]:
        """Return the rank (n, K) of each exact damage in its group, and a number (n,) that equal groups share."""
        damages = np.where(kept, pool.damage, pool.damage[np.arange(len(pool)), base][:, None])
        order = np.argsort(damages, axis=1, kind="stable")
        rising = np.diff(np.take_along_axis(damages, order, axis=1), axis=1, prepend=-1.0) > 0
        rank = np.empty(damages.shape, dtype=np.int64)
        np.put_along_axis(rank, order, np.cumsum(rising, axis=1), axis=1)
        alike = np.unique(damages, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        numbers: dict[tuple[int, ...], int] = {}
        for row, place in enumerate(places.tolist() if self.instance.ties else ()):
            if place in self._tied:  # the damages of the pool are rounded sums
                members = self._tied[place]
                columns = [k if kept[row, k] else int(base[row]) for k in range(damages.shape[1])]
                exact = tuple(exact_units(members[:, min(k, members.shape[1] - 1)]) for k in columns)
                places_of = {value: number for number, value in enumerate(sorted(set(exact)))}
                rank[row] = [places_of[value] for value in exact]
                alike[row] = len(places) + numbers.setdefault(exact, len(numbers))
        return rank, alike


def _stacked(parts: list[FloatArray]) -> FloatArray:
    """Stack (members, K) tables of different K; what is added is not to be read."""
    width = max(part.shape[1] for part in parts)
    table = np.zeros((len(parts), parts[0].shape[0], width))
    for row, part in zip(table, parts, strict=True):
        row[:, : part.shape[1]] = part
    return table


def _floor_sums(values: FloatArray, shift: int) -> IntArray:
    """Return floor(2**shift times the exact sum) of each column of ``values`` (members, n)."""
    if len(values) != 2:
        return np.array([_floor_sum(column, shift) for column in values.T.tolist()], dtype=np.int64)
    left, right = np.ldexp(values, shift)
    whole = np.floor(left), np.floor(right)
    first, second = left - whole[0], right - whole[1]
    # The fractions carry where their exact sum is 1 or more; Knuth's TwoSum gives what rounding took off it.
    total = first + second
    part = total - first
    error = (first - (total - part)) + (second - part)
    carry = (total > 1) | ((total == 1) & (error >= 0))
    return whole[0].astype(np.int64) + whole[1].astype(np.int64) + carry


def _floor_sum(values: list[float], shift: int) -> int:
    """Return floor(2**shift times the exact sum of ``values``)."""
    ratios = [value.as_integer_ratio() for value in values]
    places = max(bottom.bit_length() for _, bottom in ratios) - 1  # denominators are powers of two
    total = sum(top << (places + 1 - bottom.bit_length()) for top, bottom in ratios)
    return total << (shift - places) if shift >= places else total >> (places - shift)
