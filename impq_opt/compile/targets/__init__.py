"""Back ends, one file each, by the name that ``--to`` takes.

A new one is a file with a function from a program to what it is written as, and a line in :data:`TARGETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from impq_opt.compile.program import Program
from impq_opt.compile.targets.base import Compiled, Size
from impq_opt.registry import look_up

__all__ = ["TARGETS", "Compiled", "Size", "load_target"]

TARGETS: dict[str, str] = {
    "c": "impq_opt.compile.targets.c:compile_c",  # C99 without dependencies
}


def load_target(name: str) -> Callable[[Program], Compiled]:
    """Return the function that writes programs for a target.

    Raises
    ------
    OptionError
        No such target, with near matches.
    """
    module, _, function = look_up(TARGETS, name, "target", "--to").partition(":")
    found: Callable[[Program], Compiled] = getattr(import_module(module), function)
    return found
