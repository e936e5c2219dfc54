"""Scores of 0 at every candidate: not measured, unless somebody says that they are meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impq_opt.errors import FileError
from impq_opt.groups.damage import zero_damages
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import few

__all__ = ["accept_zeros", "refuse_nothing_measured", "unmeasured_zeros"]


def unmeasured_zeros(problem: Problem) -> Problem:
    """Return ``problem`` with each group unmeasured whose scores are all 0, where it has a choice.

    Tools write 0 where no gradient came, no sample went through a layer, or nobody looked. Rounding a layer that takes
    part in a network is never free, so such a 0 certifies nothing: the group keeps its most bits.
    """
    choices = problem.candidates.counts(len(problem))
    if problem.allowed is not None:
        choices = problem.allowed.sum(axis=1)
    zero = zero_damages(problem.damage, problem.candidates) & (choices > 1)
    if not zero.any():
        return problem
    note = {"groups": int(zero.sum()), "such_as": few(problem.names, np.flatnonzero(zero))}
    provenance = dict(problem.provenance) | {"zero_scores": note}
    known = np.zeros(len(problem), dtype=bool) if problem.unmeasured is None else problem.unmeasured
    return replace(problem, unmeasured=known | zero, provenance=provenance)


def accept_zeros(problem: Problem) -> Problem:
    """Return ``problem`` with its scores of 0 taken as they are: harmless at every precision."""
    free = problem.revise(free_unmeasured=True)
    return replace(free, unmeasured=None, free_unmeasured=problem.free_unmeasured)


def refuse_nothing_measured(problem: Problem, where: str) -> None:
    """Raise FileError where every score is 0."""
    if zero_damages(problem.damage, problem.candidates).all():
        raise FileError(
            "every score is 0: nothing was measured",
            where=where,
            value=f"{len(problem)} group" + "s" * (len(problem) > 1),
            hint="accept_zeros=True takes them as they are",
        )
