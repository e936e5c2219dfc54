"""The solver protocol, the registry of strategies, and :func:`solve`, which alone decides the status of an answer."""

from __future__ import annotations

import dataclasses
import importlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import entry_points
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Allocation, Certificate, Diagnosis, Enumeration, Status, Stop
from impq_opt.arithmetic import floor_float
from impq_opt.arrays import exact_bound
from impq_opt.compilation import compile_instance
from impq_opt.costs import parse_quantity
from impq_opt.costs.rows import CostRow, budget_rows, cost_row
from impq_opt.diagnosis import diagnose
from impq_opt.errors import OptionError, SolverError, UnsupportedError, nearest
from impq_opt.instance import Direction, Instance
from impq_opt.problem import Problem
from impq_opt.verification import Assessment, assess, examine

__all__ = ["Claim", "Control", "Solver", "allocate", "make_instance", "make_solver", "solve", "solver_names"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Claim:
    """What a solver says. Nothing in it is believed before it is checked, and nothing defaults to success.

    Parameters
    ----------
    choice : ndarray of int64 (size,), optional
        One column per free group.
    lower_bound : int, Fraction or float
        In quanta of cost (pinned groups included), or in damage; -inf where nothing is claimed.
    multipliers : mapping
        See :func:`impq_opt.verification.dual_bound`; what the lower bound can be checked with.
    enumeration : Enumeration, optional
        Set only where ``lower_bound`` rests on a complete enumeration in exact arithmetic. A bound without
        multipliers or enumeration behind it is reported and not used.
    stop : Stop
    statistics : mapping
        Anything worth showing.
    """

    choice: IntArray | None = None
    lower_bound: int | Fraction | float = -math.inf
    multipliers: Mapping[str, float] = field(default_factory=dict)
    enumeration: Enumeration | None = None
    stop: Stop = Stop.COMPLETED
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Control:
    """Limits of one run.

    Parameters
    ----------
    deadline : float
        On the clock of :func:`time.perf_counter`.
    memory_limit : int, optional
        Bytes that the run may allocate on top of the instance.
    seed : int
    warm_start : ndarray of int64 (size,), optional
        A choice to start from; it may be infeasible.
    """

    deadline: float = math.inf
    memory_limit: int | None = None
    seed: int = 0
    warm_start: IntArray | None = None

    def expired(self) -> bool:
        """Return whether the deadline has passed."""
        return time.perf_counter() >= self.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.perf_counter()


@dataclass(frozen=True)
class Solver(ABC):
    """A strategy. Subclasses are frozen dataclasses: their fields are the options, checked when built.

    ``summary`` is one line for people, ``proves`` is what an answer comes with, and ``supports`` names the features
    that the strategy handles beside the plain problem (least cost under a bound): ``"damage"`` (least damage under a
    budget), ``"budgets"`` (further budgets) and ``"pairs"`` (costs that couple two groups). A problem with any other
    feature is refused by name. A strategy that ``decides`` finds an answer or shows that there is none, so that
    feasibility need not be looked into before it runs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    proves: ClassVar[str] = "nothing"
    supports: ClassVar[frozenset[str]] = frozenset()
    decides: ClassVar[bool] = False

    @abstractmethod
    def run(self, instance: Instance, control: Control) -> Claim:
        """Return what can be claimed about ``instance``, which has at least one free group."""


def _registry() -> dict[str, str]:
    """Return name -> "module:class" of all strategies: the shipped table, then entry points."""
    table = dict(importlib.import_module("impq_opt.solvers").TABLE)
    for entry in entry_points(group="impq_opt.solvers"):
        table.setdefault(entry.name, entry.value)
    return table


def solver_names() -> tuple[str, ...]:
    """Return the names of all strategies, shipped ones first."""
    return tuple(_registry())


def solver_class(name: str) -> type[Solver]:
    """Return the class of the strategy called ``name``."""
    shipped = importlib.import_module("impq_opt.solvers").TABLE
    table = shipped if name in shipped else _registry()
    if name not in table:
        raise OptionError("unknown solver", where="solver", value=name, hint=nearest(name, table))
    module, _, attribute = table[name].partition(":")
    found: type[Solver] = getattr(importlib.import_module(module), attribute)
    return found


def make_solver(name: str, **options: Any) -> Solver:
    """Return the strategy called ``name`` with ``options``; unknown names and options raise with near matches."""
    kind = solver_class(name)
    known = {f.name for f in dataclasses.fields(kind)}
    for option in options:
        if option not in known:
            raise OptionError(
                f"unknown option of solver {name!r}", value=option, hint=nearest(option, known) or "it has none"
            )
    return kind(**options)


def solve(
    problem: Problem,
    *,
    bound: float | Fraction | Allocation | None = None,
    budget: str | float | Fraction | None = None,
    minimize: str | Mapping[str, float] | None = None,
    solver: str | Solver = "exact",
    time_limit: float | None = None,
    memory_limit: int | None = None,
    seed: int = 0,
    warm_start: Allocation | None = None,
    **options: Any,
) -> Allocation:
    """Choose precisions, check the answer, and say what is proved about it.

    Parameters
    ----------
    problem : Problem
    bound : float, Fraction or Allocation, optional
        Largest damage; the problem's own where left out. An allocation stands for its exact damage, so that it is
        itself feasible.
    budget : str or number, optional
        Ask the dual question: the least damage whose cost is at most this (``"100KiB"``, or a number of the
        objective's unit). The problem's bound is then not used.
    minimize : str or mapping, optional
        Cost term, or weights of several; the problem's objective where left out.
    solver : str or Solver
        A name (see :func:`solver_names`), with ``options``, or a strategy.
    time_limit : float, optional
        Seconds. When they are over the best answer so far is returned with its gap.
    memory_limit : int, optional
        Bytes on top of the problem's own.
    seed : int
        For strategies that draw random numbers.
    warm_start : Allocation, optional
        An answer to a similar problem to start from.

    Returns
    -------
    Allocation
        Verified: cost, damage and limits are recomputed exactly, and its status follows from what was recomputed.
    """
    strategy = make_solver(solver, **options) if isinstance(solver, str) else solver
    if not isinstance(strategy, Solver):
        raise OptionError("must be the name of a strategy or a Solver", where="solver", value=solver)
    if options and not isinstance(solver, str):
        raise OptionError("options go with the name of a strategy", value=sorted(options))
    if time_limit is not None and not time_limit > 0:
        raise OptionError("must be positive", where="time_limit", value=time_limit)
    started = time.perf_counter()
    instance = make_instance(problem, bound=bound, budget=budget, minimize=minimize)
    _check_support(strategy, instance)
    control = Control(
        deadline=math.inf if time_limit is None else started + time_limit,
        memory_limit=memory_limit,
        seed=seed,
        warm_start=_warm(instance, warm_start),
    )
    diagnosis = None if strategy.decides and instance.size else diagnose(instance)
    if diagnosis is not None:
        claim = Claim()
    elif instance.size == 0:
        claim = Claim(np.empty(0, dtype=np.int64), enumeration=Enumeration(0, 1))
        claim = dataclasses.replace(claim, lower_bound=_value(instance, assess(instance, claim.choice)))  # type: ignore[arg-type]
    else:
        claim = strategy.run(instance, control)
        if strategy.decides and claim.choice is None:
            diagnosis = diagnose(instance) or _conflict(instance, claim, strategy, control)
    return _conclude(instance, claim, diagnosis, strategy, seed, started)


# Seconds for each of the questions that find out which limits conflict.
_CONFLICT_SECONDS = 2.0


def _conflict(instance: Instance, claim: Claim, strategy: Solver, control: Control) -> Diagnosis | None:
    """Return which limits cannot be met together, where the strategy has shown that some cannot."""
    if claim.enumeration is None or claim.lower_bound != math.inf or not instance.budgets:
        return None
    from impq_opt.conflict import conflict

    def answer(problem: Problem) -> Allocation:
        started = time.perf_counter()
        part = make_instance(problem)
        known = diagnose(part) if part.size else None
        limits = dataclasses.replace(
            control, deadline=min(control.deadline, started + _CONFLICT_SECONDS), warm_start=None
        )
        found = Claim() if known is not None or not part.size else strategy.run(part, limits)
        return _conclude(part, found, known, strategy, control.seed, started)

    return conflict(dataclasses.replace(instance.problem, bound=instance.bound, budgets=instance.limits), answer)


def make_instance(
    problem: Problem,
    *,
    bound: float | Fraction | Allocation | None = None,
    budget: str | float | Fraction | None = None,
    minimize: str | Mapping[str, float] | None = None,
) -> Instance:
    """Return the instance that :func:`solve` hands to a strategy for these goals."""
    if bound is not None and budget is not None:
        raise OptionError(
            "give a bound (least cost) or a budget (least damage), not both",
            hint="further budgets beside a bound are declared with Problem.revise(budgets=...)",
        )
    weights = {minimize: 1} if isinstance(minimize, str) else dict(minimize or problem.objective)
    row = cost_row(problem, weights)
    extra = {name: (one, most) for term, most in problem.budgets.items() for name, one in budget_rows(problem, term)}
    direction, limit = Direction.COST, None
    exact = None if bound is None else _bound(bound)
    if budget is not None:
        direction = Direction.DAMAGE
        limit = _quanta(row, parse_quantity(budget, row.unit, "budget"))
    elif exact is None:
        if problem.bound is not None:
            exact = exact_bound(problem.bound)
        elif extra:
            direction = Direction.DAMAGE
            name = next(iter(extra))
            row, most = extra.pop(name)
            limit = _quanta(row, most)
        else:
            raise OptionError("needs a bound or a budget", where="solve", hint="for example bound=0.01")
    budgets = [(name, one, _quanta(one, most)) for name, (one, most) in extra.items()]
    return compile_instance(problem, direction=direction, bound=exact, cost=row, limit=limit, budgets=budgets)


def _bound(bound: float | Fraction | Allocation) -> Fraction:
    if isinstance(bound, Allocation):
        if bound.exact_damage is None:
            raise OptionError("is an allocation without an answer", where="bound", value=bound)
        return bound.exact_damage
    return exact_bound(bound)


def _quanta(row: CostRow, value: Fraction) -> int:
    return math.floor(value / row.quantum)


def _check_support(strategy: Solver, instance: Instance) -> None:
    needs = set()
    if instance.direction is Direction.DAMAGE:
        needs.add("damage")
    if instance.budgets:
        needs.add("budgets")
    if instance.coupled:
        needs.add("pairs")
    missing = sorted(needs - strategy.supports)
    if missing:
        able = [n for n in solver_names() if needs <= solver_class(n).supports]
        what = {
            "damage": "least damage under a budget",
            "budgets": "several budgets",
            "pairs": "costs that couple groups",
        }
        raise UnsupportedError(
            f"solver {strategy.name!r} does not handle {' and '.join(what[m] for m in missing)}; "
            f"these do: {', '.join(able)}"
        )


def _warm(instance: Instance, start: Allocation | None) -> IntArray | None:
    if start is None or start.choice is None or len(start.problem) != len(instance.problem):
        return None
    choice = instance.reduce(start.choice)
    return np.minimum(choice, instance.widths - 1)


def _value(instance: Instance, found: Assessment) -> int | Fraction:
    return found.cost if instance.direction is Direction.COST else found.damage


def _conclude(
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
        exact_cost=None if found is None else found.cost * instance.quantum,
        exact_damage=None if found is None else found.damage,
        exact_lower_bound=lower * unit if lower != -math.inf else -math.inf,
        bound=instance.bound,
        budgets=instance.limits,
        certificate=certificate,
        diagnosis=diagnosis,
        solver=strategy.name,
        options={f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy)},
        seed=seed,
        seconds=time.perf_counter() - started,
        stop=claim.stop,
        statistics=dict(claim.statistics),
    )


def _checked_bound(
    instance: Instance, claim: Claim, found: Assessment | None, dual: Fraction | float, strategy: Solver
) -> tuple[Fraction | float, Certificate | None]:
    """Return the lower bound that may be believed, and what it rests on."""
    if isinstance(dual, Fraction):
        # costs are whole, damages are not negative
        whole = instance.direction is Direction.COST
        dual = Fraction(math.ceil(dual) if whole else max(0.0, floor_float(dual)))
    lower = dual
    if claim.enumeration is not None and math.isfinite(claim.lower_bound):
        lower = max(lower, Fraction(claim.lower_bound))
    if found is not None and lower > _value(instance, found):
        if dual > _value(instance, found):
            raise AssertionError("a dual bound above a feasible value: please report this instance")
        raise SolverError(
            f"solver {strategy.name!r} claimed a lower bound of {claim.lower_bound} above its own answer's "
            f"{_value(instance, found)}"
        )
    if dual == -math.inf and claim.enumeration is None:
        return lower, None
    unit = instance.quantum if instance.direction is Direction.COST else 1
    return lower, Certificate(
        multipliers=dict(claim.multipliers),
        quantum=instance.quantum,
        dual_bound=dual if dual == -math.inf else dual * unit,
        enumeration=claim.enumeration if lower > dual else None,
    )


def _closed(instance: Instance, found: Assessment, lower: Fraction | float) -> bool:
    """Return whether no allocation can be better.

    Costs are whole numbers of quanta. Damages are compared as they are reported, rounded once to the nearest float64:
    optimal means that no allocation has a smaller reported damage.
    """
    if lower == -math.inf:
        return False
    if instance.direction is Direction.COST:
        return lower >= found.cost
    return float(lower) >= float(found.damage)


def allocate(
    cost: npt.ArrayLike,
    damage: npt.ArrayLike,
    bound: float | Fraction,
    *,
    solver: str | Solver = "exact",
    **options: Any,
) -> Allocation:
    """Choose one column per row: least total cost whose total damage is at most ``bound``.

    Parameters
    ----------
    cost : array (G, K) of integers or floats
    damage : array (G, K) of float64, not negative
    bound : float
    solver, options
        As in :func:`solve`.

    Returns
    -------
    Allocation
        With ``.choice`` (G,), ``.objective``, ``.lower_bound``, ``.gap``, ``.status`` and ``.damage``.

    Examples
    --------
    >>> found = allocate([[1, 2], [1, 2]], [[0.5, 0.1], [0.3, 0.2]], bound=0.5)
    >>> found.choice.tolist(), found.objective, found.status.value
    ([1, 0], 3, 'optimal')
    """
    return solve(Problem.from_tables(cost, damage), bound=bound, solver=solver, **options)
