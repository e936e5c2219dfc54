"""``impq-opt solve``: choose the bits of every group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.text import Text

from impq_opt import problems
from impq_opt.cli._choices import SOLVERS
from impq_opt.cli._common import (
    WHOLE,
    JsonFlag,
    Output,
    ProblemName,
    check_ending,
    parse_bytes,
    parse_options,
    refuse_seed,
    say,
    write_output,
)
from impq_opt.cli._goals import (
    Goals,
    Many,
    cost_unit,
    damage_name,
    diagnosis_text,
    percent,
    question_text,
    unknown_text,
    whole_text,
)
from impq_opt.cli._picture import picture
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import console, cost_heading, cost_text, counted, grid, number, print_json, styled
from impq_opt.exactness.sums import nearest_float
from impq_opt.files import save_allocation
from impq_opt.files.allocation_record import allocation_record
from impq_opt.files.revision import Revision
from impq_opt.insight.stability import Stability
from impq_opt.insight.stability import stability as measure_stability
from impq_opt.problem.allocation import Allocation, Status, Stop
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve as solve_problem
from impq_opt.solve import solve_in_passing
from impq_opt.solvers import solver_class

__all__ = ["print_allocation", "solve"]

CARRIED = 0.2  # share of the damages above which the samples that carry it are spoken of


def solve(
    problem: ProblemName = problems.DEFAULT,
    /,
    *,
    goals: Goals = Goals(),  # noqa: B008 - frozen
    solver: Annotated[str, SOLVERS, Parameter(help="The strategy; see `impq-opt solvers`.")] = "exact",
    option: Annotated[list[str] | None, Many, Parameter(help="KEY=VALUE, an option of the strategy.")] = None,
    time_limit: Annotated[float | None, Parameter(help="Seconds; then the best answer so far, with its gap.")] = None,
    memory_limit: Annotated[str | None, Parameter(help="Most memory of the strategy, such as 2GiB.")] = None,
    seed: Annotated[
        int | None, WHOLE, Parameter(help="For a strategy that draws random numbers, and --stability; 0 unless given.")
    ] = None,
    stability: Annotated[
        int,
        WHOLE,
        Parameter(help="Draw the damages so often again within their standard errors: does the answer hold?"),
    ] = 0,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Choose the bits of every group, check the answer exactly, and say what is proved."""
    check_ending(output, ".json")
    questions = goals.questions()
    base, revised, revision = goals.load(problem)
    options = parse_options(solver, option or [])
    if not stability:
        refuse_seed(seed, [solver])
    with progress(f"solving with {solver}", time_limit):
        allocation = solve_problem(
            revised,
            **questions,
            solver=solver,
            time_limit=time_limit,
            memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
            seed=seed or 0,
            **options,
        )
    goals.say_units(base, memory_limit)
    if output is not None:
        write_output(output, lambda path: save_allocation(allocation, path, base=base, revision=revision))
    record = allocation_record(allocation, base=base, revision=revision)
    held = None
    if stability and allocation.choice is not None:
        with progress("drawing damages again"):
            measured = msgspec.structs.replace(revision, confidence=None).apply(base)
            held = measure_stability(measured, allocation, resamples=stability, seed=seed or 0)
    if json:
        print_json(msgspec.to_builtins(record) | ({} if held is None else {"stability": asdict(held)}))
    else:
        print_allocation(problem, allocation)
        if allocation.diagnosis is not None and allocation.diagnosis.limit == "damage":
            for hint in _to_reach_less(allocation, goals, base, revision):
                say(hint)
        if held is not None:
            _print_stability(held)
    return exit_status(allocation)


def _to_reach_less(allocation: Allocation, goals: Goals, base: Problem, revision: Revision) -> Iterator[str]:
    """Yield what of a measurement makes its smallest damage large, and what to do."""
    if revision.confidence is not None:
        measured = msgspec.structs.replace(revision, confidence=None).apply(base)
        diagnosis = solve_in_passing(measured, **goals.questions()).diagnosis
        reached = "the bound is met" if diagnosis is None else f"the smallest is {number(diagnosis.smallest, 6)}"
        yield (
            f"--confidence {revision.confidence:g} adds the standard errors of measuring: without it {reached}; "
            "`measure` with more samples makes them smaller"
        )
    tail = base.provenance.get("tail")
    carried = tail.get("of_the_top_1_percent") if isinstance(tail, Mapping) else None
    if isinstance(carried, float) and carried > CARRIED and not base.conceded:
        yield (
            f"1% of the samples, those nearest to a decision, carry {carried:.0%} of the damages: "
            "`measure --concede 0.01` gives them up, and the mismatch is up to 0.01 more"
        )
    if base.conceded and allocation.bound is not None:
        yield f"the bound is on the other samples: the {base.conceded:g} conceded come on top of it"


