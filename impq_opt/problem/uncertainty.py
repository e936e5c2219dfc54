"""A problem's standard errors, and its damages at their upper confidence limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impq_opt.errors import OptionError, ProblemError
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray

__all__ = ["measured", "upper_limit"]


def upper_limit(problem: Problem, confidence: float) -> Problem:
    """Return the problem with every damage at its one-sided upper confidence limit.

    The limit is ``value + z stderr`` with the normal quantile z. It is taken group by group: the sum over groups is
    covered at least as often where errors go together, as they do when groups are measured on the same samples, and
    more often where they do not.

    Parameters
    ----------
    confidence : float
        From 0.5 (the values themselves) to below 1.

    Raises
    ------
    ProblemError
        The problem has no standard errors.
    """
    from scipy.special import ndtri

    if not 0.5 <= confidence < 1:
        raise OptionError("must be at least 0.5 and below 1", where="confidence", value=confidence)
    value, stderr = measured(problem)
    raised = value + float(ndtri(confidence)) * stderr
    # The errors have been used up: a second limit on top of the first would mean nothing.
    damage = PowerLaw(raised) if isinstance(problem.damage, PowerLaw) else DamageTable(raised)
    return replace(problem, damage=damage)


def measured(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Return the damages and their standard errors; raise ProblemError where there are none."""
    damage = problem.damage
    if problem.interactions is not None:
        raise ProblemError(
            "damages that interact have no confidence limits group by group",
            where="interactions",
            hint="an answer tells the standard error of what groups do together",
        )
    value = damage.sensitivity if isinstance(damage, PowerLaw) else damage.values
    if damage.stderr is None:
        raise ProblemError(
            "the problem has no standard errors",
            where="damage",
            hint="measure it with impq-opt measure, or declare stderr",
        )
    return value, np.where(np.isfinite(damage.stderr), damage.stderr, 0.0)
