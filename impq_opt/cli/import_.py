"""``impq-opt import``: another tool's scores become a problem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import READERS, WRITERS
from impq_opt.cli._common import JsonFlag, Output, check_ending, find_problem, parse_fields, refuse, spare, write_output
from impq_opt.cli._goals import Many
from impq_opt.cli._progress import watched
from impq_opt.cli._screen import console, grid, print_json
from impq_opt.cli._streams import say
from impq_opt.documents.reading import stated_format
from impq_opt.errors import OptionError
from impq_opt.exchange import Format, Reader, Writer, format_names, make_format
from impq_opt.exchange.base import looks_like
from impq_opt.exchange.registry import format_class
from impq_opt.files import save_problem
from impq_opt.problem.problem import Problem

__all__ = ["AcceptZeros", "format_of", "import_", "names_problem", "read_scores"]

AcceptZeros = Annotated[
    bool,
    Parameter(negative="", help="Take scores of 0 as harmless, not as unmeasured groups that keep their most bits."),
]


def import_(
    scores: Annotated[str, Parameter(help="A file of scores, or a problem where only --for is asked.")],
    /,
    *more: Annotated[str, Parameter(help="Further files, where a format has several.")],
    source: Annotated[
        str | None, READERS, Parameter(name="--from", help="The format of the scores; see `impq-opt formats`.")
    ] = None,
    target: Annotated[
        str | None,
        WRITERS,
        Parameter(
            name="--for", help="Restate the problem for this target: its precisions at their true bits, its ties."
        ),
    ] = None,
    option: Annotated[
        list[str] | None, Many, Parameter(help="KEY=VALUE, an option of the --for target, or else of the format read.")
    ] = None,
    weights: Annotated[
        bool, Parameter(name="--weights-only", negative="", help="Leave out activations, for targets that keep them.")
    ] = False,
    accept_zeros: AcceptZeros = False,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Turn another tool's scores into a problem, or a problem into one that a target can store (--for)."""
    check_ending(output, ".toml")
    spare(output, scores, *more)
    problem = read_scores(scores, more, source, accept_zeros=accept_zeros, options=None if target else option)
    if weights:
        problem = problem.revise(weights_only=True)
    if target is not None:
        writer = format_of("--for", target, option)
        if not isinstance(writer, Writer):
            raise OptionError("is not written", where="--for", value=target, hint=", ".join(format_names(writes=True)))
        problem = writer.prepare(problem)
    if output is not None:
        write_output(output, lambda path: save_problem(problem, path))
    if json:
        print_json(_summary(problem))
    else:
        _print(problem)
    return 0


def format_of(where: str, name: str, texts: list[str] | None = None) -> Format:
    """Return the format called ``name`` with options ``KEY=VALUE``; what is unknown is told at the option ``where``."""
    try:
        kind = format_class(name)
    except OptionError as error:
        raise OptionError(error.what, where=where, value=error.value, hint=error.hint) from None
    return make_format(name, **parse_fields(kind, f"format {name!r}", texts or []))


def read_scores(
    scores: str, more: tuple[str, ...], source: str | None, *, accept_zeros: bool, options: list[str] | None = None
) -> Problem:
    """Return the problem that scores of format ``source`` declare, with its options, or that a problem file is."""
    if source is None:
        by_suffix = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".gguf": "gguf"}
        source = by_suffix.get(Path(scores).suffix.lower())
    if source is None:
        if not names_problem(scores):
            raise OptionError("say what the file is", where="--from", value=scores, hint=_which(Path(scores)))
        refuse("--accept-zeros", accept_zeros, "goes with scores: a problem says itself what is measured")
        refuse("--option", options or None, "belongs to a target or to scores: name a target with --for")
        if more:
            raise OptionError("a problem is one file", value=", ".join(more))
        return find_problem(scores)
    reader = format_of("--from", source, options)
    if not isinstance(reader, Reader):
        raise OptionError("is not read", where="--from", value=source, hint=", ".join(format_names(reads=True)))
    with watched(f"reading {scores}"):
        return reader.read(scores, *more, accept_zeros=accept_zeros)


def names_problem(text: str) -> bool:
    """Return whether a text names a problem of this package and no scores: one of the gallery, or a file."""
    path = Path(text)
    return path.suffix in ("", ".toml") or (os.path.isfile(path) and bool(stated_format(path)))


def _which(path: Path) -> str:
    """Return in a hint what a file of scores may be."""
    likely = looks_like(path) if os.path.isfile(path) else ""
    if likely:
        return f"it looks like scores of {likely}"
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        return "save the sheet as CSV first"
    return f"one of {', '.join(format_names(reads=True))}"


def _summary(problem: Problem) -> dict[str, Any]:
    return {
        "groups": len(problem),
        "ties": len(problem.ties),
        "candidates": [list(problem.candidates.labels(number)) for number in range(len(problem.candidates.sets))],
        "minimize": list(problem.objective),
        "metric": problem.metric,
        "damage_unit": problem.damage_unit,
        "digest": problem.digest,
        "unmeasured": 0 if problem.unmeasured is None else int(problem.unmeasured.sum()),
        "provenance": dict(problem.provenance),
    }


def _print(problem: Problem) -> None:
    table = grid("", "", header=False)
    for key, value in _summary(problem).items():
        if key == "candidates":
            table.add_row(
                key, "; ".join(", ".join(labels) for labels in value[:4]) + (" ..." if len(value) > 4 else "")
            )
        elif key != "provenance":
            table.add_row(key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
    out = console()
    out.print(table)
    for line in problem.notes():
        out.print(line)
    if "zero_scores" in problem.provenance and problem.unmeasured is not None:
        say("scores of 0 at every candidate say that nobody measured; --accept-zeros takes them as they are")
    for line in _read_otherwise(problem.provenance):
        say(line)


def _read_otherwise(provenance: Mapping[str, Any]) -> list[str]:
    """Return what was made of the scores beside reading them, a line each."""
    lines = []
    if "negative_scores" in provenance:
        note = provenance["negative_scores"]
        groups = "1 group" if note["groups"] == 1 else f"{note['groups']:,} groups"
        lines.append(f"scores below 0 in {groups}: {note['such_as']}")
    if "size_unknown" in provenance:
        lines.append(f"nothing tells the size, which counts as 1: {provenance['size_unknown']}")
    if "scales_added" in provenance:
        lines.append(f"the caches count weights alone; added: {provenance['scales_added']}")
    if "left_as_it_is" in provenance:
        lines.append(f"the target cannot quantize these, and leaves them as they are: {provenance['left_as_it_is']}")
    if "columns" in provenance:
        lines.append(f"kept as notes, since they mean nothing here: {', '.join(provenance['columns'])}")
    return lines
