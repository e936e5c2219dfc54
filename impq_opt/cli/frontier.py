"""``impq-opt frontier``: the whole trade-off between cost and damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._common import (
    JsonFlag,
    Output,
    ProblemName,
    console,
    cost_text,
    grid,
    number,
    print_json,
    progress,
    write_output,
)
from impq_opt.cli._goals import Goals, Many, damage_name
from impq_opt.cli._tradeoff import two_costs
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import ImpqError, OptionError, UnsupportedError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.arrays import exact_bound
from impq_opt.insight.frontier import Frontier
from impq_opt.insight.frontier import frontier as sweep
from impq_opt.instance.instance import Instance
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.report.curve import knee, thin
from impq_opt.report.figures import Figure, Series
from impq_opt.report.pictures import picture_bytes
from impq_opt.solve import solve_in_passing
from impq_opt.solvers import solver_class
from impq_opt.text import csv_text

__all__ = ["frontier"]

_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class _Point:
    """One answer beside the hull, or one uniform precision."""

    kind: str
    label: str
    cost: float
    damage: float
    status: str = ""


def frontier(
    problem: ProblemName = problems.DEFAULT,
    /,
    *,
    goals: Goals = Goals(),  # noqa: B008 - frozen
    exact: Annotated[
        list[float] | None, Many, Parameter(help="A bound to solve to a proved optimum. May be repeated.")
    ] = None,
    solver: Annotated[
        list[str] | None, Many, Parameter(help="A strategy to put beside the exact points. May be repeated.")
    ] = None,
    against: Annotated[
        str | None,
        Parameter(help="A second cost: exact points between it and the minimized one, at --bound and each --exact."),
    ] = None,
    points: Annotated[int | None, Parameter(help="Points at each bound, with --against; 9 unless given.")] = None,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Sweep the whole trade-off: every breakpoint of the convex hull, exact points where asked, uniform precisions.

    The file to write is CSV, or by its name a picture (.png, .svg, .pdf).
    """
    _, revised, _ = goals.load(problem)
    questions = goals.questions()
    for bound in exact or []:
        exact_bound(bound, "--exact")
    if against is not None:
        bounds = [*([] if questions["bound"] is None else [questions["bound"]]), *(exact or [])]
        count = 9 if points is None else points
        return two_costs(revised, against, questions["minimize"], bounds, count, json=json, output=output)
    if points is not None:
        raise OptionError("goes with --against", where="--points", value=points, hint="the hull has its own points")
    if questions["bound"] is not None or questions["budget"] is not None:
        raise OptionError("the frontier has every bound", where="--bound", hint="--exact B solves at the bound B")
    for name in solver or []:
        solver_class(name)
    try:
        with progress("sweeping"):
            hull = sweep(revised, questions["minimize"])
    except UnsupportedError:
        if not exact:
            raise
        hull = None
    asked = _solved(revised, questions["minimize"], exact or [], ["exact", *(solver or [])])
    instance = make_instance(revised, bound=1.0, minimize=questions["minimize"]) if hull is None else hull.instance
    asked += _uniform(instance)
    if output is not None:
        _write(output, instance, hull, asked)
    if json:
        print_json(_record(problem, instance, hull, asked))
    else:
        _print(problem, instance, hull, asked)
    return 0 if all(not point.status.startswith("failed") for point in asked) else 1


def _solved(problem: Problem, minimize: Any, bounds: list[float], solvers: list[str]) -> list[_Point]:
    points = []
    for bound in bounds:
        for name in dict.fromkeys(solvers):
            with progress(f"solving with {name} at {bound:g}"):
                points.append(_answer(problem, minimize, bound, name))
    return points


def _answer(problem: Problem, minimize: Any, bound: float, name: str) -> _Point:
    kind, label = ("exact", f"at {bound:g}") if name == "exact" else ("strategy", f"{name} at {bound:g}")
    try:
        answer: Allocation = solve_in_passing(problem, bound=bound, minimize=minimize, solver=name)
    except OptionError:
        raise
    except ImpqError as error:
        return _Point(kind, label, float("nan"), float("nan"), f"failed: {error}")
    if answer.choice is None:
        return _Point(kind, label, float("nan"), float("nan"), answer.status.value)
    return _Point(kind, label, nearest_float(answer.cost), answer.damage, answer.status.value)


