"""Errors, each one sentence that says what, where and which value, and then a hint.

::

    ImpqError
    ├── InputError (ValueError)
    │   ├── ProblemError        a declaration that cannot be a problem
    │   ├── AllocationError     an allocation that does not belong to its problem
    │   ├── FileError           a file that is missing, foreign, truncated or unwritable
    │   ├── OptionError         an unknown name or an option out of range
    │   └── DataError           a network or a data set that cannot be measured
    ├── UnsupportedError        the problem has a feature that the solver does not handle
    ├── SolverError             a solver broke its contract (wrong shape, impossible bound)
    └── MissingPackageError (ImportError)
"""

from __future__ import annotations

import difflib
import heapq
import itertools
from collections.abc import Iterable
from fractions import Fraction

from impq_opt.text import shortened, visible

__all__ = [
    "AllocationError",
    "DataError",
    "FileError",
    "ImpqError",
    "InputError",
    "MissingPackageError",
    "OptionError",
    "ProblemError",
    "SolverError",
    "UnsupportedError",
    "close_names",
    "first_line",
    "nearest",
]


# Letters of a place, of what quotes a file or another package, and of all: names may have thousands.
_LONGEST_PLACE, _LONGEST_PART, _LONGEST = 300, 600, 1600
_MOST_MATCHED = 300


class ImpqError(Exception):
    """Base of every error that this package raises on purpose; in words it is one line, whatever it quotes."""

    def __str__(self) -> str:
        return shortened(visible(super().__str__()), _LONGEST)


class InputError(ImpqError, ValueError):
    """Something given by the caller is wrong.

    Parameters
    ----------
    what : str
        The rule that was broken, e.g. ``"must be positive"``.
    where : str
        The place, e.g. ``"problem.toml: groups[3].size"``.
    value : object
        The offending value; left out of the message when not given.
    hint : str
        What to do about it.
    """

    def __init__(self, what: str, *, where: str = "", value: object = ..., hint: str = "") -> None:
        self.what, self.where, self.value, self.hint = what, where, value, hint
        message = shortened(what, _LONGEST_PART)
        message = f"{shortened(where, _LONGEST_PLACE)}: {message}" if where else message
        if value is not ...:
            message += f", got {_brief(value)}"
        if hint:
            message += f" ({shortened(hint, _LONGEST_PART)})"
        super().__init__(message)

    def within(self, place: str) -> InputError:
        """Return the same error with ``place`` put before its location."""
        where = f"{place}: {self.where}" if self.where else place
        return type(self)(self.what, where=where, value=self.value, hint=self.hint)


class ProblemError(InputError):
    """A declaration that cannot be a problem."""


class AllocationError(InputError):
    """An allocation that does not belong to its problem."""


class FileError(InputError):
    """A file that is missing, foreign, truncated or cannot be written."""


class OptionError(InputError):
    """An unknown name, or an option outside its range."""


class DataError(InputError):
    """A network or a data set that cannot be measured."""


class UnsupportedError(ImpqError):
    """The problem has a feature that the chosen solver does not handle."""


class SolverError(ImpqError):
    """A solver broke its contract; its answer was thrown away."""


class MissingPackageError(ImpqError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install {install}")


def nearest(name: str, known: Iterable[str], *, most: int = 12) -> str:
    """Return a hint naming the known names nearest to ``name``, else the first, at ``most`` so many."""
    names = sorted(set(known))
    close = close_names(name, names)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if len(names) > most:
        return f"known are {', '.join(names[:most])} and {len(names) - most:,} more"
    return f"known are {', '.join(names)}" if names else ""


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names nearest to ``name``, at most three; one in other capitals is as near as can be."""
    folded: dict[str, list[str]] = {}
    for spelled in known:
        folded.setdefault(spelled.casefold(), []).append(spelled)
    wanted = name.casefold()
    close = difflib.get_close_matches(wanted, _shortlist(wanted, list(folded)), n=3, cutoff=0.5)
    return [spelled for fold in close for spelled in folded[fold]][:3]


def _shortlist(name: str, names: list[str]) -> list[str]:
    """Return at most a few hundred names, those that begin and end most as ``name`` does: matching is slow."""
    if len(names) <= _MOST_MATCHED:
        return names

    def ends(other: str) -> int:
        return _alike(name, other) + _alike(reversed(name), reversed(other))

    return heapq.nlargest(_MOST_MATCHED, names, key=ends)


def _alike(left: Iterable[str], right: Iterable[str]) -> int:
    """Return with how many letters both begin."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def first_line(error: BaseException) -> str:
    """Return the first line of what another program's error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _brief(value: object) -> str:
    if value is None:
        return "nothing"
    try:
        text = str(value) if isinstance(value, Fraction) else repr(value)
    except ValueError:  # Python writes out no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."
