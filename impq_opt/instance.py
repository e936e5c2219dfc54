"""What a solver sees: one choice per free group, integer costs, float64 damages, and limits.

:func:`compile_instance` turns a :class:`~impq_opt.problem.Problem` and its goals into an :class:`Instance`: pinned
groups become constants, tied groups become one group, cost terms become one integer row. An instance keeps vectors
where the problem keeps vectors (:class:`RankOne`), and views of the problem's own tables where it can.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum, exact_sum, sum_rows_down
from impq_opt.costs.rows import CostRow
from impq_opt.coupling import Coupling, Places, couple
from impq_opt.damage import DamageTable, PowerLaw
from impq_opt.problem import Problem

__all__ = ["Block", "Budget", "Direction", "Instance", "RankOne", "TieBlock", "compile_instance"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Scalar = TypeVar("Scalar", np.int64, np.float64)


class Direction(enum.Enum):
    """What is minimised."""

    COST = "cost"
    DAMAGE = "damage"


@dataclass(frozen=True, eq=False)
class RankOne(Generic[Scalar]):
    """The table ``left[g] * right[k]``, kept as its two vectors (n,) and (K,)."""

    left: npt.NDArray[Scalar]
    right: npt.NDArray[Scalar]

    def dense(self) -> npt.NDArray[Scalar]:
        """Return the table (n, K)."""
        table: npt.NDArray[Scalar] = self.left[:, None] * self.right
        return table

    def __getitem__(self, rows: slice) -> RankOne[Scalar]:
        return RankOne(self.left[rows], self.right)


@dataclass(frozen=True, eq=False)
class Block:
    """Groups whose tables have one form.

    Parameters
    ----------
    groups : slice or ndarray of int64 (n,)
        Their places among the groups of the instance.
    cost, damage : RankOne, or ndarray (n, K) of int64 and float64
        Either both are rank-one or both are tables.
    widths : ndarray of int64 (n,), optional
        Candidates of each group; columns at and past it are to be ignored. All K where left out.
    """

    groups: slice | IntArray
    cost: RankOne[np.int64] | IntArray
    damage: RankOne[np.float64] | FloatArray
    widths: IntArray | None = None

    @property
    def structured(self) -> bool:
        """Whether the block keeps vectors, not tables."""
        return isinstance(self.cost, RankOne)

    def part(self, rows: slice) -> Block:
        """Return the block of some of its groups."""
        places = rows if isinstance(self.groups, slice) else self.groups[rows]
        return Block(places, self.cost[rows], self.damage[rows], None if self.widths is None else self.widths[rows])

    def tables(self) -> tuple[IntArray, FloatArray]:
        """Return cost and damage (n, K); columns past a group's width repeat its last candidate."""
        cost = self.cost.dense() if isinstance(self.cost, RankOne) else self.cost
        damage = self.damage.dense() if isinstance(self.damage, RankOne) else self.damage
        if self.widths is None:
            return cost, damage
        columns = np.minimum(np.arange(cost.shape[1]), self.widths[:, None] - 1)
        return np.take_along_axis(cost, columns, 1), np.take_along_axis(damage, columns, 1)


@dataclass(frozen=True, eq=False)
class Budget:
    """A limit on a cost beside the objective: sum of ``table[g, k]`` and ``pairs``, plus ``base``, <= ``limit``.

    All in quanta. ``term`` is the cost that is limited; a peak has a budget for each step.
    """

    name: str
    table: IntArray
    base: int
    limit: int
    quantum: Fraction
    pairs: Coupling | None = None
    term: str = ""


