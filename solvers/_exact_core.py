"""The core: an integer multiple-choice knapsack, solved by dynamic programming with bounds.

Minimise the sum of ``gain[g, k]`` with the sum of ``need[g, k]`` at most ``room``, all integers. States are partial
assignments; a state that costs no less and needs no less than another is dropped, and so is one whose linear
relaxation cannot beat the best assignment known. Every state is also completed greedily, which finds that assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Stop
from impq_opt.solver import Control
from impq_opt.solvers._hull import Steps, hull_steps

__all__ = ["Core", "Found", "search"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Roundings of a bound are less than this share of the terms it is made of.
_MARGIN = 2.0**-44
# Bytes a state takes while it is made and sorted, and after that.
_WORKING, _KEPT = 96, 8


@dataclass(frozen=True, eq=False)
class Core:
    """Groups with their candidates; entry [g, k] of a candidate that is ruled out equals that of another one.

    gain, need : ndarray of int64 (n, K)
    room : int
        Most need allowed.
    doubt : int
        Needs are rounded down, all together by at most this much: an assignment within ``room - doubt`` surely fits.
    target : int
        Gains above it are of no interest.
    """

    gain: IntArray
    need: IntArray
    room: int
    doubt: int
    target: int


@dataclass(eq=False)
class Found:
    """What the search proves: no assignment that fits has a gain at most ``target`` and below ``gain``.

    columns (n,) of the best assignment that surely fits, or None. doubtful (n,), of ``doubtful_gain``: the best of the
    better ones that fit if rounding allows, or None.
    """

    gain: int | None = None
    columns: IntArray | None = None
    doubtful: IntArray | None = None
    doubtful_gain: int = 0
    states: int = 0
    stop: Stop = Stop.COMPLETED


def search(core: Core, most: int, control: Control) -> Found:
    """Solve a core; where more than ``most`` states are needed, or time is over, the result says so in ``stop``."""
    steps = hull_steps(core.gain, core.need)
    # Coarse groups first: the fine ones that remain then complete every state closely.
    rank = np.argsort(-np.ptp(core.gain, axis=1), kind="stable")
    stage_of = np.empty_like(rank)
    stage_of[rank] = np.arange(len(rank))
    states = _States(core, steps)
    found = states.found
    states.complete(_Completions(steps, stage_of[steps.group], -1))
    for stage, group in enumerate(rank.tolist()):
        states.extend(group, _Completions(steps, stage_of[steps.group], stage))
        if len(states.gain) == 0:
            return found
        found.stop = _stopped(states, most, control)
        if found.stop is not Stop.COMPLETED:
            return found
    if len(states.gain):
        found.doubtful, found.doubtful_gain = states.columns(0, 0), int(states.gain[0])
    return found


def _stopped(states: _States, most: int, control: Control) -> Stop:
    if len(states.gain) > most:
        return Stop.STATE_LIMIT
    if control.memory_limit is not None and _WORKING * len(states.gain) + _KEPT * states.kept > control.memory_limit:
        return Stop.MEMORY_LIMIT
    return Stop.TIME_LIMIT if control.expired() else Stop.COMPLETED


def _undominated(gain: IntArray, need: IntArray) -> list[int]:
    """Return the candidates of a group that no other one beats, by rising gain; the first of equals."""
    order = np.lexsort((np.arange(len(gain)), need, gain)).tolist()
    kept: list[int] = []
    for column in order:
        if not kept or need[column] < need[kept[-1]]:
            kept.append(column)
    return kept


class _Completions:
    """The hull steps of the groups that are still to be decided, best first.

    saved, paid (S + 1,): what the first i steps take off the need and add to the gain.
    """

    def __init__(self, steps: Steps, stage_of: IntArray, stage: int) -> None:
        self.inside = np.flatnonzero(stage_of > stage)
        self.saved = np.concatenate([[0], np.cumsum(steps.damage[self.inside])]).astype(np.int64)
        self.paid = np.concatenate([[0], np.cumsum(steps.cost[self.inside])]).astype(np.int64)

    def counts(self, over: IntArray) -> IntArray:
        """Return the fewest steps that take off ``over``; one more than there are where none suffice."""
        return np.searchsorted(self.saved, over, side="left")

    def at_least(self, over: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the linear relaxation's extra gain for taking off ``over``, inf where impossible, and its scale."""
        count = self.counts(over)
        after = np.minimum(count, len(self.saved) - 1)
        before = np.maximum(after - 1, 0)
        paid = self.paid[before].astype(np.float64)
        part = (over - self.saved[before]).astype(np.float64)
        step_paid = (self.paid[after] - self.paid[before]).astype(np.float64)
        step_saved = np.maximum(self.saved[after] - self.saved[before], 1).astype(np.float64)
        extra = np.where(count == 0, 0.0, paid + part * step_paid / step_saved)
        return np.where(count == len(self.saved), np.inf, extra), self.paid[after].astype(np.float64)


