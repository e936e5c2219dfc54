"""What may be believed of a claim: the answer and its bound are recomputed, and the status follows from those alone."""

from __future__ import annotations

import dataclasses
import math
import time
from fractions import Fraction
from functools import cache

from impq_opt.allocation import Allocation, Certificate, Diagnosis, Status
from impq_opt.arithmetic import floor_float, product, reported_as_low
from impq_opt.contract import Claim, Solver
from impq_opt.errors import SolverError
from impq_opt.instance import Direction, Instance
from impq_opt.verification import Assessment, examine

__all__ = ["conclude", "objective_of"]


def objective_of(instance: Instance, found: Assessment) -> int | Fraction:
    """Return what ``instance`` minimises: the cost in quanta, or the damage."""
    return found.cost if instance.direction is Direction.COST else found.damage


def conclude(
    instance: Instance,
    claim: Claim,
    diagnosis: Diagnosis | None,
    strategy: Solver,
    seed: int,
    started: float,
) -> Allocation:
    """Check a claim and turn it into an allocation; the only place that sets a status."""
    found, dual = examine(instance, claim.choice, claim.multipliers)
    if found is not None and not found.feasible:
        if claim.enumeration is not None:
            raise SolverError(f"solver {strategy.name!r} claimed an answer that breaks its {found.broken[0]}")
        found = None
    lower, certificate = _checked_bound(instance, claim, found, dual, strategy)
    status = Status.UNKNOWN
    if diagnosis is not None or (found is None and claim.enumeration is not None and claim.lower_bound == math.inf):
        status = Status.INFEASIBLE
    elif found is not None:
        status = Status.OPTIMAL if _closed(instance, found, lower) else Status.FEASIBLE
    by_cost = instance.direction is Direction.COST
    unit = instance.quantum if by_cost else 1
    problem = instance.problem
    return Allocation(
        problem=problem,
        status=status,
        choice=None if found is None or claim.choice is None else instance.lift(claim.choice),
        minimizes=instance.direction.value,
        cost_weights=dict(instance.row.weights),
        exact_cost=None if found is None else product(found.cost, instance.quantum),
        exact_damage=None if found is None else found.damage,
        exact_lower_bound=product(lower, unit) if lower != -math.inf else -math.inf,
        bound=instance.bound,
        budgets=instance.limits,
        certificate=certificate,
        diagnosis=diagnosis,
        solver=strategy.name,
        options={name: getattr(strategy, name) for name in _option_names(type(strategy))},
        seed=seed,
        seconds=time.perf_counter() - started,
        stop=claim.stop,
        statistics=dict(claim.statistics),
    )


@cache
def _option_names(kind: type[Solver]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _checked_bound(
    instance: Instance, claim: Claim, found: Assessment | None, dual: Fraction | float, strategy: Solver
) -> tuple[int | Fraction | float, Certificate | None]:
    """Return the lower bound that may be believed, and what it rests on."""
    if isinstance(dual, Fraction):
        # costs are whole, damages are not negative
        whole = instance.direction is Direction.COST
        dual = math.ceil(dual) if whole else Fraction(max(0.0, floor_float(dual)))
    lower: int | Fraction | float = dual
    if claim.enumeration is not None and abs(claim.lower_bound) != math.inf:
        claimed = claim.lower_bound
        lower = max(lower, claimed if isinstance(claimed, int) else Fraction(claimed))
    if found is not None and lower > objective_of(instance, found):
        if dual > objective_of(instance, found):
            raise AssertionError("a dual bound above a feasible value: please report this instance")
        raise SolverError(
            f"solver {strategy.name!r} claimed a lower bound of {claim.lower_bound} above its own answer's "
            f"{objective_of(instance, found)}"
        )
    if dual == -math.inf and claim.enumeration is None:
        return lower, None
    unit = instance.quantum if instance.direction is Direction.COST else 1
    return lower, Certificate(
        multipliers=dict(claim.multipliers),
        quantum=instance.quantum,
        dual_bound=dual if dual == -math.inf else product(dual, unit),
        enumeration=claim.enumeration if lower > dual else None,
    )


def _closed(instance: Instance, found: Assessment, lower: int | Fraction | float) -> bool:
    """Return whether no allocation can be better.

    Costs are whole numbers of quanta. Damages are compared as they are reported, rounded once to the nearest float64:
    optimal means that no allocation has a smaller reported damage. What float64 does not reach is compared exactly.
    """
    if lower == -math.inf:
        return False
    if instance.direction is Direction.COST:
        return lower >= found.cost
    return reported_as_low(found.damage, Fraction(lower))
