"""From what is asked of a problem to the instance of it: which cost is minimised or limited, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from impq_opt.costs import is_mean_bits, parse_quantity
from impq_opt.errors import AllocationError, InputError, OptionError
from impq_opt.groups.arrays import exact_bound
from impq_opt.instance.compile import compile_instance
from impq_opt.instance.cost_row import CostRow, budget_rows, cost_row
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.limits import read_limit
from impq_opt.problem.problem import Problem
from impq_opt.types import Real

__all__ = ["asked", "make_instance"]


def make_instance(
    problem: Problem,
    *,
    bound: Real | Allocation | None = None,
    budget: str | Real | None = None,
    minimize: str | Mapping[str, float] | None = None,
    budgets: Mapping[str, Fraction] | None = None,
) -> Instance:
    """Return the instance that :func:`solve` hands to a strategy for these goals.

    ``budgets`` take the place of the problem's own. They may be 0: what a limit comes to in whole quanta.

    Raises
    ------
    OptionError
        For a bound and a budget at once, or neither, or a cost that the problem does not have.
    ProblemError
        For costs whose sums 64 bits do not hold.
    UnsupportedError
        For a peak beside other costs.
    """
    if bound is not None and budget is not None:
        raise OptionError(
            "give a bound (least cost) or a budget (least damage), not both",
            hint="further budgets beside a bound are declared with Problem.revise(budgets=...)",
        )
    if minimize is None and is_mean_bits(budget):
        minimize = "storage"
    weights = {minimize: 1} if isinstance(minimize, str) else dict(minimize or problem.objective)
    row = cost_row(problem, weights)
    limits = dict(problem.budgets if budgets is None else budgets)
    limit = None  # on the cost: damage is minimised where there is one
    exact = None if bound is None else _bound(bound)
    if budget is not None:
        limit = _quanta(row, _limit(problem, row, weights, budget))
        if weights in [{name: 1} for name in limits]:  # one limit on a cost, the tighter
            limit = min(limit, _quanta(row, limits.pop(next(iter(weights)))))
    elif exact is None:
        if problem.bound is not None:
            exact = exact_bound(problem.bound)
        elif limits:
            name = next(iter(limits))
            row = cost_row(problem, {name: 1})
            limit = _quanta(row, limits.pop(name))
        else:
            raise OptionError("needs a bound or a budget", where="solve", hint="for example bound=0.01")
    rows = [
        (name, limited, _quanta(limited, most))
        for term, most in limits.items()
        for name, limited in budget_rows(problem, term)
    ]
    return compile_instance(problem, cost=row, bound=exact, limit=limit, budgets=rows)


def _bound(bound: Real | Allocation) -> Fraction:
    if isinstance(bound, Allocation):
        if bound.exact_damage is None:
            raise OptionError("is an allocation without an answer", where="bound", value=bound)
        return bound.exact_damage
    return exact_bound(bound)


def _limit(
    problem: Problem, row: CostRow, weights: Mapping[str, float | Fraction | int], budget: str | Real
) -> Fraction:
    """Return a budget on the cost that is minimised elsewhere; a sum of costs has no mean bits."""
    name = next(iter(weights))
    if weights == {name: 1}:
        return read_limit(problem, name, budget, "budget")
    return parse_quantity(budget, row.unit, "budget")


def _quanta(row: CostRow, value: Fraction) -> int:
    return math.floor(value / row.quantum)


def asked(problem: Problem, allocation: Allocation) -> Instance:
    """Return the instance of the question that ``allocation`` says it answers, compiled anew.

    Raises
    ------
    AllocationError
        Where it states no question, or one that the problem does not have.
    """
    budgets = dict(allocation.budgets)
    weights: Mapping[str, float] = allocation.cost_weights  # type: ignore[assignment]
    try:
        if allocation.minimizes == "cost":
            if allocation.bound is None:
                raise AllocationError("states no bound and no budget", where="allocation")
            return make_instance(problem, bound=allocation.bound, minimize=weights, budgets=budgets)
        limit = budgets.pop("+".join(weights), None)
        if limit is None:
            raise AllocationError("states no budget for the cost it minimises under", where="allocation.budgets")
        return make_instance(problem, budget=limit, minimize=weights, budgets=budgets)
    except AllocationError:
        raise
    except InputError as error:
        raise AllocationError(
            error.what, where=f"allocation: {error.where}", value=error.value, hint=error.hint
        ) from None
