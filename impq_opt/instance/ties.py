"""Groups that are tied: one choice for all members, and the exact damages behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["TieBlock", "member_damages"]


@dataclass(frozen=True, eq=False)
class TieBlock:
    """Ties whose members have the same candidate sets.

    groups (T,): free groups that stand for the ties. members (T, m): groups of the problem.
    columns (m, K): column of each member for each common candidate.
    """

    groups: IntArray
    members: IntArray
    columns: IntArray


def member_damages(problem: Problem, tie: TieBlock) -> FloatArray:
    """Return the damages (T, m, K) of all members at each common candidate.

    A float64 cannot hold every sum of them: tables of an instance hold it rounded down, and what has to be exact adds
    up these.
    """
    damages = []
    for members, columns in zip(tie.members.T, tie.columns, strict=True):
        bits = problem.candidates.of(int(members[0]))  # the same set for all ties of a block
        damages.append(problem.damage.at(members, bits)[:, columns])
    return np.stack(damages, axis=1)
