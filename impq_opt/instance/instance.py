"""What a solver sees: one choice per free group, and rows of integer costs and float64 damages.

``compile.compile_instance`` turns a :class:`~impq_opt.Problem` and its goals into an :class:`Instance`:
pinned groups become constants, tied groups become one group, cost terms become one integer row. An instance keeps
vectors where the problem keeps vectors (:class:`RankOne`), and views of the problem's own tables where it can.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from impq_opt.exactness.sums import float_units
from impq_opt.instance.blocks import Block, RankOne, Tables
from impq_opt.instance.cost_row import CostRow
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.row import Row, Value
from impq_opt.instance.ties import TieBlock, member_damages
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["Block", "Direction", "Instance", "RankOne", "Row", "TieBlock"]


class Direction(enum.Enum):
    """What is minimised."""

    COST = "cost"
    DAMAGE = "damage"


@dataclass(frozen=True, eq=False)
class Instance:
    """A multiple-choice problem over ``size`` free groups: the least ``objective`` that keeps all ``limits``.

    The objective is the cost, and the damage may have a ``bound``; or it is the damage, and the cost has a ``limit``.
    Further limits on costs are among the ``budgets``. Costs are whole numbers of ``quantum``, a fraction of the cost's
    unit. ``blocks`` and ``tables`` hold what belongs to single groups, ``pairs`` what belongs to two. Where the cost
    that is minimised is the largest of several sums, those are ``peaks``, whose limits mean nothing; where it is
    limited, they are among the budgets.
    """

    problem: Problem
    row: CostRow
    size: int
    blocks: tuple[Block, ...]
    base_cost: int
    base_damage: Fraction
    bound: Fraction | None
    limit: int | None
    budgets: tuple[Row, ...]
    pairs: Coupling | None
    _fixed: IntArray = field(repr=False)
    _free: IntArray | None = field(repr=False)
    ties: tuple[TieBlock, ...] = field(repr=False)
    peaks: tuple[Row, ...] = ()
    # Of the problem's groups (G, K): the columns that a group may take, then the last of them again; None where all may
    # take all. Free groups that are not tied count in these.
    columns: IntArray | None = field(default=None, repr=False)
    # Set from the others: cost and damage as rows, which of them is minimised, and all that are limited, one of the two
    # first, then the budgets.
    cost: Row = field(init=False, repr=False)
    damage: Row = field(init=False, repr=False)
    objective: Row = field(init=False, repr=False)
    limits: tuple[Row, ...] = field(init=False, repr=False)
    _tables: Tables = field(init=False, repr=False)

    # -- what is minimised, and what is limited ----------------------------------------------------------------------

    @property
    def direction(self) -> Direction:
        """Whether cost is minimised, or damage: it is where the cost has a limit."""
        return Direction.COST if self.limit is None else Direction.DAMAGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", Tables(self.size, self.blocks))
        cost, damage = self._own_rows()
        limits = self.budgets
        # Where a peak is limited, that are its steps, which are among the budgets.
        if cost.limit is not None and not self.row.peaks:
            limits = (cost, *limits)
        if damage.limit is not None:
            limits = (damage, *limits)
        objective = cost if self.limit is None else damage
        self.__dict__.update(cost=cost, damage=damage, objective=objective, limits=limits)

    def _own_rows(self) -> tuple[Row, Row]:
        """Return cost and damage; of the cost of a peak nothing is left, since its steps are rows of their own."""
        term = "+".join(self.row.weights)
        cost = Row("budget", self._tables, self.base_cost, self.limit, self.quantum, self.pairs, term)
        return cost, Row("bound", self._tables, self.base_damage, self.bound, whole=False)

    @property
    def objectives(self) -> tuple[Row, ...]:
        """The rows of which the largest is minimised: the objective alone, or each step of a peak."""
        return self.peaks or (self.objective,)

    @property
    def multiplier_names(self) -> frozenset[str]:
        """The names that multipliers may have."""
        return frozenset({"bound", "budget", *(row.name for row in (*self.budgets, *self.peaks))})

    @property
    def quantum(self) -> Fraction:
        """What one integer of cost is worth in the cost's unit."""
        return self.row.quantum

    @property
    def coupled(self) -> bool:
        """Whether the objective or a limit has a cost that belongs to pairs of groups."""
        return self.pairs is not None or any(budget.pairs is not None for budget in self.budgets)

    @property
    def limits_on_costs(self) -> dict[str, Fraction]:
        """Limits on costs, by name, in their units."""
        rows = self.budgets if self.limit is None else (self.cost, *self.budgets)
        return {row.term or row.name: row.limit * row.quantum for row in rows if row.limit is not None}

    @property
    def interacting(self) -> bool:
        """Whether damages that interact count: they are minimised, or have a bound."""
        counts = self.limit is not None or self.bound is not None
        return counts and self.problem.interactions is not None

    def with_bound(self, bound: Fraction) -> Instance:
        """Return the instance with another bound."""
        return replace(self, bound=bound)

    def below_peak(self, limit: int) -> Instance:
        """Return the instance in which nothing is minimised, and every step of the peak is at most ``limit``."""
        steps = (step.limited(limit) for step in self.peaks)
        return replace(self, peaks=(), budgets=(*self.budgets, *steps))

    # -- tables ------------------------------------------------------------------------------------------------------

    @property
    def widths(self) -> IntArray:
        """Candidates of each free group (size,)."""
        return self._tables.widths

    @property
    def tables(self) -> tuple[IntArray, FloatArray]:
        """Cost and damage (size, K) of the free groups; columns past a group's width repeat its last candidate."""
        return self._tables.both

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
        return np.arange(self.size) if self._free is None else self._free.copy()

    @cached_property
    def tied_damages(self) -> Mapping[int, FloatArray]:
        """Damages (members, K) behind each free group that stands for a tie; tables hold their sums rounded down."""
        damages: dict[int, FloatArray] = {}
        for tie in self.ties:
            damages.update(zip(tie.groups.tolist(), member_damages(self.problem, tie), strict=True))
        return damages

    def damage_units(self) -> list[list[int]]:
        """Return the damage of each group's candidates in units of 2**-1074, that of tied groups summed exactly."""
        table = self.tables[1].tolist()
        units = [list(map(float_units, row[:width])) for row, width in zip(table, self.widths.tolist(), strict=True)]
        for group, members in self.tied_damages.items():
            units[group] = [sum(map(float_units, column)) for column in members.T.tolist()]
        return units

    # -- choices -----------------------------------------------------------------------------------------------------

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
        return self.problem.total_damage(self.lift(choice))

    def value_of(self, row: Row, choice: IntArray) -> Value:
        """Return the exact value of a row for a choice (size,), in its quanta."""
        if not row.whole:
            return self.damage_of(choice)
        return self.cost_of(choice) if row.of_blocks else row.at(choice)

    def objective_of(self, choice: IntArray) -> Value:
        """Return the exact value of what is minimised for a choice (size,), of a peak its largest step."""
        return self.value_of(self.objective, choice)

    def is_feasible(self, choice: IntArray) -> bool:
        """Return whether a choice (size,) keeps all limits, decided exactly."""
        return not any(row.broken_by(self.value_of(row, choice)) for row in self.limits)
