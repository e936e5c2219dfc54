"""Costs that belong to pairs of groups, as a solver sees them: pins folded in, ties merged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from impq_opt.exactness.sums import exact_int_sum
from impq_opt.instance.cost_row import CostRow
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["Coupling", "Places", "couple"]


@dataclass(frozen=True, eq=False)
class Coupling:
    """Cost of pairs of free groups: ``coefficient[e] * levels[left, k] * levels[right, k]``, or ``tables[e, k, k]``.

    Every pair occurs once, with left < right.

    Parameters
    ----------
    left, right : ndarray of int64 (E,)
        Free groups.
    levels : ndarray of int64 (size, K)
        Precision of each candidate in the row's fraction of a bit; past a group's width its last one again.
    coefficient : ndarray of int64 (E,), optional
    tables : ndarray of int64 (E, K, K), optional
        In place of coefficients where costs are looked up.
    """

    left: IntArray
    right: IntArray
    levels: IntArray
    coefficient: IntArray | None
    tables: IntArray | None = None

    def __len__(self) -> int:
        return len(self.left)

    def at(self, choice: IntArray) -> IntArray:
        """Return the cost (E,) of each pair for a choice (size,)."""
        left, right = choice[self.left], choice[self.right]
        if self.coefficient is None:
            assert self.tables is not None
            return self.tables[np.arange(len(self)), left, right]
        return self.coefficient * self.levels[self.left, left] * self.levels[self.right, right]

    def dense(self, edges: IntArray | slice = slice(None)) -> IntArray:
        """Return the tables (e, K, K), left by right, of some pairs."""
        if self.coefficient is None:
            assert self.tables is not None
            return self.tables[edges]
        left = self.coefficient[edges, None] * self.levels[self.left[edges]]
        return left[:, :, None] * self.levels[self.right[edges]][:, None, :]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the problem's groups are among the free ones.

    free (G,): index of the free group that stands for a group, -1 for pinned ones. fixed (G,): columns of pinned ones.
    columns (G, K), optional: each group's own column for a column of its free group; the same where left out.
    widths (size,): candidates of each free group. representatives (size,): a group for each free one.
    """

    free: IntArray
    fixed: IntArray
    columns: IntArray | None
    widths: IntArray
    representatives: IntArray

    @property
    def every_one(self) -> bool:
        """Whether there are neither pins nor ties: every group stands for itself."""
        return len(self.widths) == len(self.free)


def couple(problem: Problem, row: CostRow, places: Places) -> tuple[CostRow, Coupling | None, int]:
    """Split a coupled ``row`` into what belongs to single groups, what belongs to pairs of free groups, and a constant.

    A pair with one pinned end becomes a cost of the other, a pair inside a tie a cost of the tie.
    """
    fold = _Fold(problem, row, places)
    if row.pairs is not None:
        fold.products(row.pairs.left, row.pairs.right, row.pairs.coefficient)
    for lookup in row.lookups:
        fold.tables(lookup.left, lookup.right, lookup.values)
    return fold.result()