@dataclass(frozen=True, eq=False)
class Instance:
    """A multiple-choice problem over ``size`` free groups.

    ``direction`` COST: minimise the cost subject to damage <= ``bound`` (where given) and the budgets.
    ``direction`` DAMAGE: minimise the damage subject to cost <= ``limit`` and the budgets.
    Costs are whole numbers of ``quantum``, a fraction of the cost's unit. ``blocks`` and ``tables`` hold what belongs
    to single groups, ``pairs`` what belongs to two.
    """

    problem: Problem
    direction: Direction
    row: CostRow
    size: int
    blocks: tuple[Block, ...]
    base_cost: int
    base_damage: Fraction
    bound: Fraction | None
    limit: int | None
    budgets: tuple[Budget, ...]
    pairs: Coupling | None
    _fixed: IntArray = field(repr=False)
    _free: IntArray | None = field(repr=False)
    ties: tuple[TieBlock, ...] = field(repr=False)

    @property
    def quantum(self) -> Fraction:
        """What one integer of cost is worth in the cost's unit."""
        return self.row.quantum

    @property
    def coupled(self) -> bool:
        """Whether the objective or a limit has a cost that belongs to pairs of groups."""
        return self.pairs is not None or any(budget.pairs is not None for budget in self.budgets)

    @property
    def limits(self) -> dict[str, Fraction]:
        """Limits on costs, by name, in their units."""
        limits = {budget.term or budget.name: budget.limit * budget.quantum for budget in self.budgets}
        if self.limit is not None:
            limits = {"+".join(self.row.weights): self.limit * self.quantum} | limits
        return limits

    @cached_property
    def widths(self) -> IntArray:
        """Candidates of each free group (size,)."""
        widths = np.empty(self.size, dtype=np.int64)
        for block in self.blocks:
            full = block.cost.right.size if isinstance(block.cost, RankOne) else block.cost.shape[1]
            widths[block.groups] = full if block.widths is None else block.widths
        return widths

    @cached_property
    def tables(self) -> tuple[IntArray, FloatArray]:
        """Cost and damage (size, K) of the free groups; columns past a group's width repeat its last candidate."""
        if len(self.blocks) == 1 and isinstance(self.blocks[0].groups, slice):
            return self.blocks[0].tables()
        width = int(self.widths.max(initial=1))
        cost = np.empty((self.size, width), dtype=np.int64)
        damage = np.empty((self.size, width))
        for block in self.blocks:
            part_cost, part_damage = block.tables()
            columns = np.minimum(np.arange(width), part_cost.shape[1] - 1)
            cost[block.groups] = part_cost[:, columns]
            damage[block.groups] = part_damage[:, columns]
        return cost, damage

    @cached_property
    def bits(self) -> FloatArray:
        """Precision (size, K) that each candidate stands for, padded like the tables; ties by their first member."""
        width = int(self.widths.max(initial=1))
        columns = np.minimum(np.arange(width), self.widths[:, None] - 1)
        bits = np.empty((self.size, width))
        for k in range(width):
            bits[:, k] = self.problem.candidates.bits(self.lift(columns[:, k]))[self.representatives]
        return bits

    @cached_property
    def representatives(self) -> IntArray:
        """The problem's group (size,) that each free group stands for; the first member of a tie."""
        found = np.arange(self.size) if self._free is None else self._free.copy()
        return found

    def lift(self, choice: IntArray) -> IntArray:
        """Return the choice (G,) of all groups of the problem for a choice (size,) of the free ones."""
        if self._free is None:
            return choice
        full = self._fixed.copy()
        full[self._free] = choice
        for tie in self.ties:
            # (ties, members) <- columns of each member for the tie's candidate
            full[tie.members] = np.take_along_axis(tie.columns[None], choice[tie.groups][:, None, None], axis=2)[
                :, :, 0
            ]
        return full

    def reduce(self, choice: IntArray) -> IntArray:
        """Return the choice (size,) of the free groups for one (G,) that respects pins and ties."""
        if self._free is None:
            return choice
        reduced = choice[self._free]
        for tie in self.ties:
            # (ties, columns) <- which candidate of the tie gives every member its column
            same = (tie.columns[None] == choice[tie.members][:, :, None]).all(axis=1)
            reduced[tie.groups] = same.argmax(axis=1)
        return reduced

    def cost_of(self, choice: IntArray) -> int:
        """Return the exact cost of a choice (size,), pinned groups included, in quanta."""
        return self.row.total(self.problem.candidates, self.lift(choice))

    def damage_of(self, choice: IntArray) -> Fraction:
        """Return the exact damage of a choice (size,), pinned groups included."""
        return exact_sum(self.problem.damage.chosen(self.problem.candidates, self.lift(choice)))

    def budget_of(self, budget: Budget, choice: IntArray) -> int:
        """Return the exact value of ``budget`` for a choice (size,), in its quanta."""
        total = budget.base + exact_int_sum(budget.table[np.arange(self.size), choice])
        return total if budget.pairs is None else total + exact_int_sum(budget.pairs.at(choice))

    def is_feasible(self, choice: IntArray) -> bool:
        """Return whether a choice (size,) meets the bound and all budgets, decided exactly."""
        if self.bound is not None and self.damage_of(choice) > self.bound:
            return False
        if self.limit is not None and self.cost_of(choice) > self.limit:
            return False
        return all(self.budget_of(budget, choice) <= budget.limit for budget in self.budgets)


