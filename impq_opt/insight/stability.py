"""What the standard errors of measured damages mean for an allocation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.exactness.sums import exact_sum, nearest_float
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.problem.uncertainty import measured
from impq_opt.types import FloatArray

__all__ = ["Stability", "stability"]


@dataclass(frozen=True)
class Stability:
    """How an allocation fares when the damages are drawn again within their standard errors.

    Parameters
    ----------
    feasible : float
        Share of draws for which the allocation stays within the bound.
    near : float
        Share for which it is feasible and its cost within ``tolerance`` of a lower bound on the best.
    resamples : int
    tolerance : float
    """

    feasible: float
    near: float
    resamples: int
    tolerance: float

    @property
    def stderr(self) -> float:
        """Largest standard error of the two shares."""
        return max((s * (1 - s) / self.resamples) ** 0.5 for s in (self.feasible, self.near))


def stability(
    problem: Problem, allocation: Allocation, *, resamples: int = 200, tolerance: float = 0.01, seed: int = 0
) -> Stability:
    """Draw the damages again and see whether the allocation stays feasible, and near the best.

    Damages are drawn from gamma distributions with the measured means and standard errors, one for each group, so
    they stay positive; the groups independently of each other. A lower bound on the best cost comes from the
    Lagrangian.

    Parameters
    ----------
    problem : Problem
        With standard errors: the values as measured, not raised to a limit.
    allocation : Allocation
        With a bound and a choice.
    tolerance : float
        Share of the cost that counts as near.

    Raises
    ------
    OptionError
        For less than one draw, or an allocation without a choice or a bound.
    """
    from impq_opt.solve import solve_in_passing

    if resamples < 1:
        raise OptionError("must be at least 1", where="resamples", value=resamples)
    if allocation.choice is None or allocation.bound is None or allocation.exact_cost is None:
        raise OptionError("needs an allocation under a bound on damage", where="stability")
    value, stderr = measured(problem)
    rng = np.random.default_rng(seed)
    feasible = near = 0
    for _ in range(resamples):
        drawn = _draw(value, stderr, rng)
        damage = PowerLaw(drawn) if isinstance(problem.damage, PowerLaw) else DamageTable(drawn)
        again = replace(problem, damage=damage)
        if exact_sum(damage.chosen(again.candidates, allocation.choice)) > allocation.bound:
            continue
        feasible += 1
        best = solve_in_passing(
            again,
            bound=allocation.bound,
            minimize={k: nearest_float(v) for k, v in allocation.cost_weights.items()},
            solver="lagrangian",
        )
        near += allocation.exact_cost <= Fraction(best.exact_lower_bound) * (1 + Fraction(tolerance))
    return Stability(feasible / resamples, near / resamples, resamples, tolerance)


def _draw(value: FloatArray, stderr: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return gamma variables of the given means and standard deviations; where a deviation is 0, the mean."""
    drawn = value.copy()
    some = (value > 0) & (value < np.inf) & (stderr > 0)
    ratio = np.square(stderr[some] / value[some])
    drawn[some] = value[some] * ratio * rng.standard_gamma(1 / ratio)
    if drawn.ndim == 2:  # a group's errors at different precisions are one error
        return _common(value, stderr, rng)
    return drawn


def _common(value: FloatArray, stderr: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return tables in which each group's values move together, by its mean relative error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where((value > 0) & (value < np.inf), stderr / value, np.nan)
    known = np.isfinite(relative)
    mean = np.where(known, relative, 0).sum(1) / np.maximum(known.sum(1), 1)
    factor = np.ones(len(value))
    some = mean > 0
    factor[some] = mean[some] ** 2 * rng.standard_gamma(1 / mean[some] ** 2)
    return value * factor[:, None]
