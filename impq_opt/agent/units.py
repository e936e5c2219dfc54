"""An instance as HAQ's agent sees it: one precision a layer, steps in the order of layers, and what a step looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from impq_opt.agent.walk import Limit, Walk, walk
from impq_opt.exactness.sums import units_within
from impq_opt.instance.instance import Instance
from impq_opt.instance.row import Row
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Units"]


class Units:
    """The units of an instance, numbered in the order of the agent's steps.

    A unit is what takes one precision: the groups of a layer that are of one kind and have the same candidates. A
    layer's weights come first, then the activation that they read; activations that nobody is known to read come last.
    Where one label names all groups, as where a table came without names, each group is a unit. Pinned groups are in
    no unit, and tied ones are in that of the first of them.

    Parameters
    ----------
    instance : Instance

    Attributes
    ----------
    of : ndarray of int64 (size,)
        The unit of each free group.
    widths : ndarray of int64 (U,)
        Levels of each unit: its candidates, from the least bits to the most.
    observations : ndarray of float64 (U, 8)
        What the network tells of each unit, each column from 0 to 1: its place, the length of its dot products, outputs
        and positions of the layer, elements of its input, its own size, multiply-accumulates (all but the place as
        logarithms), and whether it is weights. HAQ's has channels, stride and side of kernels in place of the second to
        the fourth, which a problem does not tell.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        problem, groups = instance.problem, instance.representatives
        self._weights = problem.weights()[groups]
        self.of = _in_order(instance, self._weights, _joined(instance, self._weights))
        first = np.unique(self.of, return_index=True)[1]
        self.widths = instance.widths[first]
        bits = instance.bits[first]
        bits[np.arange(bits.shape[1]) >= self.widths[:, None]] = np.inf
        self._columns = np.argsort(bits, axis=1, kind="stable")  # (U, K) by level
        self.observations = self._observed(first)
        self._on_costs = [limit for row in instance.limits if row.whole for limit in self._limits(row)]
        self._on_damage = [limit for row in instance.limits if not row.whole for limit in self._limits(row)]

    def __len__(self) -> int:
        return len(self.widths)

    def choice(self, levels: Sequence[int] | IntArray) -> IntArray:
        """Return the choice (size,) of the free groups at levels (U,)."""
        chosen: IntArray = self._columns[self.of, np.asarray(levels, dtype=np.int64)[self.of]]
        return chosen

    def within(self, levels: Sequence[int]) -> Walk:
        """Return the walk from levels (U,) into the limits: bits are taken for costs, then given for damage."""
        widths = self.widths.tolist()
        down = walk(levels, widths, self._on_costs)
        if not self._on_damage:
            return down
        up = walk(down.levels, widths, [*self._on_damage, *self._on_costs], up=True)
        return Walk(up.levels, (*down.trace, *up.trace), up.holds)

    # -- what a step looks at ----------------------------------------------------------------------------------------

    def _observed(self, first: IntArray) -> FloatArray:
        """Return the observations (U, 8); ``first`` (U,) are free groups, one of each unit."""
        problem, groups, count = self.instance.problem, self.instance.representatives, len(first)
        is_weights = self._weights[first]
        size = self._summed(problem.sizes[groups])
        macs = self._summed(np.zeros(len(groups)) if problem.macs is None else problem.macs[groups])
        length = np.zeros(count) if problem.lengths is None else problem.lengths[groups[first]].astype(np.float64)
        read = np.full(count, -1) if problem.reads is None else problem.reads[groups[first]]
        read = np.where(is_weights, read, groups[first])
        inputs = np.where(read >= 0, problem.sizes[read], 0).astype(np.float64)
        outputs = np.divide(size, length, out=np.zeros(count), where=length > 0)
        positions = np.divide(macs, size, out=np.zeros(count), where=size > 0)
        static = np.stack([length, outputs, positions, inputs, size, macs], axis=1)
        # An activation's step looks at the layer that reads it, as in the paper: the weights of the step before.
        layer = np.maximum.accumulate(np.where(is_weights, np.arange(count), 0))
        static[:, [0, 1, 2, 5]] = static[layer][:, [0, 1, 2, 5]]
        told = np.column_stack([np.arange(count), np.log1p(static), is_weights]).astype(np.float64)
        low, span = told.min(axis=0), np.ptp(told, axis=0)
        return np.divide(told - low, span, out=np.zeros_like(told), where=span > 0)

    def _summed(self, values: FloatArray | IntArray) -> FloatArray:
        return np.bincount(self.of, weights=values, minlength=len(self)).astype(np.float64)

    # -- limits ------------------------------------------------------------------------------------------------------

    def _limits(self, row: Row) -> Iterable[Limit]:
        """Yield the limit of a row on the units, in its quanta, or in units of 2**-1074 where it is on damage."""
        assert row.limit is not None
        if not row.whole:
            yield Limit(units_within(Fraction(row.limit) - row.base), dict(enumerate(self._damages())))
            return
        table = np.zeros(self._columns.shape, dtype=np.int64)
        np.add.at(table, self.of, np.take_along_axis(row.table, self._columns[self.of], axis=1))
        pairs = self._pairs(row, table)
        touched = np.flatnonzero((table != table[:, :1]).any(axis=1)).tolist()
        constant = int(table[:, 0].sum()) - int(table[touched, 0].sum())
        entries = {unit: tuple(table[unit].tolist()) for unit in touched}
        yield Limit(int(row.room) - constant, entries, pairs)

    def _damages(self) -> list[tuple[int, ...]]:
        damages = [[0] * self._columns.shape[1] for _ in range(len(self))]
        for unit, own in zip(self.of.tolist(), self.instance.damage_units(), strict=True):
            columns, sums = self._columns[unit].tolist(), damages[unit]
            for level in range(len(own)):
                sums[level] += own[columns[level]]
        return [tuple(own) for own in damages]

    def _pairs(self, row: Row, table: IntArray) -> dict[int, list[tuple[int, tuple[tuple[int, ...], ...]]]]:
        """Return what pairs of units add, both ways round; pairs inside of a unit go to its entries in ``table``."""
        found: dict[int, list[tuple[int, tuple[tuple[int, ...], ...]]]] = {}
        if row.pairs is None:
            return found
        left, right = self.of[row.pairs.left], self.of[row.pairs.right]
        values = row.pairs.dense()
        width = values.shape[1]
        columns = np.minimum(self._columns[:, :width], width - 1)
        values = np.take_along_axis(values, columns[left][:, :, None], axis=1)
        values = np.take_along_axis(values, columns[right][:, None, :], axis=2)
        inside = left == right
        np.add.at(table[:, :width], left[inside], np.diagonal(values[inside], axis1=1, axis2=2))
        turned = left > right
        values = np.where(turned[:, None, None], values.transpose(0, 2, 1), values)[~inside]
        low, high = np.minimum(left, right)[~inside], np.maximum(left, right)[~inside]
        keys, place = np.unique(low * len(self) + high, return_inverse=True)
        sums = np.zeros((len(keys), width, width), dtype=np.int64)
        np.add.at(sums, place, values)
        for key, summed in zip(keys.tolist(), sums, strict=True):
            one, other = divmod(key, len(self))
            for own, its, entries in ((one, other, summed), (other, one, summed.T)):
                found.setdefault(own, []).append((its, tuple(map(tuple, entries.tolist()))))
        return found


