"""Which groups have to be looked at together, and the least that is still to come once some of them are chosen.

A *hub* is a group that shares a pair with others, or one of the few that a limit depends on. All other groups depend on
hubs alone: those that share them with the same hubs make a :class:`Part`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.instance.instance import Instance
from impq_opt.judge.lines import Line
from impq_opt.types import IntArray

__all__ = ["Hubs", "Open", "Part", "Table", "ToGo"]


# The columns of each hub that are looked at.
Open = list[list[int]]

# A limit is kept by looking at all combinations of its groups where there are no more than these.
_FEW_GROUPS, _FEW_COMBINATIONS = 15, 1 << 15
# Entries of the largest table that elimination makes.
_LARGEST = 1 << 13
# Entries of tables that are eliminated in the time of one state.
_ENTRIES_A_STATE = 4


@dataclass(frozen=True, eq=False)
class Part:
    """Groups (n,) that share pairs with the same hubs, whose ``places`` among the hubs are in order.

    ``edges`` has, by line and by hub, the place (n,) of each group's pair with that hub among the line's, -1 for none.
    """

    places: tuple[int, ...]
    groups: IntArray
    edges: dict[tuple[int, int], IntArray]


@dataclass(frozen=True, eq=False)
class Hubs:
    """The hubs (H,) in the order of the groups, the parts of the other groups, and the pairs among hubs.

    ``held`` are the lines that hold for a combination of hubs or do not: they depend on few groups, all of them hubs.
    ``pairs`` has (line, place of the pair) by the places of two hubs.
    """

    groups: IntArray
    widths: list[int]
    parts: list[Part]
    pairs: dict[tuple[int, int], list[tuple[int, int]]]
    held: dict[int, tuple[int, ...]]

    @classmethod
    def of(cls, instance: Instance, lines: Sequence[Line]) -> Hubs:
        """Find the hubs of some lines."""
        touched = {
            i: _touched(line, instance.size) for i, line in enumerate(lines) if line.on_few and line.pairs is None
        }
        held = {i: groups for i, groups in touched.items() if groups is not None}
        is_hub = np.zeros(instance.size, dtype=bool)
        for groups in held.values():
            is_hub[groups] = True
        edges = [(line.pairs.left, line.pairs.right) for line in lines if line.pairs is not None]
        if edges:
            _cover(is_hub, *(np.concatenate(side) for side in zip(*edges, strict=True)))
        hubs = np.flatnonzero(is_hub)
        place = np.full(instance.size, -1)
        place[hubs] = np.arange(len(hubs))
        return cls(
            groups=hubs,
            widths=instance.widths[hubs].tolist(),
            parts=_parts(lines, place),
            pairs=_hub_pairs(lines, place),
            held={i: tuple(place[groups].tolist()) for i, groups in held.items()},
        )

    @cached_property
    def scopes(self) -> list[tuple[int, ...]]:
        """The sets of hubs that anything depends on together."""
        return [*self.pairs, *(part.places for part in self.parts if part.places), *filter(None, self.held.values())]

    def frontier(self, place: int) -> tuple[int, ...]:
        """Return the hubs up to ``place`` that matter to what comes after it."""
        later = itertools.chain.from_iterable(scope for scope in self.scopes if scope[-1] > place)
        return tuple(sorted({hub for hub in later if hub <= place}))

    def completed(self, place: int) -> list[Part]:
        """Return the parts whose last hub is at ``place``."""
        return [part for part in self.parts if part.places and part.places[-1] == place]

    def kept(self, line: Line, places: tuple[int, ...], open_: Open, size: int) -> npt.NDArray[np.bool_]:
        """Return which combinations (K, ...) of open columns of the hubs at ``places`` keep a line on these alone."""
        groups = self.groups[list(places)]
        others = np.setdiff1d(np.arange(size), groups)
        rest = line.base + line.total(others, np.zeros(len(others), dtype=np.int64))
        total = np.full((), rest, dtype=object)
        for group, place in zip(groups.tolist(), places, strict=True):
            total = total[..., None] + np.array(line.at(group, open_[place]), dtype=object)
        return np.asarray(total <= line.limit, dtype=bool)


def _touched(line: Line, size: int) -> IntArray | None:
    """Return the few groups that a line depends on; None where they are many."""
    if line.exact or size == 0:
        return None
    rows = line.rows(np.arange(min(size, 4 * _FEW_GROUPS)))  # most lines differ everywhere: see that soon
    if size > len(rows) and (rows != rows[:, :1]).any(axis=1).sum() > _FEW_GROUPS:
        return None
    rows = line.rows(np.arange(size))
    inside = np.arange(rows.shape[1]) < line.widths[:, None]
    groups = np.flatnonzero(((rows != rows[:, :1]) & inside).any(axis=1))
    few = len(groups) <= _FEW_GROUPS and math.prod(line.widths[groups].tolist()) <= _FEW_COMBINATIONS
    return groups if few else None


def _cover(is_hub: npt.NDArray[np.bool_], left: IntArray, right: IntArray) -> None:
    """Make hubs of groups until every pair has one: the group with most uncovered pairs first."""
    size = len(is_hub)
    while True:
        open_ = ~(is_hub[left] | is_hub[right])
        if not open_.any():
            return
        left, right = left[open_], right[open_]
        degree = np.bincount(left, minlength=size) + np.bincount(right, minlength=size)
        alone = (degree[left] == 1) & (degree[right] == 1)
        if alone.any():
            is_hub[right[alone]] = True
        else:
            is_hub[int(degree.argmax())] = True


def _parts(lines: Sequence[Line], place: IntArray) -> list[Part]:
    """Return the groups that are no hubs by the hubs that they share pairs with; those that share none come last."""
    neighbours: dict[int, set[int]] = {}
    edge_of: dict[tuple[int, int, int], int] = {}  # line, group, hub -> pair
    for i, line in enumerate(lines):
        if line.pairs is None:
            continue
        for spoke, hub in ((line.pairs.left, line.pairs.right), (line.pairs.right, line.pairs.left)):
            inside = np.flatnonzero((place[spoke] < 0) & (place[hub] >= 0))
            ends = zip(inside.tolist(), spoke[inside].tolist(), place[hub[inside]].tolist(), strict=True)
            for edge, group, at in ends:
                neighbours.setdefault(group, set()).add(at)
                edge_of[i, group, at] = edge
    by_set: dict[tuple[int, ...], list[int]] = {}
    for group, some in neighbours.items():
        by_set.setdefault(tuple(sorted(some)), []).append(group)
    parts = []
    for places, groups in by_set.items():
        members = sorted(groups)
        edges = {
            (i, at): np.array([edge_of.get((i, group, at), -1) for group in members], dtype=np.int64)
            for i, line in enumerate(lines)
            if line.pairs is not None
            for at in places
        }
        parts.append(Part(places, np.array(members, dtype=np.int64), edges))
    alone = place < 0
    alone[list(neighbours)] = False
    return [*parts, Part((), np.flatnonzero(alone), {})]


def _hub_pairs(lines: Sequence[Line], place: IntArray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, line in enumerate(lines):
        if line.pairs is None:
            continue
        # Hubs are in the order of groups, as pairs are.
        left_hub, right_hub = place[line.pairs.left], place[line.pairs.right]
        for edge in np.flatnonzero((left_hub >= 0) & (right_hub >= 0)).tolist():
            pairs.setdefault((int(left_hub[edge]), int(right_hub[edge])), []).append((i, edge))
    return pairs


@dataclass(frozen=True, eq=False)
class Table:
    """A function of a few hubs in Python's whole numbers: ``values`` has one axis a place of ``scope``, in order.

    Entries are by the place of a column among the open ones of its hub.
    """

    scope: tuple[int, ...]
    values: npt.NDArray[Any]

    @classmethod
    def filled(cls, scope: tuple[int, ...], open_: Open, value: Callable[[tuple[int, ...]], int]) -> Table:
        """Return the table of ``value`` at every combination of open columns, which alone it has."""
        chosen = [open_[place] for place in scope]
        values = np.empty([len(columns) for columns in chosen], dtype=object)
        for place in itertools.product(*(range(len(columns)) for columns in chosen)):
            values[place] = value(tuple(columns[k] for columns, k in zip(chosen, place, strict=True)))
        return cls(scope, values)

    def at(self, columns: dict[int, int]) -> int:
        """Return the entry at places of columns by hub."""
        return int(self.values[tuple(columns[place] for place in self.scope)])

    def _spread(self, scope: tuple[int, ...]) -> npt.NDArray[Any]:
        shape = iter(self.values.shape)
        return self.values.reshape([next(shape) if place in self.scope else 1 for place in scope])

    def joined(self, other: Table) -> Table | None:
        """Return the sum of both; None where it would be too large."""
        scope = tuple(sorted({*self.scope, *other.scope}))
        shape = np.broadcast_shapes(self._spread(scope).shape, other._spread(scope).shape)
        if math.prod(shape) > max(_LARGEST, self.values.size, other.values.size):
            return None
        return Table(scope, self._spread(scope) + other._spread(scope))

    def only(self, place: int, column: int) -> Table:
        """Return the table with a hub at one of its columns, or the table itself where it does not have the hub."""
        if place not in self.scope:
            return self
        axis = self.scope.index(place)
        return Table(self.scope, self.values.take([column], axis=axis))

    def without_last(self) -> Table:
        """Return the least over the last hub."""
        return Table(self.scope[:-1], np.asarray(self.values.min(axis=-1), dtype=object))


class ToGo:
    """The least that a sum of tables can still get, once the hubs up to some place have their columns.

    Exact where the tables that elimination makes stay small, which they do for trees and chains; never above the truth
    elsewhere: too large a sum is taken in parts (mini-buckets, Dechter & Rish 2003). It takes about as long as so many
    states of an enumeration as ``effort`` says.
    """

    def __init__(self, tables: Sequence[Table], count: int) -> None:
        pool = list(tables)
        self.effort = sum(table.values.size for table in tables) // _ENTRIES_A_STATE
        self._after: list[list[Table]] = [[] for _ in range(count)]
        for place in reversed(range(count)):
            bucket = [table for table in pool if table.scope and table.scope[-1] == place]
            pool = [table for table in pool if not table.scope or table.scope[-1] != place]
            for whole in _merged(bucket):
                pool.append(whole.without_last())
            # What is left of later hubs and depends on no hub after this one.
            if place:
                known = {id(table) for table in tables}
                self._after[place - 1] = [table for table in pool if id(table) not in known]
        self.least = sum(int(table.values) for table in pool)

    def at(self, place: int, columns: dict[int, int]) -> int:
        """Return the least of what is still to come after ``place``, where the hubs up to it have ``columns``."""
        return sum(table.at(columns) for table in self._after[place])


def _merged(bucket: list[Table]) -> list[Table]:
    parts: list[Table] = []
    for table in sorted(bucket, key=lambda each: -each.values.size):
        for place, part in enumerate(parts):
            joined = part.joined(table)
            if joined is not None:
                parts[place] = joined
                break
        else:
            parts.append(table)
    return parts
