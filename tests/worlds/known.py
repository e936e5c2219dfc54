"""What a test takes for granted about a value: it fails where that is not so, and the type checker knows."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeVar, overload

from impq_opt import Problem
from impq_opt.costs.terms import TableCost
from impq_opt.groups.damage import DamageTable, PowerLaw

T = TypeVar("T")


@overload
def known(value: Fraction | None) -> Fraction: ...  # type: ignore[overload-overlap]
@overload
def known(value: int | None) -> int: ...  # type: ignore[overload-overlap]
@overload
def known(value: float | None) -> float: ...
@overload
def known(value: Fraction | float | None) -> Fraction | float: ...
@overload
def known(value: T | None) -> T: ...


def known(value: Any) -> Any:
    """Return a value that is there."""
    assert value is not None
    return value


def law_of(problem: Problem) -> PowerLaw:
    """Return the damage of a problem that is given by sensitivities."""
    assert isinstance(problem.damage, PowerLaw)
    return problem.damage


def table_of(problem: Problem) -> DamageTable:
    """Return the damage of a problem that is given by a table."""
    assert isinstance(problem.damage, DamageTable)
    return problem.damage


def table_cost_of(problem: Problem, place: int = 0) -> TableCost:
    """Return a cost of a problem that is given by a table."""
    cost = problem.costs[place]
    assert isinstance(cost, TableCost)
    return cost
