"""What every strategy must keep, checked against exhaustive search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from impq_opt.costs import TableCost
from impq_opt.errors import ImpqError, UnsupportedError
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Factors, Interactions, Pairs
from impq_opt.groups.names import GroupNames
from impq_opt.instance.contract import Solver
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve
from impq_opt.testing.cases import Case
from impq_opt.testing.rules import ConformanceError, rule
from impq_opt.types import IntArray

__all__ = ["check_strategy"]


def check_strategy(strategy: Solver, case: Case) -> None:
    """Raise ConformanceError, with the rule and the case, unless ``strategy`` keeps every rule on ``case``.

    The rules: answers are feasible exactly; no bound lies above the optimum and no objective below it; OPTIMAL is
    said of optima only; INFEASIBLE only of infeasible problems; the same call gives the same answer; a
    strategy that claims to prove optima finds them, also when the groups are permuted and when the bound grows.
    """
    if case.problem.interactions is not None and "interactions" not in strategy.supports:
        _check_refused(strategy, case)
        return
    answer = _solve(strategy, case, case.problem, case.bound)
    truth = case.optimum
    _check_answer(case, answer, truth)
    again = _solve(strategy, case, case.problem, case.bound)
    same = _columns(answer) == _columns(again)
    rule(same and answer.status is again.status, case, "the same call gives the same answer")
    if strategy.proves != "optimal":
        return
    rule(answer.status is truth.status, case, f"it proves optima, and said {answer.status.value}")
    if truth.choice is None:
        return
    permuted = _solve(strategy, case, permute(case.problem), case.bound)
    rule(permuted.exact_objective == truth.exact_objective, case, "permuting the groups keeps the optimum")
    looser = _solve(strategy, case, case.problem, Fraction(case.bound) * 2)
    rule(looser.objective <= answer.objective, case, "a looser bound costs no more")


def _check_refused(strategy: Solver, case: Case) -> None:
    """Raise ConformanceError unless a case that needs more than the strategy supports is refused."""
    refused = False
    try:
        solve(case.problem, bound=case.bound, solver=strategy)
    except UnsupportedError:
        refused = True
    rule(refused, case, "damages that interact are not among what it supports, and it took them")


def _solve(strategy: Solver, case: Case, problem: Problem, bound: float | Fraction) -> Allocation:
    try:
        return solve(problem, bound=bound, solver=strategy)
    except ImpqError as error:
        raise ConformanceError(f"{case}: raised {error}") from error


def _columns(answer: Allocation) -> list[int] | None:
    return None if answer.choice is None else answer.choice.tolist()


def _check_answer(case: Case, answer: Allocation, truth: Allocation) -> None:
    if truth.choice is None:
        rule(answer.choice is None, case, "there is no feasible answer, and it gave one")
        return
    assert truth.exact_objective is not None
    rule(answer.status is not Status.INFEASIBLE, case, "it called a feasible problem infeasible")
    rule(answer.exact_lower_bound <= truth.exact_objective, case, "its lower bound is above the optimum")
    if answer.choice is None:
        rule(answer.status is Status.UNKNOWN, case, "it has a status without an answer")
        return
    assert answer.exact_objective is not None
    damage = case.problem.total_damage(answer.choice)
    rule(damage <= Fraction(case.bound), case, f"the damage {float(damage)!r} is above the bound {case.bound!r}")
    for group, column in case.problem.pins.items():
        rule(answer.choice[group] == column, case, f"the pin of {case.problem.names[group]} is broken")
    for tie in case.problem.ties:
        rule(len(set(answer.bits[list(tie)].tolist())) == 1, case, f"the tie {tie} is broken")
    rule(answer.exact_objective >= truth.exact_objective, case, "its objective is below the optimum")
    optimal = answer.exact_objective == truth.exact_objective
    rule(answer.status is not Status.OPTIMAL or optimal, case, "it called a worse answer optimal")


def permute(problem: Problem) -> Problem:
    """Return the problem with its groups in reverse order."""
    count = len(problem)
    order = np.arange(count)[::-1]
    candidates = problem.candidates
    damage = problem.damage
    return replace(
        problem,
        names=GroupNames.explicit([problem.names[int(g)] for g in order]),
        candidates=replace(candidates, set_of=None if candidates.set_of is None else candidates.set_of[order]),
        damage=PowerLaw(damage.sensitivity[order])
        if isinstance(damage, PowerLaw)
        else DamageTable(damage.values[order]),
        interactions=_permuted(problem.interactions, order),
        sizes=problem.sizes[order],
        kinds=None if problem.kinds is None else problem.kinds[order],
        costs=tuple(replace(t, values=t.values[order]) if isinstance(t, TableCost) else t for t in problem.costs),
        pins=_moved(problem.pins, count),
        ties=tuple(tuple(count - 1 - g for g in tie) for tie in problem.ties),
        unmeasured=None if problem.unmeasured is None else problem.unmeasured[order],
        grids={},  # of labels, which are other ones now
        types={},
    )


def _permuted(interactions: Interactions | None, order: IntArray) -> Interactions | None:
    if isinstance(interactions, Pairs):
        return replace(interactions, groups=len(order) - 1 - interactions.groups)
    return None if interactions is None else Factors(interactions.values[order])


def _moved(pins: Mapping[int, int], count: int) -> dict[int, int]:
    return {count - 1 - group: column for group, column in pins.items()}
