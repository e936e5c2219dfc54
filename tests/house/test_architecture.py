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


def storeys() -> tuple[dict[str, int], int]:
    """Return the storey of every room, that of one that imports nothing being 0, and how many rooms import another."""
    of = {
        room: {o.split(".")[0] for m in MODULES if m.split(".")[0] == room for o in IMPORTS[m]} - {room}
        for room in {m.split(".")[0] for m in MODULES}
    }
    storey: dict[str, int] = {}
    for room in TopologicalSorter(of).static_order():
        storey[room] = 1 + max((storey[other] for other in of[room]), default=-1)
    return storey, sum(map(len, of.values()))


def test_the_drawing_is_the_house() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().split("## The house, drawn")[1].split("## ")[0]
    drawn: dict[str, int] = {}
    for line in text.split("```")[1].splitlines()[1:]:
        number, *rooms = re.split(r"\s{2,}", line.strip())
        drawn |= {room.split(" ")[0]: int(number) for room in rooms if not room.startswith("the face")}
    storey, arrows = storeys()
    assert drawn == storey
    assert f"{len(storey)} rooms in {max(storey.values()) + 1} storeys, {arrows} pairs" in " ".join(text.split())


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
