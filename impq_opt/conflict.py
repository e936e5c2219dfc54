"""Limits that can each be met and not together: which few, with which pins and ties, stand against each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from impq_opt.allocation import Allocation, Diagnosis, Status
from impq_opt.arrays import exact_bound
from impq_opt.costs import format_quantity
from impq_opt.errors import ImpqError
from impq_opt.problem import Problem

__all__ = ["conflict"]

# What stands in a conflict: ("bound", ""), ("budget", cost), ("pins", label) or ("ties", label).
_Item = tuple[str, str]
_Solve = Callable[[Problem], Allocation]

# Up to this many parts every set is tried, smallest first; beyond, parts are left out one by one.
_FEW = 5


def conflict(problem: Problem, solve: _Solve) -> Diagnosis | None:
    """Return the smallest conflicting set of bound, budgets, pins and ties of an infeasible ``problem``.

    No part of the set can be left out without making the rest feasible. With up to five parts it is also smallest in
    number. None where the solver cannot tell what is feasible.

    Parameters
    ----------
    problem : Problem
        With the bound and the budgets that cannot be met.
    solve : callable
        Solves a problem; an answer, or a proof that there is none, within reasonable time.
    """
    try:
        items = _items(problem)
        found = _smallest(problem, items, solve) if len(items) <= _FEW else _irreducible(problem, items, solve)
        return None if found is None else _told(problem, found, solve)
    except ImpqError:
        return None


def _items(problem: Problem) -> list[_Item]:
    items: list[_Item] = [] if problem.bound is None else [("bound", "")]
    items += [("budget", name) for name in problem.budgets]
    label_of, labels = problem.names.label_of, problem.names.labels
    items += [("pins", label) for label in dict.fromkeys(labels[int(label_of[g])] for g in sorted(problem.pins))]
    items += [("ties", label) for label in dict.fromkeys(labels[int(label_of[tie[0]])] for tie in problem.ties)]
    return items


def _only(problem: Problem, items: tuple[_Item, ...]) -> Problem:
    """Return the problem with nothing but ``items`` in its way."""
    label_of, labels = problem.names.label_of, problem.names.labels
    return replace(
        problem,
        bound=problem.bound if ("bound", "") in items else None,
        budgets={name: limit for name, limit in problem.budgets.items() if ("budget", name) in items},
        pins={g: column for g, column in problem.pins.items() if ("pins", labels[int(label_of[g])]) in items},
        ties=tuple(tie for tie in problem.ties if ("ties", labels[int(label_of[tie[0]])]) in items),
    )


def _impossible(problem: Problem, items: tuple[_Item, ...], solve: _Solve) -> bool:
    if not any(kind in ("bound", "budget") for kind, _ in items):
        return False
    return solve(_only(problem, items)).status is Status.INFEASIBLE


def _smallest(problem: Problem, items: list[_Item], solve: _Solve) -> tuple[_Item, ...] | None:
    for some in _by_size(items):
        if _impossible(problem, some, solve):
            return some
    return None


def _by_size(items: list[_Item]) -> Iterator[tuple[_Item, ...]]:
    for size in range(1, len(items) + 1):
        yield from itertools.combinations(items, size)


def _irreducible(problem: Problem, items: list[_Item], solve: _Solve) -> tuple[_Item, ...] | None:
    """Leave out what can be left out, one after the other; pins and ties first (Chinneck & Dravnieks 1991)."""
    kept = tuple(items)
    if not _impossible(problem, kept, solve):
        return None
    for item in reversed(items):
        without = tuple(one for one in kept if one != item)
        if _impossible(problem, without, solve):
            kept = without
    return kept


def _told(problem: Problem, items: tuple[_Item, ...], solve: _Solve) -> Diagnosis | None:
    """Return what one limit of the set comes down to under the others."""
    peaks = [name for kind, name in items if kind == "budget" and problem.cost(name).peaks(problem) is not None]
    limits = [item for item in items if item[0] in ("bound", "budget") and item[1] not in peaks]
    if not limits:
        return None
    subject = limits[0]
    rest = _only(problem, tuple(item for item in items if item != subject))
    held = tuple(_named(problem, item) for item in items if item != subject)
    if subject[0] == "bound":
        assert problem.bound is not None
        smallest = solve(rest).exact_lower_bound
        return Diagnosis("damage", float(smallest), float(exact_bound(problem.bound)), held)
    name = subject[1]
    # Without a bound the least cost is asked for under a bound that everything meets.
    rest = replace(rest, objective={name: 1}, bound=rest.bound if rest.bound is not None else Fraction(10) ** 300)
    return Diagnosis(name, float(solve(rest).exact_lower_bound), float(problem.budgets[name]), held)


def _named(problem: Problem, item: _Item) -> str:
    kind, name = item
    if kind == "bound":
        assert problem.bound is not None
        return f"the bound {float(problem.bound):.6g} on damage"
    if kind == "budget":
        return f"the budget {name} of {format_quantity(problem.budgets[name], problem.cost(name).unit)}"
    return f"the {kind} of {name}"
