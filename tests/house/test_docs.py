"""The documentation: its examples run in order, and it builds without a warning."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from impq_opt.cli import run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts)
OF_THE_TESTS = {"torch", "sklearn", "matplotlib"}  # in the extra ``test``
BLOCK = re.compile(r"^```(python|console)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Any) -> list[Any]:
    """Return (line, language, code) of the examples of a page that are meant to run."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 2, match[1], match[3])
        for match in BLOCK.finditer(text)
        if "no-run" not in match[2]
    ]


def needs(page: Any) -> Any:
    """Return the peers that a page needs: what the tests themselves need is there, and examples run once."""
    found = re.match(r"---\nneeds: \[(.*?)\]\n---", (DOCS / page).read_text(encoding="utf-8"))
    return [name for name in re.findall(r"\w+", found[1]) if name not in OF_THE_TESTS] if found else []


@pytest.mark.filterwarnings("ignore")  # the tools that examples call warn of their own affairs
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.peer(*needs(page)) if needs(page) else ()) for page in PAGES if blocks(page)],
)
def test_examples_run(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for line, language, code in blocks(page):
        if language == "python":
            # Line numbers of the page, so that a failure is found.
            source = "\n" * (line - 1) + textwrap.dedent(code)
            exec(compile(source, str(DOCS / page), "exec", dont_inherit=True), names)
            continue
        for command in re.findall(r"^\$ impq-opt (.*)$", code, re.MULTILINE):
            assert run(shlex.split(command)) == 0, (command, capsys.readouterr().err)


NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run one after the other as Jupyter runs them, the last line of each is shown, and no output is kept."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (4, "python")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        *statements, last = ast.parse("".join(cell["source"])).body
        place = f"{path.name}, cell {number}"
        exec(compile(ast.Module(statements, []), place, "exec", dont_inherit=True), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), place, "eval", dont_inherit=True), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
        else:
            exec(compile(ast.Module([last], []), place, "exec", dont_inherit=True), names)
    assert sum("<svg" in text for text in shown) >= 3  # the problem, the answer, the frontier
    assert max(map(len, shown)) < 30_000


def test_every_page_is_reached() -> None:
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    listed = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    assert listed == {page.removesuffix(".md") for page in PAGES} - {"index"}


def test_the_page_of_commands_says_what_they_say() -> None:
    """``python docs/commands.py`` writes it anew."""
    page = runpy.run_path(str(DOCS / "commands.py"))["page"]()
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == page
    for name in ("measure", "solve", "pack"):
        assert f"\n## {name}\n" in page
    assert "`--bound FLOAT`" in page


@pytest.mark.peer("sphinx", "myst_parser", "numpydoc", "furo", "latex2mathml")
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "index.html").exists()
