"""The command line: one thin file per command, loaded when it is called.

Data goes to stdout, all else to stderr. Exit status: 0 solved; 1 infeasible, unproven or a failed check; 2 wrong usage
or bad input, told in one sentence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError, UnknownCommandError

from impq_opt import __version__
from impq_opt.errors import ImpqError, SolverError, nearest

__all__ = ["COMMANDS", "Command", "main", "make_app", "run"]


class Command(NamedTuple):
    """One command: its name, ``module:function`` in this package, the group it is listed in, and one line of help."""

    name: str
    function: str
    group: str
    help: str


# A command is added by a file of its own and one line here.
COMMANDS: tuple[Command, ...] = (
    Command("solve", "solve:solve", "Allocate", "Choose the bits of every group, with a proof."),
    Command("import", "import_:import_", "Exchange", "Turn another tool's scores into a problem."),
    Command("export", "export:export", "Exchange", "Write an allocation as another tool's configuration."),
    Command("problems", "problems:problems", "Look up", "The gallery of problems, with where they come from."),
    Command("solvers", "solvers:solvers", "Look up", "The strategies, and what each one proves."),
    Command("formats", "formats:formats", "Look up", "The formats of other tools, and what each cannot express."),
)


def make_app() -> App:
    """Return the application; no command's module is loaded before the command is called."""
    app = App(
        name="impq-opt",
        help="Decide how many bits each part of a neural network gets, and prove that the decision is optimal.",
        version=f"impq-opt {__version__}",
        version_flags=["--version"],
        # Errors come back here, to be told in our way.
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        help_epilogue="Example: `impq-opt solve --bound 0.01`",
    )
    for command in COMMANDS:
        app.command(f"impq_opt.cli.{command.function}", name=command.name, group=command.group, help=command.help)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors end as one sentence on stderr."""
    try:
        return _call(list(sys.argv[1:] if arguments is None else arguments))
    except SolverError as error:
        return _fail(str(error), 1)
    except ImpqError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader has gone (``| head``). Nothing may be flushed to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("there is not enough memory for this", 1)


def _call(arguments: list[str]) -> int:
    try:
        status = make_app()(arguments)
    except UnknownCommandError as error:
        name = error.unused_tokens[0] if error.unused_tokens else " ".join(arguments[:1])
        return _fail(f"there is no command {name!r} ({nearest(name, [c.name for c in COMMANDS])})", 2)
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2)
    sys.stdout.flush()
    return int(status or 0)


def _fail(sentence: str, status: int) -> int:
    print(f"impq-opt: {sentence}", file=sys.stderr)
    return status


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run())