def _joined(instance: Instance, weights: BoolArray) -> IntArray:
    """Return a number (size,) that free groups share where they are of one layer and kind, with the same candidates."""
    names = instance.problem.names
    if len(names.labels) == 1:
        return np.arange(instance.size)
    numbers = {layer: number for number, layer in enumerate(dict.fromkeys(names.layers))}
    layer = np.array([numbers[own] for own in names.layers])[names.label_of[instance.representatives]]
    alike = np.column_stack([layer, weights, instance.widths, instance.bits])
    joined: IntArray = np.unique(alike, axis=0, return_inverse=True)[1].reshape(-1)
    return joined


def _in_order(instance: Instance, weights: BoolArray, joined: IntArray) -> IntArray:
    """Return the unit (size,) of each free group for the number that its unit has so far."""
    problem, groups = instance.problem, instance.representatives
    free = np.full(len(problem), -1)
    free[groups] = np.arange(len(groups))
    reads = np.full(len(problem), -1) if problem.reads is None else problem.reads
    numbers: dict[int, int] = {}

    def count(unit: int) -> None:
        numbers.setdefault(unit, len(numbers))

    for place in np.flatnonzero(weights).tolist():
        count(int(joined[place]))
        read = int(reads[groups[place]])
        if read >= 0 and free[read] >= 0:
            count(int(joined[free[read]]))
    for place in np.flatnonzero(~weights).tolist():
        count(int(joined[place]))
    return np.array([numbers[unit] for unit in joined.tolist()], dtype=np.int64)
