"""Who gets which precision in a round: the paper's heuristic in two readings, or any strategy of ``solve``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.errors import OptionError, ProblemError
from impq_opt.groups.arrays import ACTIVATION
from impq_opt.groups.candidates import Candidates
from impq_opt.instance.rows import cost_row
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.rounds.settings import Hyper
from impq_opt.solve import solve_in_passing
from impq_opt.types import FloatArray, IntArray

__all__ = ["COSTS_IN_LOG", "Choice", "choose", "columns_of", "describe", "fix_activations", "not_above", "step_down"]

# Every row of a log or table carries these, each by one formula; the last three need the network's graph.
COSTS_IN_LOG = ("storage", "activation-memory", "bit-operations", "adders", "slides")


@dataclass(frozen=True, eq=False)
class Choice:
    """What a round decided.

    Parameters
    ----------
    columns : ndarray of int64 (G,)
        Column of the candidate of each group.
    facts : mapping
        What goes into the log: bits, cost, effective bits, damage, limits, status.
    """

    columns: IntArray
    facts: dict[str, Any]


def choose(problem: Problem, now: IntArray, number: int, hyper: Hyper, magnitudes: FloatArray) -> Choice:
    """Return the precisions of round ``number`` (from 1).

    Parameters
    ----------
    problem : Problem
        As measured in this round.
    now : ndarray of int64 (G,)
        Present precisions, in bits.
    magnitudes : ndarray of float64 (G,)
        Mean absolute latent weight of each weight group, which the authors' code ranks by.
    """
    problem = fix_activations(problem, hyper.activation_bits)
    if hyper.is_heuristic:
        columns = step_down(problem, columns_of(problem, now), number, hyper, magnitudes)
        return Choice(columns, describe(problem, columns))
    limits: dict[str, Any] = {}
    if hyper.budget is not None:
        limits["budget"] = _cost_of_uniform(problem, hyper.minimize, hyper.budget.at(number, hyper.rounds))
    else:
        assert hyper.bound is not None
        limits["bound"] = hyper.bound.at(number, hyper.rounds)
    if hyper.monotone:  # after the budget, which is a share of what all candidates would cost
        problem = not_above(problem, now)
    found = solve_in_passing(
        problem, solver=hyper.strategy, minimize=hyper.minimize, seed=hyper.seed, **limits, **hyper.options
    )
    if found.choice is None:
        raise OptionError(
            f"no allocation: {found.diagnosis or found.status.value}",
            where=f"round {number}",
            hint="a gentler schedule, or more candidates",
        )
    return Choice(found.choice, describe(problem, found.choice) | _limits(found))


def _present(problem: Problem, now: IntArray) -> Allocation:
    """Return the present precisions as something to start from; nothing is claimed of them."""
    return Allocation(
        problem=problem,
        status=Status.UNKNOWN,
        choice=columns_of(problem, now),
        minimizes="cost",
        cost_weights={},
        exact_cost=None,
        exact_damage=None,
        exact_lower_bound=-math.inf,
        bound=None,
        budgets={},
    )


def _cost_of_uniform(problem: Problem, cost: str, bits: float) -> Fraction:
    """Return what a network of ``bits`` bits everywhere costs, pinned groups as pinned; linear between candidates."""
    row = cost_row(problem, {cost: 1})
    widths = sorted({float(b) for one in problem.candidates.sets for b in one})
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


def _limits(found: Allocation) -> dict[str, Any]:
    return {
        "bound": None if found.bound is None else float(found.bound),
        "budget": {name: float(most) for name, most in found.budgets.items()},
        "status": found.status.value,
        "gap": found.gap if math.isfinite(found.gap) else None,
    }


def describe(problem: Problem, columns: IntArray) -> dict[str, Any]:
    """Return what the log says of an allocation: bits, costs by name, effective bits, damage."""
    bits = problem.candidates.bits(columns)
    weights = problem.weights()
    costs: dict[str, dict[str, Any]] = {}
    for name in COSTS_IN_LOG:
        with contextlib.suppress(ProblemError):  # where the problem has no graph, or blocks cut dot products
            row = cost_row(problem, {name: 1})
            costs[name] = {"value": float(row.total(problem.candidates, columns) * row.quantum), "unit": row.unit}

    def effective(inside: npt.NDArray[np.bool_]) -> float | None:
        return (
            float(np.dot(problem.sizes[inside], bits[inside]) / problem.sizes[inside].sum()) if inside.any() else None
        )

    mean = effective(weights)
    return {
        "bits": [int(b) for b in bits],
        "cost": int(costs["storage"]["value"]),
        "costs": costs,
        "effective_bits": {"weights": mean, "activations": effective(~weights)},
        "compression_ratio": None if mean is None else 16 / mean,
        "damage": math.fsum(problem.damage.chosen(problem.candidates, columns).tolist()),
        "damage_unit": problem.damage_unit,
    }


def columns_of(problem: Problem, bits: npt.ArrayLike) -> IntArray:
    """Return the column (G,) of each group's precision (G,) among its candidates."""
    wanted = np.asarray(bits, dtype=np.float64)
    columns = np.full(len(problem), -1, dtype=np.int64)
    for number, one in enumerate(problem.candidates.sets):
        members = problem.candidates.members(number, len(problem))
        match = wanted[members][:, None] == np.asarray(one)
        columns[members] = np.where(match.any(axis=1), match.argmax(axis=1), -1)
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
    """Pin all activations to one precision; 0 leaves them free."""
    if not bits or problem.kinds is None:
        return problem
    wanted = np.full(len(problem), float(bits))
    groups = np.flatnonzero(problem.kinds == ACTIVATION)
    wanted[problem.kinds != ACTIVATION] = [problem.candidates.of(int(g))[0] for g in np.flatnonzero(problem.weights())]
    columns = columns_of(problem, wanted)
    return dataclasses.replace(problem, pins=dict(problem.pins) | {int(g): int(columns[g]) for g in groups})


