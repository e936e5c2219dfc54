"""What the commands share: reading their arguments, and writing for people and for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._choices import PROBLEMS
from impq_opt.cli._streams import say
from impq_opt.costs import format_quantity, is_bare, parse_quantity
from impq_opt.documents.numbers import read_float, read_whole
from impq_opt.errors import FileError, InputError, OptionError, nearest
from impq_opt.files import load_problem
from impq_opt.problem.problem import Problem
from impq_opt.registry import option_fields
from impq_opt.solvers import solver_class
from impq_opt.text import visible

__all__ = [
    "WHOLE",
    "JsonFlag",
    "Output",
    "ProblemName",
    "bare_units",
    "check_ending",
    "find_problem",
    "parse_assignments",
    "parse_bits",
    "parse_budgets",
    "parse_bytes",
    "parse_fields",
    "parse_options",
    "parse_sizes",
    "parse_tie",
    "refuse",
    "say",
    "type_text",
    "write_output",
]

ProblemName = Annotated[
    str, PROBLEMS, Parameter(help="A name in the gallery (see `impq-opt problems`) or a problem file.")
]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]
Output = Annotated[Path | None, Parameter(name=["--output", "-o"], help="Write the result to this file.")]


# -- arguments ---------------------------------------------------------------------------------------------------


def _whole(_: Any, tokens: Sequence[Any]) -> int:
    try:
        return read_whole(tokens[0].value, "")
    except InputError:
        raise ValueError from None


# An option that is a whole number: 1.5 is none, and is not rounded to one.
WHOLE = Parameter(converter=_whole)


def find_problem(name: str) -> Problem:
    """Return the problem that ``name`` means: one of the gallery, or a file."""
    known = problems.names()
    if name in known:
        return problems.load(name)
    if Path(name).suffix or os.sep in name or os.path.exists(name):
        return load_problem(name)
    raise OptionError(
        "no such problem in the gallery and no such file",
        value=name,
        hint=nearest(name, known) or "the gallery is empty",
    )


def parse_bits(text: str, where: str = "--bits") -> list[float]:
    """Read ``"1:8"``, ``"2,4,8"`` or ``"1:4,8"``; a range includes both ends."""
    widths: list[float] = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        try:
            if colon:
                ends = read_whole(low, where), read_whole(high, where)
                if not 0 <= ends[0] <= ends[1] <= 64:
                    raise ValueError
                widths += [float(b) for b in range(ends[0], ends[1] + 1)]
            else:
                widths.append(read_float(part, where))
        except ValueError:  # of which an InputError is one
            raise OptionError(
                "must be a range or a list of precisions", where=where, value=text, hint="for example 1:8 or 2,4,8"
            ) from None
    return widths


def parse_assignments(texts: Iterable[str], where: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` as often as it is given; the name may hold ``=`` itself."""
    assigned: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise OptionError("must be NAME=VALUE", where=where, value=text)
        if assigned.get(name, value) != value:
            raise OptionError("is given twice", where=f"{where} {name}", value=f"{assigned[name]} and {value}")
        assigned[name] = value
    return assigned


