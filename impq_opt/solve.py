""":func:`solve`: makes an instance of a question, runs a strategy on it, and has its claim checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from impq_opt.errors import OptionError, SolverError, UnsupportedError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.claims import checked
from impq_opt.instance.contract import Claim, Control, Solver, clock, listening
from impq_opt.instance.instance import Instance
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation, Diagnosis, Enumeration, Stop
from impq_opt.problem.problem import Problem
from impq_opt.proof.check import assess
from impq_opt.proof.infeasible import diagnose
from impq_opt.proof.status import conclude
from impq_opt.solvers import is_own, make_solver, solver_class, solver_names
from impq_opt.types import IntArray, Real, Table

if TYPE_CHECKING:
    from impq_opt.solvers.exact.strategy import Prepared

__all__ = ["allocate", "answer", "answer_prepared", "solve", "solve_in_passing"]


def solve(
    problem: Problem,
    *,
    bound: Real | Allocation | None = None,
    budget: str | Real | None = None,
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
    bound : float, Fraction, Decimal or Allocation, optional
        Largest damage; the problem's own where left out. An allocation stands for its exact damage, so that it is
        itself feasible.
    budget : str or number, optional
        Ask the dual question: the least damage whose cost is at most this (``"100KiB"``, or a number of the
        objective's unit). ``"4.5bpw"`` is a storage of so many bits a weight on average. The problem's bound is then
        not used.
    minimize : str or mapping, optional
        Cost term, or weights of several; the problem's objective where left out.
    solver : str or Solver
        A name (see :func:`impq_opt.solvers.solver_names`), with ``options``, or a strategy.
    time_limit : float, optional
        Seconds. When they are over the best answer so far is returned with its gap. Ctrl-C has it returned at once,
        with ``stop`` saying so; pressed again it raises KeyboardInterrupt.
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
    seconds = math.inf if time_limit is None else _positive(time_limit, "time_limit")
    memory = None if memory_limit is None else _positive(memory_limit, "memory_limit")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 63:
        raise OptionError("must be a whole number >= 0, below 2^63", where="seed", value=seed)
    started = clock()
    with listening() as interrupt:
        instance = make_instance(problem, bound=bound, budget=budget, minimize=minimize)
        _check_support(strategy, instance)
        control = Control(started + seconds, memory, int(seed), _warm(instance, warm_start), interrupt)
        return answer(instance, strategy, control, started)


def _positive(value: object, where: str) -> float:
    """Return a number of seconds or bytes as a float; raise OptionError unless it is one, above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction | np.integer | np.floating):
        raise OptionError("must be a number", where=where, value=value)
    if not value > 0:
        raise OptionError("must be positive", where=where, value=value)
    return float(value) if isinstance(value, np.generic) else nearest_float(value)


def solve_in_passing(problem: Problem, **question: Any) -> Allocation:
    """Return what :func:`solve` does as part of longer work, which an interrupt ends.

    Raises
    ------
    KeyboardInterrupt
        Where the solve was interrupted: nothing of it is told then.
    """
    answer = solve(problem, **question)
    if answer.stop is Stop.INTERRUPTED:
        raise KeyboardInterrupt
    return answer


def answer(instance: Instance, strategy: Solver, control: Control, started: float) -> Allocation:
    """Run a strategy on an instance that it supports, and have its claim checked; times count from ``started``."""
    return _answer(instance, strategy, control, started, strategy.run)


def answer_prepared(prepared: Prepared, bound: Fraction, control: Control, started: float) -> Allocation:
    """Answer one bound on what was prepared for many, and have the claim checked; times count from ``started``."""
    return _answer(prepared.instance.with_bound(bound), prepared.strategy, control, started, prepared.run)


