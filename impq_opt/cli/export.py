"""``impq-opt export``: an allocation becomes another tool's configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import WRITERS
from impq_opt.cli._common import JsonFlag, Output, ProblemName, check_ending, find_problem, spare, write_output
from impq_opt.cli._goals import Many
from impq_opt.cli._progress import watched
from impq_opt.cli._screen import print_json
from impq_opt.cli.import_ import format_of
from impq_opt.errors import OptionError
from impq_opt.exchange import Writer, format_names
from impq_opt.files import load_allocation
from impq_opt.text import visible

__all__ = ["export"]


def export(
    problem: ProblemName,
    allocation: Annotated[Path, Parameter(help="An allocation file of that problem.")],
    /,
    *,
    to: Annotated[str, WRITERS, Parameter(help="The format to write; see `impq-opt formats`.")],
    option: Annotated[list[str] | None, Many, Parameter(help="KEY=VALUE, an option of the format.")] = None,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Write an allocation as another tool's configuration; an allocation that the tool cannot express is refused."""
    writer = format_of("--to", to, option)
    if not isinstance(writer, Writer):
        raise OptionError("is not written", where="--to", value=to, hint=", ".join(format_names(writes=True)))
    check_ending(output, writer.ending)
    spare(output, problem, allocation, getattr(writer, "model", ""))
    answer = load_allocation(allocation, find_problem(problem))
    sizes: list[int] = []
    with watched(f"writing {to}"):
        if output is None:
            data = writer.dump(answer)
            sizes.append(len(data))
        else:
            write_output(output, lambda path: sizes.append(writer.write(answer, path)))
    if json:
        print_json({"format": to, "limits": writer.limits, "bytes": sizes[0], "output": output and str(output)})
    elif output is None:
        _print(data)
    return 0


def _print(data: bytes) -> None:
    sys.stdout.flush()
    if sys.stdout.isatty():  # to be looked at: the lines, and nothing in them that the terminal obeys
        sys.stdout.writelines(visible(line) + "\n" for line in data.decode(errors="replace").split("\n"))
    else:
        sys.stdout.buffer.write(data)
