"""Precisions of groups as columns of a problem's candidates, and what they come to."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.errors import OptionError, ProblemError
from impq_opt.groups.arrays import ACTIVATION
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.instance.cost_row import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.quantize.methods import FLOAT_BITS
from impq_opt.quantize.origin import labels_of
from impq_opt.rounds.record import Cost, Decision, Effective
from impq_opt.types import BoolArray, IntArray

__all__ = [
    "answered",
    "columns_of",
    "cost_of_uniform",
    "decision_of",
    "fix_activations",
    "in_float",
    "not_above",
    "unmeasured_stay",
]

# Every record carries these, each by one formula; the last three need the network's graph.
_COSTS = ("storage", "activation-memory", "bit-operations", "adders", "slides")


def columns_of(problem: Problem, bits: npt.ArrayLike) -> IntArray:
    """Return the column (G,) of each group's precision (G,) among its candidates.

    Raises
    ------
    ProblemError
        A group may not take its precision.
    """
    wanted = np.asarray(bits, dtype=np.float64)
    columns = problem.candidates.columns(wanted)
    missing = np.flatnonzero(columns < 0)
    if len(missing):
        group = int(missing[0])
        raise ProblemError(
            "is not among the candidates",
            where=f"{problem.names[group]}.bits",
            value=float(wanted[group]),
            hint=f"it may take {list(problem.candidates.of(group))}",
        )
    return columns


def fix_activations(problem: Problem, bits: int) -> Problem:
    """Give all activations one precision; 0 leaves them free, 32 in float.

    Raises
    ------
    ProblemError
        It is not among their candidates, and what it would damage is not known.
    """
    if not bits or problem.kinds is None:
        return problem
    groups = np.flatnonzero(problem.kinds == ACTIVATION)
    known = all(bits in problem.candidates.of(group) for group in groups.tolist())
    if bits == FLOAT_BITS or (isinstance(problem.damage, PowerLaw) and not known):
        return _alone(problem, groups, bits)
    wanted = np.array([problem.candidates.of(group)[0] for group in range(len(problem))], dtype=np.float64)
    wanted[groups] = bits
    columns = columns_of(problem, wanted)
    return dataclasses.replace(problem, pins=dict(problem.pins) | {int(g): int(columns[g]) for g in groups})


def in_float(problem: Problem, weights: Sequence[str]) -> Problem:
    """Leave some weights in float: 32 bits are all that they may take, and do no damage.

    Parameters
    ----------
    problem : Problem
    weights : sequence of str
        ``"first"`` and ``"last"``, of the network's order, or patterns of :meth:`Problem.select`.

    Raises
    ------
    ProblemError
        A pattern that means no group.
    """
    labels = [groups for _, groups in labels_of(problem, weights=True)]
    ends = {"first": labels[:1], "last": labels[-1:]}
    chosen = np.zeros(len(problem), dtype=bool)
    for pattern in weights:
        if pattern in ends and problem.find(pattern) is None:
            for groups in ends[pattern]:
                chosen[groups] = True
        else:
            chosen[problem.select(pattern)] = True
    return _alone(problem, np.flatnonzero(chosen & problem.weights()), FLOAT_BITS)


def _alone(problem: Problem, groups: IntArray, bits: int) -> Problem:
    """Return the problem in which ``groups`` may take ``bits`` only; what stays in float does no damage."""
    if not len(groups):
        return problem
    free, old = problem.revise(free_unmeasured=True), problem.candidates
    numbers = old.numbers(len(problem)).copy()
    numbers[groups] = len(old.sets)
    damage: PowerLaw | DamageTable
    if isinstance(free.damage, PowerLaw):
        sensitivity = free.damage.sensitivity.copy()
        if bits == FLOAT_BITS:
            sensitivity[groups] = 0.0
        damage = PowerLaw(sensitivity, free.damage.stderr)
    else:
        values = free.damage.values.copy()
        values[groups, 0] = 0.0
        damage = DamageTable(values, free.damage.stderr)
    gone = set(groups.tolist())
    ties = (tuple(group for group in tie if group not in gone) for tie in free.ties)
    return dataclasses.replace(
        free,
        candidates=Candidates((*old.sets, (float(bits),)), numbers),
        damage=damage,
        pins={group: column for group, column in free.pins.items() if group not in gone},
        ties=tuple(tie for tie in ties if len(tie) > 1),
        unmeasured=None if free.unmeasured is None else free.unmeasured & ~np.isin(np.arange(len(problem)), groups),
        free_unmeasured=problem.free_unmeasured,
    )


def not_above(problem: Problem, columns: IntArray) -> Problem:
    """Return the problem without candidates above the present ones, ``columns`` (G,).

    Raises
    ------
    OptionError
        Groups have different candidates, or candidates that do not ascend.
    """
    old = problem.candidates
    if any(widths != tuple(sorted(widths)) for widths in old.sets):
        raise OptionError("needs ascending lists of candidates", where="rounds.monotone")
    # Each group keeps a prefix of the candidates, so the columns of the tables stay where they are.
    numbers = old.numbers(len(problem))
    prefixes = {
        pair: place for place, pair in enumerate(sorted(set(zip(numbers.tolist(), columns.tolist(), strict=True))))
    }
    of = np.array([prefixes[pair] for pair in zip(numbers.tolist(), columns.tolist(), strict=True)], dtype=np.int64)
    candidates = Candidates(tuple(old.sets[number][: column + 1] for number, column in prefixes), of)
    free = problem.revise(free_unmeasured=True)  # what keeps its most bits keeps the most that are left
    return dataclasses.replace(free, candidates=candidates, free_unmeasured=problem.free_unmeasured)


def unmeasured_stay(problem: Problem, columns: IntArray) -> Problem:
    """Return the problem in which groups of unknown damage stay at ``columns`` (G,), not at their most bits."""
    if problem.unmeasured is None or problem.free_unmeasured:
        return problem
    free = problem.revise(free_unmeasured=True)
    stay = {group: int(columns[group]) for group in np.flatnonzero(problem.unmeasured).tolist()}
    return dataclasses.replace(free, pins=dict(free.pins) | stay, free_unmeasured=False)


def decision_of(problem: Problem, columns: IntArray) -> Decision:
    """Return what is recorded of an allocation: bits, costs by name, effective bits, damage."""
    bits = problem.candidates.bits(columns)
    weights = problem.weights()
    costs: dict[str, Cost] = {}
    for name in _COSTS:
        with contextlib.suppress(ProblemError):  # where the problem has no graph, or blocks cut dot products
            row = cost_row(problem, {name: 1})
            costs[name] = Cost(value=float(row.total(problem.candidates, columns) * row.quantum), unit=row.unit)

    def effective(inside: BoolArray) -> float | None:
        sizes = problem.sizes[inside]
        return float(np.dot(sizes, bits[inside]) / sizes.sum()) if inside.any() else None

    mean = effective(weights)
    return Decision(
        bits=[int(b) for b in bits],
        cost=int(costs["storage"].value),
        costs=costs,
        effective_bits=Effective(weights=mean, activations=effective(~weights)),
        compression_ratio=None if mean is None else 16 / mean,
        damage=math.fsum(problem.damage.chosen(problem.candidates, columns).tolist()),
        damage_unit=problem.damage_unit,
    )


def answered(decision: Decision, answer: Allocation) -> Decision:
    """Return the decision with what a solver said of it."""
    return msgspec.structs.replace(
        decision,
        status=answer.status.value,
        bound=None if answer.bound is None else float(answer.bound),
        budget={name: float(most) for name, most in answer.budgets.items()},
        gap=answer.gap if math.isfinite(answer.gap) else None,
    )


def cost_of_uniform(problem: Problem, cost: str, bits: float) -> Fraction:
    """Return what a network of ``bits`` bits everywhere costs, pinned groups as pinned; linear between candidates."""
    row = cost_row(problem, {cost: 1})
    widths = sorted({float(width) for candidates in problem.candidates.sets for width in candidates})
    low = max((w for w in widths if w <= bits), default=widths[0])
    high = min((w for w in widths if w >= bits), default=widths[-1])
    ends = []
    for width in (low, high):
        wanted = np.array([min(problem.candidates.of(g), key=lambda b: abs(b - width)) for g in range(len(problem))])
        columns = columns_of(problem, wanted)
        columns[list(problem.pins)] = list(problem.pins.values())
        ends.append(Fraction(row.total(problem.candidates, columns)) * row.quantum)
    share = Fraction(bits - low) / Fraction(high - low) if high > low else Fraction(0)
    scale = Fraction(bits) / Fraction(low) if bits < low else Fraction(1)
    return (ends[0] + share * (ends[1] - ends[0])) * scale
