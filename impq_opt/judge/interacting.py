"""What the judge proves where damages interact: a bound from prices and a tangent, and an enumeration of what is small.

For factors F, prices and any point y, every assignment that keeps the limits has

    objective >= sum_g min_k (objective + prices . limited + q (2 <y, F> - |F|^2)) - q |y|^2 - prices . limits,

where damages are those of the table and q is the price of the damage, 1 where it is minimised: the square of the sum of
F is nowhere below its tangent. All in whole numbers. Floats sort out of an enumeration what is far from every limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.interactions import Factors
from impq_opt.instance.instance import Instance
from impq_opt.judge.declared import damage_of
from impq_opt.judge.lines import Line, lines_of
from impq_opt.judge.outcome import Outcome, Recount
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["prove_interacting"]

# Assignments looked at together, and how many there may be in all.
_CHUNK, _MOST = 2048, 1 << 18
# Assignments that floats leave undecided, and fractions decide.
_CLOSE = 20_000
# What rounding may take off the sum of a few thousand float64, as a share of their sizes.
_BLUR = 2.0**-36


def prove_interacting(
    instance: Instance,
    multipliers: Mapping[str, float],
    target: Fraction | int | None,
    states: int,
    tangent: FloatArray | None,
) -> Recount:
    """Say whether any assignment keeps the limits and, with a ``target``, has an objective below it."""
    lines = lines_of(instance, multipliers, target)
    if target is not None and tangent is not None and _follows(instance, lines, Fraction(target), tangent):
        return Recount(Outcome.PROVED, 0, 0)
    count = math.prod(instance.widths.tolist())
    if instance.coupled or instance.peaks or count > min(states, _MOST):
        return Recount(Outcome.OPEN, instance.size, 0)
    return _enumerated(instance, [line for line in lines if line.name != "damage" or line.on_few], target, count)


# -- a tangent -------------------------------------------------------------------------------------------------------


def _follows(instance: Instance, lines: list[Line], target: Fraction, tangent: FloatArray) -> bool:
    """Return whether the prices of ``lines`` and a tangent show that no objective is below ``target``."""
    factors = instance.problem.interactions
    if not isinstance(factors, Factors) or tangent.shape != factors.values.shape[2:] or not np.isfinite(tangent).all():
        return False
    if instance.coupled or instance.peaks:
        return False
    damage = next(line for line in lines if line.name == "damage" and not line.on_few)
    price = Fraction(damage.price)
    point = [Fraction(y) for y in tangent.tolist()]
    added, constant = _tangents(instance, factors, point)
    least = price * (constant - sum((y * y for y in point), Fraction(0)))
    for group, width in enumerate(instance.widths.tolist()):
        values = [price * value for value in added[group][:width]]
        for line in lines:
            if line.price > 0:
                weight = Fraction(line.price) / line.unit
                entries = line.at(group, list(range(width)))
                values = [value + weight * entry for value, entry in zip(values, entries, strict=True)]
        least += min(values)
    allowed = Fraction(0)
    for line in lines:
        weight = Fraction(line.price)
        if line is damage:  # its limit is not rounded to the unit of the table
            limit = instance.bound if instance.bound is not None else target
            allowed += weight * (limit - Fraction(line.base, line.unit))
        else:
            allowed += weight * Fraction(line.limit - line.base, line.unit)
    # A damage that is minimised is to be below the target; all else is at most its limit.
    return least >= allowed if instance.bound is None else least > allowed


def _tangents(instance: Instance, factors: Factors, point: list[Fraction]) -> tuple[list[list[Fraction]], Fraction]:
    """Return 2 <y, F> - |F|^2 of each free group's candidates, members of ties together, and of all pinned groups."""
    owner = _owners(instance)
    width = int(instance.widths.max(initial=1))
    added = [[Fraction(0)] * width for _ in range(instance.size)]
    constant = Fraction(0)
    columns = [instance.lift(np.minimum(k, instance.widths - 1)).tolist() for k in range(width)]
    for group, free in enumerate(owner):
        known: dict[int, Fraction] = {}
        for k in range(width if free >= 0 else 1):
            column = columns[k][group]
            if column not in known:
                known[column] = _tangent(factors.values[group, column], point)
            if free >= 0:
                added[free][k] += known[column]
            else:
                constant += known[column]
    return added, constant


def _tangent(vector: FloatArray, point: list[Fraction]) -> Fraction:
    places = np.flatnonzero(vector).tolist()
    numbers = [(Fraction(float(vector[place])), point[place]) for place in places]
    return sum((f * (2 * y - f) for f, y in numbers), Fraction(0))


def _owners(instance: Instance) -> list[int]:
    """Return the free group that each group of the problem goes with, -1 where it is pinned."""
    owner = [-1] * len(instance.problem)
    for free, group in enumerate(instance.representatives.tolist()):
        owner[group] = free
    for tie in instance.ties:
        for free, members in zip(tie.groups.tolist(), tie.members.tolist(), strict=True):
            for member in members:
                owner[member] = free
    return owner


# -- an enumeration --------------------------------------------------------------------------------------------------


def _enumerated(instance: Instance, costs: list[Line], target: Fraction | int | None, count: int) -> Recount:
    problem, below = instance.problem, instance.bound is None
    most = instance.bound if target is None or not below else Fraction(target)
    interactions = problem.interactions
    assert interactions is not None
    alone = float(instance.tables[1].max(axis=1).sum()) + nearest_float(instance.base_damage)
    blur = _BLUR * (interactions.reach + alone)
    close = 0
    for choices in _assignments(instance.widths, count):
        kept = choices[_within(costs, choices)]
        if not len(kept):
            continue
        if most is None:
            return Recount(Outcome.REFUTED, instance.size, count, kept[0])
        full = np.stack([instance.lift(choice) for choice in kept])
        table = np.stack([problem.damage.chosen(problem.candidates, choice) for choice in full])
        damages = table.sum(axis=1) + interactions.totals(full)
        for place in np.flatnonzero(~(damages > nearest_float(most) + blur)).tolist():
            close += 1
            if close > _CLOSE:
                return Recount(Outcome.OPEN, instance.size, count)
            exact = damage_of(problem, full[place])
            if exact < most if below else exact <= most:
                return Recount(Outcome.REFUTED, instance.size, count, kept[place])
    return Recount(Outcome.PROVED, instance.size, count)


def _assignments(widths: IntArray, count: int) -> Iterator[IntArray]:
    """Yield all choices (n, size), some at a time."""
    shape = tuple(widths.tolist())
    for start in range(0, count, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, count))
        yield np.stack(np.unravel_index(numbers, shape), axis=1).astype(np.int64)


def _within(costs: list[Line], choices: IntArray) -> BoolArray:
    """Return which choices (n, size) keep all lines of costs."""
    kept = np.ones(len(choices), dtype=bool)
    groups = np.arange(choices.shape[1])
    for line in costs:
        table = line.rows(groups)
        room = max(min(line.limit - line.base, 1 << 62), -(1 << 62))
        kept &= table[groups, choices].sum(axis=1) <= room
    return kept