def not_above(problem: Problem, now: IntArray) -> Problem:
    """Return the problem without candidates above the present precisions ``now`` (G,)."""
    old = problem.candidates
    if len(old.sets) != 1 or old.sets[0] != tuple(sorted(old.sets[0])):
        raise OptionError("needs one ascending list of candidates for all groups", where="rounds.monotone")
    columns = columns_of(problem, now)
    # Each group keeps a prefix of the candidates, so the columns of the tables stay where they are.
    candidates = Candidates(tuple(old.sets[0][: k + 1] for k in range(old.width)), columns)
    free = problem.revise(free_unmeasured=True)  # what keeps its most bits keeps the most that are left
    return dataclasses.replace(free, candidates=candidates, free_unmeasured=problem.free_unmeasured)


def step_down(problem: Problem, columns: IntArray, number: int, hyper: Hyper, magnitudes: FloatArray) -> IntArray:
    """Take one step off the least sensitive groups (the paper's heuristic).

    ``iterative`` (slides): groups are ranked by their present damage Delta^2 E, weights and activations together, and
    the N least lose a step. ``authors-code``: weights are ranked by mean_h(E_h) mean abs(w) 2^-B, activations apart
    from them by sum_h(E_h) clip 2^-B (the first power of the step), and every group at or below the value of rank N,
    counted from 0, loses a step: N + 1 groups and ties.
    """
    movable = (columns > 0) & ~np.isin(np.arange(len(problem)), list(problem.pins))
    leaders = np.arange(len(problem))
    for tie in problem.ties:  # tied groups move together, ranked by their sum
        leaders[list(tie)] = tie[0]
        movable[list(tie)] = movable[list(tie)].all()
    values = problem.damage.chosen(problem.candidates, columns)
    if hyper.strategy == "authors-code":
        values = _first_power(problem, columns, values, magnitudes)
    values = np.bincount(leaders, weights=values, minlength=len(problem)).astype(np.float64)
    able = np.flatnonzero(movable & (leaders == np.arange(len(problem))))
    chosen: list[IntArray] = []
    if hyper.strategy == "authors-code":
        weights = problem.weights()
        for kind, take in ((weights, hyper.take), (~weights, hyper.take_activations)):
            members = able[kind[able]]
            if len(members):
                rank = min(_count(take, number, int(kind.sum())), len(members) - 1)
                chosen.append(members[values[members] <= np.sort(values[members])[rank]])
    elif len(able):
        order = np.argsort(values[able], kind="stable")
        chosen.append(able[order[: _count(hyper.take, number, len(problem) - len(problem.pins))]])
    falls = np.isin(leaders, np.concatenate(chosen)) if chosen else np.zeros(len(problem), dtype=bool)
    return np.where(falls, columns - 1, columns)


def _count(take: Sequence[tuple[int, float]], number: int, groups: int) -> int:
    """Return N of round ``number``; shares are of ``groups``, those that may move at all."""
    wanted = [n for first, n in take if first <= number][-1]
    return max(1, int(wanted if wanted >= 1 else wanted * groups))


def _first_power(problem: Problem, columns: IntArray, damage: FloatArray, magnitudes: FloatArray) -> FloatArray:
    """Return the authors' metric (G,), up to a constant; candidates must be ascending."""
    step = np.exp2(-problem.candidates.bits(columns))
    spans = np.ones(len(problem)) if problem.ranges is None else problem.ranges
    spans = np.where(np.isfinite(spans) & (spans > 0), spans, 1.0)
    moments = damage / step**2 / spans**2  # E without the range: sums of squared gradients
    weights = problem.weights()
    result: FloatArray = step * np.where(weights, moments / problem.sizes * magnitudes, moments * spans)
    return result
