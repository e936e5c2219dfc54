"""Is anything feasible at all, and if not, what stands in the way? Answered before any solver runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Diagnosis
from impq_opt.arithmetic import exact_int_sum, exact_sum, nearest_float
from impq_opt.compilation import compile_instance
from impq_opt.costs.rows import CostRow, cost_row
from impq_opt.instance import Budget, Direction, Instance, RankOne
from impq_opt.pricing import Prices, least_priced
from impq_opt.problem import Problem

__all__ = ["diagnose", "smallest_damage"]

IntArray = npt.NDArray[np.int64]


def diagnose(instance: Instance) -> Diagnosis | None:
    """Return why no choice meets one of the limits taken alone, or None where each can be met.

    With one limit the answer is complete. With several, each may be reachable alone and not together.
    """
    if instance.direction is Direction.COST and instance.bound is not None and _out_of_reach(instance):
        return _explain_damage(instance)
    if instance.direction is Direction.DAMAGE and instance.limit is not None:
        least = instance.base_cost + _least_cost(instance)
        if least > instance.limit:
            return Diagnosis(
                "cost",
                nearest_float(least * instance.quantum),
                nearest_float(instance.limit * instance.quantum),
                _holders(instance.problem, instance.row.weights, instance.limit * instance.quantum),
            )
    for budget in instance.budgets:
        least = budget.base + _least_budget(instance, budget)
        if least > budget.limit:
            return Diagnosis(
                budget.term or budget.name,
                nearest_float(least * budget.quantum),
                nearest_float(budget.limit * budget.quantum),
                _holders(instance.problem, {budget.term: 1}, budget.limit * budget.quantum),
            )
    return None


def _holders(problem: Problem, weights: Mapping[str, Fraction | int | float], limit: Fraction) -> tuple[str, ...]:
    """Name pins or ties without which the least cost would be within the limit: all of them, or those of one label."""
    held = []
    for name in ("pins", "ties"):
        label_of, labels = problem.names.label_of, problem.names.labels
        given = list(getattr(problem, name))
        if not given or _least_of(_without(problem, name, given), weights) > limit:
            continue
        by_label: dict[str, list[Any]] = {}
        for one in given:
            by_label.setdefault(labels[int(label_of[one if name == "pins" else one[0]])], []).append(one)
        enough = [
            label for label, some in by_label.items() if _least_of(_without(problem, name, some), weights) <= limit
        ]
        held += [f"the {name} of {label}" for label in enough[:3]] or [f"the {name} of {', '.join(list(by_label)[:3])}"]
    return tuple(held)


def _without(problem: Problem, name: str, some: list[Any]) -> Problem:
    if name == "pins":
        return replace(problem, pins={g: column for g, column in problem.pins.items() if g not in some})
    return replace(problem, ties=tuple(tie for tie in problem.ties if tie not in some))


def _least_of(problem: Problem, weights: Mapping[str, Fraction | int | float]) -> Fraction:
    """Return a number that the cost is never below."""
    return max(_least_row(problem, row) * row.quantum for _, row in cost_row(problem, weights).steps())


def _least_row(problem: Problem, row: CostRow) -> int:
    instance = compile_instance(problem, direction=Direction.COST, bound=None, cost=row)
    return instance.base_cost + _least_cost(instance)


def _least_cost(instance: Instance) -> int:
    """Return a number that the cost of the free groups is never below; attained but for graphs with wide cycles."""
    if instance.pairs is not None:
        return math.ceil(least_priced(instance, Prices(1.0, 0.0, {})))
    return sum(exact_int_sum(_row_min(b.cost, b.widths)) for b in instance.blocks)


def _least_budget(instance: Instance, budget: Budget) -> int:
    if budget.pairs is not None:
        return math.ceil(least_priced(instance, Prices(0.0, 0.0, {budget.name: 1.0})))
    return exact_int_sum(budget.table.min(axis=1))


def smallest_damage(instance: Instance) -> Fraction:
    """Return the sum of every free group's smallest damage, exact but for the rounding of tied sums, and pins."""
    return instance.base_damage + sum(
        (exact_sum(_row_min(block.damage, block.widths)) for block in instance.blocks), Fraction(0)
    )