def _uniform(instance: Instance) -> list[_Point]:
    """Return each precision that every group may take (pinned groups keep theirs), as a point."""
    points = []
    for level in np.unique(instance.bits).tolist():
        inside = instance.bits == level
        if inside.any(axis=1).all():
            choice = inside.argmax(axis=1)
            cost = nearest_float(instance.cost_of(choice) * instance.quantum)
            damage = nearest_float(instance.damage_of(choice))
            points.append(_Point("uniform", f"{level:g} bits", cost, damage))
    return points


def _hull_rows(hull: Frontier) -> list[tuple[float, float, str]]:
    return [(float(c), float(d), hull.moved(k)) for k, (c, d) in enumerate(zip(hull.cost, hull.damage, strict=True))]


def _record(name: str, instance: Instance, hull: Frontier | None, points: list[_Point]) -> dict[str, Any]:
    def point(place: _Point) -> dict[str, Any]:
        known = place.cost == place.cost
        return {"kind": place.kind, "label": place.label, "cost": place.cost if known else None,
                "damage": place.damage if known else None, "status": place.status}  # fmt: skip

    record: dict[str, Any] = {"problem": name, "unit": instance.row.unit, "points": [point(each) for each in points]}
    if hull is not None:
        record["hull"] = [{"cost": c, "damage": d, "moved": m} for c, d, m in _hull_rows(hull)]
        record["knee"] = knee(hull.cost, hull.damage)
    return record


def _print(name: str, instance: Instance, hull: Frontier | None, points: list[_Point]) -> None:
    out = console()
    unit = instance.row.unit
    table = grid(">cost", f">{damage_name(instance.problem)}", "point")
    rows = [
        (point.cost, point.damage, " ".join(filter(None, (point.kind, point.label, point.status)))) for point in points
    ]
    if hull is not None:
        bend = knee(hull.cost, hull.damage)
        shown = {*thin(hull.damage, 16).tolist(), bend}
        rows += [(float(hull.cost[k]), float(hull.damage[k]), "hull, the knee" if k == bend else "hull") for k in shown]
        said = f"{len(hull):,} breakpoints of the convex hull, of which {len(shown)} are shown"
        out.print(f"{name}: {said}", soft_wrap=True)
    for cost, damage, what in sorted(rows, key=lambda row: (row[0] != row[0], row[0], -row[1])):
        style = "" if what.startswith("hull") and "knee" not in what else "bold"
        table.add_row(cost_text(cost, unit), number(damage, 6), what, style=style)
    out.print(table)


def _write(path: Path, instance: Instance, hull: Frontier | None, points: list[_Point]) -> None:
    if path.suffix.lower() in _PICTURES:
        data = picture_bytes(_figure(instance, hull, points), path.suffix.lower()[1:])
    else:
        rows = [] if hull is None else [("hull", c, d, m, "") for c, d, m in _hull_rows(hull)]
        rows += [(p.kind, p.cost, p.damage, p.label, p.status) for p in points]
        data = csv_text([("kind", "cost", "damage", "label", "status"), *rows]).encode()
    write_output(path, lambda where: atomic_write(where, data))


def _figure(instance: Instance, hull: Frontier | None, points: list[_Point]) -> Figure:
    series = []
    if hull is not None:
        inside = hull.damage > 0
        series.append(Series("convex hull", hull.damage[inside].tolist(), hull.cost[inside].tolist(), "line"))
    for kind, style in (("exact", "ring"), ("strategy", "dots"), ("uniform", "dots")):
        some = [point for point in points if point.kind == kind and point.damage > 0]
        if some:
            x, y = [point.damage for point in some], [point.cost for point in some]
            series.append(Series(kind, x, y, style, [point.label for point in some]))
    unit, cost = instance.row.unit, " + ".join(instance.row.weights)
    return Figure(
        "frontier",
        "Cost against damage",
        "",
        damage_name(instance.problem),
        f"{cost} [{unit}]" if unit else cost,
        series,
        x_log=True,
    )
