"""The paper's heuristic as in its authors' public code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.groups.first_power import first_power_factor
from impq_opt.rounds.policies._steps import Takes, check_takes, count, fallen, movable, summed
from impq_opt.rounds.policy import Choice, Policy, Turn
from impq_opt.types import FloatArray

__all__ = ["AuthorsCode"]


@dataclass(frozen=True)
class AuthorsCode(Policy):
    """Take a step off all groups of a kind up to the score of rank N: N + 1 groups, and those that tie with the last.

    The score is that of :func:`impq_opt.groups.first_power.first_power_factor`, with the magnitudes of the quantized
    weights, whatever metric was measured, as long as it grows with the squared step; ranks count from 0.

    That code makes two runs: one takes the weights down, the next begins where it ended, keeps their precisions and
    takes the activations down. So a run has one of the two schedules; with both, both kinds fall in every round.

    Parameters
    ----------
    take, take_activations : tuple of (int, float)
        (from round, N) of weights and of activations, counted from 1; below 1 it is a share of the groups of the kind.
        A kind without a schedule keeps its precisions.
    """

    name: ClassVar[str] = "authors-code"
    summary: ClassVar[str] = "a bit off all groups up to a threshold, weights and activations apart"

    take: Takes = ((1, 0.25),)
    take_activations: Takes = ()

    def __post_init__(self) -> None:
        if self.take or not self.take_activations:
            check_takes(self.take, "take")
        if self.take_activations:
            check_takes(self.take_activations, "take_activations")

    @property
    def falls(self) -> bool:
        """Bits never rise."""
        return True

    def choose(self, turn: Turn) -> Choice:
        """Return the present columns, those of all groups up to the two thresholds one lower."""
        problem = turn.problem
        able, scores = movable(problem, turn.columns), summed(problem, _scores(turn))
        weights = problem.weights()
        chosen = []
        for kind, takes in ((weights, self.take), (~weights, self.take_activations)):
            members = able[kind[able]]
            if takes and len(members):
                rank = min(count(takes, turn.number, int(kind.sum())), len(members) - 1)
                chosen.append(members[scores[members] <= np.sort(scores[members])[rank]])
        return fallen(problem, turn.columns, chosen)


def _scores(turn: Turn) -> FloatArray:
    """Return the authors' score (G,) at the present precisions, up to a constant."""
    problem = turn.problem
    step = np.exp2(-problem.candidates.bits(turn.columns))
    spans = np.ones(len(problem)) if problem.ranges is None else problem.ranges
    spans = np.where(np.isfinite(spans) & (spans > 0), spans, 1.0)
    damage = problem.damage.chosen(problem.candidates, turn.columns)
    moments = damage / step**2 / spans**2  # E without the range: sums of squared gradients
    factor = first_power_factor(problem.weights(), problem.sizes, turn.magnitudes, spans)
    scores: FloatArray = step * factor * moments
    return scores
