"""``impq-opt methods``: how weights and activations can be rounded."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import METHODS
from impq_opt.cli._common import JsonFlag
from impq_opt.cli._help import print_description
from impq_opt.cli._network import need_torch
from impq_opt.cli._screen import console, grid, print_json, styled
from impq_opt.registry import option_fields

__all__ = ["methods"]


def methods(
    name: Annotated[str | None, METHODS, Parameter(help="Show one method, with its options.")] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List the methods of quantizing: what they round, at which bits, what training does, what stays in float.

    `measure --grid` and `pack --method` take their names, options behind a colon: zero:over=tensor.
    """
    need_torch("impq-opt methods")
    from impq_opt.quantize.methods import method_names

    described = [_describe(known) for known in (method_names() if name is None else (name,))]
    if json:
        print_json(described if name is None else described[0])
    elif name is None:
        table = grid("name", "rounds", "bits", "zero", "float", "what it does", "in training", "source")
        for method in described:
            zero, kept = "yes" if method["has_zero"] else "-", " ".join(method["leaves_float"]) or "-"
            rounds = "both" if method["activations"] else "weights"
            about = (method["summary"], method["training"], method["source"])
            table.add_row(method["name"], rounds, _bits(method), zero, kept, *about)
        out = console()
        out.print(table)
        out.print()
        out.print("rounds: where weights alone, activations are rounded as mid-rise does")
        out.print("bits: of a code, and log2 of the levels where there is one precision and that is less")
        out.print("float: layers that the paper leaves in float; nothing is left out unless asked for")
    else:
        _print_one(described[0])
    return 0


def _describe(name: str) -> dict[str, Any]:
    from impq_opt.quantize.methods import method_class

    try:
        kind = method_class(name)
    except (ImportError, AttributeError):
        # Another package's entry point is broken: its method is listed with the reason, the others work.
        nothing = dict.fromkeys(("has_zero", "straight_through", "needs_training"), False)
        none: dict[str, Any] = {"bits": [], "effective_bits": [], "leaves_float": [], "options": {}}
        none |= {"activations": "", "description": ""}
        broken = {"summary": "cannot be loaded: its package is broken", "source": "-", "training": "-"}
        return {"name": name} | broken | none | nothing
    usual = kind()
    return {
        "name": name,
        "summary": kind.summary,
        "source": kind.source,
        "training": kind.training,
        "bits": list(kind.widths),
        "effective_bits": [usual.effective_bits(width) for width in kind.widths],
        "activations": kind.activations,
        "has_zero": kind.has_zero,
        "straight_through": kind.straight_through,
        "needs_training": kind.needs_training,
        "leaves_float": list(kind.leaves_float),
        "options": {field.name: field.default for field in option_fields(kind)},
        "description": inspect.cleandoc(kind.__doc__ or ""),
    }


def _bits(method: dict[str, Any]) -> str:
    widths, effective = method["bits"], method["effective_bits"]
    if len(widths) != 1:
        return f"{min(widths)}..{max(widths)}" if widths else "-"
    return f"{widths[0]}" if effective[0] == widths[0] else f"{widths[0]}, {effective[0]:.3g}"


def _print_one(method: dict[str, Any]) -> None:
    out = console()
    out.print(styled((method["name"], "bold"), f": {method['summary']}"))
    out.print(f"source: {method['source']}")
    out.print(f"bits: {_bits(method)}" + (" (of a code, and log2 of the levels)" if "," in _bits(method) else ""))
    out.print(f"in training: {method['training']}")
    out.print(f"activations: {method['activations'] or 'as mid-rise rounds them'}")
    out.print(f"zero is a level: {'yes' if method['has_zero'] else 'no'}")
    out.print(f"layers that the paper leaves in float: {', '.join(method['leaves_float']) or 'none'}")
    if method["needs_training"]:
        out.print("damages cannot be measured before a network was trained with it")
    print_description(
        method["description"], {name: f"{method['name']}:{name}={usual}" for name, usual in method["options"].items()}
    )