def _row_min(table: RankOne[Any] | npt.NDArray[Any], widths: IntArray | None) -> npt.NDArray[Any]:
    """Return the smallest entry (n,) of each row of a rank-one or full table."""
    if isinstance(table, RankOne):
        # left and right are not negative, so a row's smallest entry is at the smallest right.
        return table.left * table.right.min()
    if widths is not None:
        columns = np.arange(table.shape[1])
        large = np.iinfo(np.int64).max if table.dtype.kind == "i" else np.inf
        table = np.where(columns < widths[:, None], table, large)
    return table.min(axis=1)


def _out_of_reach(instance: Instance) -> bool:
    """Return whether the smallest damage is above the bound, exactly."""
    assert instance.bound is not None
    smallest = smallest_damage(instance)
    if smallest > instance.bound:
        return True
    if not instance.ties:
        return False
    # Tied sums are rounded down, by far less than this.
    return smallest * (1 + Fraction(1, 1 << 40)) > instance.bound and _exact_smallest(instance) > instance.bound


def _exact_smallest(instance: Instance) -> Fraction:
    """Return the smallest reachable damage with tied sums exact."""
    return instance.damage_of(_least_damaging(instance))


def _least_damaging(instance: Instance) -> IntArray:
    """Return the choice (size,) of smallest damage; near candidates of ties are told apart exactly."""
    table = instance.tables[1]
    choice = table.argmin(axis=1)
    problem = instance.problem
    for tie in instance.ties:
        for place, members in zip(tie.groups.tolist(), tie.members.tolist(), strict=True):
            near = np.flatnonzero(table[place] <= table[place].min() * (1 + 1e-12))
            rows = [problem.damage.at(slice(g, g + 1), problem.candidates.of(g))[0] for g in members]
            sums = {
                int(k): exact_sum(np.array([row[c[k]] for row, c in zip(rows, tie.columns, strict=True)]))
                for k in near
                if k < instance.widths[place]
            }
            choice[place] = min(sums, key=lambda k: (sums[k], k))
    return choice


def _explain_damage(instance: Instance) -> Diagnosis:
    problem = instance.problem
    smallest = _exact_smallest(instance)
    held = []
    for name in ("pins", "ties"):
        if getattr(problem, name):
            without = replace(problem, pins={}) if name == "pins" else replace(problem, ties=())
            reachable = _free_minimum(without)
            if instance.bound is not None and reachable <= instance.bound < smallest:
                held.append(f"the {name} (without them {nearest_float(reachable):.6g} is reachable)")
    held += _largest(instance)
    return Diagnosis("damage", nearest_float(smallest), nearest_float(instance.bound or Fraction(0)), tuple(held))


def _free_minimum(problem: Problem) -> Fraction:
    row = cost_row(problem, problem.objective)
    return _exact_smallest(compile_instance(problem, direction=Direction.COST, bound=None, cost=row))


def _largest(instance: Instance) -> list[str]:
    """Name the groups whose smallest damage weighs most."""
    problem = instance.problem
    choice = instance.lift(_least_damaging(instance))
    damage = problem.damage.chosen(problem.candidates, choice)
    total = float(damage.sum())
    worst = np.argsort(-damage, kind="stable")[:3]
    sets = problem.candidates.set_of
    return [
        f"{problem.names[int(g)]} at {problem.candidates.labels(0 if sets is None else int(sets[g]))[int(choice[g])]}"
        f"{'' if problem.candidates.numbered else ' bits'}{' (pinned)' if int(g) in problem.pins else ''}"
        f" with {damage[g] / total:.0%} of it"
        for g in worst
        if total > 0
    ]
