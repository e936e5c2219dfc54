"""``impq-opt compare``: all strategies on one problem, in one table."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._choices import DATA, NETWORKS, SOLVERS
from impq_opt.cli._common import WHOLE, JsonFlag, ProblemName, parse_bytes, refuse, refuse_seed
from impq_opt.cli._contest import MetricName, compare_metrics
from impq_opt.cli._goals import (
    Goals,
    Many,
    cost_unit,
    damage_name,
    diagnosis_text,
    percent,
    question_text,
    whole_text,
)
from impq_opt.cli._process import solve_apart
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import Grid, console, cost_heading, cost_text, counted, grid, print_json
from impq_opt.cli._screen import number as number_text
from impq_opt.errors import ImpqError, OptionError
from impq_opt.exactness.sums import nearest_float, reported_as_low
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.plain import number
from impq_opt.problem.problem import Problem
from impq_opt.solvers import solver_class, solver_names

__all__ = ["compare"]


@dataclass(frozen=True)
class _Row:
    """One strategy's answer, or why there is none."""

    solver: str
    allocation: Allocation | None
    reason: str
    seconds: float

    @property
    def value(self) -> Fraction | None:
        return None if self.allocation is None else self.allocation.exact_objective


def compare(
    problem: ProblemName = problems.DEFAULT,
    /,
    *,
    goals: Goals = Goals(),  # noqa: B008 - frozen
    solver: Annotated[
        list[str] | None, Many, SOLVERS, Parameter(help="Only these strategies, slow ones too; may be repeated.")
    ] = None,
    time_limit: Annotated[float | None, Parameter(help="Seconds for each strategy; 60 unless given.")] = None,
    memory_limit: Annotated[str | None, Parameter(help="Most memory of each strategy, such as 2GiB.")] = None,
    seed: Annotated[
        int | None, WHOLE, Parameter(help="For strategies that draw random numbers, and --metric; 0 unless given.")
    ] = None,
    metric: MetricName = None,
    network: Annotated[
        str | None, NETWORKS, Parameter(help="With --metric: the network, as for `impq-opt measure`.")
    ] = None,
    weights: Annotated[str | None, Parameter(help="With --metric: its weights, as for `impq-opt measure`.")] = None,
    data: Annotated[str | None, DATA, Parameter(help="With --metric: the data, as for `impq-opt measure`.")] = None,
    average_bits: Annotated[
        str | None, Parameter(help="With --metric: mean bits of the weights, 2,3,4 unless given: the common budgets.")
    ] = None,
    samples: Annotated[
        int | None, WHOLE, Parameter(help="With --metric: samples to measure on, 1024 unless given.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Run all strategies on one problem: cost, bits, compression, mismatch, gap to the best proved bound, time.

    What takes minutes (haq) is run where --solver names it.

    With --metric, measure a network by several metrics instead, give each the same storage, and look at the accuracy
    of the quantized networks.
    """
    if metric is not None:
        named = None if problem == problems.DEFAULT else problem
        given = {"PROBLEM": named, "--solver": solver, "--time-limit": time_limit, "--memory-limit": memory_limit}
        for option, value in (given | dict.fromkeys(goals.given(), True)).items():
            refuse(option, value, "goes with strategies on a problem, not with --metric")
        return compare_metrics(
            metric, network, weights, data, average_bits or "2,3,4", seed=seed or 0, json=json,
            samples=1024 if samples is None else samples,
        )  # fmt: skip
    for option, value in {
        "--network": network, "--weights": weights, "--data": data, "--average-bits": average_bits, "--samples": samples
    }.items():  # fmt: skip
        refuse(option, value, "goes with --metric")
    questions = goals.questions()
    base, revised, _ = goals.load(problem)
    names = tuple(solver) if solver else tuple(name for name in solver_names() if not solver_class(name).slow)
    refuse_seed(seed, names)
    limit = 60.0 if time_limit is None else time_limit
    memory = None if memory_limit is None else parse_bytes(memory_limit)
    rows = []
    for place, name in enumerate(names):
        with progress(f"running {name}, {place + 1} of {len(names)}", limit * (len(names) - place)):
            rows.append(_run(revised, name, questions, time_limit=limit, memory_limit=memory, seed=seed or 0))
    goals.say_units(base, memory_limit)
    best = max((row.allocation.exact_lower_bound for row in rows if row.allocation is not None), default=-math.inf)
    if json:
        print_json({"problem": problem, "best_bound": _plain(best), "rows": [_record(row, rows, best) for row in rows]})
    else:
        _print(problem, rows, best)
    return 0 if any(row.value is not None for row in rows) else 1


def _run(problem: Problem, name: str, questions: dict[str, Any], **limits: Any) -> _Row:
    started = time.perf_counter()
    try:
        allocation = solve_apart(problem, name, **questions, **limits)
    except OptionError:
        raise  # the question itself is wrong, for every strategy
    except ImpqError as error:
        return _Row(name, None, str(error), time.perf_counter() - started)
    reason = ""
    if allocation.choice is None:
        outcome = "proved infeasible" if allocation.status is Status.INFEASIBLE else "found nothing within the limits"
        reason = diagnosis_text(allocation) if allocation.diagnosis else f"{outcome} ({allocation.stop.value})"
    return _Row(name, allocation, reason, allocation.seconds)


def _gap(row: _Row, best: Fraction | float) -> float:
    """Return (objective - best bound) / objective: the best bound that any strategy proved."""
    if row.value is None or best == -math.inf:
        return math.inf
    by_damage = row.allocation is not None and row.allocation.minimizes == "damage"
    if row.value <= best or (by_damage and reported_as_low(row.value, Fraction(best))):  # damages as they are reported
        return 0.0
    return nearest_float((row.value - Fraction(best)) / abs(row.value)) if row.value else math.inf


def _reference(rows: list[_Row]) -> _Row | None:
    """Return the answer that the others are counted against: the exact strategy's, else the best."""
    answers = [row for row in rows if row.value is not None]
    exact = [row for row in answers if row.solver == "exact"]
    return exact[0] if exact else min(answers, key=lambda row: row.value or 0, default=None)


def _changed(row: _Row, rows: list[_Row]) -> int | None:
    reference = _reference(rows)
    if row.value is None or reference is None or reference is row:
        return None
    assert row.allocation is not None and reference.allocation is not None
    mine, theirs = row.allocation.choice, reference.allocation.choice
    assert mine is not None and theirs is not None
    return int(np.count_nonzero(mine != theirs))


def _record(row: _Row, rows: list[_Row], best: Fraction | float) -> dict[str, Any]:
    record: dict[str, Any] = {"solver": row.solver, "reason": row.reason, "seconds": row.seconds}
    answer = row.allocation
    record["status"] = "failed" if answer is None else answer.status.value
    if answer is None or answer.choice is None:
        return record
    gap = _gap(row, best)
    return record | {
        "objective": answer.objective,
        "cost": answer.cost,
        "damage": answer.damage,
        "lower_bound": _plain(answer.exact_lower_bound),
        "gap": None if gap == math.inf else gap,
        "effective_bits": dict(zip(("weight", "activation"), answer.effective_bits, strict=True)),
        "compression_ratio": answer.compression_ratio,
        **({} if answer.whole is None else {"whole": answer.whole.to_dict()}),
        "groups_changed": _changed(row, rows),
    }


def _plain(value: Fraction | float) -> float | None:
    return None if value == -math.inf else number(value)


def _print(name: str, rows: list[_Row], best: Fraction | float) -> None:
    out = console()
    answers = [row.allocation for row in rows if row.allocation is not None]
    if answers:
        out.print(f"{name}: {counted(len(answers[0].problem), 'group')}, {question_text(answers[0])}")
        out.print()
    reference = _reference(rows)
    if reference is not None:
        assert reference.allocation is not None
        out.print(_table(rows, best, cost_unit(reference.allocation)))
        against = f"diff: groups that differ from {reference.solver}"
        of = damage_name(reference.allocation.problem)
        out.print()
        out.print(f"damage: {of}; gap: to the best proved bound, or optimal where proved; {against}")
        if reference.allocation.whole is not None:
            out.print(
                f"cost, bits and ratio are of the groups; whole network by {reference.solver}: "
                f"{whole_text(reference.allocation.whole)}"
            )
        for line in reference.allocation.notes():
            out.print(line)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            reasons.setdefault(row.reason, []).append(row.solver)
    for reason, names in reasons.items():
        out.print(f"{'all strategies' if len(names) == len(rows) > 1 else ', '.join(names)}: {reason}")


def _table(rows: list[_Row], best: Fraction | float, unit: str) -> Grid:
    table = grid(
        "solver", f">{cost_heading('cost', unit)}", ">w bits", ">a bits", ">ratio", ">damage", ">gap", ">time", ">diff"
    )
    for row in rows:
        answer = row.allocation
        if answer is None or answer.choice is None:
            continue
        weight, activation = (("-" if b is None else f"{b:.3f}") for b in answer.effective_bits)
        changed = _changed(row, rows)
        table.add_row(
            row.solver,
            cost_text(answer.cost, cost_unit(answer)),
            weight,
            activation,
            "-" if answer.compression_ratio is None else f"{answer.compression_ratio:.2f}",
            number_text(answer.damage, 3),
            "optimal" if answer.status is Status.OPTIMAL else percent(_gap(row, best)),
            seconds_text(row.seconds),
            "-" if changed is None else str(changed),
        )
    return table


def seconds_text(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
