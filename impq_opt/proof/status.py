"""What may be believed of a claim: the answer and its bound are recomputed, and the status follows from those alone.

An enumeration cannot be recomputed in the time of a solve. Those of this package's own strategies are believed, and
``verify`` repeats them; those of others are repeated here where that is small, and count for nothing where it is not.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from functools import cache

from impq_opt.errors import SolverError
from impq_opt.exactness.sums import floor_float, product
from impq_opt.groups.held import adopted
from impq_opt.instance.contract import Claim, Solver, clock
from impq_opt.instance.instance import Instance
from impq_opt.judge.recount import Outcome, prove_bound, prove_infeasible
from impq_opt.problem.allocation import Allocation, Certificate, Diagnosis, Enumeration, Status
from impq_opt.proof.bound import examine
from impq_opt.proof.check import Assessment
from impq_opt.registry import option_fields
from impq_opt.types import IntArray

__all__ = ["conclude"]

# Partial assignments that are looked at to repeat another's enumeration.
_REPEATED = 100_000


def conclude(
    instance: Instance,
    claim: Claim,
    diagnosis: Diagnosis | None,
    strategy: Solver,
    seed: int,
    started: float,
    *,
    believed: bool,
) -> Allocation:
    """Check a claim and turn it into an allocation; the only place that sets the status of a claim.

    Parameters
    ----------
    believed : bool
        Whether an enumeration of this strategy counts without being repeated.

    Raises
    ------
    SolverError
        Where the claim contradicts itself, or an enumeration that is repeated finds a better answer.
    """
    claim = _with_trusted_enumeration(instance, claim, strategy.name, believed)
    assessment, dual = examine(instance, claim.choice, claim.multipliers, claim.tangent)
    if assessment is not None and not assessment.feasible:
        if claim.enumeration is not None:
            raise SolverError(f"solver {strategy.name!r} claimed an answer that breaks its {assessment.broken[0]}")
        assessment = None
    lower, certificate = _checked_bound(instance, claim, assessment, dual, strategy)
    status = Status.UNKNOWN
    if diagnosis is not None or (
        assessment is None and claim.enumeration is not None and claim.lower_bound == math.inf
    ):
        status = Status.INFEASIBLE
    elif assessment is not None:
        closed = lower != -math.inf and instance.objective.closes(lower, assessment.objective)
        status = Status.OPTIMAL if closed else Status.FEASIBLE
    problem = instance.problem
    return Allocation(
        problem=problem,
        status=status,
        choice=None if assessment is None or claim.choice is None else _lifted(instance, claim.choice, believed),
        minimizes=instance.direction.value,
        cost_weights=dict(instance.row.weights),
        exact_cost=None if assessment is None else product(assessment.cost, instance.quantum),
        exact_damage=None if assessment is None else assessment.damage,
        exact_lower_bound=product(lower, instance.objective.quantum) if lower != -math.inf else -math.inf,
        bound=instance.bound,
        budgets=instance.limits_on_costs,
        certificate=certificate,
        diagnosis=diagnosis,
        solver=strategy.name,
        options={name: getattr(strategy, name) for name in _option_names(type(strategy))},
        seed=seed,
        seconds=clock() - started,
        stop=claim.stop,
        statistics=claim.statistics,
    )


def _lifted(instance: Instance, choice: IntArray, believed: bool) -> IntArray:
    """Return the choice of all groups; the array of a strategy of this package, which keeps none, is not copied."""
    lifted = instance.lift(choice)
    return adopted(lifted) if believed or lifted is not choice else lifted


def _with_trusted_enumeration(instance: Instance, claim: Claim, name: str, believed: bool) -> Claim:
    """Return the claim with an enumeration that may be believed, or without one."""
    if claim.enumeration is None:
        return claim
    if believed:
        return dataclasses.replace(claim, enumeration=dataclasses.replace(claim.enumeration, by=name))
    infeasible = claim.lower_bound == math.inf
    if not infeasible and claim.lower_bound == -math.inf:
        return dataclasses.replace(claim, enumeration=None)
    if infeasible:
        recount = prove_infeasible(instance, states=_REPEATED)
    else:
        known = instance.multiplier_names
        multipliers = {
            name: value for name, value in claim.multipliers.items() if name in known and 0 <= value < math.inf
        }
        recount = prove_bound(instance, multipliers, Fraction(claim.lower_bound), states=_REPEATED)
    if recount.outcome is Outcome.REFUTED:
        what = "that nothing is feasible" if infeasible else f"a lower bound of {claim.lower_bound}"
        raise SolverError(f"solver {name!r} claimed {what}, and there is an answer against it")
    proved = recount.outcome is Outcome.PROVED
    repeated = Enumeration(recount.groups, recount.states, "recount") if proved else None
    return dataclasses.replace(claim, enumeration=repeated)


@cache
def _option_names(kind: type[Solver]) -> tuple[str, ...]:
    return tuple(field.name for field in option_fields(kind))


def _checked_bound(
    instance: Instance, claim: Claim, assessment: Assessment | None, dual: Fraction | float, strategy: Solver
) -> tuple[int | Fraction | float, Certificate | None]:
    """Return the lower bound that may be believed, and what it rests on."""
    if isinstance(dual, Fraction):
        # Costs are whole, damages are not negative but where they interact.
        least = -math.inf if instance.interacting else 0.0
        dual = math.ceil(dual) if instance.objective.whole else _floored(max(least, floor_float(dual)))
    lower: int | Fraction | float = dual
    if claim.enumeration is not None and abs(claim.lower_bound) != math.inf:
        claimed = claim.lower_bound
        lower = max(lower, claimed if isinstance(claimed, int) else Fraction(claimed))
    if assessment is not None and lower > assessment.objective:
        if dual > assessment.objective:
            raise AssertionError("a dual bound above a feasible value: please report this instance")
        raise SolverError(
            f"solver {strategy.name!r} claimed a lower bound of {claim.lower_bound} above its own answer's "
            f"{assessment.objective}"
        )
    if dual == -math.inf and claim.enumeration is None:
        return lower, None
    shown = claim.tangent if dual != -math.inf else None
    return lower, Certificate(
        multipliers=dict(claim.multipliers),
        quantum=instance.quantum,
        dual_bound=dual if dual == -math.inf else product(dual, instance.objective.quantum),
        enumeration=claim.enumeration if lower > dual else None,
        tangent=shown,
    )


def _floored(value: float) -> Fraction | float:
    return Fraction(value) if math.isfinite(value) else -math.inf
