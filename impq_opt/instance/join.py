"""An instance in which several groups are joined into one, with a candidate per combination."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import sum_rows_down
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.instance import Block, Instance, TieBlock
from impq_opt.instance.local import local_limits
from impq_opt.types import FloatArray, IntArray

__all__ = ["components", "join"]


def components(instance: Instance) -> list[IntArray]:
    """Return the sets of free groups, of two or more, that pairs or limits on few groups connect.

    An array (T, m) for each size m, groups in order.
    """
    couplings = [
        coupling for coupling in (instance.pairs, *(b.pairs for b in instance.budgets)) if coupling is not None
    ]
    ends = [(coupling.left, coupling.right) for coupling in couplings]
    ends += [(limit.groups[:-1], limit.groups[1:]) for limit in local_limits(instance)]
    if not ends:
        return []
    left, right = (np.concatenate(side) for side in zip(*ends, strict=True))
    if len(ends) == 1 and np.bincount(np.concatenate([left, right])).max(initial=0) == 1:
        return [np.stack([left, right], axis=1)]
    label = np.arange(instance.size)
    # Take the lowest label of one's neighbours, and then that label's own, until nothing changes.
    while True:
        before = label.copy()
        lowest = np.minimum(label[left], label[right])
        np.minimum.at(label, left, lowest)
        np.minimum.at(label, right, lowest)
        label = label[label]
        if np.array_equal(label, before):
            break
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    return [order[starts[counts == size][:, None] + np.arange(size)] for size in np.unique(counts[counts > 1]).tolist()]


def join(instance: Instance, clusters: Sequence[IntArray]) -> Instance:
    """Return the instance in which each cluster of free groups is one group, with a candidate for each combination.

    ``clusters`` holds arrays (T, m) of T clusters each. All pairs of a cluster's groups must lie inside it.
    Combinations are in order of the columns, the first group's column changing slowest.
    """
    size = instance.size
    joined = np.zeros(size, dtype=bool)
    for groups in clusters:
        joined[groups] = True
    rest = np.flatnonzero(~joined)
    place = np.full(size, -1)
    place[rest] = np.arange(len(rest))
    rows = [_Row(instance.tables[0], instance.pairs), *(_Row(b.table, b.pairs) for b in instance.budgets)]
    damage = instance.tables[1]
    blocks = [_rest_block(instance, rest)] if len(rest) else []
    kept = int(instance.widths[rest].max(initial=1))
    tables: list[list[tuple[IntArray, IntArray]]] = [[(np.arange(len(rest)), row.table[rest, :kept])] for row in rows]
    tied = _Tied(instance)
    ties = tied.left(joined, place)
    free, count = [instance.representatives[rest]], len(rest)
    for groups in _of_one_kind(instance, tied, clusters):
        shape = tuple(instance.widths[groups[0]].tolist())
        at = np.arange(count, count + len(groups))
        values = [row.of(groups, shape) for row in rows]
        blocks.append(Block(at, values[0], sum_rows_down(_spread(damage, groups, shape))))
        for table, value in zip(tables, values, strict=True):
            table.append((at, value))
        ties.append(tied.join(groups, _combinations(shape), at))
        free.append(instance.representatives[groups[:, 0]])
        count += len(groups)
    if len(blocks) == 1:  # then it is in order, and can be read where it lies
        blocks = [replace(blocks[0], groups=slice(None))]
    widest = max(values.shape[1] for _, values in tables[0])
    new_pairs = [_kept(row.pairs, joined, place, rest, (count, widest)) for row in rows]
    budgets = (
        replace(budget, entries=_stacked(parts, (count, widest)), pairs=pairs)
        for budget, parts, pairs in zip(instance.budgets, tables[1:], new_pairs[1:], strict=True)
    )
    return replace(
        instance,
        size=count,
        blocks=tuple(blocks),
        budgets=tuple(budgets),
        pairs=new_pairs[0],
        _fixed=instance.lift(np.zeros(size, dtype=np.int64)),
        _free=np.concatenate(free),
        ties=tuple(ties),
    )


def _of_one_kind(instance: Instance, tied: _Tied, clusters: Sequence[IntArray]) -> Iterator[IntArray]:
    """Yield the clusters (T, m) whose groups have the same candidates and are tied alike, position by position."""
    candidates = instance.problem.candidates
    sets = candidates.numbers(len(instance.problem))
    for groups in clusters:
        kind = instance.widths[groups] * len(candidates.sets) + sets[instance.representatives[groups]]
        kind = kind * (len(instance.ties) + 1) + tied.block[groups] + 1
        if instance.columns is not None:
            kind = np.concatenate([kind, *(instance.columns[instance.representatives[g]] for g in groups.T)], axis=1)
        if (kind == kind[0]).all():
            yield groups
            continue
        _, number = np.unique(kind, axis=0, return_inverse=True)
        for label in range(int(number.max()) + 1):
            yield groups[number.reshape(-1) == label]


@lru_cache(maxsize=64)
def _combinations(shape: tuple[int, ...]) -> IntArray:
    """Return the columns (m, K) of every combination."""
    columns = np.indices(shape).reshape(len(shape), -1)
    columns.flags.writeable = False
    return columns


def _axes(values: npt.NDArray[Any], axes: tuple[int, ...], count: int) -> npt.NDArray[Any]:
    """Return (T, ...) values with their further axes at ``axes`` out of ``count``, ready to be broadcast."""
    shape = [1] * count
    for axis, width in zip(axes, values.shape[1:], strict=True):
        shape[axis] = width
    return values.reshape(len(values), *shape)


def _spread(table: FloatArray, groups: IntArray, shape: tuple[int, ...]) -> FloatArray:
    """Return the entries (m, T, K) of every group of clusters (T, m) at every combination."""
    spread = np.empty((len(shape), len(groups), *shape))
    for axis, width in enumerate(shape):
        spread[axis] = _axes(table[groups[:, axis], :width], (axis,), len(shape))
    return spread.reshape(len(shape), len(groups), -1)


class _Row:
    def __init__(self, table: IntArray, pairs: Coupling | None) -> None:
        self.table, self.pairs = table, pairs
        self.keys = None if pairs is None else pairs.left * len(table) + pairs.right

    def of(self, groups: IntArray, shape: tuple[int, ...]) -> IntArray:
        """Return the values (T, K) of clusters ``groups`` (T, m) at every combination."""
        total = np.zeros((len(groups), *shape), dtype=np.int64)
        count = len(shape)
        for axis, width in enumerate(shape):
            total += _axes(self.table[groups[:, axis], :width], (axis,), count)
        if self.pairs is not None and self.keys is not None:
            for i, j in itertools.combinations(range(count), 2):  # clusters are in order, so i is the left end
                key = groups[:, i] * len(self.table) + groups[:, j]
                edge = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
                there = np.flatnonzero(self.keys[edge] == key)
                if len(there):
                    total[there] += _axes(self.pairs.dense(edge[there])[:, : shape[i], : shape[j]], (i, j), count)
        return total.reshape(len(groups), -1)


def _rest_block(instance: Instance, rest: IntArray) -> Block:
    cost, damage = instance.tables
    widths = instance.widths[rest]
    width = int(widths.max())
    full = bool((widths == width).all())
    return Block(np.arange(len(rest)), cost[rest, :width], damage[rest, :width], None if full else widths)


class _Tied:
    """Which tie block (size,), -1 for none, and which row of it (size,) each free group stands for."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.block = np.full(instance.size, -1)
        self.row = np.zeros(instance.size, dtype=np.int64)
        for number, tie in enumerate(instance.ties):
            self.block[tie.groups] = number
            self.row[tie.groups] = np.arange(len(tie.groups))

    def left(self, joined: npt.NDArray[np.bool_], place: IntArray) -> list[TieBlock]:
        """Return the ties whose groups are not joined, at their new places."""
        blocks = []
        for tie in self.instance.ties:
            stays = ~joined[tie.groups]
            if stays.any():
                blocks.append(TieBlock(place[tie.groups[stays]], tie.members[stays], tie.columns))
        return blocks

    def join(self, groups: IntArray, columns: IntArray, at: IntArray) -> TieBlock:
        """Return what lifts joined groups: every group of the problem behind them, with its column per combination."""
        members, lines = [], []
        for position, column in zip(groups.T, columns, strict=True):
            number = int(self.block[position[0]])
            if number < 0:
                stands_for = self.instance.representatives[position]
                own = self.instance.columns
                members.append(stands_for)
                lines.append(column if own is None else own[stands_for[0], column])  # the same for all of a kind
            else:
                tie = self.instance.ties[number]
                members += list(tie.members[self.row[position]].T)
                lines += [line[column] for line in tie.columns]
        return TieBlock(at, np.stack(members, axis=1), np.stack(lines))


def _kept(
    pairs: Coupling | None, joined: npt.NDArray[np.bool_], place: IntArray, rest: IntArray, shape: tuple[int, int]
) -> Coupling | None:
    """Return the pairs between groups that are not joined, for an instance of tables of ``shape``."""
    if pairs is None:
        return None
    inside = np.flatnonzero(~joined[pairs.left])
    if len(inside) == 0:
        return None
    padded = np.minimum(np.arange(shape[1]), pairs.levels.shape[1] - 1)
    levels = np.zeros(shape, dtype=np.int64)
    levels[: len(rest)] = pairs.levels[rest][:, padded]
    return Coupling(
        place[pairs.left[inside]],
        place[pairs.right[inside]],
        levels,
        None if pairs.coefficient is None else pairs.coefficient[inside],
        None if pairs.tables is None else pairs.tables[inside][:, padded[:, None], padded],
    )


def _stacked(parts: list[tuple[IntArray, IntArray]], shape: tuple[int, int]) -> IntArray:
    table = np.empty(shape, dtype=np.int64)
    for at, values in parts:
        table[at] = values[:, np.minimum(np.arange(shape[1]), values.shape[1] - 1)]
    return table
