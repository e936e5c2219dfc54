"""What README and tutorial show passes a strict type checker as it stands; so do the ways to give numbers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from readme import ROOT, blocks_of

# What README has no room for.
MORE = """
from decimal import Decimal
from fractions import Fraction

import numpy as np

import impq_opt

problem = impq_opt.problems.load("resnet20-fashion-mnist")
found = impq_opt.solve(problem, bound=Decimal("0.01"))
width: float = found[0]
total: float = sum(bits for _, bits in found)
sizes: list[int] = [group.size for group in problem if group.kind == "weight"]
impq_opt.allocate([[1, 2], [1, 2, 5]], [[0.5, 0.1], [0.3, 0.2, 0.0]], budget=Fraction(3))
impq_opt.allocate([[Fraction(1), 2]], [[Decimal("0.5"), 0.1]], 0.2)
impq_opt.allocate(np.ones((2, 2)), [np.ones(2), np.ones(2)], 3)
points: list[tuple[float, float]] = list(impq_opt.frontier(problem))
same: bool = found == impq_opt.solve(problem.revise(pins={"kind:activation": 8}, weights_only=True), bound=found)
record: dict[str, object] = found.to_dict()
"""


def python_of(page: str) -> str:
    """Return the Python of a page that is meant to run, one block after the other."""
    blocks = blocks_of((ROOT / page).read_text(encoding="utf-8").replace("```python no-run", "```text"))
    return "\n".join(block.body for block in blocks if block.language == "python" and not block.skip)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_examples_pass_a_strict_type_checker(tmp_path: Path) -> None:
    pages = {"lines_readme": python_of("README.md"), "lines_tutorial": python_of("docs/tutorial.md"), "more": MORE}
    pages["wrong"] = "import impq_opt\n\nimpq_opt.allocate([[1]], [[1]], bound=[])\n"  # is anything checked at all?
    for name, text in pages.items():
        assert "impq_opt" in text
        (tmp_path / f"{name}.py").write_text(text)
    # The project's own settings, which are strict, and what its own run has kept: a few seconds in place of twenty.
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", ".mypy_cache"]
    command += [str(tmp_path / f"{name}.py") for name in pages]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert [line for line in lines if "error:" in line and "wrong.py:3" not in line] == [], done.stdout + done.stderr
    assert any("wrong.py:3: error:" in line for line in lines), done.stdout + done.stderr
