"""Instances made from instances: some groups settled, or several joined into one with a candidate per combination.

What is solved is smaller; what is checked stays the same, because the new instance lifts to the same problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum, exact_sum, sum_rows_down
from impq_opt.coupling import Coupling
from impq_opt.instance import Block, Instance, TieBlock

__all__ = ["components", "join", "settle"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def settle(instance: Instance, groups: IntArray, columns: IntArray) -> Instance:
    """Return the instance of the other groups, where ``groups`` (n,) take ``columns`` (n,).

    Pairs with one settled end become costs of the other.
    """
    size = instance.size
    column = np.zeros(size, dtype=np.int64)
    column[groups] = columns
    settled = np.zeros(size, dtype=bool)
    settled[groups] = True
    rest = np.flatnonzero(~settled)
    cost, damage = instance.tables
    new_cost, pairs, added = _settled_row(cost, instance.pairs, column, settled, rest)
    budgets = []
    for budget in instance.budgets:
        table, coupling, more = _settled_row(budget.table, budget.pairs, column, settled, rest)
        budgets.append(replace(budget, table=table, pairs=coupling, base=budget.base + more))
    fixed = instance.lift(column)
    place = np.full(size, -1)
    place[rest] = np.arange(len(rest))
    ties = []
    held = exact_sum(damage[groups, columns])
    for tie in instance.ties:
        stays = ~settled[tie.groups]
        if stays.any():
            ties.append(TieBlock(place[tie.groups[stays]], tie.members[stays], tie.columns))
        gone = tie.groups[~stays]
        if len(gone):
            # A tie's table is rounded down; what is settled is known exactly.
            members = tie.members[~stays].reshape(-1)
            exact = exact_sum(instance.problem.damage.chosen(instance.problem.candidates, fixed)[members])
            held += exact - exact_sum(damage[gone, column[gone]])
    free = instance.representatives
    widths = instance.widths[rest]
    full = bool((widths == cost.shape[1]).all())
    return replace(
        instance,
        size=len(rest),
        blocks=(Block(slice(None), new_cost, damage[rest], None if full else widths),),
        base_cost=instance.base_cost + added,
        base_damage=instance.base_damage + held,
        budgets=tuple(budgets),
        pairs=pairs,
        _fixed=fixed,
        _free=free[rest],
        ties=tuple(ties),
    )


def _settled_row(
    table: IntArray, pairs: Coupling | None, column: IntArray, settled: npt.NDArray[np.bool_], rest: IntArray
) -> tuple[IntArray, Coupling | None, int]:
    """Return the table of ``rest``, the pairs inside it, and what the settled groups cost."""
    groups = np.flatnonzero(settled)
    added = exact_int_sum(table[groups, column[groups]])
    if pairs is None:
        return table[rest], None, added
    one, other = settled[pairs.left], settled[pairs.right]
    both = np.flatnonzero(one & other)
    added += exact_int_sum(pairs.at(column)[both]) if len(both) else 0
    whole = table.copy()
    for edges, free, held, turned in (
        (np.flatnonzero(one & ~other), pairs.right, pairs.left, False),
        (np.flatnonzero(other & ~one), pairs.left, pairs.right, True),
    ):
        if len(edges) == 0:
            continue
        columns = column[held[edges]]
        if pairs.coefficient is not None:
            factor = pairs.coefficient[edges] * pairs.levels[held[edges], columns]
            values = factor[:, None] * pairs.levels[free[edges]]
        else:
            dense = pairs.dense(edges)
            lines = np.arange(len(edges))
            values = dense[lines, :, columns] if turned else dense[lines, columns, :]
        # A leaf has one neighbour; where a group has several, add them one after the other.
        if len(np.unique(free[edges])) == len(edges):
            whole[free[edges]] += values
        else:
            np.add.at(whole, free[edges], values)
    inside = np.flatnonzero(~one & ~other)
    if len(inside) == 0:
        return whole[rest], None, added
    place = np.full(len(table), -1)
    place[rest] = np.arange(len(rest))
    kept = Coupling(
        place[pairs.left[inside]],
        place[pairs.right[inside]],
        pairs.levels[rest],
        None if pairs.coefficient is None else pairs.coefficient[inside],
        None if pairs.tables is None else pairs.tables[inside],
    )
    return whole[rest], kept, added


def components(instance: Instance) -> list[IntArray]:
    """Return the sets of free groups, of two or more, that pairs connect, each in order."""
    couplings = [one for one in (instance.pairs, *(b.pairs for b in instance.budgets)) if one is not None]
    if not couplings:
        return []
    left = np.concatenate([one.left for one in couplings])
    right = np.concatenate([one.right for one in couplings])
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
    return [part for part in np.split(order, starts[1:]) if len(part) > 1]


def join(instance: Instance, clusters: Sequence[IntArray]) -> Instance:
    """Return the instance in which each cluster of free groups is one group, with a candidate for each combination.

    All pairs of a cluster's groups must lie inside it. Combinations are in order of the columns, the first group's
    column changing slowest.
    """
    size = instance.size
    joined = np.zeros(size, dtype=bool)
    for cluster in clusters:
        joined[cluster] = True
    rest = np.flatnonzero(~joined)
    place = np.full(size, -1)
    place[rest] = np.arange(len(rest))
    first = np.array([int(cluster[0]) for cluster in clusters], dtype=np.int64)
    new_place = len(rest) + np.arange(len(clusters))
    tie_of = _tie_of(instance)
    kinds: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for number, cluster in enumerate(clusters):
        key = tuple((width, tie_of.get(g, (-1, 0))[0]) for g, width in _with_widths(instance, cluster))
        kinds.setdefault(key, []).append(number)
    rows = [_Row(instance.tables[0], instance.pairs), *(_Row(b.table, b.pairs) for b in instance.budgets)]
    damage = instance.tables[1]
    blocks = [_rest_block(instance, rest)] if len(rest) else []
    kept = int(instance.widths[rest].max(initial=1))
    tables: list[list[tuple[IntArray, IntArray]]] = [[(np.arange(len(rest)), row.table[rest, :kept])] for row in rows]
    ties = [
        TieBlock(place[tie.groups[~joined[tie.groups]]], tie.members[~joined[tie.groups]], tie.columns)
        for tie in instance.ties
        if not joined[tie.groups].all()
    ]
    for key, numbers in kinds.items():
        groups = np.stack([clusters[number] for number in numbers])  # (T, m)
        shape = [width for width, _ in key]
        columns = np.stack([axis.reshape(-1) for axis in np.indices(shape)])  # (m, K)
        at = new_place[numbers]
        harm = sum_rows_down(np.stack([damage[g][:, c] for g, c in zip(groups.T, columns, strict=True)]))
        values = [row.of(groups, columns) for row in rows]
        blocks.append(Block(at, values[0], harm))
        for table, value in zip(tables, values, strict=True):
            table.append((at, value))
        ties.append(_joined_tie(instance, tie_of, groups, columns, at))
    count = len(rest) + len(clusters)
    new_pairs = [_kept(row.pairs, joined, place, rest, count) for row in rows]
    widest = max(int(values.shape[1]) for table in tables for _, values in table)
    budgets = []
    for budget, parts, pairs in zip(instance.budgets, tables[1:], new_pairs[1:], strict=True):
        budgets.append(replace(budget, table=_stacked(parts, count, widest), pairs=pairs))
    return replace(
        instance,
        size=count,
        blocks=tuple(blocks),
        budgets=tuple(budgets),
        pairs=new_pairs[0],
        _fixed=instance.lift(np.zeros(size, dtype=np.int64)),
        _free=np.concatenate([instance.representatives[rest], instance.representatives[first]]),
        ties=tuple(ties),
    )


class _Row:
    def __init__(self, table: IntArray, pairs: Coupling | None) -> None:
        self.table, self.pairs = table, pairs
        self.keys = None if pairs is None else pairs.left * len(table) + pairs.right

    def of(self, groups: IntArray, columns: IntArray) -> IntArray:
        """Return the values (T, K) of clusters ``groups`` (T, m) at combinations ``columns`` (m, K)."""
        total = np.zeros((len(groups), columns.shape[1]), dtype=np.int64)
        for position, column in zip(groups.T, columns, strict=True):
            total += self.table[position][:, column]
        if self.pairs is None or self.keys is None:
            return total
        for i in range(len(columns)):
            for j in range(i + 1, len(columns)):  # clusters are in order, so i is the left end
                key = groups[:, i] * len(self.table) + groups[:, j]
                edge = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
                there = np.flatnonzero(self.keys[edge] == key)
                if len(there):
                    total[there] += self.pairs.dense(edge[there])[:, columns[i], columns[j]]
        return total


def _rest_block(instance: Instance, rest: IntArray) -> Block:
    cost, damage = instance.tables
    widths = instance.widths[rest]
    width = int(widths.max())
    full = bool((widths == width).all())
    return Block(np.arange(len(rest)), cost[rest, :width], damage[rest, :width], None if full else widths)


def _with_widths(instance: Instance, cluster: IntArray) -> list[tuple[int, int]]:
    return list(zip(cluster.tolist(), instance.widths[cluster].tolist(), strict=True))


def _tie_of(instance: Instance) -> dict[int, tuple[int, int]]:
    """Return group -> (tie block, row) for the free groups that stand for ties."""
    return {
        int(group): (number, row)
        for number, tie in enumerate(instance.ties)
        for row, group in enumerate(tie.groups.tolist())
    }


def _joined_tie(
    instance: Instance, tie_of: dict[int, tuple[int, int]], groups: IntArray, columns: IntArray, at: IntArray
) -> TieBlock:
    """Return what lifts joined groups: every group of the problem behind them, with its column in each combination."""
    members, lines = [], []
    free = instance.representatives
    for position, column in zip(groups.T, columns, strict=True):
        if int(position[0]) in tie_of:
            tie = instance.ties[tie_of[int(position[0])][0]]
            rows = [tie_of[int(g)][1] for g in position.tolist()]
            members += list(tie.members[rows].T)
            lines += [line[column] for line in tie.columns]
        else:
            members.append(free[position])
            lines.append(column)
    return TieBlock(at, np.stack(members, axis=1), np.stack(lines))


def _kept(
    pairs: Coupling | None, joined: npt.NDArray[np.bool_], place: IntArray, rest: IntArray, count: int
) -> Coupling | None:
    """Return the pairs between groups that are not joined."""
    if pairs is None:
        return None
    inside = np.flatnonzero(~joined[pairs.left])
    if len(inside) == 0:
        return None
    levels = np.zeros((count, pairs.levels.shape[1]), dtype=np.int64)
    levels[: len(rest)] = pairs.levels[rest]
    return Coupling(
        place[pairs.left[inside]],
        place[pairs.right[inside]],
        levels,
        None if pairs.coefficient is None else pairs.coefficient[inside],
        None if pairs.tables is None else pairs.tables[inside],
    )


def _stacked(parts: list[tuple[IntArray, IntArray]], count: int, width: int) -> IntArray:
    table = np.empty((count, width), dtype=np.int64)
    for at, values in parts:
        table[at] = values[:, np.minimum(np.arange(width), values.shape[1] - 1)]
    return table
