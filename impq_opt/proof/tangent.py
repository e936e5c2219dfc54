"""The lower bound that prices and a tangent prove where damages interact by factors; rounding accounted for.

    damage(k) = sum_g (d - |F|^2)[g, k_g] + |sum_g F[g, k_g]|^2  >=  sum_g (d - |F|^2 + 2 <y, F>)[g, k_g] - |y|^2

for every point y: a sum over groups, of which the least is taken with the limits at their prices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import exact_sum
from impq_opt.groups.interactions import Factors
from impq_opt.instance.convex import places
from impq_opt.instance.instance import Instance
from impq_opt.types import FloatArray

__all__ = ["tangent_bound"]

_EPS, _TINY = 2.0**-53, 1e-290


@np.errstate(over="ignore", invalid="ignore")
def tangent_bound(instance: Instance, multipliers: Mapping[str, float], tangent: FloatArray | None) -> Fraction | float:
    """Return a lower bound on the objective, in its quanta; -inf where there are no factors or nothing is proved.

    Parameters
    ----------
    multipliers : mapping
        Not negative, by the names of the limits.
    tangent : ndarray (r,), optional
        The point y, in the space of the declared factors.
    """
    factors = instance.problem.interactions
    if not isinstance(factors, Factors) or tangent is None or tangent.shape != factors.values.shape[2:]:
        return -math.inf
    if instance.coupled or instance.peaks or not np.isfinite(tangent).all():
        return -math.inf
    place, columns = places(instance)
    free = place >= 0
    values, size = np.zeros(instance.tables[0].shape), np.zeros(instance.tables[0].shape)
    constant = Fraction(0)
    for row, price in [(instance.objective, 1.0), *((row, multipliers.get(row.name, 0.0)) for row in instance.limits)]:
        if price == 0:
            continue
        if row.whole:
            table = price * row.table.astype(np.float64)
            values, size = values + table, size + np.abs(table)
            constant += Fraction(price) * Fraction(row.base)
        else:
            alone, apart = _damages(instance, factors, columns, tangent)
            alone, apart = price * alone, price * apart
            np.add.at(values, place[free], alone[free])
            np.add.at(size, place[free], apart[free])
            pinned = alone[~free, 0] - apart[~free, 0] * _roundings(instance, factors)
            if not np.isfinite(pinned).all():
                return -math.inf
            constant += exact_sum(pinned)
            constant -= Fraction(price) * sum((Fraction(y) ** 2 for y in tangent.tolist()), Fraction(0))
        if row.limit is not None:
            constant -= Fraction(price) * Fraction(row.limit)
    lowered = values - size * _roundings(instance, factors) - _TINY
    least = lowered.min(axis=1)  # columns past a group's width repeat its last candidate
    return exact_sum(least) + constant if np.isfinite(least).all() else -math.inf


def _roundings(instance: Instance, factors: Factors) -> float:
    """Return what part of its terms' sizes a value may be off by: each term's products and sums round."""
    members = max((tie.members.shape[1] for tie in instance.ties), default=1)
    return 2 * (factors.values.shape[2] + members + len(instance.limits) + 8) * _EPS


def _damages(
    instance: Instance, factors: Factors, columns: np.ndarray, tangent: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return what each group (G, K) adds to the tangent at ``columns``, and the sizes of its terms."""
    problem = instance.problem
    values = factors.values[np.arange(len(columns))[:, None], columns]
    table = np.stack([problem.damage.chosen(problem.candidates, column) for column in columns.T], axis=1)
    squares = np.einsum("gkr,gkr->gk", values, values)
    return table - squares + 2 * (values @ tangent), table + squares + 2 * (np.abs(values) @ np.abs(tangent))
