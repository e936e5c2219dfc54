"""``impq-opt solvers``: the strategies."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._common import JsonFlag, console, grid, print_json, styled
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
    name: Annotated[str | None, Parameter(help="Show one strategy, with its options.")] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List the strategies: what each one proves, what it handles, and its options."""
    found = [_describe(one) for one in (solver_names() if name is None else (name,))]
    if json:
        print_json(found if name is None else found[0])
        return 0
    out = console()
    if name is not None:
        _print_one(found[0])
        return 0
    table = grid("name", "proves", "budget", "budgets", "what it does")
    for one in found:
        handles = ["yes" if feature in one["supports"] else "-" for feature in ("damage", "budgets")]
        table.add_row(one["name"], one["proves"], *handles, one["summary"])
    out.print(table)
    out.print()
    out.print("budget: answers least damage under one budget; budgets: takes further budgets", soft_wrap=True)
    return 0


def _describe(name: str) -> dict[str, Any]:
    try:
        kind = solver_class(name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImpqError):
            raise
        # Another package's entry point is broken: its strategy is listed with the reason, the others work.
        return {"name": name, "summary": f"cannot be loaded: {error}", "proves": "-", "supports": [], "options": {}}
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


def _print_one(one: dict[str, Any]) -> None:
    out = console()
    out.print(styled((one["name"], "bold"), f": {one['summary']}"), soft_wrap=True)
    out.print(f"proves: {one['proves']}")
    for feature in one["supports"]:
        out.print(f"handles: {_FEATURES.get(feature, feature)}")
    for name, option in one["options"].items():
        out.print(f"--option {name}={option['default']}")
    if one.get("description"):
        out.print()
        for line in one["description"].splitlines():
            out.print(line, soft_wrap=True)
