"""What another tool chose: for each group, the candidate that its configuration gives it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from impq_opt.documents.reading import read_json
from impq_opt.errors import FileError, InputError
from impq_opt.exchange.base import Format
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["Chooser", "Said", "first_rules"]

Said = tuple[str | float, ...]
"""A candidate as a configuration tells it: a name, or a precision as the problem states it; the first known counts."""

# An escaped name between anchors, which needs no search: configurations of large models have one rule a tensor.
_EXACT = re.compile(r"\^((?:[^\\.^$*+?{}\[\]|()]|\\[^a-zA-Z0-9])*)\$")


class Chooser(Format):
    """A format in which a tool tells what it chose."""

    @abstractmethod
    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return what ``configuration``, in the tool's own shape, says of the groups or layers of ``problem``.

        Names are those of groups, labels or layers, with or without a last ``.weight``. What it says of others may be
        in it, and counts for nothing.
        """

    def load_choice(self, path: Path) -> Any:
        """Return the configuration in the file at ``path``; JSON unless the format says otherwise."""
        return read_json(path)

    def read_choice(self, path: str | Path, problem: Problem) -> IntArray:
        """Return the candidate (G,) that the file at ``path`` gives each group.

        Parameters
        ----------
        path : path
        problem : Problem
            Whose groups and candidates these are.

        Raises
        ------
        FileError
            What cannot be read as this format, a group of which it says nothing, or a candidate that a group lacks.
        """
        place = Path(path)
        configuration = self.load_choice(place)
        try:
            return _columns(self.choice(configuration, problem), problem, self.name)
        except InputError as error:
            raise error.within(place.name or str(place)) from None


def _columns(chosen: Mapping[str, Said], problem: Problem, called: str) -> IntArray:
    names, numbers = problem.names, problem.candidates.numbers(len(problem))
    columns = np.empty(len(problem), dtype=np.int64)
    known: dict[tuple[int, Said], int] = {}
    untold: list[str] = []

    def fill(groups: IntArray, said: Said) -> None:
        for number in np.unique(numbers[groups]).tolist():
            members = groups[numbers[groups] == number]
            key = (number, said)
            if key not in known:
                known[key] = _column(problem, int(members[0]), said)
            columns[members] = known[key]

    for place, (label, layer) in enumerate(zip(names.labels, names.layers, strict=True)):
        groups = names.groups_of([place])
        told = _told(chosen, label, layer)
        if told is not None:
            fill(groups, told)
            continue
        for group in groups.tolist():
            said = _told(chosen, names[group])
            if said is None:
                untold.append(names[group])
            else:
                fill(np.array([group]), said)
    if untold:
        raise FileError(
            f"says nothing of {len(untold):,} of {len(problem):,} groups",
            where=untold[0],
            hint=f"is it what {called} chose for this problem? import --weights-only leaves out activations",
        )
    return columns


def _told(chosen: Mapping[str, Said], *names: str) -> Said | None:
    for name in names:
        for called in (name, name.removesuffix(".weight"), f"{name}.weight"):
            if called in chosen:
                return chosen[called]
    return None


def _column(problem: Problem, group: int, said: Said) -> int:
    candidates, number = problem.candidates, problem.candidates.number_of(group)
    folded = [label.casefold() for label in candidates.labels(number)]
    for alternative in said:
        if isinstance(alternative, str):
            # by name alone: four bits with their scales may be as wide as five without
            column = folded.index(alternative.casefold()) if alternative.casefold() in folded else None
        else:
            column = candidates.position(number, alternative)
        if column is not None:
            return column
    raise FileError(
        "is not among its candidates",
        where=problem.names[group],
        value=said[0],
        hint=f"it has {', '.join(candidates.labels(number))}",
    )


def first_rules(
    rules: Sequence[tuple[str, Any]], names: Iterable[str], *, anchored: bool, where: str
) -> dict[str, Any]:
    """Return by name what the first rule says whose regular expression is found in it.

    Parameters
    ----------
    rules : sequence of (str, object)
        Regular expressions, and what they say.
    names : iterable of str
    anchored : bool
        Whether an expression must match from the first letter on (``re.match``), or anywhere (``re.search``).
    where : str
        What the rules are called, for the error.

    Raises
    ------
    FileError
        For what is no regular expression.
    """
    exact: dict[str, int] = {}
    searched: list[tuple[int, re.Pattern[str]]] = []
    for place, (expression, _) in enumerate(rules):
        plain = _EXACT.fullmatch(expression)
        if plain:
            exact.setdefault(re.sub(r"\\(.)", r"\1", plain[1]), place)
            continue
        try:
            searched.append((place, re.compile(expression)))
        except re.error as error:
            raise FileError(f"is no regular expression: {error}", where=where, value=expression) from None
    found = {}
    for name in names:
        at = exact.get(name, len(rules))
        for place, pattern in searched:
            if place > at:
                break
            if pattern.match(name) if anchored else pattern.search(name):
                at = place
                break
        if at < len(rules):
            found[name] = rules[at][1]
    return found
