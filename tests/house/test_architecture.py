"""The table of rooms in ARCHITECTURE.md, held against what every module imports, annotations and late imports too."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter

from imports import IMPORTS, MODULES, ROOT


def rooms() -> list[list[str]]:
    """Return the rooms of each row, from the ground up."""
    table = (ROOT / "ARCHITECTURE.md").read_text().split("| room |")[1].split("\n\n")[0]
    return [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in table.splitlines()[2:]]


ROOMS = rooms()


def floor(module: str) -> int:
    """Return the row of the table that has ``module``, by its own name or else by its folder's."""
    path = module.replace(".", "/")
    named = [k for k, row in enumerate(ROOMS) if any(fnmatchcase(path, room) for room in row)]
    inside = [k for k, row in enumerate(ROOMS) if f"{path.split('/')[0]}/" in row]
    found = named or inside
    assert len(found) == 1, f"{module} stands in {len(found)} rows of the table"
    return found[0]


def test_every_module_has_one_room_and_every_room_is_there() -> None:
    for module in MODULES:
        floor(module)
    paths = [name.replace(".", "/") for name in MODULES]
    places = {*paths, *(f"{path.split('/')[0]}/" for path in paths)}
    for room in (room for row in ROOMS for room in row):
        assert any(fnmatchcase(place, room) for place in places), room


def test_no_module_imports_what_stands_below_it() -> None:
    low = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if floor(other) > floor(module)
    ]
    assert not low, "\n".join(sorted(low))


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