@dataclass(frozen=True, eq=False)
class TieBlock:
    """Ties whose members have the same candidate sets.

    groups (T,): free groups that stand for the ties. members (T, m): groups of the problem.
    columns (m, K): column of each member for each common candidate.
    """

    groups: IntArray
    members: IntArray
    columns: IntArray


def compile_instance(
    problem: Problem,
    *,
    direction: Direction,
    bound: Fraction | None,
    cost: CostRow,
    limit: int | None = None,
    budgets: Sequence[tuple[str, CostRow, int]] = (),
) -> Instance:
    """Turn a problem and its goals into what a solver sees.

    Parameters
    ----------
    cost : CostRow
        The cost that is minimised, or that ``limit`` bounds.
    budgets : sequence of (name, row, limit in quanta)
    """
    fixed, is_free, ties = _reduce(problem)
    free = None if is_free is None else np.flatnonzero(is_free)
    size = len(problem) if free is None else len(free)
    constant = _constant_groups(is_free, ties)
    tie_blocks = _place_ties(problem, ties, free)
    coupled = cost.coupled or any(row.coupled for _, row, _ in budgets)
    places = _places(problem, fixed, free, tie_blocks) if coupled else None
    linear, pairs, base_cost = _uncoupled(problem, cost, places)
    base_damage = Fraction(0)
    if constant is not None:
        base_cost += exact_int_sum(linear.chosen(problem.candidates, fixed)[constant])
        base_damage = exact_sum(problem.damage.chosen(problem.candidates, fixed)[constant])
    blocks = list(_plain_blocks(problem, linear, free, _tied(size, tie_blocks)))
    blocks += [_merged_block(problem, linear, tie) for tie in tie_blocks]
    instance = Instance(
        problem=problem,
        direction=direction,
        row=cost,
        size=size,
        blocks=tuple(blocks),
        base_cost=base_cost,
        base_damage=base_damage,
        bound=bound,
        limit=limit,
        budgets=(),
        pairs=pairs,
        _fixed=fixed,
        _free=free,
        ties=tie_blocks,
    )
    rows = tuple(_budget(instance, constant, places, name, row, most) for name, row, most in budgets)
    return replace(instance, budgets=rows) if rows else instance


def _uncoupled(problem: Problem, row: CostRow, places: Places | None) -> tuple[CostRow, Coupling | None, int]:
    """Return the part of ``row`` that belongs to single groups, the pairs, and the constant."""
    if places is None:
        return (replace(row, constant=0) if row.constant else row), None, row.constant
    return couple(problem, row, places)


