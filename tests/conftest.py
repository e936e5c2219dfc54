"""The marker ``peer``: a test that needs other people's packages, named in the mark.

It is skipped where one is not installed. With ``--peers`` that is a failure: where the peers should be there, none of
their tests may go missing in silence.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "worlds"))  # helper modules, by their names
# Tables are as wide as a terminal says, or as one of several test processes does; tests ask for widths themselves.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run torch on one thread, where a test file uses it, so that sums have one order."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peers", action="store_true", help="fail where a package that a test needs is not installed")


def pytest_runtest_setup(item: Any) -> None:
    wanted = [package for mark in item.iter_markers("peer") for package in mark.args]
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    if missing:
        told = pytest.fail if item.config.getoption("--peers") else pytest.skip
        told(f"not installed: {', '.join(missing)}")
