"""The gallery: problems that ship with the package, each a file in ``problems/data`` with its provenance."""

from __future__ import annotations

from pathlib import Path

from impq_opt.errors import OptionError, nearest
from impq_opt.problem import Problem

__all__ = ["DEFAULT", "load", "names", "path"]

DEFAULT = "resnet20-fashion-mnist"

_DATA = Path(__file__).parent / "data"


def names() -> tuple[str, ...]:
    """Return the names of all shipped problems, the default first."""
    found = sorted(file.stem for file in _DATA.glob("*.toml"))
    return tuple(sorted(found, key=lambda name: name != DEFAULT))


def path(name: str) -> Path:
    """Return the file of the shipped problem called ``name``; raise OptionError with near names."""
    known = names()
    if name not in known:
        raise OptionError("no such problem in the gallery", value=name, hint=nearest(name, known) or "it is empty")
    return _DATA / f"{name}.toml"


def load(name: str = DEFAULT) -> Problem:
    """Return the shipped problem called ``name``; what it is and where it comes from stands in its ``provenance``."""
    from impq_opt.files import load_problem

    return load_problem(path(name))
