"""``impq-opt problems``: the gallery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt import problems as gallery
from impq_opt.cli._choices import PROBLEMS
from impq_opt.cli._common import JsonFlag, find_problem
from impq_opt.cli._screen import console, counted, grid, print_json, styled
from impq_opt.exactness.sums import nearest_float
from impq_opt.problem.problem import Problem

__all__ = ["problems"]


def problems(
    name: Annotated[str | None, PROBLEMS, Parameter(help="Show one problem, with all of its provenance.")] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List the gallery of problems that ship with the package, with where each comes from."""
    wanted = gallery.names() if name is None else (name,)
    summaries = [_summary(known, find_problem(known)) for known in wanted]
    if json:
        print_json(summaries if name is None else summaries[0])
    elif name is not None:
        _print_one(summaries[0])
    elif not summaries:
        console().print("the gallery is empty")
    else:
        _print_list(summaries)
    return 0


def _summary(name: str, problem: Problem) -> dict[str, Any]:
    weights = problem.weights()
    widths = sorted({width for widths in problem.candidates.sets for width in widths})
    return {
        "name": name,
        "groups": len(problem),
        "weight_groups": int(weights.sum()),
        "activation_groups": int((~weights).sum()),
        "weights": int(problem.sizes[weights].sum()),
        "bits": f"{widths[0]:g} to {widths[-1]:g}" if len(widths) > 3 else ", ".join(f"{w:g}" for w in widths),
        "metric": problem.metric,
        "damage_unit": problem.damage_unit,
        "bound": None if problem.bound is None else nearest_float(problem.bound),
        "minimize": list(problem.objective),
        "digest": problem.digest,
        "provenance": dict(problem.provenance),
    }


def _print_list(summaries: list[dict[str, Any]]) -> None:
    out = console()
    for summary in summaries:
        out.print(styled((summary["name"], "bold"), " (default)" if summary["name"] == gallery.DEFAULT else ""))
        counts = f"{counted(summary['groups'], 'group')}, {counted(summary['weights'], 'weight')}"
        facts = f"{counts}, {summary['bits']} bits, metric {summary['metric']}"
        for text in (facts, str(summary["provenance"].get("description", ""))):
            out.print(f"    {text}", indent=4)


def _print_one(summary: Mapping[str, Any]) -> None:
    table = grid("", "", header=False)
    for key, value in summary.items():
        if key == "provenance":
            continue
        text = ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(key.replace("_", " "), "-" if value is None else text)
    for key, value in _flat(summary["provenance"]):
        table.add_row(key, value)
    console().print(table)


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
