"""Candidates and the bits of the codes that stand for them, which differ where scales are counted in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from impq_opt.groups.candidates import FLOAT_BITS
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import AS_IT_IS
from impq_opt.types import IntArray

__all__ = ["choice_of_codes", "code_bits"]


def code_bits(problem: Problem, choice: IntArray) -> npt.NDArray[np.generic]:
    """Return the bits (G,) of the codes of each group: 32 where it stays in float.

    Those of a problem that was prepared for a target have bits of scales in them, and the codes' own as a name; 16 bits
    that take as much as the network's own weights are what the target leaves alone.
    """
    candidates = problem.candidates
    if not candidates.formats:
        return candidates.bits(choice)
    coded: npt.NDArray[np.float64] = _coded(problem)[candidates.numbers(len(choice)), choice]
    return coded


def choice_of_codes(problem: Problem, bits: npt.NDArray[np.generic]) -> IntArray:
    """Return the choice (G,) whose codes have ``bits`` (G,), 32 where a group stays in float; -1 where there is none.

    It is what :func:`code_bits` undoes. Of several candidates with codes of the same bits the first counts.
    """
    alike = _coded(problem)[problem.candidates.numbers(len(bits))] == np.asarray(bits, dtype=np.float64)[:, None]
    return np.where(alike.any(axis=1), alike.argmax(axis=1), -1)


def _coded(problem: Problem) -> npt.NDArray[np.float64]:
    """Return the bits (sets, K) of the codes of each candidate; NaN where a set has none."""
    candidates = problem.candidates
    table = np.full((len(candidates.sets), candidates.width), np.nan)
    for number, (row, widths) in enumerate(zip(table, candidates.sets, strict=True)):
        names = candidates.formats[number] if candidates.formats else ("",) * len(widths)
        for column, (width, name) in enumerate(zip(widths, names, strict=True)):
            left = name == f"{AS_IT_IS}" and width == problem.stored
            row[column] = FLOAT_BITS if left else float(name) if name.isdecimal() else width
    return table
