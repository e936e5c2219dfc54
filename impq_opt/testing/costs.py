"""What every cost term must keep, checked against its own parts added up in fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from impq_opt.costs import CostTerm
from impq_opt.errors import ImpqError
from impq_opt.insight.cost_at import cost_at
from impq_opt.problem.allocation import Status
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve
from impq_opt.testing.rules import ConformanceError, blocks, rule
from impq_opt.types import FloatArray, IntArray

__all__ = ["check_cost"]


def check_cost(term: CostTerm, problem: Problem | None = None, *, seed: int = 0) -> None:
    """Raise ConformanceError, with the rule, unless ``term`` keeps every rule on ``problem``.

    The rules: it has a name, a unit and a source; its parts are whole numbers of the right shapes, not negative; asked
    twice it says the same; what the package makes of it is the sum of its parts, exactly; it can be minimised and
    limited, and ``exact`` is right about it (compared with exhaustive search).

    Parameters
    ----------
    term : CostTerm
    problem : Problem, optional
        With what the term looks at (multiply-accumulates, reads, steps); two transformer blocks unless given.
    seed : int
        Of the allocations that are tried.

    Raises
    ------
    ConformanceError
    """
    problem = blocks((2, 4, 8), activations=True, seed=seed) if problem is None else problem
    for word in ("name", "unit", "source"):
        rule(bool(getattr(term, word, "")), term, f"it has no {word}")
    problem = replace(problem, costs=(term,), budgets={}, objective={term.name: 1}, bound=None)
    try:
        _check_parts(term, problem)
        rng = np.random.default_rng(seed)
        for _ in range(5):
            choice = rng.integers(0, problem.candidates.counts(len(problem)))
            bits = problem.candidates.bits(choice)
            stated, by_parts = cost_at(problem, bits, term.name), _by_parts(term, problem, choice, bits)
            rule(stated == by_parts, term.name, f"costs {stated}, and its parts add up to {by_parts}")
        _check_optimum(term, problem)
    except ImpqError as error:
        raise ConformanceError(f"{term.name}: raised {error}") from error


def _check_parts(term: CostTerm, problem: Problem) -> None:
    peaks, pairs, lookup = term.peaks(problem), term.pairs(problem), term.lookup(problem)
    for name, row in peaks or ():
        _check_whole(term, f"step {name!r} of its peak", row, (len(problem),))
    if peaks is not None:
        return
    slope, again = term.slope(problem), term.slope(problem)
    same = again is None if slope is None else again is not None and np.array_equal(slope, again)
    rule(same, term.name, "it says other things when it is asked twice")
    if slope is not None:
        _check_whole(term, "slope", slope, (len(problem),))
    else:
        values, quantum = term.table(problem)
        _check_whole(term, "table", values, (len(problem), problem.candidates.width), negative=True)
        rule(isinstance(quantum, Fraction) and quantum > 0, term.name, "the quantum is no positive fraction")
    if pairs is not None:
        _check_whole(term, "pairs", pairs.coefficient, pairs.coefficient.shape)
        _check_ends(term, "pairs", (pairs.left, pairs.right), len(pairs.coefficient), len(problem))
    if lookup is not None:
        _check_whole(term, "lookup", lookup.values, lookup.values.shape, negative=True)
        _check_ends(term, "lookup", (lookup.left, lookup.right), len(lookup.values), len(problem))
    rule(isinstance(term.constant(problem), int), term.name, "the constant is no whole number")


def _check_whole(term: CostTerm, part: str, values: Any, shape: tuple[int, ...], *, negative: bool = False) -> None:
    rule(isinstance(values, np.ndarray) and values.dtype == np.int64, term.name, f"{part} is no array of int64")
    rule(values.shape == shape, term.name, f"{part} has shape {values.shape}, not {shape}")
    rule(negative or bool((values >= 0).all()), term.name, f"{part} is negative")


def _check_ends(term: CostTerm, part: str, ends: tuple[IntArray, IntArray], edges: int, groups: int) -> None:
    for end in ends:
        inside = len(end) == edges and bool(((end >= 0) & (end < groups)).all())
        rule(inside, term.name, f"{part} name groups that there are not")


def _by_parts(term: CostTerm, problem: Problem, choice: Any, bits: FloatArray) -> Fraction:
    """Return the cost as the definition of :class:`CostTerm` adds it up, group by group."""
    exact = [Fraction(b) for b in bits.tolist()]
    peaks = term.peaks(problem)
    if peaks is not None:
        return max(sum((int(s) * b for s, b in zip(row, exact, strict=True)), Fraction(0)) for _, row in peaks)
    total = Fraction(term.constant(problem))
    slope = term.slope(problem)
    if slope is not None:
        total += sum(int(s) * b for s, b in zip(slope, exact, strict=True))
    else:
        values, quantum = term.table(problem)
        total += sum(int(row[column]) for row, column in zip(values, choice, strict=True)) * quantum
    pairs, lookup = term.pairs(problem), term.lookup(problem)
    if pairs is not None:
        for left, right, factor in zip(pairs.left, pairs.right, pairs.coefficient, strict=True):
            total += int(factor) * exact[left] * exact[right]
    if lookup is not None:
        for left, right, values in zip(lookup.left, lookup.right, lookup.values, strict=True):
            total += int(values[choice[left], choice[right]]) * lookup.quantum
    return total


def _check_optimum(term: CostTerm, problem: Problem) -> None:
    """Compare ``exact`` with exhaustive search, the groups but a few pinned, minimised and then limited."""
    free = np.linspace(0, len(problem) - 1, min(len(problem), 5)).astype(int)
    pins = {problem.names[g]: problem.candidates.of(g)[-1] for g in range(len(problem)) if g not in free}
    small = problem.revise(pins=pins)
    most, least = (float(small.damage.chosen(small.candidates, _ends(small, end)).sum()) for end in (0, -1))
    bound = least + 0.3 * (most - least) or 1.0
    cheapest = solve(small, bound=bound)
    truth = solve(small, bound=bound, solver="exhaustive")
    rule(cheapest.status is Status.OPTIMAL, term.name, f"its least cost is {cheapest.status.value}, not proved")
    rule(cheapest.exact_cost == truth.exact_cost, term.name, "its least cost is not that of exhaustive search")
    assert cheapest.exact_cost is not None
    limited = solve(small, budget=cheapest.exact_cost)
    rule(
        limited.exact_cost is not None and limited.exact_cost <= cheapest.exact_cost, term.name, "a budget is not kept"
    )
    other = solve(small, budget=cheapest.exact_cost, solver="exhaustive")
    rule(limited.damage == other.damage, term.name, "its least damage is not that of exhaustive search")


def _ends(problem: Problem, end: int) -> Any:
    counts = problem.candidates.counts(len(problem))
    columns = np.zeros(len(problem), dtype=np.int64) if end == 0 else counts - 1
    for group, column in problem.pins.items():
        columns[group] = column
    return columns