class _States:
    """Undominated partial assignments, by rising gain and falling need.

    gain, over (n,): gain, and need beyond the room, when the undecided groups take their least gain.
    """

    def __init__(self, core: Core, steps: Steps) -> None:
        self.doubt, self.steps, self.found = core.doubt, steps, Found()
        rows = np.arange(len(core.gain))
        least, its_need = core.gain[rows, steps.start], core.need[rows, steps.start]
        self.group_gain, self.group_need = core.gain - least[:, None], core.need - its_need[:, None]
        self.gain = np.array([least.sum()], dtype=np.int64)
        self.over = np.array([its_need.sum() - core.room], dtype=np.int64)
        self.lattice = int(np.gcd.reduce(self.group_gain, axis=None))
        self.origin = int(self.gain[0])
        self.inside = np.arange(len(steps.group))
        self.trail: list[tuple[int, npt.NDArray[np.int32], npt.NDArray[np.uint16]]] = []
        self.kept = 0
        self._lower_target(core.target)

    def _lower_target(self, target: int) -> None:
        """Look only for gains at most ``target``; all gains are the first one plus multiples of the lattice."""
        self.target = target - ((target - self.origin) % self.lattice if self.lattice else 0)

    def extend(self, group: int, completions: _Completions) -> None:
        """Decide one more group."""
        gain, need = self.group_gain[group], self.group_need[group]
        columns = _undominated(gain, need)
        count = len(self.gain)
        gains = np.concatenate([self.gain + gain[k] for k in columns])
        overs = np.concatenate([self.over + need[k] for k in columns])
        order = np.lexsort((overs, gains))
        falling = np.minimum.accumulate(overs[order])
        first = np.ones(len(order), dtype=bool)
        first[1:] = overs[order][1:] < falling[:-1]
        live = order[first]
        self.gain, self.over = gains[live], overs[live]
        self.trail.append((group, (live % count).astype(np.int32), np.array(columns, dtype=np.uint16)[live // count]))
        self.inside = completions.inside
        self.found.states += len(order)
        self.complete(completions)
        self._prune(completions)
        self.kept += len(self.gain)

    def complete(self, completions: _Completions) -> None:
        """Complete every state greedily, and keep the best result."""
        count = completions.counts(self.over + self.doubt)
        possible = count < len(completions.saved)
        if not possible.any():
            return
        whole = self.gain + completions.paid[np.minimum(count, len(completions.paid) - 1)]
        whole = np.where(possible, whole, np.iinfo(np.int64).max)
        place = int(whole.argmin())
        if whole[place] <= self.target:
            self.found.gain = int(whole[place])
            self.found.columns = self.columns(place, int(count[place]))
            self._lower_target(self.found.gain - 1)

    def columns(self, place: int, count: int) -> IntArray:
        """Return the assignment (n,) of a state whose undecided groups take ``count`` hull steps."""
        columns = self.steps.start.copy()
        taken = self.inside[:count]
        columns[self.steps.group[taken]] = self.steps.to[taken]
        for group, parent, column in reversed(self.trail):
            columns[group] = column[place]
            place = int(parent[place])
        return columns

    def _prune(self, completions: _Completions) -> None:
        extra, scale = completions.at_least(self.over)
        gain = self.gain.astype(np.float64)
        bound = gain + extra - _MARGIN * (np.abs(gain) + scale)
        live = bound <= float(self.target)
        if not live.all():
            self.gain, self.over = self.gain[live], self.over[live]
            group, parent, column = self.trail[-1]
            self.trail[-1] = (group, parent[live], column[live])