def _print_stability(held: Stability) -> None:
    out = console()
    out.print()
    out.print(
        f"stability: {held.feasible:.0%} of {held.resamples} draws of the damages within their standard errors keep "
        f"the bound, {held.near:.0%} within {held.tolerance:.0%} of the best as well (+- {held.stderr:.0%})"
    )


def exit_status(allocation: Allocation) -> int:
    """Return 0 where the strategy gave what it promises: a proved optimum, or an answer within the limits."""
    if allocation.choice is None:
        return 1
    complete = allocation.status is Status.OPTIMAL or solver_class(allocation.solver).proves != "optimal"
    return 0 if complete and allocation.stop is Stop.COMPLETED else 1


def print_allocation(name: str, allocation: Allocation) -> None:
    """Print an allocation for people."""
    out = console()
    out.print(f"{name}: {counted(len(allocation.problem), 'group')}, {question_text(allocation)}")
    if allocation.choice is None:
        out.print(styled(f"{allocation.solver}: ", (allocation.status.value, "bold")))
        _explain_nothing(allocation)
        return
    out.print()
    table = grid("", "", header=False)
    for row in _facts(allocation):
        table.add_row(*row)
    out.print(table)
    for line in allocation.notes():
        out.print(line)
    if len(allocation.unknown) and not allocation.problem.free_unmeasured:
        say("--free-unmeasured lets groups of no known damage take any bits; the damage is not proved either way")
    out.print()
    out.print(picture(allocation, out))


def _explain_nothing(allocation: Allocation) -> None:
    if allocation.diagnosis is not None:
        say(f"nothing is feasible: {diagnosis_text(allocation)}")
    else:
        say(f"no answer within the limits was found ({allocation.stop.value})")


def _facts(allocation: Allocation) -> list[tuple[str, str | Text]]:
    problem = allocation.problem
    unit = cost_unit(allocation)
    by_cost = allocation.minimizes == "cost"
    cost_name = cost_heading(" + ".join(allocation.cost_weights), unit)
    lower = allocation.lower_bound
    status = styled((allocation.status.value, "bold"), _stopped(allocation))
    facts: list[tuple[str, str | Text]] = [(allocation.solver, status)]
    facts.append((cost_name, cost_text(allocation.cost, unit)))
    if allocation.whole is not None:
        facts.append(("whole network", whole_text(allocation.whole)))
    if not by_cost:
        facts.append((damage_name(problem), number(allocation.damage, 6)))
    elif allocation.bound is not None:
        used = f"{allocation.damage:.6g} of {nearest_float(allocation.bound):g}"
        facts.append((damage_name(problem), f"{used} used ({_share(allocation.exact_damage, allocation.bound)})"))
    for name, limit in allocation.budgets.items():
        facts.append((f"budget {name}", _budget(allocation, name, limit)))
    shown = cost_text(lower, unit) if by_cost else number(lower, 6)
    facts.append(("lower bound", f"{shown}, gap {percent(allocation.gap)}"))
    weight, activation = allocation.effective_bits
    effective = [f"{n} {v:.3f}" for n, v in (("weights", weight), ("activations", activation)) if v is not None]
    if effective:
        facts.append(("effective bits", ", ".join(effective) + (", of the groups" if problem.stays else "")))
    if allocation.compression_ratio is not None:
        which = "the weights in groups" if problem.stays else "the weights"
        facts.append(("compression ratio", f"{allocation.compression_ratio:.2f} of {which}, against 16 bits"))
    facts.append(
        ("time", f"{allocation.seconds * 1e3:.3g} ms" if allocation.seconds < 1 else f"{allocation.seconds:.3g} s")
    )
    return facts


def _stopped(allocation: Allocation) -> str:
    stopped = "" if allocation.stop is Stop.COMPLETED else f"stopped: {allocation.stop.value}"
    told = "; ".join(part for part in (stopped, unknown_text(allocation)) if part)
    return f" ({told})" if told else ""


def _budget(allocation: Allocation, name: str, limit: Fraction) -> str:
    from impq_opt.instance.cost_row import budget_rows, cost_row

    problem = allocation.problem
    if name == "+".join(allocation.cost_weights):
        rows = [cost_row(problem, dict(allocation.cost_weights))]
    else:
        rows = [row for _, row in budget_rows(problem, name)]  # several where the cost is a peak
    assert allocation.choice is not None
    value = max(row.total(problem.candidates, allocation.choice) * row.quantum for row in rows)
    return f"{cost_text(value, rows[0].unit)} of {cost_text(limit, rows[0].unit)} used ({_share(value, limit)})"


def _share(value: Fraction | None, limit: Fraction) -> str:
    """Return value / limit in percent, rounded down: 100 % is the limit itself."""
    return "-" if value is None or not limit else f"{math.floor(value / limit * 10_000) / 100:.2f} %"