def parse_budgets(texts: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Read ``SIZE``, ``NAME=VALUE`` and several of them with commas between; return the sizes, and values by name.

    A name may hold commas itself: one counts as between budgets behind a size or a value, and before another name.
    """
    budgets: list[str] = []
    for text in texts:
        first, *others = text.split(",")
        own = [first]
        for part in others:
            if "=" in part and ("=" in own[-1] or own[-1][:1].isdecimal()):
                own.append(part)
            else:
                own[-1] += f",{part}"
        budgets += own
    named = [text for text in budgets if "=" in text]
    return [text for text in budgets if "=" not in text], parse_assignments(named, "--budget")


# A name up to a comma or the end: in double quotes, or with commas in pairs of brackets alone.
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"\s*|((?![\s",])(?:\[[^\[\]]*\]|[^,\[]|\[(?![^\[\]]*\]))+))(?=,|$)')


def parse_tie(text: str) -> list[str]:
    """Read ``A,B``: names or patterns, split at the commas outside brackets (``conv[0,1],conv[0,2]``) and quotes."""
    names, place = [], 0
    while place <= len(text):
        part = _NAME.match(text, place)
        if part is None:
            hint = "for example q,k,v; a name that holds commas stands in double quotes"
            raise OptionError("must be names with commas between them", where="--tie", value=text, hint=hint)
        names.append(part[2] or part[1].replace('""', '"'))
        place = part.end() + 1
    return [name.strip() for name in names]


def parse_bytes(text: str) -> int:
    """Read ``"2GiB"``, or a plain number of bytes, as bytes."""
    bare = is_bare(text)
    amount = parse_quantity(text, "" if bare else "bit", "--memory-limit") / (1 if bare else 8)
    if amount < 1:
        raise OptionError("must be positive", where="--memory-limit", value=text)
    return int(amount)


def bare_units(budgets: Iterable[tuple[str, str, str]], memory_limit: str | None = None) -> list[str]:
    """Return sentences that say in which unit bare numbers were taken: of bits and bytes, people mean either.

    ``budgets`` are options, their texts, and the units that they have.
    """
    notes = [
        f"{option}{text} is taken as bits: {format_quantity(parse_quantity(text, unit), unit)}; "
        f"{text.strip()}B would be bytes"
        for option, text, unit in budgets
        if unit == "bit" and is_bare(text)
    ]
    if memory_limit is not None and is_bare(memory_limit):
        size = format_quantity(8 * parse_bytes(memory_limit), "bit")
        notes.append(f"--memory-limit {memory_limit} is taken as bytes: {size}")
    return notes


def parse_sizes(text: str, where: str) -> list[str]:
    """Read sizes with commas between them; a bare number is the mean bits of the weights."""
    sizes = []
    for part in text.split(","):
        size = f"{part.strip()}bpw" if is_bare(part) else part.strip()
        if parse_quantity(size, "bit", where, weights=1) <= 0:
            raise OptionError("must be positive", where=where, value=text)
        sizes.append(size)
    return sizes


def parse_options(solver: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` options of a strategy, each in the type of its field."""
    return parse_fields(solver_class(solver), f"solver {solver!r}", texts)


def parse_fields(kind: Any, what: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` options of ``what``, each in the type of the field of the dataclass ``kind``."""
    types = typing.get_type_hints(kind)
    known = [field.name for field in option_fields(kind)]
    options: dict[str, Any] = {}
    for name, text in parse_assignments(texts, "--option").items():
        field = name.replace("-", "_")
        if field not in known:
            hint = nearest(name, known) or "it has none"
            raise OptionError(f"unknown option of {what}", where="--option", value=name, hint=hint)
        try:
            options[field] = msgspec.convert(_literal(text), types[field], strict=False)
        except (msgspec.ValidationError, TypeError):
            raise OptionError(f"must be {type_text(types[field])}", where=f"--option {name}", value=text) from None
    return options


def parse_specs(text: str) -> list[str]:
    """Read ``"statistics,gptq:damping=0.1,order=input"``: options go on behind commas."""
    specs: list[str] = []
    for part in text.split(","):
        if specs and "=" in part and ":" not in part:
            specs[-1] += f",{part.strip()}"
        else:
            specs.append(part.strip())
    return specs


def type_text(kind: Any) -> str:
    """Return in words what a value of a type is."""
    inside = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, inside))
    if inside and typing.get_origin(kind) not in (list, tuple, dict):
        return " or ".join(dict.fromkeys(map(type_text, inside)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a file"}
    return words.get(typing.get_origin(kind) or kind, "a list" if inside else "a value of another kind")


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# -- writing -----------------------------------------------------------------------------------------------------

# Endings that say a type: a file that is written under another's is opened as what it is not.
_TYPES = {
    ".csv", ".gz", ".gguf", ".html", ".jpg", ".json", ".jsonl", ".md", ".npy", ".npz", ".onnx", ".parquet", ".pdf",
    ".pkl", ".png", ".pt", ".pth", ".py", ".safetensors", ".svg", ".toml", ".txt", ".xlsx", ".xml", ".yaml", ".yml",
    ".zip",
}  # fmt: skip


def check_ending(path: Path | None, *endings: str, where: str = "--output") -> None:
    """Raise OptionError where the name of a file says a type that is none of ``endings``; before the work."""
    ending = "" if path is None else path.suffix.lower()
    if ending in _TYPES - set(endings):
        hint = f"name it {Path(str(path)).stem}{endings[0]}"
        raise OptionError(f"writes {' or '.join(endings)}", where=where, value=str(path), hint=hint)


def spare(output: Path | None, *read: str | Path | None) -> None:
    """Raise OptionError where a result would be written over a file that is read for it; before the work."""
    if output is not None and os.path.isfile(output):
        for path in read:
            if path is not None and os.path.isfile(path) and output.samefile(path):
                raise OptionError("is read here, and would be lost", where="--output", value=str(output))


def refuse(option: str, value: object, why: str) -> None:
    """Raise OptionError for an option that was given and would be ignored."""
    if value is not None and value is not False and value != []:
        shown = ... if value is True else ", ".join(map(str, value if isinstance(value, list) else [value]))
        raise OptionError(why, where=option, value=shown)


def refuse_seed(seed: int | None, names: Iterable[str]) -> None:
    """Raise OptionError for a seed where none of the strategies draws random numbers."""
    draws = {name: solver_class(name).draws for name in names}
    if not any(draws.values()):
        none = f"{next(iter(draws))} draws no" if len(draws) == 1 else "none of these strategies draws"
        refuse("--seed", seed, f"has no effect: {none} random numbers")


def write_output(path: Path, write: typing.Callable[[Path], None]) -> None:
    """Write a result; what cannot be written is told by name of the option."""
    try:
        write(path)
    except FileError as error:
        raise error.within("--output") from None
    print(f"written to {visible(path)}", file=sys.stderr)
