"""A problem as a target sees it: its precisions in place of plain bits, at the bits that they really take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable
from impq_opt.problem.problem import Problem

__all__ = ["LEFT_ALONE", "Precision", "restate"]

Take = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Precision:
    """One precision that a target stores.

    Parameters
    ----------
    name : str
        What the target calls it.
    bits : int
        Bits of one element; 16 and more are not quantized.
    entry : object
        What stands in the target's configuration; None where the layer is left alone.
    block : int
        Elements that share a scale (and zero point); 0 where a whole output channel or tensor shares one, which costs
        the same at every precision and is left out.
    overhead : int
        Bits of scale and zero point for each block, of what has the same type in every network.
    scales : int
        Numbers of each block that have the type of the network's weights.
    held : {"codes", "bytes", "network"}
        An element takes ``bits``, a whole byte whatever its bits, or as much as in the network, which is left alone.
    """

    name: str
    bits: int
    entry: Any = None
    block: int = 0
    overhead: int = 0
    scales: int = 0
    held: Literal["codes", "bytes", "network"] = "codes"

    def holds(self, length: int) -> bool:
        """Return whether rows of ``length`` elements are a whole number of blocks; 0 is a length that nobody knows."""
        return not self.block or length % self.block == 0

    def width(self, stored: int | Fraction) -> Fraction:
        """Return bits per element, scales and zero points included, in a network that stores a weight in ``stored``."""
        element = {"codes": self.bits, "bytes": 8, "network": stored}[self.held]
        return element + ((self.overhead + self.scales * Fraction(stored)) / self.block if self.block else Fraction(0))


# A layer that the target leaves alone.
LEFT_ALONE = Precision("16", 16, held="network")


def restate(problem: Problem, weights: Sequence[Precision], inputs: Sequence[Precision], target: str) -> Problem:
    """Return ``problem`` with each candidate replaced by the target's precisions of the same name or bits.

    Parameters
    ----------
    weights, inputs
        What the target stores for weights and for activations.
    target : str
        For messages.

    Raises
    ------
    ProblemError
        Where a group, or a pin, is left without a precision.
    """
    free, problem = problem.free_unmeasured, problem.revise(free_unmeasured=True)  # its own pins are made anew
    old = problem.candidates
    lengths = np.zeros(len(problem), dtype=np.int64) if problem.lengths is None else problem.lengths
    held = [lengths % block == 0 for block in sorted({p.block for p in weights if p.block})]
    keys = np.stack([old.numbers(len(problem)), ~problem.weights(), *held], axis=1)
    kept, set_of = np.unique(keys, axis=0, return_inverse=True)
    set_of = set_of.reshape(-1)
    rows = []
    for number, (old_set, is_input, *_) in enumerate(kept.tolist()):
        group = int(np.argmax(set_of == number))
        length = int(lengths[group])
        table = inputs if is_input else [precision for precision in weights if precision.holds(length)]
        row = _matches(old, old_set, table, problem.stored)
        if not row:
            what = ("an input of a layer may have" if inputs else "activations") if is_input else "it stores"
            offered = ", ".join(precision.name for precision in table) or "are not quantized"
            raise ProblemError(
                f"no candidate is one that {target} can store" + _in_rows(len(table) < len(weights), is_input, length),
                where=f"{problem.names[group]}.bits",
                value=list(old.labels(old_set)),
                hint=f"{what} {offered}",
            )
        rows.append(row)
    candidates = Candidates(
        tuple(tuple(float(precision.width(problem.stored)) for _, precision in row) for row in rows),
        None if len(rows) == 1 else set_of,
        tuple(tuple(precision.name for _, precision in row) for row in rows),
    )
    columns = np.array([[row[min(k, len(row) - 1)][0] for k in range(candidates.width)] for row in rows])
    index = columns[set_of]  # (G, K) columns of the old tables

    def take(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.take_along_axis(values, index, axis=1)

    return replace(
        problem,
        candidates=candidates,
        damage=_damage(problem, take),
        interactions=None if problem.interactions is None else problem.interactions.with_columns(index),
        costs=tuple(term.with_columns(take) for term in problem.costs),
        pins={group: _pinned(problem, group, column, index, target) for group, column in problem.pins.items()},
        free_unmeasured=free,
    )


def _in_rows(fewer: bool, is_input: int, length: int) -> str:
    return f" in rows of {length}" if fewer and not is_input else ""


def _matches(
    old: Candidates, number: int, table: Sequence[Precision], stored: int | Fraction
) -> list[tuple[int, Precision]]:
    """Return (old column, precision) for each precision that stands for a candidate of set ``number``.

    Of several that stand for one candidate at one width only the first is kept: nothing here tells them apart.
    """
    labels = [label.casefold() for label in old.labels(number)]
    kept: dict[tuple[int, Fraction], Precision] = {}
    for precision in table:
        for column, (label, bits) in enumerate(zip(labels, old.sets[number], strict=True)):
            plain = not old.formats and not old.numbered and precision.bits == bits
            if plain or precision.name.casefold() == label:
                kept.setdefault((column, precision.width(stored)), precision)
    return [(column, precision) for (column, _), precision in kept.items()]


def _damage(problem: Problem, take: Take) -> DamageTable:
    if isinstance(problem.damage, DamageTable):
        errors = problem.damage.stderr
        return DamageTable(take(problem.damage.values), None if errors is None else take(errors))
    law, old = problem.damage, problem.candidates
    scale = np.zeros((len(problem), old.width))
    for number, widths in enumerate(old.sets):
        scale[old.members(number, len(problem)), : len(widths)] = law.scale(widths)
    scale = take(scale)
    return DamageTable(law.sensitivity[:, None] * scale, None if law.stderr is None else law.stderr[:, None] * scale)


def _pinned(problem: Problem, group: int, column: int, index: npt.NDArray[np.int64], target: str) -> int:
    columns = np.flatnonzero(index[group] == column)
    if not len(columns):
        raise ProblemError(f"is pinned to a precision that {target} does not store", where=problem.names[group])
    return int(columns[0])
