"""``impq-opt solvers``: the strategies."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import SOLVERS
from impq_opt.cli._common import JsonFlag
from impq_opt.cli._help import print_description
from impq_opt.cli._screen import console, grid, print_json, styled
from impq_opt.errors import ImpqError
from impq_opt.registry import option_fields
from impq_opt.solvers import solver_class, solver_names

__all__ = ["solvers"]

_FEATURES = {
    "damage": "least damage under a budget",
    "budgets": "several budgets",
    "pairs": "costs that couple groups",
    "peaks": "the least of a peak",
}


def solvers(
    name: Annotated[str | None, SOLVERS, Parameter(help="Show one strategy, with its options.")] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List the strategies: what each one proves, what it handles, and its options."""
    described = [_describe(known) for known in (solver_names() if name is None else (name,))]
    if json:
        print_json(described if name is None else described[0])
        return 0
    out = console()
    if name is not None:
        _print_one(described[0])
        return 0
    table = grid("name", "proves", "budget", "budgets", "what it does")
    for solver in described:
        handles = ["yes" if feature in solver["supports"] else "-" for feature in ("damage", "budgets")]
        table.add_row(solver["name"], solver["proves"], *handles, solver["summary"])
    out.print(table)
    out.print()
    out.print("budget: answers least damage under one budget; budgets: takes further budgets")
    return 0


def _describe(name: str) -> dict[str, Any]:
    try:
        kind = solver_class(name)
    except ImpqError:
        raise
    except (ImportError, AttributeError):
        # Another package's entry point is broken: its strategy is listed with the reason, the others work.
        return {
            "name": name,
            "summary": "cannot be loaded: its package is broken",
            "proves": "-",
            "supports": [],
            "options": {},
        }
    return {
        "name": name,
        "summary": kind.summary,
        "proves": kind.proves,
        "supports": sorted(kind.supports),
        "options": {
            field.name: {"default": field.default, "type": str(field.type)}
            for field in option_fields(kind)
            if field.default is not dataclasses.MISSING
        },
        "description": (kind.__doc__ or "").strip(),
    }


def _print_one(solver: dict[str, Any]) -> None:
    out = console()
    out.print(styled((solver["name"], "bold"), f": {solver['summary']}"))
    out.print(f"proves: {solver['proves']}")
    for feature in solver["supports"]:
        out.print(f"handles: {_FEATURES.get(feature, feature)}")
    print_description(
        solver.get("description", ""),
        {name: f"--option {name}={option['default']}" for name, option in solver["options"].items()},
    )
