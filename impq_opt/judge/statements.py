"""The numbers of an allocation file that people read, held against what they follow from.

Exact values stand beside them and are checked by themselves; these are their roundings and ratios, recomputed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.judge.declared import alone_damage, damage_of
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["false_statements"]

# Means of bits are worked out in floats by whoever writes them: a few roundings. All else is rounded once.
_ROUNDING = 2.0**-49
_MEANS = ("weight bits", "activation bits", "compression_ratio", "together stderr")


def false_statements(allocation: Allocation) -> Iterator[tuple[str, str]]:
    """Yield the name of each statement that is false, and what is true, in words.

    Statements are those of ``allocation.stated``, true where the exact values of the allocation are.
    """
    true = dict(_expected(allocation))
    for name, stated in allocation.stated.items():
        if name not in true:
            yield name, "is no statement of an answer"
        elif not _same(stated, true[name], _ROUNDING if name in _MEANS else 0.0):
            yield name, f"states {_text(stated)}, is {_text(true[name])}"


def _expected(allocation: Allocation) -> Iterator[tuple[str, Any]]:
    answered = allocation.choice is not None
    cost, damage = allocation.exact_cost, allocation.exact_damage
    objective = cost if allocation.minimizes == "cost" else damage
    below = allocation.exact_lower_bound
    yield "objective", objective if answered else None
    yield "cost", cost if answered else None
    yield "damage", damage if answered else None
    yield "lower_bound", below
    yield "bound", allocation.bound
    yield "gap", _gap(objective if answered else None, below, allocation.status.value == "optimal")
    effective = _effective(allocation.problem, allocation.bits, 0) if answered else None
    yield "weight bits", effective
    yield "activation bits", _effective(allocation.problem, allocation.bits, 1) if answered else None
    yield "compression_ratio", 16 / effective if effective else None
    yield from _whole(allocation.problem, allocation.bits if answered else None)
    yield from _together(allocation)
    yield "unknown", tuple(allocation.problem.names[g] for g in allocation.unknown.tolist()) if answered else ()
    if answered:
        yield "bits", dict(zip(allocation.problem.names, allocation.bits.tolist(), strict=True))


def _gap(objective: Fraction | None, below: Fraction | float, optimal: bool) -> Fraction | float | None:
    if objective is None or below == -math.inf:
        return None
    if optimal or objective <= below:
        return 0.0
    return (objective - Fraction(below)) / abs(objective) if objective else None


def _effective(problem: Problem, bits: Any, kind: int) -> Fraction | None:
    """Return sum N B / sum N over the groups of a kind; None where there are none, or no bits are known."""
    kinds = np.zeros(len(problem), dtype=np.int64) if problem.kinds is None else problem.kinds
    inside = np.flatnonzero(kinds == kind)
    if problem.candidates.numbered or not len(inside):
        return None
    return _taken(problem, bits, inside) / sum(problem.sizes[inside].tolist())


def _taken(problem: Problem, bits: Any, groups: Any) -> Fraction:
    """Return sum N B over some groups."""
    widths = [Fraction(repr(float(b))) for b in bits[groups].tolist()]
    return sum((size * b for size, b in zip(problem.sizes[groups].tolist(), widths, strict=True)), Fraction(0))


def _whole(problem: Problem, bits: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is true of the whole network: its weights in groups, and what the problem says stays as it is."""
    taken: Fraction | None = None
    parameters: int | None = None
    staying: int | None = None
    stored = Fraction(0)
    if bits is not None and problem.stays is not None and not problem.candidates.numbered:
        weights = np.flatnonzero(problem.weights())
        staying = sum(stay.elements for stay in problem.stays)
        kept = sum((Fraction(stay.bits) * stay.elements for stay in problem.stays), Fraction(0))
        elements = sum(problem.sizes[weights].tolist())
        taken, parameters = _taken(problem, bits, weights) + kept, elements + staying
        stored = Fraction(problem.stored) * elements + kept
    yield "whole bits", taken
    yield "whole parameters", parameters
    yield "whole staying", staying
    yield "whole bits_per_parameter", None if taken is None or parameters is None else taken / parameters
    yield "whole compression_ratio", stored / taken if taken else None


def _together(allocation: Allocation) -> Iterator[tuple[str, Any]]:
    """Yield what is true of the damage that groups do together."""
    problem, choice = allocation.problem, allocation.choice
    if problem.interactions is None or choice is None:
        return
    damage, error = damage_of(problem, choice) - alone_damage(problem, choice), problem.interactions.error(choice)
    yield "together damage", damage
    yield "together stderr", error
    yield "together below_noise", error is not None and abs(damage) < error


def _same(stated: Any, true: Any, rounding: float) -> bool:
    if isinstance(true, Mapping):
        return isinstance(stated, Mapping) and stated.keys() == true.keys() and all(stated[k] == true[k] for k in true)
    if isinstance(true, tuple):
        return isinstance(stated, list | tuple) and tuple(stated) == true
    if true is None or true in (math.inf, -math.inf):
        return stated is None
    if stated is None:
        return abs(true) > Fraction(2) ** 1023  # JSON has no infinity: what no float64 holds is left out
    if isinstance(true, Fraction) and true.denominator == 1 and isinstance(stated, int):
        return bool(stated == true)
    return math.isclose(nearest_float(stated), nearest_float(true), rel_tol=rounding)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "other bits" if value else "nothing"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing"
    return "nothing" if value is None else f"{nearest_float(value):.15g}"
