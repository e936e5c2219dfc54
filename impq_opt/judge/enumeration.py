"""What the recount enumerates: the priced bound of a case, and all combinations that it leaves open."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from impq_opt.instance.instance import Instance
from impq_opt.judge.completion import Completion
from impq_opt.judge.entries import Entries
from impq_opt.judge.excess import Core, Pricing
from impq_opt.judge.hubs import Open, Part, Table, ToGo
from impq_opt.judge.lines import Line
from impq_opt.types import IntArray

__all__ = ["Bound", "Enumerator", "TooMany"]

Key = tuple[int, ...]

# Groups of a core for which the bound on what is still to come is made anew after each.
_COMPLETED = 600
# Entries of the instance that are priced in the time of one state.
_ENTRIES_A_STATE = 50
# States of one key that all others are held against, where more than three lines are open.
_COMPARED = 400


class TooMany(Exception):  # noqa: N818 - not an error
    """More states than there may be."""


class Bound:
    """The least priced sum, and how far it is below what the limits allow: ``room``, in parts of one price."""

    def __init__(self, instance: Instance, lines: Sequence[Line], entries: Entries, open_: Open) -> None:
        self.instance, self.lines, self.entries, self.open = instance, list(lines), entries, open_
        self.hubs = hubs = entries.hubs
        prices = [Fraction(line.price) / line.unit for line in lines]
        self.scale = math.lcm(*(price.denominator for price in prices))
        weights = [int(price * self.scale) for price in prices]
        self.pricing = Pricing(lines, weights, self.scale, entries)
        self.most = sum(w * (line.limit - line.base) for w, line in zip(weights, lines, strict=True))
        self.alone = hubs.parts[-1]
        self.rest = self.pricing.least(self.alone, ())
        self.tables = list(self._tables())
        self.to_go = ToGo(self.tables, len(open_))
        self.least = self.to_go.least + self.rest

    @property
    def room(self) -> Fraction:
        return Fraction(self.most - self.least, self.scale)

    @property
    def effort(self) -> int:
        """How many states of an enumeration take about as long."""
        entries = self.instance.size * int(self.instance.widths.max(initial=1))
        return 1 + entries // _ENTRIES_A_STATE + self.to_go.effort

    def _tables(self) -> Iterator[Table]:
        """Yield what hubs weigh, alone, in pairs and with the best of their parts, and what they may not be."""
        hubs, pricing, open_ = self.hubs, self.pricing, self.open
        tables = [Table.filled((place,), open_, partial(pricing.hub, place)) for place in range(len(open_))]
        tables += [Table.filled(ends, open_, partial(pricing.between, ends)) for ends in hubs.pairs]
        tables += [Table.filled(part.places, open_, partial(pricing.least, part)) for part in hubs.parts[:-1]]
        yield from tables
        # More than any sum that is allowed, whatever the others weigh: tables may be negative.
        never = abs(self.most) + abs(self.rest) + sum(int(abs(table.values).max()) for table in tables) + 1
        for i, places in hubs.held.items():
            if places:
                values = np.zeros([len(open_[place]) for place in places], dtype=object)
                values[~self.entries.kept(i, open_)] = never
                yield Table(places, values)

    def excesses(self, place: int) -> dict[int, int]:
        """Return by how much the least priced sum with a hub at a column exceeds the least of all, where there is room.

        By column, in parts of ``1 / scale``.
        """
        by_column = {}
        for k, column in enumerate(self.open[place]):
            held = [table.only(place, k) for table in self.tables]
            excess = ToGo(held, len(self.open)).least - self.to_go.least
            if excess <= self.most - self.least:
                by_column[column] = excess
        return by_column


@dataclass(frozen=True, slots=True)
class State:
    """A partial assignment: places of the columns of the hubs that still matter, open lines, priced sum, its origin."""

    key: Key
    open: tuple[int, ...]
    priced: int
    trail: Any


class Enumerator:
    """All combinations that can keep the lines: hub after hub, each with the parts that it completes.

    Parts whose hubs have one open column each come last, together with the groups that share nothing.
    """

    def __init__(self, bound: Bound, most: int) -> None:
        self.bound, self.hubs, self.most = bound, bound.hubs, most
        self.open = [i for i in range(len(bound.lines)) if i not in bound.hubs.held]
        self.lines = [bound.lines[i] for i in self.open]
        self.limits = [line.limit for line in self.lines]
        self.cores: dict[tuple[Key, Key], Core] = {}
        self.looked = 0
        # The groups with more than one choice so far: a group counts once, whatever its hubs are at.
        several = np.array([len(columns) > 1 for columns in bound.open], dtype=bool)
        self.groups: set[int] = set(bound.hubs.groups[several].tolist())

    def result(self) -> IntArray | None:
        """Return an assignment that keeps all lines, or None where there is none."""
        settled = [part for part in self.hubs.parts[:-1] if self._settled(part)]
        last = Core.joined([self._core(part, self._only(part)) for part in [*settled, self.bound.alone]])
        rest = self._rest(last)
        states = [State((), tuple(line.base for line in self.lines), self.bound.rest, None)]
        for place in range(len(self.hubs.groups)):
            states = self._next_hub(states, place, rest[place])
        states = self._with_core(states, last, 0, [0] * len(self.open))
        return self._assignment(states[0]) if states else None

    def _settled(self, part: Part) -> bool:
        return all(len(self.bound.open[place]) == 1 for place in part.places)

    def _only(self, part: Part) -> Key:
        return tuple(self.bound.open[place][0] for place in part.places)

    def _rest(self, last: Core) -> list[list[int]]:
        """Return, for each hub, what is added to the open lines at least after it and the parts that it completes."""
        hubs, to_come = self.hubs, []
        total = [added + more for added, more in zip(last.adds, last.least()[0], strict=True)]
        for place in reversed(range(len(hubs.groups))):
            to_come.append(list(total))
            for at, (i, line) in enumerate(zip(self.open, self.lines, strict=True)):
                total[at] += min(line.at(int(hubs.groups[place]), self.bound.open[place]))
                for (_, other), pairs in hubs.pairs.items():
                    if other == place:
                        total[at] += line.least_pairs(np.array([edge for k, edge in pairs if k == i], dtype=np.int64))
                for part in hubs.completed(place):
                    if not self._settled(part):
                        total[at] += self._least(part, i)
        return to_come[::-1]

    def _least(self, part: Part, i: int) -> int:
        total = self.bound.lines[i].least(part.groups)
        for place in part.places:
            edges = part.edges.get((i, place))
            total += 0 if edges is None else self.bound.lines[i].least_pairs(edges[edges >= 0])
        return total

    def _next_hub(self, states: list[State], place: int, rest: list[int]) -> list[State]:
        hubs, open_ = self.hubs, self.bound.open
        scope = (*hubs.frontier(place - 1), place)
        grown: dict[Key, list[State]] = {}
        steps: dict[Key, tuple[int, int, list[int]]] = {}
        for state in states:
            self._look(len(open_[place]))
            for k, column in enumerate(open_[place]):
                key = (*state.key, k)
                if key not in steps:
                    steps[key] = self._step(place, dict(zip(scope, key, strict=True)))
                weighs, to_go, adds = steps[key]
                if state.priced + weighs + to_go <= self.bound.most:
                    held = tuple(map(int.__add__, state.open, adds))
                    trail = (state.trail, int(hubs.groups[place]), column)
                    grown.setdefault(key, []).append(State(key, held, state.priced + weighs, trail))
        kept = [scope.index(hub) for hub in hubs.frontier(place)]
        narrowed: dict[Key, list[State]] = {}
        for key, some in grown.items():
            columns = {hub: open_[hub][k] for hub, k in zip(scope, key, strict=True)}
            for part in hubs.completed(place):
                if not self._settled(part):
                    core = self._core(part, tuple(columns[hub] for hub in part.places))
                    some = self._with_core(some, core, steps[key][1], rest)  # noqa: PLW2901
            less = tuple(key[i] for i in kept)
            left = (replace(state, key=less) for state in some if self._fits(state.open, rest))
            narrowed.setdefault(less, []).extend(left)
        return [state for some in narrowed.values() for state in _undominated(some)]

    def _step(self, place: int, key: dict[int, int]) -> tuple[int, int, list[int]]:
        """Return what a hub weighs with all that it completes, what is to come, and what it adds to the open lines."""
        weighs = sum(table.at(key) for table in self.bound.tables if table.scope[-1] == place)
        columns = {hub: self.bound.open[hub][k] for hub, k in key.items()}
        column = columns[place]
        adds = list(self.bound.entries.hub(place, column))
        for ends in self.hubs.pairs:
            if ends[1] == place:
                for i, cost in self.bound.entries.between(ends, (columns[ends[0]], column)):
                    adds[i] += cost
        return weighs, self.bound.to_go.at(place, key), [adds[i] for i in self.open]

    def _with_core(self, states: list[State], core: Core, to_go: int, rest: Sequence[int]) -> list[State]:
        """Return the states with the groups of a core chosen; the least that they weigh is in the states already."""
        if not states or not len(core.groups):
            return states
        later = [[a + b for a, b in zip(least, rest, strict=True)] for least in core.least()]
        completion = self._completion(core)
        grown = []
        for state in states:
            held = tuple(map(int.__add__, state.open, core.adds))
            if self._fits(held, later[0]):
                grown.append(State(state.key, held, state.priced, (state.trail, core, None)))
        for chosen, (group, choices) in enumerate(core.choices, 1):
            states, grown = grown, []
            self._look(len(states) * len(choices))
            for state in states:
                for choice in choices:
                    priced = state.priced + choice.excess
                    if priced + to_go > self.bound.most:
                        continue
                    held = tuple(map(int.__add__, state.open, choice.adds))
                    if not self._fits(held, later[chosen]) or self._beyond(completion, chosen, held, rest):
                        continue
                    grown.append(State(state.key, held, priced, (state.trail, group, choice.column)))
            grown = _undominated(grown)
        return grown

    def _completion(self, core: Core) -> Completion | None:
        """Return the bound on what is still to come, where two lines are open and the core is not too large for it."""
        if len(self.open) != 2 or not 1 < len(core.choices) <= _COMPLETED:
            return None
        return Completion([[(choice.adds[0], choice.adds[1]) for choice in some] for _, some in core.choices])

    def _beyond(self, completion: Completion | None, chosen: int, held: tuple[int, ...], rest: Sequence[int]) -> bool:
        """Return whether what is still to come cannot keep both lines, even in parts."""
        if completion is None:
            return False
        least = completion.least(chosen, self.limits[1] - held[1] - rest[1])
        return least is None or held[0] + least + rest[0] > self.limits[0]

    def _core(self, part: Part, columns: Key) -> Core:
        if (part.places, columns) not in self.cores:
            room = self.bound.most - self.bound.least
            core = self.bound.pricing.core(part, columns, room, self.most - self.looked, self.open)
            if core is None:
                self.groups.update(part.groups.tolist())
                raise TooMany
            self.groups.update(int(group) for group, _ in core.choices)
            self.cores[part.places, columns] = core
        return self.cores[part.places, columns]

    def _look(self, states: int) -> None:
        self.looked += states
        if self.looked > self.most:
            raise TooMany

    def _fits(self, held: Sequence[int], rest: Sequence[int]) -> bool:
        return all(so_far + more <= most for so_far, more, most in zip(held, rest, self.limits, strict=True))

    def _assignment(self, state: State) -> IntArray:
        """Return the choice (size,) that a state stands for."""
        choice = np.zeros(self.bound.instance.size, dtype=np.int64)
        steps, trail = [], state.trail
        while trail is not None:
            trail, *step = trail
            steps.append(step)
        for what, column in reversed(steps):
            if isinstance(what, Core):
                choice[what.groups] = what.columns
            else:
                choice[what] = column
        return choice


def _undominated(states: list[State]) -> list[State]:
    """Drop states of one key that another one beats; with more than three open lines not all of them."""
    if len(states) < 2:
        return states
    if not states[0].open:
        return states[:1]
    ordered = sorted({state.open: state for state in states}.values(), key=lambda state: state.open)
    if len(ordered[0].open) == 1:
        return ordered[:1]
    if len(ordered[0].open) <= 3:
        return _on_stairs(ordered)
    held = np.array([_ranks(column) for column in zip(*(state.open for state in ordered), strict=True)])
    beaten = np.zeros(len(ordered), dtype=bool)
    for i in range(min(len(ordered), _COMPARED)):
        if not beaten[i]:
            beaten[i + 1 :] |= (held[:, i, None] <= held[:, i + 1 :]).all(axis=0)
    return [state for state, worse in zip(ordered, beaten.tolist(), strict=True) if not worse]


def _on_stairs(ordered: list[State]) -> list[State]:
    """Return the states that no earlier one beats in the last two of two or three lines; those ahead are no worse.

    What earlier ones reach in the last two lines is a staircase: one rises as the other falls (Kung, Luccio and
    Preparata 1975).
    """
    kept: list[State] = []
    rising: list[int] = []
    falling: list[int] = []
    for state in ordered:
        *_, x, y = state.open
        below = bisect_right(rising, x)
        if below and falling[below - 1] <= y:
            continue
        kept.append(state)
        first = last = bisect_left(rising, x)
        while last < len(rising) and falling[last] >= y:
            last += 1
        rising[first:last], falling[first:last] = [x], [y]
    return kept


def _ranks(values: Sequence[int]) -> IntArray:
    """Return whole numbers of any size as small ones in the same order."""
    rank = {value: place for place, value in enumerate(sorted(set(values)))}
    return np.array([rank[value] for value in values], dtype=np.int64)
