"""The paper's heuristic as on the slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.rounds.policies._steps import Takes, check_takes, count, fallen, movable, summed
from impq_opt.rounds.policy import Choice, Policy, Turn

__all__ = ["Slides"]


@dataclass(frozen=True)
class Slides(Policy):
    """Take a step off the N groups of least present damage Delta^2 E, weights and activations together.

    Parameters
    ----------
    take : tuple of (int, float)
        (from round, N), counted from 1; below 1 it is a share of the groups that are not pinned.
    """

    name: ClassVar[str] = "slides"
    summary: ClassVar[str] = "a bit off the N least damaging groups a round"

    take: Takes = ((1, 0.25),)

    def __post_init__(self) -> None:
        check_takes(self.take, "take")

    @property
    def falls(self) -> bool:
        """Bits never rise."""
        return True

    def choose(self, turn: Turn) -> Choice:
        """Return the present columns, those of the N least damaging groups one lower; equal ones by their order."""
        problem = turn.problem
        able = movable(problem, turn.columns)
        damage = summed(problem, problem.damage.chosen(problem.candidates, turn.columns))
        order = np.argsort(damage[able], kind="stable")
        most = count(self.take, turn.number, len(problem) - len(problem.pins))
        return fallen(problem, turn.columns, [able[order[:most]]])
