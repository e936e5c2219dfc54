"""Least damage under several limits, in Python's whole numbers: for damages whose sums float64 does not reach.

A dynamic program over the groups in order. A partial choice is its limited sums, and the choices of the groups that
share a cost with one still to come; of those that agree in both, the least damage is kept. Slow, and as exact for
numbers of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.instance import Instance, Row
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers._best import best_feasible
from impq_opt.types import IntArray

__all__ = ["beyond_floats", "solve_whole"]


# Sums of damages that stay below this leave float64 room for what bounds do with them.
_LARGE = 1e300


def beyond_floats(instance: Instance) -> bool:
    """Return whether damages are minimised whose sums may leave the range of float64."""
    if instance.objective.whole:
        return False
    with np.errstate(over="ignore"):
        most = float(instance.tables[1].max(axis=1, initial=0.0).sum())
    return not most + nearest_float(instance.base_damage) < _LARGE


def solve_whole(instance: Instance, control: Control, most: int) -> Claim:
    """Return what can be claimed of the least damage; ``most`` partial choices are kept at once."""
    program = _Program(instance)
    states: dict[_Key, _State] = {((0,) * len(program.rows), ()): _State(0, None)}
    looked, stop = 0, Stop.COMPLETED
    for group in range(instance.size):
        states = program.extended(states, group)
        looked += len(states)
        if control.expired() or len(states) > most:
            stop = Stop.TIME_LIMIT if control.expired() else Stop.STATE_LIMIT
            break
    statistics = {"states": looked}
    if stop is not Stop.COMPLETED:
        cost, damage = instance.tables
        some = best_feasible(instance, (damage.argmin(axis=1), cost.argmin(axis=1)), control)
        return replace(some, stop=stop, statistics=statistics)
    enumeration = Enumeration(instance.size, looked)
    if not states:
        return Claim(lower_bound=math.inf, enumeration=enumeration, statistics=statistics)
    choice = _choice(min(states.values(), key=lambda state: state.damage), instance.size)
    return Claim(choice, instance.damage_of(choice), enumeration=enumeration, statistics=statistics)


_Key = tuple[tuple[int, ...], tuple[int, ...]]


class _State(NamedTuple):
    """A damage, and the choice so far: the last group's column and the state before."""

    damage: int
    trail: tuple[int, _State] | None


def _choice(state: _State, size: int) -> IntArray:
    columns = np.empty(size, dtype=np.int64)
    for group in reversed(range(size)):
        assert state.trail is not None
        columns[group], state = state.trail
    return columns


class _Row:
    """A limit: its table, its pairs by their right end, and the least that groups from each on will add."""

    def __init__(self, row: Row, widths: list[int]) -> None:
        self.table = [entries[:width] for entries, width in zip(row.table.tolist(), widths, strict=True)]
        self.room, pairs = int(row.room), row.pairs
        self.pairs: list[list[tuple[int, list[list[int]]]]] = [[] for _ in widths]
        least = [min(entries) for entries in self.table]
        if pairs is not None:
            for left, right, values in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.dense(), strict=True):
                self.pairs[right].append((left, values.tolist()))
                least[right] += int(values[: widths[left], : widths[right]].min())
        self.least = [sum(least[group:]) for group in range(len(widths) + 1)]


class _Program:
    def __init__(self, instance: Instance) -> None:
        widths = instance.widths.tolist()
        self.damages = instance.damage_units()
        self.rows = [_Row(row, widths) for row in instance.limits]
        last = list(range(instance.size))
        for row in self.rows:
            for right, pairs in enumerate(row.pairs):
                for left, _ in pairs:
                    last[left] = max(last[left], right)
        # Groups before each whose choice it, or a later one, has to know.
        self.open = [[g for g in range(group) if last[g] >= group] for group in range(instance.size + 1)]

    def extended(self, states: dict[_Key, _State], group: int) -> dict[_Key, _State]:
        """Return the states after one more group, without those that cannot keep a limit."""
        known, kept = self.open[group], self.open[group + 1]
        grown: dict[_Key, _State] = {}
        for (used, choices), state in states.items():
            column_of = dict(zip(known, choices, strict=True))
            for column, damage in enumerate(self.damages[group]):
                sums = tuple(self._sums(used, group, column, column_of))
                if any(s + row.least[group + 1] > row.room for s, row in zip(sums, self.rows, strict=True)):
                    continue
                column_of[group] = column
                key = sums, tuple(column_of[g] for g in kept)
                total = state.damage + damage
                if key not in grown or total < grown[key].damage:
                    grown[key] = _State(total, (column, state))
        return grown

    def _sums(self, used: tuple[int, ...], group: int, column: int, column_of: dict[int, int]) -> Iterator[int]:
        for before, row in zip(used, self.rows, strict=True):
            pairs = sum(values[column_of[left]][column] for left, values in row.pairs[group])
            yield before + row.table[group][column] + pairs
