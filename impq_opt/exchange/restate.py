"""A problem as a target sees it: its precisions in place of plain bits, at the bits that they really take."""

from __future__ import annotations

import math
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
    on_grid : bool
        Weights are rounded as :meth:`.base.Writer.grid` says; else damages on that grid say nothing of it.
    """

    name: str
    bits: int
    entry: Any = None
    block: int = 0
    overhead: int = 0
    scales: int = 0
    held: Literal["codes", "bytes", "network"] = "codes"
    on_grid: bool = True

    def width(self, stored: int | Fraction, length: int = 0) -> Fraction:
        """Return bits per element, scales and zero points included, in a network that stores a weight in ``stored``.

        Of an output kernel of ``length`` elements, whose last block may be shorter, or of whole blocks where it is 0.
        What is no finite decimal is rounded up to a 1024th of a bit, so that sums of costs stay exact.
        """
        element = {"codes": self.bits, "bytes": 8, "network": stored}[self.held]
        if not self.block:
            return Fraction(element)
        shares = Fraction(-(-length // self.block), length) if length else Fraction(1, self.block)
        width = element + (self.overhead + self.scales * Fraction(stored)) * shares
        finite = 10**9 % width.denominator == 0
        return width if finite else Fraction(math.ceil(width * 1024), 1024)

    def holds(self, length: int) -> bool:
        """Return whether an output kernel of ``length`` elements is of whole blocks; 0 is an unknown length."""
        return not (self.block and length % self.block)


# A layer that the target leaves alone.
LEFT_ALONE = Precision("16", 16, held="network")


def restate(
    problem: Problem,
    weights: Sequence[Precision],
    inputs: Sequence[Precision],
    target: str,
    *,
    short: bool = False,
    uncut: frozenset[str] = frozenset(),
) -> Problem:
    """Return ``problem`` with each candidate replaced by the target's precisions of the same name or bits.

    Parameters
    ----------
    weights, inputs
        What the target stores for weights and for activations.
    target : str
        For messages.
    short : bool
        Whether the last block of an output kernel may have fewer elements. Where it may not, precisions whose blocks do
        not divide a kernel are none of its layer's; kernels of unknown length are taken to be of whole blocks.
    uncut : frozenset of str
        Kinds of layers whose weights have no precisions with blocks.

    Raises
    ------
    ProblemError
        Where a group, or a pin, is left without a precision.
    """
    free, problem = problem.free_unmeasured, problem.revise(free_unmeasured=True)  # its own pins are made anew
    old = problem.candidates
    kernels = _kernels(problem, weights)
    whole = _uncut(problem, uncut)
    keys = np.stack([old.numbers(len(problem)), ~problem.weights(), kernels, whole], axis=1)
    kept, set_of = np.unique(keys, axis=0, return_inverse=True)
    set_of = set_of.reshape(-1)
    rows, lengths = [], kept[:, 2].tolist()
    for number, (key, input_, length, uncut_) in enumerate(kept.tolist()):
        stored = inputs if input_ else weights
        offered = [p for p in stored if not p.block or ((short or p.holds(length)) and not uncut_)]
        row = _matches(old, key, offered, problem.stored, length)
        if not row:
            group = int(np.argmax(set_of == number))
            what = ("an input of a layer may have" if inputs else "activations") if input_ else "it stores"
            hint = f"{what} {', '.join(p.name for p in offered) or 'are not quantized'}"
            if uncut_:
                hint += f" of {problem.types[problem.names.labels[int(problem.names.label_of[group])]]}"
            elif len(offered) < len(stored):
                blocks = " or ".join(sorted({str(p.block) for p in stored if not p.holds(length)}))
                hint += f" of output kernels of {length} weights, which blocks of {blocks} do not divide"
            raise ProblemError(
                f"no candidate is one that {target} can store",
                where=f"{problem.names[group]}.bits",
                value=list(old.labels(key)),
                hint=hint,
            )
        rows.append(row)
    candidates = Candidates(
        tuple(
            tuple(float(precision.width(problem.stored, length)) for _, precision in row)
            for row, length in zip(rows, lengths, strict=True)
        ),
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


def _kernels(problem: Problem, weights: Sequence[Precision]) -> npt.NDArray[np.int64]:
    """Return the length (G,) of the output kernels that are not of whole blocks at some precision; else 0."""
    if problem.lengths is None:
        return np.zeros(len(problem), dtype=np.int64)
    cut = np.zeros(len(problem), dtype=np.bool_)
    for block in {precision.block for precision in weights if precision.block}:
        cut |= problem.lengths % block != 0
    return np.where(cut & problem.weights(), problem.lengths, 0)


def _uncut(problem: Problem, kinds: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return which groups (G,) are of weights of such kinds of layers."""
    labels = np.array([problem.types.get(label) in kinds for label in problem.names.labels], dtype=np.bool_)
    return labels[problem.names.label_of] & problem.weights()


def _matches(
    old: Candidates, number: int, table: Sequence[Precision], stored: int | Fraction, length: int
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
                kept.setdefault((column, precision.width(stored, length)), precision)
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
