"""A mutant: one change of one file, and the tests that are to notice it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutant"]

# Where a file lies now, for those that were moved since the tables were written.
MOVED: dict[str, str] = {}


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``why`` says what it breaks, ``equivalent`` why no test can tell."""

    file: str
    tests: str
    why: str
    old: str
    new: str
    equivalent: str = ""

    @property
    def path(self) -> str:
        return MOVED.get(self.file, self.file)
