"""The command line: one thin file per command, loaded when it is called.

Data goes to stdout, all else to stderr. Exit status: 0 solved; 1 infeasible, unproven or a failed check; 2 wrong usage
or bad input, told in one sentence; 3 a fault of ours; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import NamedTuple, NoReturn

from cyclopts import App, Group
from cyclopts.exceptions import CycloptsError

from impq_opt import __version__
from impq_opt.cli._help import Help, help_console
from impq_opt.cli._streams import StreamError, debugging, interrupted, own_streams, quiet_hooks, say, signals
from impq_opt.cli._words import in_shell_words, of_parsing
from impq_opt.errors import ImpqError, SolverError
from impq_opt.text import visible

__all__ = ["COMMANDS", "Command", "invocation", "main", "make_app", "run"]


class Command(NamedTuple):
    """One command: its name, ``module:function`` in this package, where it is listed, a line of help, an example."""

    name: str
    function: str
    group: str
    help: str
    example: str = ""


# In the order of the work, which is that of the help. A command is added by a file of its own and one entry here.
COMMANDS: tuple[Command, ...] = (
    Command(
        "quantize",
        "quantize:quantize",
        "Quantize",
        "From a trained network to the quantized network of a given size, in one command.",
        "impq-opt quantize resnet20-fashion-mnist --data fashion-mnist --budget 100KiB -o quantized",
    ),
    Command(
        "measure",
        "measure:measure",
        "Measure",
        "Measure how sensitive a trained network is, and write the problem.",
        "impq-opt measure resnet20-fashion-mnist --data fashion-mnist --groups kernel --samples 4096 -o problem.toml",
    ),
    Command(
        "import",
        "import_:import_",
        "Measure",
        "Turn another tool's scores into a problem.",
        "impq-opt import scheme_00.json scheme_01.json --from autoround -o problem.toml",
    ),
    Command(
        "solve",
        "solve:solve",
        "Allocate",
        "Choose the bits of every group, check the answer exactly, and say what is proved.",
        "impq-opt solve resnet20-fashion-mnist --bound 0.01 --pin conv1=8 -o allocation.json",
    ),
    Command(
        "compare",
        "compare:compare",
        "Allocate",
        "Run all strategies on one problem, in one table.",
        "impq-opt compare resnet20-fashion-mnist --bound 0.01 --time-limit 10",
    ),
    Command(
        "frontier",
        "frontier:frontier",
        "Allocate",
        "Sweep the whole trade-off: every breakpoint of the convex hull, exact points, uniform precisions.",
        "impq-opt frontier resnet20-fashion-mnist --exact 0.01 -o frontier.csv",
    ),
    Command(
        "validate",
        "validate:validate",
        "Check",
        "Quantize a network as allocated and hold the bound against how often it really decides differently.",
        "impq-opt validate PROBLEM allocation.json --network resnet20-fashion-mnist --data fashion-mnist",
    ),
    Command(
        "verify",
        "verify:verify",
        "Check",
        "Recompute what an allocation states: what is proved, only claimed, or wrong.",
        "impq-opt verify resnet20-fashion-mnist allocation.json",
    ),
    Command(
        "explain",
        "explain:explain",
        "Check",
        "Why a group has its bits, what one bit more or less costs and saves, and what would change them.",
        "impq-opt explain resnet20-fashion-mnist allocation.json layer1.0.conv1",
    ),
    Command(
        "audit",
        "audit:audit",
        "Check",
        "How far from the best another tool's choice is under its own scores, proved, and a better one of that size.",
        "impq-opt audit search_state.json search_state.json --from modelopt",
    ),
    Command(
        "cost",
        "cost:cost",
        "Show",
        "What precisions cost, by every cost term and convention, with units and sources.",
        "impq-opt cost mobilenet-v1-synthetic --bits 8,8 --bits 4,8 --convention slides",
    ),
    Command(
        "graph",
        "graph:graph",
        "Show",
        "Draw who reads which activation, ties and pins, as SVG.",
        "impq-opt graph resnet20-fashion-mnist -o graph.svg",
    ),
    Command(
        "report",
        "report:report",
        "Show",
        "Write one self-contained page about an allocation or a run, and its figures as pictures.",
        "impq-opt report allocation.json -o report.html --figures figures",
    ),
    Command(
        "dashboard",
        "dashboard:dashboard",
        "Show",
        "Show the runs, problems and allocations of a folder in a browser: compare, move the bound, pin, solve again.",
        "impq-opt dashboard runs",
    ),
    Command(
        "train",
        "train:train",
        "Train and ship",
        "Train one network, in float or with a method of quantizing.",
        "impq-opt train resnet8 --data fashion-mnist --pretrain 4 --method twn --epochs 2 -o runs/twn",
    ),
    Command(
        "baselines",
        "baselines:baselines",
        "Train and ship",
        "Train all methods of a table from one float network, beside what was published of them.",
        "impq-opt baselines resnet8-fashion-mnist --methods twn,lq-net-2 --seeds 2 -o runs/methods",
    ),
    Command(
        "rounds",
        "rounds:rounds",
        "Train and ship",
        "Alternate allocation with retraining, by one strategy or several side by side.",
        "impq-opt rounds --recipe resnet8-fashion-mnist --compare iterative,exact --seeds 3 -o runs/resnet8",
    ),
    Command(
        "pack",
        "pack:pack",
        "Train and ship",
        "Write a network's weights in their allocated bits into one safetensors file.",
        "impq-opt pack resnet20-fashion-mnist problem.toml allocation.json -o packed.safetensors",
    ),
    Command(
        "calibrate",
        "calibrate:calibrate",
        "Train and ship",
        "Bring a quantized network closer to the float one without training, step by step, and pack it.",
        "impq-opt calibrate resnet20-fashion-mnist PROBLEM allocation.json --data fashion-mnist -o packed.safetensors",
    ),
    Command(
        "unpack",
        "pack:unpack",
        "Train and ship",
        "Restore a network's quantized weights from a packed file, bit for bit.",
        "impq-opt unpack packed.safetensors -o state.safetensors",
    ),
    Command(
        "compile",
        "compile_:compile_",
        "Train and ship",
        "Write a quantized network as code in whole numbers: C99 without dependencies.",
        "impq-opt compile resnet20-fashion-mnist quantized --data fashion-mnist --to c -o code",
    ),
    Command(
        "export",
        "export:export",
        "Train and ship",
        "Write an allocation as another tool's configuration.",
        "impq-opt export problem.toml allocation.json --to torchao -o torchao.json",
    ),
    Command(
        "problems",
        "problems:problems",
        "Look up",
        "The gallery of problems, with where they come from.",
        "impq-opt problems resnet20-fashion-mnist",
    ),
    Command(
        "solvers",
        "solvers:solvers",
        "Look up",
        "The strategies, what each one proves, and its options.",
        "impq-opt solvers exact",
    ),
    Command(
        "methods",
        "methods:methods",
        "Look up",
        "The methods of quantizing weights and activations, with their sources, precisions and options.",
        "impq-opt methods lq-net",
    ),
    Command(
        "formats",
        "formats:formats",
        "Look up",
        "The formats of other tools, and what each cannot express.",
        "impq-opt formats torchao",
    ),
    Command(
        "encodings",
        "encodings:encodings",
        "Look up",
        "How engines store weights: exact bits with scales, blocks, and the rows that can be held.",
        "impq-opt encodings q4_k",
    ),
    Command(
        "completion",
        "completion:completion",
        "Look up",
        "Print a script that completes commands and options in bash, zsh or fish.",
        "impq-opt completion bash > /etc/bash_completion.d/impq-opt",
    ),
)


_STATUSES = (
    "Exit status: 0 solved; 1 infeasible, unproven or a failed check, or stdout is full; 2 wrong usage or bad input; "
    "3 a fault of impq-opt; 130 interrupted."
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
        console=help_console(),
        help_format="plaintext",
        help_formatter=Help(),
        group_parameters=Group("Options"),
        group_commands=Group("Options", sort_key=len(COMMANDS)),
        help_epilogue=f"Example: impq-opt solve --bound 0.01\n{_STATUSES}",
    )
    groups = {name: Group(name, sort_key=place) for place, name in enumerate(dict.fromkeys(c.group for c in COMMANDS))}
    for place, command in enumerate(COMMANDS):
        app.command(
            f"impq_opt.cli.{command.function}",
            name=command.name,
            group=groups[command.group],
            sort_key=place,
            help=command.help,
            help_epilogue=f"Example: {command.example}\n{_STATUSES}",
        )
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors end as one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _arguments.set(tuple(words))
    app = make_app()
    try:
        return _call(app, words)
    except CycloptsError as error:
        return _fail(of_parsing(error, words, [command.name for command in COMMANDS]), 2)
    except ImpqError as error:
        return _fail(in_shell_words(error, app, words), 1 if isinstance(error, SolverError | StreamError) else 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except MemoryError:
        return _fail("there is not enough memory for this", 1)
    except Exception as error:  # what nobody expected
        return _unexpected(error)


_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def invocation() -> str:
    """Return the command line of the command that is running, for provenance."""
    return visible(shlex.join(["impq-opt", *_arguments.get()]))


def _call(app: App, arguments: list[str]) -> int:
    status = app(arguments)
    sys.stdout.flush()
    return int(status or 0)


def _fail(sentence: str, status: int) -> int:
    say(sentence)
    return status


def _unexpected(error: Exception) -> int:
    if interrupted():  # an import or a library that was left in the middle fails in its own way
        return _fail("interrupted", 130)
    if debugging():
        raise error
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{place}the system says: {error.strerror}", 1)
    return _fail(
        "this is a fault of impq-opt and not of what you asked; please report it with what IMPQ_OPT_DEBUG=1 shows", 3
    )


def main() -> NoReturn:
    """Run the command line and exit."""
    own_streams()
    quiet_hooks()
    status = 130
    with contextlib.suppress(KeyboardInterrupt), signals():
        status = run()
        try:
            sys.stdout.flush()
        except StreamError as error:
            status = _fail(str(error), status or 1)
    exec("")  # one that Ctrl-C left would make Python end by a signal, not with the status
    sys.exit(status)
