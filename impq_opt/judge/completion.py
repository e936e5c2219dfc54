"""What the groups of a core that are still to come can do for one line within another: the linear program's bound.

One price for all states is too kind to those that have spent much of one line: what is left must make up for it, at
worse and worse prices. With each group's choices replaced by their lower convex hull, the least of the first line for
what is left of the second is a convex, piecewise linear function, the same for all states at one group (Sinha and
Zoltners 1979).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

__all__ = ["Completion"]


class Completion:
    """The bound for each number of groups that are chosen already.

    Parameters
    ----------
    groups : sequence of sequences of (int, int)
        What each group's choices add to the first and to the second line.
    """

    def __init__(self, groups: Sequence[Sequence[tuple[int, int]]]) -> None:
        first, second = 0, 0
        segments: list[tuple[Fraction, int, int]] = []
        self._after = [(first, second, [0], [0])]
        for points in reversed(groups):
            hull = _hull(points)
            first, second = first + hull[0][0], second + hull[0][1]
            for (high, before), (low, after) in pairwise(hull):
                insort(segments, (Fraction(low - high, after - before), after - before, high - low))
            spent, saved = [0], [0]
            for _, more, less in segments:
                spent.append(spent[-1] + more)
                saved.append(saved[-1] + less)
            self._after.append((first, second, spent, saved))
        self._after.reverse()

    def least(self, chosen: int, room: int) -> int | None:
        """Return the least that the groups after ``chosen`` of them add to the first line, in whole numbers.

        ``room`` is the most that they may add to the second; None where they cannot keep it.
        """
        first, second, spent, saved = self._after[chosen]
        room -= second
        if room < 0:
            return None
        place = bisect_right(spent, room) - 1
        saving = saved[place]
        if place + 1 < len(spent):
            saving += (saved[place + 1] - saving) * (room - spent[place]) // (spent[place + 1] - spent[place])
        return first - saving


def _hull(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the lower convex hull of (first, second), from the least of the second line to the least of the first."""
    hull: list[tuple[int, int]] = []
    for point in sorted(points, key=lambda pair: (pair[1], pair[0])):
        if hull and point[0] >= hull[-1][0]:
            continue  # costs as much and needs more
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _above(before: tuple[int, int], middle: tuple[int, int], after: tuple[int, int]) -> bool:
    """Return whether ``middle`` lies on or above the line between its neighbours."""
    return (middle[0] - before[0]) * (after[1] - before[1]) >= (after[0] - before[0]) * (middle[1] - before[1])
