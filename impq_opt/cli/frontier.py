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
    found = _solved(revised, questions["minimize"], exact or [], ["exact", *(solver or [])])
    instance = make_instance(revised, bound=1.0, minimize=questions["minimize"]) if hull is None else hull.instance
    found += _uniform(instance)
    if output is not None:
        _write(output, instance, hull, found)
    if json:
        print_json(_record(problem, instance, hull, found))
    else:
        _print(problem, instance, hull, found)
    return 0 if all(not point.status.startswith("failed") for point in found) else 1


def _solved(problem: Problem, minimize: Any, bounds: list[float], solvers: list[str]) -> list[_Point]:
    found = []
    for bound in bounds:
        for name in dict.fromkeys(solvers):
            with progress(f"solving with {name} at {bound:g}"):
                found.append(_answer(problem, minimize, bound, name))
    return found


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
    found = []
    for level in np.unique(instance.bits).tolist():
        inside = instance.bits == level
        if inside.any(axis=1).all():
            choice = inside.argmax(axis=1)
            cost = nearest_float(instance.cost_of(choice) * instance.quantum)
            damage = nearest_float(instance.damage_of(choice))
            found.append(_Point("uniform", f"{level:g} bits", cost, damage))
    return found


def _hull_rows(hull: Frontier) -> list[tuple[float, float, str]]:
    return [(float(c), float(d), hull.moved(k)) for k, (c, d) in enumerate(zip(hull.cost, hull.damage, strict=True))]


def _record(name: str, instance: Instance, hull: Frontier | None, points: list[_Point]) -> dict[str, Any]:
    def point(one: _Point) -> dict[str, Any]:
        known = one.cost == one.cost
        return {"kind": one.kind, "label": one.label, "cost": one.cost if known else None,
                "damage": one.damage if known else None, "status": one.status}  # fmt: skip

    record: dict[str, Any] = {"problem": name, "unit": instance.row.unit, "points": [point(one) for one in points]}
    if hull is not None:
        record["hull"] = [{"cost": c, "damage": d, "moved": m} for c, d, m in _hull_rows(hull)]
        record["knee"] = knee(hull.cost, hull.damage)
    return record


def _print(name: str, instance: Instance, hull: Frontier | None, points: list[_Point]) -> None:
    out = console()
    unit = instance.row.unit
    table = grid(">cost", f">{damage_name(instance.problem)}", "point")
    rows = [(one.cost, one.damage, " ".join(filter(None, (one.kind, one.label, one.status)))) for one in points]
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
        some = [one for one in points if one.kind == kind and one.damage > 0]
        if some:
            x, y = [one.damage for one in some], [one.cost for one in some]
            series.append(Series(kind, x, y, style, [one.label for one in some]))
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