def _places(problem: Problem, fixed: IntArray, free: IntArray | None, ties: tuple[TieBlock, ...]) -> Places:
    """Return where the problem's groups are among the free ones."""
    count = len(problem)
    widths = problem.candidates.counts(count)
    if free is None:
        every = np.arange(count)
        return Places(every, np.zeros(count, dtype=np.int64), None, widths, every)
    place = np.full(count, -1)
    place[free] = np.arange(len(free))
    if not ties:
        return Places(place, fixed, None, widths[free], free)
    columns = np.minimum(np.arange(problem.candidates.width), widths[:, None] - 1)
    widths = widths[free]
    for tie in ties:
        place[tie.members] = tie.groups[:, None]
        widths[tie.groups] = tie.columns.shape[1]
        padded = np.minimum(np.arange(columns.shape[1]), tie.columns.shape[1] - 1)
        columns[tie.members] = tie.columns[:, padded]
    return Places(place, fixed, columns, widths, free)


def _reduce(problem: Problem) -> tuple[IntArray, npt.NDArray[np.bool_] | None, list[tuple[int, ...]]]:
    """Return the columns of pinned groups (G,), which groups stay free (or None: all), and the open ties."""
    if not problem.pins and not problem.ties:
        return np.zeros(0, dtype=np.int64), None, []
    fixed = np.zeros(len(problem), dtype=np.int64)
    is_free = np.ones(len(problem), dtype=bool)
    for group, column in problem.pins.items():
        fixed[group], is_free[group] = column, False
    open_ties = []
    for tie in problem.ties:
        pinned = [g for g in tie if g in problem.pins]
        if pinned:
            bits = problem.candidates.of(pinned[0])[problem.pins[pinned[0]]]
            for group in tie:
                fixed[group], is_free[group] = problem.candidates.of(group).index(bits), False
        else:
            is_free[list(tie[1:])] = False
            open_ties.append(tie)
    return fixed, is_free, open_ties


def _constant_groups(is_free: npt.NDArray[np.bool_] | None, ties: list[tuple[int, ...]]) -> IntArray | None:
    """Return the pinned groups, or None where there are none."""
    if is_free is None:
        return None
    constant = ~is_free
    for tie in ties:
        constant[list(tie)] = False
    return np.flatnonzero(constant)


def _place_ties(problem: Problem, ties: list[tuple[int, ...]], free: IntArray | None) -> tuple[TieBlock, ...]:
    """Gather ties whose members have the same sets of candidates, so that each kind is merged in one go."""
    if not ties or free is None:
        return ()
    set_of = problem.candidates.set_of
    kinds: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for tie in ties:
        kinds.setdefault(tuple(0 if set_of is None else int(set_of[g]) for g in tie), []).append(tie)
    blocks = []
    for numbers, members in kinds.items():
        sets = [problem.candidates.sets[number] for number in numbers]
        common = [b for b in sets[0] if all(b in one for one in sets[1:])]
        columns = np.array([[one.index(b) for b in common] for one in sets], dtype=np.int64)
        array = np.array(members, dtype=np.int64)
        blocks.append(TieBlock(np.searchsorted(free, array[:, 0]), array, columns))
    return tuple(blocks)


def _plain_blocks(
    problem: Problem, cost: CostRow, free: IntArray | None, tied: npt.NDArray[np.bool_] | None
) -> Iterator[Block]:
    """Yield the blocks of the groups that are neither pinned nor tied."""
    places: IntArray | slice = slice(None)
    groups: IntArray | slice = slice(None)
    if free is not None:
        places = np.arange(len(free)) if tied is None else np.flatnonzero(~tied)
        groups = free[places]
        if len(groups) == 0:
            return
    candidates = problem.candidates
    structured = isinstance(problem.damage, PowerLaw) and cost.table is None
    if candidates.set_of is None:
        yield _block(problem, cost, places, groups, candidates.sets[0], structured)
        return
    sets = candidates.set_of[groups]
    if structured:
        for number in np.unique(sets).tolist():
            inside = np.flatnonzero(sets == number)
            place = inside if isinstance(places, slice) else places[inside]
            group = inside if isinstance(groups, slice) else groups[inside]
            yield _block(problem, cost, place, group, candidates.sets[number], structured)
        return
    widths = np.array([len(one) for one in candidates.sets], dtype=np.int64)[sets]
    yield _ragged_block(problem, cost, places, groups, sets, widths)


