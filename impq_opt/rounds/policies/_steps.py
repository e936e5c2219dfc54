"""What policies share that take steps down: which groups can fall, in which order, how many a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.problem.problem import Problem
from impq_opt.rounds.policy import Choice
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Takes", "check_takes", "count", "fallen", "movable", "summed"]

# (from round, N), counted from 1: N groups lose a step each round; below 1 it is a share of the groups.
Takes = tuple[tuple[int, float], ...]


def check_takes(takes: Takes, name: str) -> None:
    """Raise OptionError unless there is a positive N for every round."""
    if not takes or takes[0][0] > 1 or any(n <= 0 for _, n in takes) or list(takes) != sorted(takes):
        raise OptionError(
            "must be (from round, N) in order, from round 1, with positive N", where=f"rounds.{name}", value=takes
        )


def count(takes: Takes, number: int, groups: int) -> int:
    """Return N of round ``number``; shares are of ``groups``, those that may move at all."""
    wanted = [n for first, n in takes if first <= number][-1]
    return max(1, int(wanted if wanted >= 1 else wanted * groups))


def leaders(problem: Problem) -> IntArray:
    """Return the group (G,) that stands for each one: itself, or the first that it is tied to."""
    leaders = np.arange(len(problem))
    for tie in problem.ties:
        leaders[list(tie)] = tie[0]
    return leaders


def movable(problem: Problem, columns: IntArray) -> IntArray:
    """Return the groups that can lose a step, one of each tie: neither pinned nor at their first candidate.

    Raises
    ------
    OptionError
        Candidates that do not ascend, among which there is no step down.
    """
    for candidates in problem.candidates.sets:
        if list(candidates) != sorted(candidates):
            raise OptionError("must ascend where bits come off", where="rounds.bits", value=list(candidates))
    able: BoolArray = (columns > 0) & ~np.isin(np.arange(len(problem)), list(problem.pins))
    for tie in problem.ties:
        able[list(tie)] = able[list(tie)].all()
    return np.flatnonzero(able & (leaders(problem) == np.arange(len(problem))))


def summed(problem: Problem, values: FloatArray) -> FloatArray:
    """Return values (G,) with those of tied groups added up at the first of them."""
    return np.bincount(leaders(problem), weights=values, minlength=len(problem)).astype(np.float64)


def fallen(problem: Problem, columns: IntArray, chosen: Sequence[IntArray]) -> Choice:
    """Return the choice in which the chosen groups, and what is tied to them, have lost one step."""
    groups = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    after = np.where(np.isin(leaders(problem), groups), columns - 1, columns)
    return Choice(after, done="nothing left to take" if np.array_equal(after, columns) else "")
