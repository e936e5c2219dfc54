"""Costs measured on hardware: a table of latency or energy by layer, weight bits and activation bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from impq_opt.costs.operations import INPUT_BITS
from impq_opt.costs.terms import CostTerm, PairTables, common_quantum
from impq_opt.documents.numbers import read_exact
from impq_opt.documents.tables import heading_key, read_columns, with_points
from impq_opt.errors import FileError, ProblemError, nearest
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.groups.held import Held
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["LookupCost"]


_LARGEST = Fraction(10) ** 300
_COLUMNS = ("layer", "weight_bits", "activation_bits", "value")
_MEANT = {heading_key(column): column for column in _COLUMNS}
_MEANT |= {"name": "layer", "group": "layer", "module": "layer", "latency": "value", "energy": "value"}
_Table = dict[str, dict[tuple[Fraction, Fraction], Fraction]]


@dataclass(frozen=True, eq=False)
class LookupCost(Held, CostTerm):
    """A cost given for every layer, weight precision and activation precision; build it with :meth:`from_csv`.

    A group that is part of a layer (a kernel) takes the layer's value at its own precision times its share of the
    layer's elements. A group that reads the network's input takes the values at 8 activation bits.

    Parameters
    ----------
    values : ndarray of int64 (G, K)
        What weight groups that read the input cost; 0 elsewhere.
    left, right : ndarray of int64 (E,)
        Weight groups, and the activation groups that they read.
    pair_values : ndarray of int64 (E, K, K)
        Cost by the candidates of both.
    quantum : Fraction
        What one integer is worth in ``unit``.
    """

    values: IntArray
    left: IntArray
    right: IntArray
    pair_values: IntArray
    quantum: Fraction = Fraction(1)
    name: str = "latency"
    unit: str = "s"
    source: str = "given as a table"

    @classmethod
    def from_csv(
        cls, path: str | Path, layout: Layout, *, name: str = "latency", unit: str = "s", source: str = ""
    ) -> LookupCost:
        """Read a CSV file with the columns layer, weight_bits, activation_bits and value (in ``unit``).

        It may have any separators, decimal commas, and further columns, which are not looked at. Every layer of the
        problem's weight groups needs a value for every pair of candidates. Raise FileError with the row of what cannot
        be read, and ProblemError with the first value that is missing.
        """
        path = Path(path)
        table = _read(path)
        return cls.from_table(table, layout, name=name, unit=unit, source=source or f"table {path.name}")

    @classmethod
    def from_table(
        cls,
        table: _Table,
        layout: Layout,
        *,
        name: str = "latency",
        unit: str = "s",
        source: str = "given as a table",
    ) -> LookupCost:
        """Read ``table[layer][weight bits, activation bits]``, exact numbers of ``unit``.

        Raises
        ------
        ProblemError
            Where the table does not fit the problem: names, shapes, values that are not finite.
        """
        weights = np.flatnonzero(layout.weights())
        layers = [layout.names.layers[label] for label in layout.names.label_of[weights].tolist()]
        unknown = sorted(set(table) - set(layers))
        if unknown:
            raise ProblemError(
                "no such layer", where=f"costs.{name}", value=unknown[0], hint=nearest(unknown[0], set(layers))
            )
        shares = _shares(layout, weights, layers)
        read = np.full(len(layout), -1) if layout.reads is None else layout.reads
        parts = set(zip(layers, shares, strict=True))
        worth = [v * share for part, share in parts for v in _of(table, part, name).values() if v]
        quantum = common_quantum(worth) if worth else Fraction(1)
        width = layout.candidates.width
        values = np.zeros((len(layout), width), dtype=np.int64)
        edges = [i for i, group in enumerate(weights.tolist()) if read[group] >= 0]
        pair_values = np.zeros((len(edges), width, width), dtype=np.int64)
        cells: dict[tuple[object, ...], IntArray] = {}
        place = 0
        for group, layer, share in zip(weights.tolist(), layers, shares, strict=True):
            other = int(read[group])
            rights = layout.candidates.of(other) if other >= 0 else (INPUT_BITS,)
            key = (layer, share, layout.candidates.of(group), rights)
            if key not in cells:
                cells[key] = _cells(_of(table, layer, name), key[2], rights, share / quantum, f"costs.{name}: {layer}")
            grid = cells[key]
            if other >= 0:
                pair_values[place, : grid.shape[0], : grid.shape[1]] = grid
                place += 1
            else:
                values[group, : len(grid)] = grid[:, 0]
        left = weights[edges]
        return cls(values, left, read[left], pair_values, quantum, name, unit, source)

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(int(np.abs(a).max(initial=0)) * len(a) for a in (self.values, self.pair_values))
        if largest >= LARGEST_TOTAL:
            raise ProblemError(
                "values and shares need more than 64 bits to add exactly",
                where=f"costs.{self.name}",
                hint="give the values with fewer digits",
            )
        if self.quantum * largest >= _LARGEST:
            raise ProblemError("values are beyond what float64 can add", where=f"costs.{self.name}")

    def slope(self, layout: Layout) -> None:
        return None

    def table(self, layout: Layout) -> tuple[IntArray, Fraction]:
        return self.values, self.quantum

    def lookup(self, layout: Layout) -> PairTables:
        return PairTables(self.left, self.right, self.pair_values, self.quantum)

    def with_columns(self, take: Callable[[IntArray], IntArray]) -> LookupCost:
        # What is kept of a table of column numbers is the columns that are kept.
        kept = take(np.tile(np.arange(self.values.shape[1]), (len(self.values), 1)))
        rows = np.arange(len(self.left))[:, None, None]
        pairs = self.pair_values[rows, kept[self.left][:, :, None], kept[self.right][:, None, :]]
        return replace(self, values=take(self.values), pair_values=pairs)

    def canonical(self) -> Iterator[tuple[str, object]]:
        yield "quantum", str(self.quantum)
        for key in ("values", "left", "right", "pair_values"):
            yield key, getattr(self, key)


def _meaning(heading: str) -> str | None:
    return _MEANT.get(heading_key(heading))


def _read(path: Path) -> _Table:
    columns = read_columns(path, _meaning, "a table of costs is CSV")
    named = {_meaning(heading): heading for heading in reversed(columns)}
    missing = [column for column in _COLUMNS if column not in named]
    if missing:
        raise FileError(
            f"has no column {missing[0]!r}", where=str(path), value=list(columns), hint=f"needs {', '.join(_COLUMNS)}"
        )
    cells = {name: columns[named[name]] for name in _COLUMNS}
    layers = [layer.strip() for layer in cells["layer"]]

    def place(row: int, name: str) -> str:
        return f"{path}: row {columns.rows[row]} ({layers[row]}): {named[name]}"

    cells |= with_points({name: cells[name] for name in _COLUMNS[1:]}, place)
    table: _Table = {}
    for row, layer in enumerate(layers):
        weight, activation, value = (_number(cells[name][row], place(row, name)) for name in _COLUMNS[1:])
        known = table.setdefault(layer, {})
        if (weight, activation) in known:
            raise FileError("gives a value twice", where=place(row, "value"), value=layer)
        known[weight, activation] = value
    return table


def _number(text: str, where: str) -> Fraction:
    value = read_exact(text, where, error=FileError)
    if value < 0:
        raise FileError("must not be negative", where=where, value=text)
    return value


def _shares(layout: Layout, weights: IntArray, layers: list[str]) -> list[Fraction]:
    total: dict[str, int] = {}
    sizes = layout.sizes[weights].tolist()
    for layer, size in zip(layers, sizes, strict=True):
        total[layer] = total.get(layer, 0) + size
    return [Fraction(size, total[layer]) for layer, size in zip(layers, sizes, strict=True)]


def _of(table: _Table, layer: str, name: str) -> dict[tuple[Fraction, Fraction], Fraction]:
    if layer not in table:
        raise ProblemError("lacks the values of a layer", where=f"costs.{name}", value=layer)
    return table[layer]


def _cells(
    values: dict[tuple[Fraction, Fraction], Fraction],
    lefts: tuple[float, ...],
    rights: tuple[float, ...],
    factor: Fraction,
    where: str,
) -> IntArray:
    """Return the integers (len(lefts), len(rights)) of one group."""
    grid = np.zeros((len(lefts), len(rights)), dtype=object)
    for row, weight in enumerate(lefts):
        for column, activation in enumerate(rights):
            key = (Fraction(str(weight)), Fraction(str(activation)))
            if key not in values:
                raise ProblemError(
                    f"has no value at {weight:g} weight bits and {activation:g} activation bits", where=where
                )
            grid[row, column] = int(values[key] * factor)
    if max(map(abs, grid.reshape(-1))) >= LARGEST_TOTAL:
        raise ProblemError(
            "values and shares need more than 64 bits to add exactly", where=where, hint="give fewer digits"
        )
    return grid.astype(np.int64)