def _block(
    problem: Problem,
    cost: CostRow,
    places: IntArray | slice,
    groups: IntArray | slice,
    bits: Sequence[float],
    structured: bool,
) -> Block:
    if structured:
        assert isinstance(problem.damage, PowerLaw) and cost.slope is not None
        return Block(
            places,
            RankOne(cost.slope[groups], cost.levels(bits)),
            RankOne(problem.damage.sensitivity[groups], problem.damage.scale(bits)),
        )
    return Block(places, cost.dense(groups, bits), problem.damage.at(groups, bits))


def _ragged_block(
    problem: Problem,
    cost: CostRow,
    places: IntArray | slice,
    groups: IntArray | slice,
    sets: IntArray,
    widths: IntArray,
) -> Block:
    """Return one block of tables for groups with several candidate sets."""
    candidates = problem.candidates
    full = all(len(one) == candidates.width for one in candidates.sets)
    if cost.table is not None and cost.slope is None and isinstance(problem.damage, DamageTable):
        cost_table, damage_table = cost.table[groups], problem.damage.values[groups]
        cost_table, damage_table = cost_table[:, : candidates.width], damage_table[:, : candidates.width]
        return Block(places, cost_table, damage_table, None if full else widths)
    chosen = np.arange(len(problem))[groups]
    cost_table = np.zeros((len(chosen), candidates.width), dtype=np.int64)
    damage_table = np.zeros((len(chosen), candidates.width))
    for number in np.unique(sets).tolist():
        inside = np.flatnonzero(sets == number)
        bits = candidates.sets[number]
        cost_table[inside, : len(bits)] = cost.dense(chosen[inside], bits)
        damage_table[inside, : len(bits)] = problem.damage.at(chosen[inside], bits)
    return Block(places, cost_table, damage_table, None if full else widths)


def _merged_block(problem: Problem, cost: CostRow, tie: TieBlock) -> Block:
    """Return the block of tied groups: costs added exactly, damages added downwards.

    A float64 cannot hold every sum of float64s. Rounded down, the sum relaxes the bound, so lower bounds stay valid;
    whether a choice is feasible is decided on the members (:meth:`Instance.damage_of`).
    """
    set_of = problem.candidates.set_of
    costs, damages = [], []
    for members, columns in zip(tie.members.T, tie.columns, strict=True):
        bits = problem.candidates.sets[0 if set_of is None else int(set_of[members[0]])]
        costs.append(cost.dense(members, bits)[:, columns])
        damages.append(problem.damage.at(members, bits)[:, columns])
    return Block(tie.groups, np.sum(costs, axis=0), sum_rows_down(np.stack(damages)))


def _budget(
    instance: Instance, constant: IntArray | None, places: Places | None, name: str, full: CostRow, limit: int
) -> Budget:
    """Return a budget beside the objective, on the free groups."""
    problem = instance.problem
    row, pairs, base = _uncoupled(problem, full, places)
    blocks = list(_plain_blocks(problem, row, instance._free, _tied(instance.size, instance.ties)))
    blocks += [_merged_block(problem, row, tie) for tie in instance.ties]
    table = np.empty((instance.size, int(instance.widths.max(initial=1))), dtype=np.int64)
    for block in blocks:
        part, _ = block.tables()
        table[block.groups] = part[:, np.minimum(np.arange(table.shape[1]), part.shape[1] - 1)]
    if constant is not None:
        base += exact_int_sum(row.chosen(problem.candidates, instance._fixed)[constant])
    return Budget(name, table, base, limit, row.quantum, pairs, "+".join(row.weights))


def _tied(size: int, ties: tuple[TieBlock, ...]) -> npt.NDArray[np.bool_] | None:
    if not ties:
        return None
    tied = np.zeros(size, dtype=bool)
    for tie in ties:
        tied[tie.groups] = True
    return tied
