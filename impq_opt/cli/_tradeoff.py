"""What ``impq-opt frontier --against`` prints and writes: exact points between two costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from impq_opt.cli._common import write_output
from impq_opt.cli._progress import native_silence, shown
from impq_opt.cli._screen import console, cost_heading, cost_text, grid, print_json
from impq_opt.costs import cost_named
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.insight.tradeoff import TradeoffPoint, tradeoff
from impq_opt.problem.allocation import Status
from impq_opt.problem.plain import number
from impq_opt.problem.problem import Problem
from impq_opt.text import csv_text

__all__ = ["two_costs"]


def two_costs(
    problem: Problem,
    against: str,
    minimize: Any,
    bounds: list[float],
    points: int,
    *,
    json: bool,
    output: Path | None,
) -> int:
    """Solve, print and write the points between the minimized cost and ``against``; return the exit status."""
    if minimize is not None and not isinstance(minimize, str):
        raise OptionError(
            "two costs are held against each other one by one", where="--minimize", value=sorted(minimize)
        )
    first = minimize or next(iter(problem.objective))
    names = (first, against)
    units = tuple(cost_named(name, problem.costs).unit for name in names)
    with native_silence(), shown("solving") as tell:
        curve = tradeoff(
            problem, against, minimize=minimize, bounds=bounds, points=points,
            progress=lambda done, total: tell("points", done, total),
        )  # fmt: skip
    if output is not None:
        write_output(output, lambda path: atomic_write(path, _csv(names, curve).encode()))
    if json:
        print_json([_record(names, point) for point in curve])
    else:
        heads = [f">{cost_heading(name, unit)}" for name, unit in zip(names, units, strict=True)]
        table = grid(">bound", *heads, "status")
        for point in curve:
            bound = "-" if point.bound is None else f"{nearest_float(point.bound):g}"
            values = (cost_text(value, unit) for value, unit in zip((point.first, point.second), units, strict=True))
            table.add_row(bound, *values, point.allocation.status.value)
        console().print(table)
    return 0 if curve and all(point.allocation.status is Status.OPTIMAL for point in curve) else 1


def _record(names: tuple[str, str], point: TradeoffPoint) -> dict[str, Any]:
    return {
        "bound": None if point.bound is None else nearest_float(point.bound),
        "budget": None if point.budget is None else number(point.budget),
        names[0]: number(point.first),
        names[1]: number(point.second),
        "status": point.allocation.status.value,
        "gap": point.allocation.gap,
    }


def _csv(names: tuple[str, str], points: tuple[TradeoffPoint, ...]) -> str:
    rows: list[tuple[Any, ...]] = [("bound", *names, "status")]
    for point in points:
        bound = "" if point.bound is None else nearest_float(point.bound)
        rows.append((bound, number(point.first), number(point.second), point.allocation.status.value))
    return csv_text(rows)
