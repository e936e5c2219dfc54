"""The dynamic program over a core: ``search`` of ``_core.c``.

Minimise the sum of ``gain[g, k]`` with the sum of ``need[g, k]`` at most ``room``, all integers. States are partial
assignments; a state that costs no less and needs no less than another is dropped, and so is one whose linear
relaxation cannot beat the best assignment known. Every state is also completed greedily, which finds that assignment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from impq_opt.instance.contract import Control
from impq_opt.problem.allocation import Stop
from impq_opt.solvers import native
from impq_opt.solvers.native import COMPILED, ColumnArray, Limits, column_type
from impq_opt.solvers.native.hulls import Steps, hull_steps
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Core", "CoreResult", "run"]

# Roundings of a bound are less than this share of the terms it is made of.
_MARGIN = 2.0**-44
# What the kernel calls the reasons to stop.
_STOPS = (Stop.COMPLETED, Stop.TIME_LIMIT, Stop.MEMORY_LIMIT, Stop.STATE_LIMIT)
# Bytes a state takes while it is made, sorted and bounded, and after that.
_WORKING, _KEPT = 96, 8


class Core(NamedTuple):
    """Groups with their candidates; entry [g, k] of a candidate that is ruled out equals that of another one.

    gain, need : ndarray of int64 (n, K)
    room : int
        Most need allowed.
    target : int
        Gains above it are of no interest.
    doubt, blur : int
        Needs, or gains, of an assignment are rounded down by at most this much. An assignment within ``room - doubt``
        surely fits.
    rank : ndarray of int64 (n, K), optional
        The order of a group's needs, or gains where ``blur`` is not 0, before they were rounded.
    alike : ndarray of int64 (n,), optional
        A number that groups share which were equal before they were rounded.
    """

    gain: IntArray
    need: IntArray
    room: int
    target: int
    doubt: int = 0
    blur: int = 0
    rank: IntArray | None = None
    alike: IntArray | None = None

    def choices(self, group: int) -> list[int]:
        """Return the candidates of a group that no other one beats, before rounding where that is known."""
        gain, need = self.gain[group], self.need[group]
        if self.rank is not None:
            gain, need = (self.rank[group], need) if self.blur else (gain, self.rank[group])
        return _undominated(gain, need)


@dataclass(eq=False)
class CoreResult:
    """What a search found.

    gain, columns (n,): the assignment of least gain that surely fits, if any has a gain at most ``target``.
    doubtful: assignments of less gain that fit if rounding allows, by rising gain. The search proves that every other
    assignment that fits is worse, but for the rounding of gains.
    """

    gain: int | None = None
    columns: IntArray | None = None
    doubtful: list[tuple[int, IntArray]] = field(default_factory=list)
    states: int = 0
    stop: Stop = Stop.COMPLETED


def run(
    core: Core, most: int, control: Control, doubtful: int, *, refine: bool = False, limits: Limits = COMPILED
) -> CoreResult:
    """Search a core; where more than ``most`` states are needed, or time is over, the result says so in ``stop``.

    More than ``doubtful`` assignments that rounding leaves open are too many states, too. With ``refine``, all that
    rounding might make the best are kept; that is rare, and not compiled.
    """
    columns = core.gain.shape[1]
    if native.core is None or refine or not limits.hold(len(core.gain), columns):
        return _run_numpy(core, most, control, doubtful, refine)
    best = np.empty(len(core.gain), dtype=np.int64)
    memory = math.inf if control.memory_limit is None else float(control.memory_limit)
    gain, need = np.ascontiguousarray(core.gain), np.ascontiguousarray(core.need)
    stop, has_best, best_gain, states, left = native.core.search(
        *(gain, need, len(gain), columns, core.room, core.target, core.doubt, most, control.remaining, memory),
        *(float(_WORKING), float(_KEPT), _MARGIN, doubtful, best, control.interrupt),
    )
    return CoreResult(
        best_gain if has_best else None,
        best if has_best else None,
        [(value, np.frombuffer(columns, dtype=np.int64)) for value, columns in left],
        states,
        _STOPS[stop],
    )


def _run_numpy(core: Core, most: int, control: Control, doubtful: int, refine: bool) -> CoreResult:
    steps = hull_steps(core.gain, core.need)
    # Coarse groups first: the fine ones that remain then complete every state closely.
    rank = np.argsort(-np.ptp(core.gain, axis=1), kind="stable")
    stage_of = np.empty_like(rank)
    stage_of[rank] = np.arange(len(rank))
    states = _States(core, steps, refine)
    result = states.result
    states.complete(_Completions(steps, stage_of[steps.group], -1))
    for stage, group in enumerate(rank.tolist()):
        columns = core.choices(group)
        if control.memory_limit is not None and states.bytes_ahead(len(columns)) > control.memory_limit:
            result.stop = Stop.MEMORY_LIMIT
            return result
        states.extend(group, columns, _Completions(steps, stage_of[steps.group], stage))
        if len(states.gain) == 0:
            return result
        if len(states.gain) > most or control.expired():
            result.stop = Stop.STATE_LIMIT if len(states.gain) > most else Stop.TIME_LIMIT
            return result
    possible = np.flatnonzero((states.gain <= states.target) & (states.over <= 0))
    if len(possible) > doubtful:
        result.stop = Stop.STATE_LIMIT
        return result
    result.doubtful = [(int(states.gain[place]), states.columns(place, 0)) for place in possible.tolist()]
    return result


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

    def __init__(self, core: Core, steps: Steps, refine: bool) -> None:
        self.core, self.steps, self.refine, self.result = core, steps, refine, CoreResult()
        rows = np.arange(len(steps.start))
        gain, need = core.gain[rows, steps.start], core.need[rows, steps.start]
        self.group_gain, self.group_need = core.gain - gain[:, None], core.need - need[:, None]
        self.origin = int(gain.sum())
        self.gain, self.over = np.array([self.origin]), np.array([int(need.sum()) - core.room])
        # All gains are the first one plus multiples of it.
        self.lattice = int(np.gcd.reduce(self.group_gain, axis=None))
        self.inside = np.arange(len(steps.group))
        self.trail: list[tuple[int, npt.NDArray[np.int32], ColumnArray]] = []
        self.kept = 0
        self._lower_target(core.target)

    def _lower_target(self, target: int) -> None:
        """Look only for gains at most ``target``; all gains are the first one plus multiples of the lattice."""
        self.target = target - ((target - self.origin) % self.lattice if self.lattice else 0)

    def bytes_ahead(self, choices: int) -> int:
        """Return what memory is taken while one more group with some choices is decided."""
        return _WORKING * choices * len(self.gain) + _KEPT * self.kept

    def extend(self, group: int, columns: list[int], completions: _Completions) -> None:
        """Decide one more group."""
        gain, need = self.group_gain[group], self.group_need[group]
        count = len(self.gain)
        gains = np.concatenate([self.gain + gain[k] for k in columns])
        overs = np.concatenate([self.over + need[k] for k in columns])
        order = np.lexsort((overs, gains))
        live = order[self._undominated(gains[order], overs[order])]
        self.gain, self.over = gains[live], overs[live]
        taken = np.array(columns, dtype=column_type(len(gain)))[live // count]
        self.trail.append((group, (live % count).astype(np.int32), taken))
        self.inside = completions.inside
        self.result.states += len(order)
        self.complete(completions)
        self._prune(completions)
        self.kept += len(self.gain)

    def _undominated(self, gains: IntArray, overs: IntArray) -> BoolArray:
        """Return which of the states, by rising gain and need, no other one beats; for sure, where refining."""
        falling = np.minimum.accumulate(overs)
        if self.refine and self.core.blur:
            before = np.searchsorted(gains, gains - self.core.blur, side="right")
            return (before == 0) | (overs < falling[np.maximum(before - 1, 0)])
        first = np.ones(len(overs), dtype=bool)
        first[1:] = overs[1:] < falling[:-1] + (self.core.doubt if self.refine else 0)
        return first

    def complete(self, completions: _Completions) -> None:
        """Complete every state greedily, and keep the best result."""
        count = completions.counts(self.over + self.core.doubt)
        possible = count < len(completions.saved)
        if not possible.any():
            return
        whole = self.gain + completions.paid[np.minimum(count, len(completions.paid) - 1)]
        whole = np.where(possible, whole, np.iinfo(np.int64).max)
        place = int(whole.argmin())
        if whole[place] <= self.target:
            self.result.gain = int(whole[place])
            self.result.columns = self.columns(place, int(count[place]))
            if not self.refine or not self.core.blur:
                self._lower_target(self.result.gain - 1)
            elif self.result.gain + self.core.blur < self.target:
                self.target = self.result.gain + self.core.blur

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