class _Fold:
    def __init__(self, problem: Problem, row: CostRow, places: Places) -> None:
        self.problem, self.row, self.places = problem, row, places
        table = row.level_table(problem.candidates)
        self.levels = table[problem.candidates.numbers(len(problem))]  # (G, K)
        self.slope = np.zeros(len(problem), dtype=np.int64)
        self.extra: IntArray | None = None
        self.constant = row.constant
        self.edges: list[tuple[IntArray, IntArray, IntArray | None, IntArray | None]] = []

    def _split(self, left: IntArray, right: IntArray) -> tuple[IntArray, IntArray, dict[str, IntArray]]:
        """Return the free groups at both ends, and the edges by what becomes of them."""
        free_left, free_right = self.places.free[left], self.places.free[right]
        kinds = {
            "constant": (free_left < 0) & (free_right < 0),
            "left": (free_left >= 0) & (free_right < 0),
            "right": (free_left < 0) & (free_right >= 0),
            "diagonal": (free_left >= 0) & (free_left == free_right),
            "pair": (free_left >= 0) & (free_right >= 0) & (free_left != free_right),
        }
        return free_left, free_right, {name: np.flatnonzero(mask) for name, mask in kinds.items()}

    def products(self, left: IntArray, right: IntArray, coefficient: IntArray) -> None:
        if self.places.every_one and (left != right).all():
            self.edges.append((left, right, coefficient, None))
            return
        free_left, free_right, kinds = self._split(left, right)
        pinned = self.levels[np.arange(len(self.levels)), self.places.fixed]
        inside = kinds["constant"]
        self.constant += exact_int_sum(coefficient[inside] * pinned[left[inside]] * pinned[right[inside]])
        for name, free, held in (("left", left, right), ("right", right, left)):
            inside = kinds[name]
            np.add.at(self.slope, free[inside], coefficient[inside] * pinned[held[inside]])
        inside = kinds["diagonal"]
        if len(inside):
            self._add(left[inside], coefficient[inside, None] * self.levels[left[inside]] ** 2)
        inside = kinds["pair"]
        self.edges.append((free_left[inside], free_right[inside], coefficient[inside], None))

    def tables(self, left: IntArray, right: IntArray, values: IntArray) -> None:
        free_left, free_right, kinds = self._split(left, right)
        fixed = self.places.fixed
        inside = kinds["constant"]
        self.constant += exact_int_sum(values[inside, fixed[left[inside]], fixed[right[inside]]])
        inside = kinds["left"]
        self._add(left[inside], values[inside, :, fixed[right[inside]]])
        inside = kinds["right"]
        self._add(right[inside], values[inside, fixed[left[inside]], :])
        columns = self._columns()
        for edge in kinds["diagonal"].tolist():
            first, second = int(left[edge]), int(right[edge])
            width = int(self.places.widths[free_left[edge]])
            mine, its = columns[first, :width], columns[second, :width]
            row = np.zeros((1, values.shape[1]), dtype=np.int64)
            row[0, mine] = values[edge, mine, its]
            self._add(np.array([first]), row)
        inside = kinds["pair"]
        a, b = columns[left[inside]], columns[right[inside]]
        table = values[inside[:, None, None], a[:, :, None], b[:, None, :]]
        self.edges.append((free_left[inside], free_right[inside], None, table))

    def _columns(self) -> IntArray:
        if self.places.columns is not None:
            return self.places.columns
        counts = self.problem.candidates.counts(len(self.problem))
        return np.minimum(np.arange(self.problem.candidates.width), counts[:, None] - 1)

    def _add(self, groups: IntArray, rows: IntArray) -> None:
        if len(groups) == 0:
            return
        if self.extra is None:
            self.extra = np.zeros((len(self.problem), self.problem.candidates.width), dtype=np.int64)
        np.add.at(self.extra[:, : rows.shape[1]], groups, rows)

    def result(self) -> tuple[CostRow, Coupling | None, int]:
        row = self.row
        slope = self.slope if row.slope is None else row.slope + self.slope
        table = row.table
        if self.extra is not None:
            table = self.extra if table is None else table[:, : self.extra.shape[1]] + self.extra
        linear = replace(
            row,
            slope=slope if table is None or slope.any() else None,
            table=table,
            constant=0,
            pairs=None,
            lookups=(),
        )
        return linear, self._coupling(), self.constant

    def _free_levels(self) -> IntArray:
        """Return the levels (size, K) of the free groups' candidates, their last one again past a group's width."""
        widths, groups = self.places.widths, self.places.representatives
        width = int(widths.max(initial=1))
        if self.places.columns is None and widths.min(initial=width) == width == self.levels.shape[1]:
            return self.levels[groups]
        padded = np.minimum(np.arange(width), widths[:, None] - 1)
        columns = padded if self.places.columns is None else self.places.columns[groups[:, None], padded]
        return np.take_along_axis(self.levels[groups], columns, axis=1)

    def _coupling(self) -> Coupling | None:
        left, right = (np.concatenate([edge[i] for edge in self.edges]) for i in (0, 1))
        if len(left) == 0:
            return None
        size = len(self.places.widths)
        swap = left > right
        low, high = np.where(swap, right, left), np.where(swap, left, right)
        keys, place = low * size + high, np.arange(len(low))
        if not (keys[1:] > keys[:-1]).all():
            keys, place = np.unique(keys, return_inverse=True)
            low, high = keys // size, keys % size
        levels = self._free_levels()
        width = levels.shape[1]
        ends = low, high
        if all(edge[3] is None for edge in self.edges):
            coefficient = np.zeros(len(keys), dtype=np.int64)
            np.add.at(coefficient, place, np.concatenate([edge[2] for edge in self.edges if edge[2] is not None]))
            return Coupling(*ends, levels, coefficient)
        tables = np.zeros((len(keys), width, width), dtype=np.int64)
        start = 0
        for edge_left, edge_right, times, given in self.edges:
            stop = start + len(edge_left)
            values = given
            if values is None:
                assert times is not None
                values = times[:, None, None] * levels[edge_left][:, :, None] * levels[edge_right][:, None, :]
            values = values[:, :width, :width]
            flipped = swap[start:stop, None, None]
            np.add.at(tables, place[start:stop], np.where(flipped, values.transpose(0, 2, 1), values))
            start = stop
        return Coupling(*ends, levels, None, tables)
