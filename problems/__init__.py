"""The gallery: problems that ship with the package, each with its provenance.

Measured ones are files in ``problems/data``; synthetic ones, and those with further limits, are made when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from impq_opt.errors import OptionError, nearest
from impq_opt.problem.problem import Problem

__all__ = ["DEFAULT", "load", "names", "path"]

DEFAULT = "resnet20-fashion-mnist"

_DATA = Path(__file__).parent / "data"


def _mobilenet(granularity: str) -> Problem:
    from impq_opt.problems.mobilenet import mobilenet_v1

    return mobilenet_v1(granularity=granularity)


def _microcontroller() -> Problem:
    from impq_opt.problems.mobilenet import microcontroller

    return microcontroller()


def _on_microcontroller(name: str) -> Problem:
    from impq_opt.problems.mobilenet import on_microcontroller

    return on_microcontroller(load(name))


_MADE: dict[str, Callable[[], Problem]] = {
    "mobilenet-v1-imagenet-microcontroller": lambda: _on_microcontroller("mobilenet-v1-imagenet"),
    "mobilenet-v1-imagenet-microcontroller-kernel": lambda: _on_microcontroller("mobilenet-v1-imagenet-kernel"),
    "mobilenet-v1-synthetic": lambda: _mobilenet("layer"),
    "mobilenet-v1-synthetic-kernel": lambda: _mobilenet("kernel"),
    "mobilenet-v1-synthetic-microcontroller": _microcontroller,
}


def names() -> tuple[str, ...]:
    """Return the names of all shipped problems, the default first."""
    shipped = sorted([*(file.stem for file in _DATA.glob("*.toml")), *_MADE])
    return tuple(sorted(shipped, key=lambda name: name != DEFAULT))


def path(name: str) -> Path:
    """Return the file of the measured problem called ``name``; raise OptionError with near names."""
    known = [measured for measured in names() if measured not in _MADE]
    if name not in known:
        raise OptionError("no such problem in the gallery", value=name, hint=nearest(name, known) or "it is empty")
    return _DATA / f"{name}.toml"


def load(name: str = DEFAULT) -> Problem:
    """Return the shipped problem called ``name``; what it is and where it comes from stands in its ``provenance``.

    Raises
    ------
    OptionError
        Where there is none of that name, with near ones.
    """
    from impq_opt.files import load_problem

    if name in _MADE:
        return _MADE[name]()
    if name not in names():
        raise OptionError("no such problem in the gallery", value=name, hint=nearest(name, names()))
    return load_problem(path(name))
