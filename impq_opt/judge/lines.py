"""Everything that an answer is held to, as lines of whole numbers: each a sum over groups that is not above its limit.

The judge's view of an instance. "Nothing better exists" and "nothing is feasible" are one kind of statement here: no
assignment keeps all lines, the first of which may say that the objective is below a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum, exact_sum, nearest_float
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.instance import Instance, RankOne, Row
from impq_opt.types import IntArray

__all__ = ["Line", "chunks", "lines_of", "pair_rows", "pair_tables", "tied_damages"]

# Returns the entries (n, K) of some groups.
Rows = Callable[[IntArray], npt.NDArray[Any]]

# Groups at a time: their tables stay in the cache.
_CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Line:
    """A sum of ``rows`` over groups and ``pairs`` over pairs of groups, plus ``base``, that is at most ``limit``.

    ``base``, ``limit`` and the values of ``exact`` are whole numbers of ``1 / unit``: 1 for costs, a power of two for
    damages, of whose reciprocal all of them are multiples. ``exact`` has the groups whose ``rows`` are rounded: the sum
    of a tie's damages, of up to ``members``, need not be a float64. ``price`` is what a quantum, or a unit of damage,
    weighs in the dual bound. A limit that may be ``on_few`` groups is kept by looking at all their combinations where
    it is, which needs no price.
    """

    name: str
    price: float
    base: int
    limit: int
    unit: int
    rows: Rows
    widths: IntArray
    pairs: Coupling | None
    exact: Mapping[int, list[int]]
    members: int = 0
    on_few: bool = False

    def total(self, groups: IntArray, columns: IntArray) -> int:
        """Return the exact sum of ``groups`` (n,) at ``columns`` (n,), pairs and base left out, in ``1 / unit``."""
        total = 0
        if self.exact:
            tied = np.fromiter((g in self.exact for g in groups.tolist()), dtype=bool, count=len(groups))
            total = sum(self.exact[g][k] for g, k in zip(groups[tied].tolist(), columns[tied].tolist(), strict=True))
            groups, columns = groups[~tied], columns[~tied]
        for part in chunks(len(groups)):
            rows = self.rows(groups[part])
            total += self.whole(rows[np.arange(len(rows)), columns[part]])
        return total

    def whole(self, values: npt.NDArray[Any]) -> int:
        """Return the exact sum of table entries in ``1 / unit``."""
        if values.dtype.kind == "i":
            return exact_int_sum(values) * self.unit
        exact = exact_sum(values)
        return exact.numerator * (self.unit // exact.denominator)

    def at(self, group: int, columns: list[int]) -> list[int]:
        """Return the exact entries of a group at ``columns``, pairs left out, in ``1 / unit``."""
        if group in self.exact:
            return [self.exact[group][k] for k in columns]
        row = self.rows(np.array([group]))[0].tolist()
        return [_units(row[k], self.unit) for k in columns]

    def least(self, groups: IntArray) -> int:
        """Return the exact sum of the smallest entries of ``groups``, pairs left out, in ``1 / unit``."""
        total = 0
        if self.exact:
            tied = np.fromiter((g in self.exact for g in groups.tolist()), dtype=bool, count=len(groups))
            total = sum(min(self.exact[g]) for g in groups[tied].tolist())
            groups = groups[~tied]
        for part in chunks(len(groups)):
            rows = self.rows(groups[part])
            inside = np.arange(rows.shape[1]) < self.widths[groups[part], None]
            large = np.iinfo(np.int64).max if rows.dtype.kind == "i" else np.inf
            total += self.whole(np.where(inside, rows, large).min(axis=1))
        return total

    def least_pairs(self, edges: IntArray | None = None) -> int:
        """Return the sum of the smallest entries of some ``pairs``, or all, in ``1 / unit``."""
        if self.pairs is None:
            return 0
        total, edges = 0, np.arange(len(self.pairs)) if edges is None else edges
        for part in chunks(len(edges)):
            total += exact_int_sum(pair_tables(self.pairs, edges[part]).min(axis=(1, 2)))
        return total * self.unit


def chunks(count: int) -> Iterator[slice]:
    """Yield slices that cover ``count`` rows, a cache-sized part at a time."""
    for start in range(0, count, _CHUNK):
        yield slice(start, min(start + _CHUNK, count))


def pair_rows(pairs: Coupling, edges: IntArray, groups: IntArray, hub: int, column: int) -> IntArray:
    """Return the cost (n, K) of ``groups`` (n,) with ``hub`` at ``column``; edges (n,) are their pairs, -1 for none."""
    if pairs.coefficient is not None:
        level = int(pairs.levels[hub, column])
        rows = (pairs.coefficient[edges] * level)[:, None] * pairs.levels[groups]
    else:
        assert pairs.tables is not None
        turned = pairs.left[edges] == hub
        rows = np.where(turned[:, None], pairs.tables[edges, column, :], pairs.tables[edges, :, column])
    return np.where(edges[:, None] >= 0, rows, 0)


def pair_tables(pairs: Coupling, edges: IntArray) -> IntArray:
    """Return the cost (n, K, K) of some pairs, left by right."""
    if pairs.coefficient is None:
        assert pairs.tables is not None
        return pairs.tables[edges]
    left, right = pairs.levels[pairs.left[edges]], pairs.levels[pairs.right[edges]]
    return np.asarray(pairs.coefficient[edges, None, None] * left[:, :, None] * right[:, None, :])


def lines_of(instance: Instance, multipliers: Mapping[str, float], target: Fraction | int | None) -> list[Line]:
    """Return the lines of ``instance``; with a target, the first ones say that the objective is below it.

    Parameters
    ----------
    multipliers : mapping
        Prices by the names that a certificate uses: ``"bound"``, ``"budget"``, and those of budgets.
    target : Fraction or int, optional
        In quanta where cost is minimised, in damage otherwise.
    """
    lines = []
    if target is not None:
        lines += [_below(instance, row, target, multipliers) for row in instance.objectives]
    lines += [_within(instance, row, multipliers) for row in instance.limits if row.of_blocks]
    lines.sort(key=lambda line: line.name == "damage")  # whole numbers separate states best
    return lines + [_within(instance, row, multipliers) for row in instance.budgets]


def _below(instance: Instance, row: Row, target: Fraction | int, multipliers: Mapping[str, float]) -> Line:
    """Return the line that says that an objective is below ``target``; a step of a peak has a price of its own."""
    if not row.whole:
        return _damage(instance, row, 1.0, lambda unit: math.ceil(target * unit) - 1)
    below = math.ceil(target) - 1
    if row.of_blocks:
        return _cost(instance, row, 1.0, _on_lattice(instance, below))
    return _cost(instance, row, multipliers.get(row.name, 0.0), below)


def _within(instance: Instance, row: Row, multipliers: Mapping[str, float]) -> Line:
    """Return the line that says that a limit is kept."""
    price, limit = multipliers.get(row.name, 0.0), row.limit
    assert limit is not None
    if row.whole:
        return _cost(instance, row, price, int(limit))
    return _damage(instance, row, price, lambda unit: math.floor(limit * unit))


def _cost(instance: Instance, row: Row, price: float, limit: int) -> Line:
    rows, name = _reader(instance, row), "cost" if row.of_blocks else row.name
    on_few = not row.of_blocks
    return Line(name, price, int(row.base), limit, 1, rows, instance.widths, row.pairs, {}, on_few=on_few)


def _damage(instance: Instance, row: Row, price: float, limit: Callable[[int], int]) -> Line:
    """Return the line of damages; ``limit`` says the most in ``1 / unit``."""
    tied = tied_damages(instance)
    rows = _with_tied(_reader(instance, row), tied)
    unit = max(_unit(instance, rows), row.base.denominator)
    unit = max([unit, *(value.denominator for values in tied.values() for value in values)])  # all are powers of two
    exact = {group: [int(value * unit) for value in values] for group, values in tied.items()}
    members = max((tie.members.shape[1] for tie in instance.ties), default=0)
    base = int(row.base * unit)
    return Line("damage", price, base, limit(unit), unit, rows, instance.widths, None, exact, members)


def _reader(instance: Instance, row: Row) -> Rows:
    """Return what reads a row; vectors stay vectors."""
    width = int(instance.widths.max(initial=1))
    block = instance.blocks[0] if row.of_blocks and len(instance.blocks) == 1 else None
    vectors: Any = None if block is None else block.cost if row.whole else block.damage
    if block is not None and isinstance(block.groups, slice) and isinstance(vectors, RankOne):
        left, right = vectors.left, vectors.right
        return lambda groups: _fit(left[groups, None] * right, width)
    table = row.table
    return lambda groups: _fit(table[groups], width)


def _fit(rows: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Return ``rows`` with ``width`` columns; what is past a group's last candidate is never used."""
    if rows.shape[1] >= width:
        return rows[:, :width]
    return rows[:, np.minimum(np.arange(width), rows.shape[1] - 1)]


