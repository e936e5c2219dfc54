"""Wrong inputs, and what is said of each: the shape of the tables that tests hold, and what runs them in process.

A command gets a folder with good files (:func:`good_files`) and its own wrong ones. It must end with its status, print
nothing but one sentence on stderr, and leave no file behind.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from impq_opt import Group, Problem, solve
from impq_opt.cli import run
from impq_opt.errors import ImpqError
from impq_opt.files import save_allocation, save_problem

# Words of Python and of parsers that nobody who types a command should have to read.
_LEAKS = re.compile(
    r"Traceback|NoneType|dtype|Fraction\(|np\.|invalid literal|has no attribute|not subscriptable|Expected `|"
    r"Expecting |char 0|\bgot None\b|fault of impq-opt|No module named|codec"
)


@dataclass(frozen=True)
class Wrong:
    """A command line, a distinctive part of what it says, and the files that it is about.

    Parameters
    ----------
    command : str
        As it is typed behind ``impq-opt``, in the folder of the files.
    says : str
        A part of the sentence, to the letter.
    files : mapping of str to str or bytes
        Besides :func:`good_files`.
    status : int
    """

    command: str
    says: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    status: int = 2


def good_files(folder: Path) -> None:
    """Write ``problem.toml`` and its answer ``answer.json``, two layers, to a folder."""
    groups = [
        Group("conv", size=100, sensitivity=1.0, bits=(2, 4, 8)),
        Group("fc", size=200, sensitivity=0.5, bits=(2, 4, 8)),
    ]
    problem = Problem.declare(groups, bound=0.02)
    save_problem(problem, folder / "problem.toml")
    save_allocation(solve(problem), folder / "answer.json")


def check_command(wrong: Wrong, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a wrong command in ``folder``, which is the working directory, and hold it to its row of the table."""
    for name, content in wrong.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    status = run(shlex.split(wrong.command))
    printed = capsys.readouterr()
    assert wrong.says in printed.err, printed.err
    assert status == wrong.status, printed.err
    assert printed.out == ""
    assert printed.err.startswith("impq-opt: ") and printed.err.count("\n") == 1, printed.err
    assert not _LEAKS.search(printed.err), printed.err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def check_call(source: str, says: str, names: Mapping[str, Any]) -> None:
    """Evaluate a wrong expression over ``names``, and hold what it raises to its row of the table."""
    with pytest.raises(ImpqError) as raised:
        eval(source, dict(names))
    said = str(raised.value)
    assert says in said, said
    assert "\n" not in said
    assert not re.search(r"Traceback|NoneType|invalid literal|has no attribute|Expected `|fault of impq-opt", said), (
        said
    )
