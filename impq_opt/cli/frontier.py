"""``impq-opt frontier``: the whole trade-off between cost and damage."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._choices import COSTS, SOLVERS
from impq_opt.cli._common import WHOLE, JsonFlag, Output, ProblemName, check_ending, refuse, write_output
from impq_opt.cli._goals import Goals, Many, damage_name
from impq_opt.cli._progress import native_silence, progress, shown
from impq_opt.cli._screen import console, cost_heading, cost_text, counted, grid, number, print_json
from impq_opt.cli._tradeoff import two_costs
from impq_opt.costs import cost_named, is_bare
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
from impq_opt.text import bits_text, csv_text

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

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.cost == self.cost


def frontier(
    problem: ProblemName = problems.DEFAULT,
    /,
    *,
    goals: Goals = Goals(),  # noqa: B008 - frozen
    exact: Annotated[
        list[str] | None,
        Many,
        Parameter(
            help="A bound, such as 0.01, or a size, such as 100KiB or 4.5bpw, to solve to a proved optimum. May be "
            "repeated."
        ),
    ] = None,
    solver: Annotated[
        list[str] | None, Many, SOLVERS, Parameter(help="A strategy to put beside the exact points. May be repeated.")
    ] = None,
    against: Annotated[
        str | None,
        COSTS,
        Parameter(help="A second cost: exact points between it and the minimized one, at --bound and each --exact."),
    ] = None,
    points: Annotated[
        int | None, WHOLE, Parameter(help="Points at each bound, with --against; 9 unless given.")
    ] = None,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Sweep the whole trade-off: every breakpoint of the convex hull, exact points where asked, uniform precisions.

    The file to write is CSV, or by its name a picture (.png, .svg, .pdf).
    """
    check_ending(output, *((".csv",) if against is not None else (".csv", *_PICTURES)))
    questions = goals.questions()
    base, revised, _ = goals.load(problem)
    asked_for = [_asked(text) for text in exact or []]
    if against is not None:
        for option, value in {"--solver": solver, "--budget": questions["budget"]}.items():
            refuse(option, value, "does not go with --against")
        cost_named(against, revised.costs, where="--against")
        sizes = [str(size) for name, size in asked_for if name == "budget"]
        refuse("--exact", sizes, "must be a bound with --against")
        bounds = [*([] if questions["bound"] is None else [questions["bound"]]), *(b for _, b in asked_for)]
        count = 9 if points is None else points
        return two_costs(revised, against, questions["minimize"], bounds, count, json=json, output=output)
    if points is not None:
        raise OptionError("goes with --against", where="--points", value=points, hint="the hull has its own points")
    for key, option in {"bound": "--bound", "budget": "--budget" if goals.budget else "--bits"}.items():
        if questions[key] is not None:
            hint = f"--exact {questions[key]} solves there"
            raise OptionError("the frontier has every bound and size", where=option, hint=hint)
    if solver and not exact:
        raise OptionError(
            "goes with --exact: strategies stand beside exact points", where="--solver", value=", ".join(solver)
        )
    for name in solver or []:
        solver_class(name)
    try:
        with progress("sweeping"):
            hull = sweep(revised, questions["minimize"])
    except UnsupportedError:
        if not exact:
            raise
        hull = None
    asked = _solved(revised, questions["minimize"], asked_for, ["exact", *(solver or [])])
    instance = make_instance(revised, bound=1.0, minimize=questions["minimize"]) if hull is None else hull.instance
    asked += _uniform(instance)
    goals.say_units(base)
    if output is not None:
        _write(output, instance, hull, asked)
    if json:
        print_json(_record(problem, instance, hull, asked))
    else:
        _print(problem, instance, hull, asked)
    return 0 if all(point.kind == "uniform" or point.answered for point in asked) else 1


def _asked(text: str) -> tuple[str, float | str]:
    """Return what --exact asks for: a bound, or the text of a size."""
    if not is_bare(text):
        try:
            bound = float(text)
        except ValueError:
            return "budget", text
    else:
        bound = float(Fraction(text.strip()))
    exact_bound(bound, "--exact")
    return "bound", bound


def _solved(problem: Problem, minimize: Any, asked: list[tuple[str, float | str]], solvers: list[str]) -> list[_Point]:
    names = tuple(dict.fromkeys(solvers))
    points: list[_Point] = []
    with native_silence(), shown("solving") as tell:
        for question in asked:
            for name in names:
                tell("points", len(points), len(asked) * len(names), f"{name} at {_at(question)}")
                points.append(_answer(problem, minimize, question, name))
    return points


def _at(question: tuple[str, float | str]) -> str:
    return f"{question[1]:g}" if isinstance(question[1], float) else question[1]


def _answer(problem: Problem, minimize: Any, question: tuple[str, float | str], name: str) -> _Point:
    at = f"at {_at(question)}"
    kind, label = ("exact", at) if name == "exact" else ("strategy", f"{name} {at}")
    goal, value = question
    try:
        answer: Allocation = solve_in_passing(problem, **{goal: value}, minimize=minimize, solver=name)
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
            points.append(_Point("uniform", bits_text(level), cost, damage))
    return points


def _hull_rows(hull: Frontier) -> list[tuple[float, float, str]]:
    return [(float(c), float(d), hull.moved(k)) for k, (c, d) in enumerate(zip(hull.cost, hull.damage, strict=True))]


def _record(name: str, instance: Instance, hull: Frontier | None, points: list[_Point]) -> dict[str, Any]:
    def point(place: _Point) -> dict[str, Any]:
        known = place.answered
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
    table = grid(f">{cost_heading('cost', unit)}", f">{damage_name(instance.problem)}", "point")
    rows = [
        (point.cost, point.damage, " ".join(filter(None, (point.kind, point.label, point.status)))) for point in points
    ]
    if hull is not None:
        bend = knee(hull.cost, hull.damage)
        shown = {*thin(hull.damage, 16).tolist(), bend}
        rows += [(float(hull.cost[k]), float(hull.damage[k]), "hull, the knee" if k == bend else "hull") for k in shown]
        said = f"{counted(len(hull), 'breakpoint')} of the convex hull, of which {len(shown)} are shown"
        out.print(f"{name}: {said}")
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
