"""Runs the examples of a Markdown file, in order, in one folder.

* ``console`` blocks: lines that begin with ``$ `` are run by bash, 80 columns wide, without colour; the lines below
  each are its whole output (stdout, then stderr). ``...`` stands for any text, on a line of its own for any lines. A
  command without lines below it may print anything. The status must be 0; ``$ echo $?`` shows another one. Only
  ``impq-opt`` and ``cat`` are run; ``pip``, ``git`` and ``pytest`` are left to set-up; anything else is an error.
* ``python`` blocks share their names. ``print(...)  # text`` must print that text. Blocks with ``>>>`` are doctests.
* ``toml`` blocks whose first line is ``# NAME.toml`` become that file, which must be a problem.
* ``<!-- not run: REASON -->`` on the line before a block skips it.
* ``sh`` and ``bash`` blocks hold set-up only.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impq_opt import files

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<skip>[^\n]+?) -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_SET_UP = ("pip", "git", "pytest", "cd", "python -m venv", ".")
_RUN = ("impq-opt", "cat", "echo $?")


class ExampleError(AssertionError):
    """An example does not do what the text says."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, line number, and why it is not run."""

    language: str
    body: str
    line: int
    skip: str = ""


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text."""
    return [
        Block(m["language"], m["body"], text.count("\n", 0, m.start("body")), (m["skip"] or "").strip())
        for m in _BLOCK.finditer(text)
    ]


@dataclass
class Examples:
    """What the blocks so far have left behind: files, names, the last exit status."""

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__readme__"})
    status: int = 0

    def run(self, block: Block) -> None:
        """Run one block; raise ExampleError where it does not do what it shows."""
        if block.skip:
            return
        run = {
            "console": self._console,
            "python": self._python,
            "toml": self._toml,
            "sh": self._set_up,
            "bash": self._set_up,
        }.get(block.language)
        if run is not None:
            run(block)

    # -- console -------------------------------------------------------------------------------------------------

    def _console(self, block: Block) -> None:
        commands = list(_commands(block.body))
        if not commands:
            raise ExampleError(f"line {block.line}: a console block without a '$ ' line")
        for command, expected in commands:
            if command.startswith(_SET_UP):
                continue
            if not command.startswith(_RUN):
                raise ExampleError(f"line {block.line}: {command!r} is not run by these tests")
            if command == "echo $?":
                _compare(str(self.status), expected, block)
                self.status = 0
                continue
            self._finish(block)
            out = self._shell(command)
            if expected:
                _compare(out, expected, block)
        if commands[-1][0] != "echo $?":
            self._finish(block)

    def _finish(self, block: Block) -> None:
        status, self.status = self.status, 0
        if status:
            raise ExampleError(f"line {block.line}: exit status {status}; show it with '$ echo $?'")

    def _shell(self, command: str) -> str:
        shim = self.folder / ".bin" / "impq-opt"
        if not shim.exists():
            shim.parent.mkdir()
            shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m impq_opt "$@"\n')
            shim.chmod(0o755)
        environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "PYTHONPATH")}
        environment |= {
            "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        self.status = done.returncode
        if "Traceback" in done.stderr:
            raise ExampleError(f"$ {command}\n{done.stderr}")
        return done.stdout + done.stderr

    # -- python --------------------------------------------------------------------------------------------------

    def _python(self, block: Block) -> None:
        with contextlib.chdir(self.folder) if sys.version_info >= (3, 11) else _chdir(self.folder):
            if block.body.lstrip().startswith(">>>"):
                self._doctest(block)
            else:
                self._statements(block)

    def _doctest(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(block.body, self.names, "README", "README.md", block.line)
        report = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        if runner.run(test, out=report.write, clear_globs=False).failed:
            raise ExampleError(report.getvalue())
        self.names |= test.globs

    def _statements(self, block: Block) -> None:
        lines = block.body.splitlines()
        for statement in ast.parse(block.body).body:
            code = compile(
                ast.Module([statement], []), f"README.md, block at line {block.line}", "exec", dont_inherit=True
            )
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, self.names)
            assert statement.end_lineno is not None
            shown = re.search(r"\)\s+# (.+)$", lines[statement.end_lineno - 1])
            if shown and ast.unparse(statement).startswith("print("):
                _compare(printed.getvalue(), shown[1], block)

    # -- the others ----------------------------------------------------------------------------------------------

    def _toml(self, block: Block) -> None:
        name = re.match(r"# (\S+\.toml)\n", block.body)
        if name is None:
            return
        path = self.folder / name[1]
        path.write_text(block.body)
        files.load_problem(path)

    def _set_up(self, block: Block) -> None:
        for line in block.body.splitlines():
            for part in line.split("&&"):
                command = part.split("#")[0].strip()
                if command and not command.startswith((*_SET_UP, "impq-opt solve --bound 0.01")):
                    raise ExampleError(f"line {block.line}: {command!r} belongs into a console block, to be run")


def _commands(body: str) -> list[tuple[str, str]]:
    """Return commands with the output that is shown for each."""
    found: list[tuple[str, list[str]]] = []
    lines = iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).strip()
            found.append((command.strip(), []))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise ExampleError(f"output before any command: {line!r}")
    return [(command, "\n".join(shown).strip("\n")) for command, shown in found]


def _compare(found: str, expected: str, block: Block) -> None:
    """Compare whole outputs; blanks at the ends of lines do not count."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    parts = re.split(r"^\.\.\.$\n?|\.\.\.", tidy(expected) + "\n", flags=re.MULTILINE)
    if not re.fullmatch(".*?".join(map(re.escape, parts)), tidy(found) + "\n", re.DOTALL):
        raise ExampleError(f"line {block.line}: shown is\n{tidy(expected)}\n\nfound is\n{tidy(found)}")


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[Any]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
