"""``impq-opt formats``: the formats of other tools."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import FORMATS
from impq_opt.cli._common import JsonFlag
from impq_opt.cli._screen import console, grid, print_json
from impq_opt.exchange import Chooser, Precision, Reader, Writer, format_names
from impq_opt.exchange.registry import format_class
from impq_opt.registry import option_fields
from impq_opt.text import bits_text

__all__ = ["formats"]


def formats(
    name: Annotated[
        str | None, FORMATS, Parameter(help="Show one format, with its options and what it stores.")
    ] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List the formats that can be imported and exported, with what each cannot express."""
    summaries = [_summary(known) for known in (format_names() if name is None else (name,))]
    if json:
        print_json(summaries if name is None else summaries[0])
    elif name is None:
        table = grid("name", "in", "out", "audit", "what it is", "limits")
        for summary in summaries:
            ways = ("yes" if summary[way] else "-" for way in ("reads", "writes", "audits"))
            table.add_row(summary["name"], *ways, summary["summary"], summary["limits"])
        console().print(table)
    else:
        table = grid("", "", header=False)
        for key, value in summaries[0].items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add_row(key, {"True": "yes", "False": "no", "": "-"}.get(text, text))
        console().print(table)
    return 0


def _plain(value: Any) -> str:
    """Return a default as an option is written."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "TEXT"


def _summary(name: str) -> dict[str, Any]:
    kind = format_class(name)
    summary: dict[str, Any] = {
        "name": name,
        "summary": kind.summary,
        "reads": issubclass(kind, Reader),
        "writes": issubclass(kind, Writer),
        "audits": issubclass(kind, Chooser),
        "limits": kind.limits if issubclass(kind, Writer) else "",
        "package": kind.package,
        "source": kind.source,
        "options": [f"{f.name}={_plain(f.default)}" for f in option_fields(kind)],
    }
    if issubclass(kind, Writer):
        summary["precisions"] = [_precision(precision) for precision in kind().precisions()]
    return summary


def _precision(precision: Precision) -> str:
    """Return what a precision takes, in a network of each type where that differs."""
    single, half = (float(precision.width(stored)) for stored in (32, 16))
    return f"{precision.name} ({bits_text(half)}{'' if single == half else f', in float32 {single:g}'})"