def _answer(
    instance: Instance,
    strategy: Solver,
    control: Control,
    started: float,
    run: Callable[[Instance, Control], Claim],
) -> Allocation:
    diagnosis, claim, believed = None, Claim(), is_own(strategy)
    if not control.interrupted and not (strategy.decides and instance.size):
        diagnosis = _diagnosis(instance, control)
    if diagnosis is None and instance.size == 0:
        claim = _only_choice(instance)
    elif diagnosis is None and not control.interrupted:
        claim = checked(run(instance, control), strategy.name)
        if strategy.decides and claim.choice is None and not control.interrupted:
            shown = believed and claim.enumeration is not None and claim.lower_bound == math.inf
            diagnosis = _diagnosis(instance, control, infeasible=shown)
    answer = conclude(instance, claim, diagnosis, strategy, control.seed, started, believed=believed)
    # An interrupt is told even where it came too late to matter: whoever runs many questions wants to end them all.
    return dataclasses.replace(answer, stop=Stop.INTERRUPTED) if control.interrupted else answer


def _only_choice(instance: Instance) -> Claim:
    """Return what can be claimed where everything is pinned."""
    assessment = assess(instance, choice := np.empty(0, dtype=np.int64))
    if not assessment.feasible:
        return Claim(lower_bound=math.inf, enumeration=Enumeration(0, 1))
    return Claim(choice, assessment.objective, enumeration=Enumeration(0, 1))


def _diagnosis(instance: Instance, control: Control, *, infeasible: bool = False) -> Diagnosis | None:
    """Return why nothing is feasible, if so; whichever strategy was asked, what it takes is found by the exact one."""
    strategy = make_solver("exact")

    def ask(part: Instance, seconds: float) -> Allocation:
        if control.expired():
            raise SolverError("time is over")  # what is not looked for to the end is not told
        started = clock()
        limits = dataclasses.replace(control, deadline=min(control.deadline, started + seconds), warm_start=None)
        claim = checked(strategy.run(part, limits), strategy.name) if part.size else _only_choice(part)
        return conclude(part, claim, None, strategy, control.seed, started, believed=True)

    return diagnose(instance, ask, deadline=control.deadline, infeasible=infeasible)


def _check_support(strategy: Solver, instance: Instance) -> None:
    needs = set()
    if not instance.objective.whole:
        needs.add("damage")
    if instance.budgets:
        needs.add("budgets")
    if instance.coupled:
        needs.add("pairs")
    if instance.peaks:
        needs.add("peaks")
    if instance.interacting:
        needs.add("interactions")
    missing = sorted(needs - strategy.supports)
    if missing:
        able = [n for n in solver_names() if needs <= solver_class(n).supports]
        what = {
            "damage": "least damage under a budget",
            "budgets": "several budgets",
            "pairs": "costs that couple groups",
            "peaks": "the least of a peak",
            "interactions": "damages that interact",
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


def allocate(
    cost: Table,
    damage: Table,
    bound: Real | None = None,
    *,
    budget: Real | None = None,
    bits: Sequence[float] | Sequence[Sequence[float]] | None = None,
    names: Sequence[str] | None = None,
    solver: str | Solver = "exact",
    **options: Any,
) -> Allocation:
    """Choose one column per row: least total cost whose total damage is at most ``bound``, or the other way round.

    Parameters
    ----------
    cost : array (G, K) of integers, floats, fractions or decimals
    damage : array (G, K) of the same, not negative
        What is masked or infinite in either is not allowed; tables with labels are matched by label. Rows may differ in
        length where they are given as lists.
    bound : float, Fraction or Decimal
    budget : number
        In place of a bound: the least total damage whose total cost is at most this.
    bits, names
        What the columns and the rows are, as in :meth:`Problem.from_tables`.
    solver, options
        As in :func:`solve`.

    Returns
    -------
    Allocation
        With ``.choice`` (G,), columns of the tables as they are given, ``.objective``, ``.lower_bound``, ``.gap``,
        ``.status`` and ``.damage``.

    Examples
    --------
    >>> found = allocate([[1, 2], [1, 2]], [[0.5, 0.1], [0.3, 0.2]], bound=0.5)
    >>> found.choice.tolist(), found.objective, found.status.value
    ([1, 0], 3, 'optimal')
    >>> allocate([[1, 2], [1, 2, 3]], [[0.5, 0.1], [0.3, 0.2, 0]], budget=4).choice.tolist()
    [1, 1]
    """
    problem = Problem.from_tables(cost, damage, bits=bits, names=names)
    return solve(problem, bound=bound, budget=budget, solver=solver, **options)
