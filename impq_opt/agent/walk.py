"""HAQ's walk into a budget: sweeps from the last layer that take a bit at a time until the budget holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Limit", "Walk", "walk"]


@dataclass(frozen=True)
class Limit:
    """What a sum over units may come to, all in whole numbers; a unit is what takes one precision.

    Parameters
    ----------
    most : int
    entries : mapping of int to tuple of int
        What a unit adds at each of its levels, from the least bits to the most; a unit that is not named adds nothing.
    pairs : mapping of int to sequence of (int, tuple of tuple of int)
        What a unit adds together with another, by its own level and the other's. Both have it, each its own way round.
    """

    most: int
    entries: Mapping[int, tuple[int, ...]]
    pairs: Mapping[int, Sequence[tuple[int, tuple[tuple[int, ...], ...]]]] = field(default_factory=dict)

    def total(self, levels: Sequence[int]) -> int:
        """Return the sum at ``levels``, one a unit."""
        total = sum(entries[levels[unit]] for unit, entries in self.entries.items())
        coupled = sum(table[levels[u]][levels[v]] for u, pairs in self.pairs.items() for v, table in pairs if u < v)
        return total + coupled

    def change(self, levels: Sequence[int], unit: int, level: int) -> int:
        """Return by how much the sum changes where ``unit`` goes to ``level``."""
        before, change = levels[unit], 0
        entries = self.entries.get(unit)
        if entries is not None:
            change = entries[level] - entries[before]
        for other, table in self.pairs.get(unit, ()):
            change += table[level][levels[other]] - table[before][levels[other]]
        return change


@dataclass(frozen=True)
class Walk:
    """Where a walk ended.

    Parameters
    ----------
    levels : tuple of int
        Of each unit.
    trace : tuple of int
        The units that lost a level (or got one), in that order.
    holds : bool
        Whether all limits hold.
    """

    levels: tuple[int, ...]
    trace: tuple[int, ...]
    holds: bool


def walk(levels: Sequence[int], widths: Sequence[int], limits: Sequence[Limit], *, up: bool = False) -> Walk:
    """Return where the walk ends that starts at ``levels``.

    Units are numbered in the order of the agent's steps: a layer's weights, then the activation that it reads. A sweep
    goes from the last unit to the first, so that an activation loses a bit before the weights. In a sweep each unit
    loses one level, its next lower candidate; the walk ends in the middle of a sweep, as soon as all limits hold, or
    after one in which nothing moved. This is the ``_final_action_wall`` of HAQ's authors (Wang et al. 2019, section
    3.3), for any number of limits: a unit is passed over where its step lowers no limit that is broken, or breaks one
    that holds. With one cost in which all have a share, that is never.

    Parameters
    ----------
    levels : sequence of int
        Level of each unit, counted from its least bits.
    widths : sequence of int
        How many levels each unit has.
    limits : sequence of Limit
    up : bool
        Give levels instead of taking them: towards a limit on damage.
    """
    now, trace, step = list(levels), [], 1 if up else -1
    values = [limit.total(now) for limit in limits]
    touching = _touching(len(now), limits)
    broken = {place for place, limit in enumerate(limits) if values[place] > limit.most}
    moved = True
    while broken and moved:
        moved = False
        for unit in range(len(now) - 1, -1, -1):
            level = now[unit] + step
            if not 0 <= level < widths[unit] or broken.isdisjoint(touching[unit]):
                continue
            changes = {place: limits[place].change(now, unit, level) for place in touching[unit]}
            if not _is_useful(changes, values, limits, broken):
                continue
            now[unit], moved = level, True
            trace.append(unit)
            for place, change in changes.items():
                values[place] += change
                if values[place] <= limits[place].most:
                    broken.discard(place)
            if not broken:
                break
    return Walk(tuple(now), tuple(trace), not broken)


def _touching(units: int, limits: Sequence[Limit]) -> list[list[int]]:
    """Return the limits, by place, that each unit has a share in."""
    return [[p for p, limit in enumerate(limits) if u in limit.entries or u in limit.pairs] for u in range(units)]


def _is_useful(changes: Mapping[int, int], values: Sequence[int], limits: Sequence[Limit], broken: set[int]) -> bool:
    """Return whether a step lowers a limit that is broken, and breaks none that holds."""
    lowers = any(change < 0 for place, change in changes.items() if place in broken)
    return lowers and all(p in broken or values[p] + change <= limits[p].most for p, change in changes.items())