def _units(value: float, unit: int) -> int:
    above, below = value.as_integer_ratio()
    return above * (unit // below)


def _unit(instance: Instance, rows: Rows) -> int:
    """Return a power of two of whose reciprocal every damage is a multiple."""
    lowest = 0
    every = np.arange(instance.size)
    for part in chunks(instance.size):
        mantissa, exponent = np.frexp(rows(every[part]))
        lowest = min(lowest, int(np.where(mantissa != 0, exponent, 0).min(initial=0)))
    return 1 << (53 - lowest)  # a mantissa has 53 binary places


def tied_damages(instance: Instance) -> dict[int, list[Fraction]]:
    """Return the exact damage of each candidate of each tie; the tables hold it rounded down."""
    problem = instance.problem
    exact: dict[int, list[Fraction]] = {}
    for tie in instance.ties:
        parts = []
        for members, columns in zip(tie.members.T, tie.columns, strict=True):
            bits = problem.candidates.of(int(members[0]))
            parts.append(problem.damage.at(members, bits)[:, columns])
        table = np.stack(parts)  # (members, ties, K)
        for place, group in enumerate(tie.groups.tolist()):
            exact[group] = [exact_sum(table[:, place, k]) for k in range(table.shape[2])]
    return exact


def _with_tied(rows: Rows, tied: Mapping[int, list[Fraction]]) -> Rows:
    """Return what reads damages, those of ties rounded here, from their exact sums."""
    if not tied:
        return rows
    most, rounded = np.finfo(np.float64).max, {}
    for group, values in tied.items():
        rounded[group] = [min(nearest_float(value), most) for value in values]

    def read(groups: IntArray) -> npt.NDArray[Any]:
        table = rows(groups).copy()
        for place, group in enumerate(groups.tolist()):
            if group in rounded:
                values = rounded[group][: table.shape[1]]
                table[place, : len(values)] = values
        return table

    return read


def _on_lattice(instance: Instance, highest: int) -> int:
    """Return the largest cost up to ``highest`` that an assignment can have: all differ by multiples of one number."""
    rows, step, some = _reader(instance, instance.cost), 0, instance.base_cost
    every = np.arange(instance.size)
    for part in chunks(instance.size):
        table = rows(every[part])
        inside = np.arange(table.shape[1]) < instance.widths[part, None]
        step = math.gcd(step, int(np.gcd.reduce(np.where(inside, table - table[:, :1], 0).ravel())))
        some += exact_int_sum(table[:, 0])
    if instance.pairs is not None:
        for part in chunks(len(instance.pairs)):
            tables = pair_tables(instance.pairs, np.arange(part.start, part.stop))
            step = math.gcd(step, int(np.gcd.reduce((tables - tables[:, :1, :1]).ravel())))
            some += exact_int_sum(tables[:, 0, 0])
    return highest - (highest - some) % step if step else highest
