"""What a solver sees: one choice per free group, integer costs, float64 damages, and limits.

``compile.compile_instance`` turns a :class:`~impq_opt.Problem` and its goals into an :class:`Instance`:
pinned groups become constants, tied groups become one group, cost terms become one integer row. An instance keeps
vectors where the problem keeps vectors (:class:`RankOne`), and views of the problem's own tables where it can.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum, exact_sum
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.rows import CostRow
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["Block", "Budget", "Direction", "Instance", "RankOne", "TieBlock"]


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

    def __getitem__(self, rows: slice | IntArray) -> RankOne[Scalar]:
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

    @cached_property
    def touched(self) -> IntArray:
        """The groups whose candidates differ in ``table``."""
        return np.flatnonzero((self.table != self.table[:, :1]).any(axis=1))


@dataclass(frozen=True, eq=False)
class Instance:
    """A multiple-choice problem over ``size`` free groups.

    ``direction`` COST: minimise the cost subject to damage <= ``bound`` (where given) and the budgets.
    ``direction`` DAMAGE: minimise the damage subject to cost <= ``limit`` and the budgets.
    Costs are whole numbers of ``quantum``, a fraction of the cost's unit. ``blocks`` and ``tables`` hold what belongs
    to single groups, ``pairs`` what belongs to two. Where the cost that is minimised is the largest of several sums,
    those are ``peaks``, whose limits mean nothing; where it is limited, they are among the budgets.
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
    peaks: tuple[Budget, ...] = ()
    # Of the problem's groups (G, K): the columns that a group may take, then the last of them again; None where all may
    # take all. Free groups that are not tied count in these.
    columns: IntArray | None = field(default=None, repr=False)

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

    def with_bound(self, bound: Fraction) -> Instance:
        """Return the instance with another bound."""
        return replace(self, bound=bound)

    def lift(self, choice: IntArray) -> IntArray:
        """Return the choice (G,) of all groups of the problem for a choice (size,) of the free ones."""
        if self._free is None:
            return choice
        full = self._fixed.copy()
        full[self._free] = choice if self.columns is None else self._own_columns(choice)
        for tie in self.ties:
            # (ties, members) <- columns of each member for the tie's candidate
            full[tie.members] = np.take_along_axis(tie.columns[None], choice[tie.groups][:, None, None], axis=2)[
                :, :, 0
            ]
        return full

    def _own_columns(self, choice: IntArray) -> IntArray:
        assert self.columns is not None and self._free is not None
        # A tie may have more candidates than its first member; where it is lifted to is told by the tie.
        return self.columns[self._free, np.minimum(choice, self.columns.shape[1] - 1)]

    def reduce(self, choice: IntArray) -> IntArray:
        """Return the choice (size,) of the free groups for one (G,) that respects pins and ties."""
        if self._free is None:
            return choice
        reduced = choice[self._free]
        if self.columns is not None:
            reduced = (self.columns[self._free] == reduced[:, None]).argmax(axis=1)
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
