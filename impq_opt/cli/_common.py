"""What the commands share: reading their arguments, and writing for people and for programs."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from impq_opt import problems
from impq_opt.cli._streams import say, silenced
from impq_opt.costs import format_quantity, parse_quantity
from impq_opt.documents.numbers import read_float, read_whole
from impq_opt.errors import FileError, OptionError, nearest
from impq_opt.exactness.sums import nearest_float
from impq_opt.files import load_problem
from impq_opt.problem.problem import Problem
from impq_opt.registry import option_fields
from impq_opt.solvers import solver_class
from impq_opt.text import json_lines, shortened, visible

__all__ = [
    "JsonFlag",
    "Output",
    "ProblemName",
    "console",
    "cost_text",
    "find_problem",
    "grid",
    "number",
    "parse_assignments",
    "parse_bits",
    "parse_bytes",
    "parse_fields",
    "parse_options",
    "parse_tie",
    "print_json",
    "progress",
    "say",
    "spinner",
    "styled",
    "write_output",
]

ProblemName = Annotated[str, Parameter(help="A name in the gallery (see `impq-opt problems`) or a problem file.")]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]
Output = Annotated[Path | None, Parameter(name=["--output", "-o"], help="Write the result to this file.")]


# -- arguments ---------------------------------------------------------------------------------------------------


def find_problem(name: str) -> Problem:
    """Return the problem that ``name`` means: one of the gallery, or a file."""
    known = problems.names()
    if name in known:
        return problems.load(name)
    if Path(name).suffix or os.sep in name or os.path.exists(name):  # noqa: PTH110 - Path refuses long names
        return load_problem(name)
    raise OptionError(
        "no such problem in the gallery and no such file",
        value=name,
        hint=nearest(name, known) or "the gallery is empty",
    )


def parse_bits(text: str) -> list[float]:
    """Read ``"1:8"``, ``"2,4,8"`` or ``"1:4,8"``; a range includes both ends."""
    widths: list[float] = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        try:
            if colon:
                ends = read_whole(low, "--bits"), read_whole(high, "--bits")
                if not 0 <= ends[0] <= ends[1] <= 64:
                    raise ValueError
                widths += [float(b) for b in range(ends[0], ends[1] + 1)]
            else:
                widths.append(read_float(part, "--bits"))
        except ValueError:  # of which an InputError is one
            raise OptionError(
                "must be a range or a list of precisions", where="--bits", value=text, hint="for example 1:8 or 2,4,8"
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


def parse_tie(text: str) -> list[str]:
    """Read ``A,B``: names or patterns, split at the commas outside brackets (``conv[0,1],conv[0,2]``) and quotes.

    A name with commas of its own is written as CSV has it: ``"a,b",c``, with its quotation marks doubled.
    """
    parts, brackets, quoted = [""], 0, False
    for sign in text:
        quoted ^= sign == '"'
        brackets = brackets if quoted else max(0, brackets + (sign == "[") - (sign == "]"))
        if sign == "," and not quoted and not brackets:
            parts.append("")
        else:
            parts[-1] += sign
    names = [_unquoted(part.strip()) for part in parts]
    if not all(names) or quoted:
        hint = "for example q,k,v; a name with commas in quotation marks"
        raise OptionError("must be names with commas between them", where="--tie", value=text, hint=hint)
    return names


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if len(name) > 1 and name[0] == name[-1] == '"' else name


def parse_bytes(text: str) -> int:
    """Read ``"2GiB"``, or a plain number of bytes, as bytes."""
    plain = re.fullmatch(r"[0-9]+", text.strip())
    amount = parse_quantity(text, "" if plain else "bit", "--memory-limit") / (1 if plain else 8)
    if amount < 1:
        raise OptionError("must be positive", where="--memory-limit", value=text)
    return int(amount)


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
            raise OptionError(
                f"must be of type {getattr(types[field], '__name__', types[field])}",
                where=f"--option {name}",
                value=text,
            ) from None
    return options


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# -- writing -----------------------------------------------------------------------------------------------------


# What stands in a column of numbers may have come from a file too: a unit, a label, the heading.
_WIDEST_NUMBER = 24
_LONGEST_UNIT = 16


class _Console(Console):
    """A console to which a string is data: one line, in which nothing is markup, an emoji or a control sequence.

    What is ours and has styles is given as :class:`rich.text.Text`; :func:`styled` makes it from data.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        options |= {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(self.shown(text), **options)

    def shown(self, text: str) -> str:
        """Return ``text`` in characters that the stream has, so that widths are right."""
        return visible(text).encode(self.encoding, "backslashreplace").decode(self.encoding)


def console(*, stderr: bool = False) -> _Console:
    """Return a console; piped output is not cut to a terminal's width."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 1000
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return texts, or texts with their styles, as one line for a console."""
    return Text.assemble(*((visible(p), "") if isinstance(p, str) else (visible(p[0]), p[1]) for p in parts))


def print_json(document: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document."""
    try:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: the name of a file that is not UTF-8
        text = json.dumps(document, indent=2)
    sys.stdout.write(json_lines(text) + "\n")


def grid(*columns: str, title: str | None = None) -> Table:
    """Return a plain table; a column whose heading begins with ``>`` is set flush right."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title, title_justify="left"
    )
    for column in columns:
        right = column.startswith(">")
        heading = shortened(visible(column.removeprefix(">")), _WIDEST_NUMBER)
        if right:
            table.add_column(heading, justify="right", no_wrap=True, overflow="ellipsis", max_width=_WIDEST_NUMBER)
        else:
            table.add_column(heading, overflow="fold")
    return table


def number(value: Fraction | float | None, digits: int = 4) -> str:
    """Return a number for people; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{nearest_float(value):.{digits}g}"


def cost_text(value: Fraction | float | None, unit: str) -> str:
    """Return a cost with its unit for people; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return format_quantity(value, shortened(visible(unit), _LONGEST_UNIT))


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Run long work: show on a terminal that something is going on, and keep stdout for data.

    Native solvers print as they like (HiGHS a line of its own debugging); it would end up between our data.
    """
    with _native_silence(), spinner(what):
        yield


@contextlib.contextmanager
def spinner(what: str) -> Iterator[Callable[[str], None] | None]:
    """Show on a terminal that something is going on; the yielded function tells of the next step, None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    with console(stderr=True).status(styled(what)) as status:
        yield lambda line: status.update(styled(line))


@contextlib.contextmanager
def _native_silence() -> Iterator[None]:
    """Send what is written to file descriptor 1 past Python to nowhere."""
    with contextlib.suppress(ValueError, AttributeError):  # stdout is closed
        sys.stdout.flush()
    with silenced(1):
        try:
            yield
        finally:
            with contextlib.suppress(OSError, AttributeError, TypeError):
                ctypes.CDLL(None).fflush(None)  # the C library has a buffer of its own


def write_output(path: Path, write: typing.Callable[[Path], None]) -> None:
    """Write a result; what cannot be written is told by name of the option."""
    try:
        write(path)
    except FileError as error:
        raise error.within("--output") from None
    print(f"written to {visible(path)}", file=sys.stderr)
