"""Tables of cost and damage of the free groups, as vectors where the problem has vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from impq_opt.types import FloatArray, IntArray

__all__ = ["Block", "RankOne", "Tables"]


Scalar = TypeVar("Scalar", np.int64, np.float64)


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
class Tables:
    """What the blocks of ``size`` groups hold together, made when it is first asked for."""

    size: int
    blocks: Sequence[Block]

    @cached_property
    def widths(self) -> IntArray:
        """Candidates of each group (size,)."""
        widths = np.empty(self.size, dtype=np.int64)
        for block in self.blocks:
            full = block.cost.right.size if isinstance(block.cost, RankOne) else block.cost.shape[1]
            widths[block.groups] = full if block.widths is None else block.widths
        return widths

    @cached_property
    def both(self) -> tuple[IntArray, FloatArray]:
        """Cost and damage (size, K); columns past a group's width repeat its last candidate."""
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
