"""What an answer costs and damages, straight from what the problem declares: neither cost rows nor an instance.

And whether an instance says the same, at choices that touch every entry of its tables: what the judge proves about
the instance holds for the problem then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import numpy.typing as npt

from impq_opt.costs import CostTerm
from impq_opt.exactness.sums import exact_sum, nearest_float
from impq_opt.groups.interactions import Pairs
from impq_opt.instance.instance import Instance, Row
from impq_opt.judge.lines import Line, lines_of
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["Question", "Weights", "alone_damage", "broken_rule", "cost_of", "damage_of", "disagreement"]

Weights = Mapping[str, Fraction | int | float]
_Named = tuple[str, bool]

# Choices drawn at random beside one a column.
_DRAWN = 4


@dataclass(frozen=True)
class Question:
    """What an instance is asked to be of.

    Parameters
    ----------
    minimizes : {"cost", "damage"}
    weights : mapping
        Of the cost that is minimised, or that is limited where the damage is minimised.
    bound : Fraction, optional
        On the damage.
    budgets : mapping
        Limits on costs by their names, in their units.
    costs : mapping
        The weights of each cost that is limited.
    step : str
        Of a cost that is the largest of several sums, the one that alone is meant; empty where all are.
    """

    minimizes: str
    weights: Weights
    bound: Fraction | None
    budgets: Mapping[str, Fraction]
    costs: Mapping[str, Weights]
    step: str = ""

    @classmethod
    def of(cls, allocation: Allocation) -> Question:
        """Return the question that an allocation says it answers."""
        costs: dict[str, Weights] = {name: {name: 1} for name in allocation.budgets}
        own = "+".join(allocation.cost_weights)
        if allocation.minimizes == "damage" and own in costs:
            costs[own] = dict(allocation.cost_weights)
        return cls(
            allocation.minimizes, dict(allocation.cost_weights), allocation.bound, dict(allocation.budgets), costs
        )


def cost_of(problem: Problem, weights: Weights, choice: IntArray) -> Fraction:
    """Return the weighted cost terms of a choice (G,), exactly, in their unit."""
    return sum(
        (_decimal(weight) * _term(problem, problem.cost(name), choice) for name, weight in weights.items()), Fraction(0)
    )


def damage_of(problem: Problem, choice: IntArray) -> Fraction:
    """Return the exact damage of a choice (G,): what groups do alone, and what they do together."""
    return alone_damage(problem, choice) + _together(problem, choice)


def _together(problem: Problem, choice: IntArray) -> Fraction:
    """Return the exact cross terms of a choice (G,), pair by pair or, of factors, as the solvers do not add them up."""
    declared = problem.interactions
    if declared is None:
        return Fraction(0)
    if isinstance(declared, Pairs):
        ends = zip(declared.groups.tolist(), declared.values, strict=True)
        return sum((Fraction(float(table[choice[i], choice[j]])) for (i, j), table in ends), Fraction(0))
    total = Fraction(0)
    before = [Fraction(0)] * declared.values.shape[2]
    for group, column in enumerate(choice.tolist()):
        vector = declared.values[group, column]
        for place in np.flatnonzero(vector).tolist():
            value = Fraction(float(vector[place]))
            total += 2 * value * before[place]
            before[place] += value
    return total


def alone_damage(problem: Problem, choice: IntArray) -> Fraction:
    """Return the exact sum of the damages of a choice (G,), what groups do together left out.

    Raises
    ------
    AssertionError
        Where two ways of adding up come to different sums.
    """
    values = problem.damage.chosen(problem.candidates, choice)
    total = exact_sum(values)
    nearest = nearest_float(total)
    if nearest < math.inf and nearest != math.fsum(values.tolist()):  # correctly rounded, by another method
        raise AssertionError("two ways of adding up damages differ: this installation cannot be trusted")
    return total


def broken_rule(problem: Problem, choice: IntArray) -> str:
    """Return which pin or tie a choice (G,) breaks, or what it may not take, in words; empty where it keeps all."""
    if problem.allowed is not None:
        taken_well = problem.allowed[np.arange(len(choice)), choice]
        if not taken_well.all():
            return f"{problem.names[int(taken_well.argmin())]} may not take its candidate"
    for group, column in problem.pins.items():
        if choice[group] != column:
            return f"{problem.names[group]} is not at its pin"
    for tie in problem.ties:
        taken = [_candidate(problem, group, int(choice[group])) for group in tie]
        if len({bits for bits, _ in taken}) > 1:
            texts = ", ".join(f"{bits:g}" for bits in sorted({bits for bits, _ in taken}))
            return f"{problem.names[tie[0]]} and its ties differ: {texts} bits"
        if len(set(taken)) > 1 and problem.candidates.formats:
            return f"{problem.names[tie[0]]} has another format than its ties"
    return ""


def disagreement(instance: Instance, question: Question) -> str:
    """Return in words where ``instance`` says something else than its problem and ``question``.

    Each column is looked at with all groups at it, so that every entry takes part, and some choices are drawn. Empty
    where nothing differs, every limit is the one that is asked for, and every group has all that it may take.
    """
    problem, every = instance.problem, np.arange(instance.size)
    if instance.objectives != _aims(instance, question):
        return "what is minimised is another"
    wrong = _limit_that_differs(instance, question)
    if wrong:
        return f"the limit on {wrong} is another"
    truths = _truths(instance, question)
    lines = lines_of(instance, {}, 0)
    groups, left = np.arange(len(problem)), _may_take(problem)
    for choice in _choices(instance):
        lifted = instance.lift(choice)
        rule = broken_rule(problem, lifted)
        if rule:
            return rule
        left[groups, lifted] = False
        for line in lines:
            quantum, truth = truths[line.name, line.on_few]
            compiled = Fraction(line.base + line.total(every, choice) + _pairs(line, choice), line.unit) * quantum
            true = truth(lifted)
            if compiled != true:
                return f"the {line.name} of a choice is {nearest_float(true):.15g}, not {nearest_float(compiled):.15g}"
    if left.any():
        return f"{problem.names[int(left.any(axis=1).argmax())]} lacks a candidate"
    return ""


def _aims(instance: Instance, question: Question) -> tuple[Row, ...]:
    """Return the rows, compared with the problem by their names, whose largest is to be minimised."""
    if question.minimizes == "damage":
        return (instance.damage,)
    return instance.peaks or (instance.cost,)


def _limit_that_differs(instance: Instance, question: Question) -> str:
    """Return which limit of an instance is not the one that is asked for, in whole quanta; empty where all are."""
    rows = (instance.damage, instance.cost, *instance.limits)
    if any(row.limit != question.bound for row in rows if not row.whole):
        return "damage"
    for row in (row for row in rows if row.whole):
        name = row.term or row.name
        if row.limit is not None and (
            name not in question.budgets or row.limit != math.floor(question.budgets[name] / row.quantum)
        ):
            return name
    return ""


def _may_take(problem: Problem) -> npt.NDArray[np.bool_]:
    """Return which candidates (G, K) each group can have at all, under the pins and ties."""
    may = np.arange(problem.candidates.width) < problem.candidates.counts(len(problem))[:, None]
    if problem.allowed is not None:
        may &= problem.allowed
    for group, column in problem.pins.items():
        may[group] = np.arange(may.shape[1]) == column
    for tie in problem.ties:
        taken = [{_candidate(problem, group, k): k for k in np.flatnonzero(may[group]).tolist()} for group in tie]
        common = set(taken[0]).intersection(*taken[1:])
        may[list(tie)] = False
        for group, columns in zip(tie, taken, strict=True):
            may[group, [columns[candidate] for candidate in common]] = True
    return may


def _truths(instance: Instance, question: Question) -> dict[_Named, tuple[Fraction, Callable[[IntArray], Fraction]]]:
    """Return, by a line's name and whether it is on few, its quantum and what it comes to for a choice (G,).

    Costs may be called as they like: one called ``"cost"`` is another line than that of the instance's own cost.
    """
    problem = instance.problem
    truths: dict[_Named, tuple[Fraction, Callable[[IntArray], Fraction]]] = {
        ("cost", False): (instance.quantum, _truth(problem, question.weights, question.step)),
        ("damage", False): (Fraction(1), partial(alone_damage, problem)),
    }
    for budget in instance.budgets:
        truths[budget.name, True] = (budget.quantum, _truth(problem, question.costs[budget.term], budget.name))
    for step in instance.peaks:
        truths[step.name, True] = (step.quantum, _truth(problem, question.weights, step.name))
    return truths


def _truth(problem: Problem, weights: Weights, name: str) -> Callable[[IntArray], Fraction]:
    """Return what a cost comes to for a choice (G,): that of ``name`` alone where this is a step of a peak."""
    for term, factor in weights.items():
        steps = dict(problem.cost(term).peaks(problem) or ())
        if name in steps:
            return partial(_step, problem, _decimal(factor), steps[name])
    return partial(cost_of, problem, weights)


def _step(problem: Problem, factor: Fraction, slope: IntArray, choice: IntArray) -> Fraction:
    return factor * _linear(problem, slope, choice)


def _choices(instance: Instance) -> Iterator[IntArray]:
    last = instance.widths - 1
    for column in range(int(instance.widths.max(initial=1))):
        yield np.minimum(column, last)
    rng = np.random.default_rng(0)
    for _ in range(_DRAWN):
        yield np.asarray(rng.integers(0, instance.widths), dtype=np.int64)


def _pairs(line: Line, choice: IntArray) -> int:
    if line.pairs is None or not len(line.pairs):
        return 0
    pairs = line.pairs
    left, right = choice[pairs.left], choice[pairs.right]
    if pairs.coefficient is None:
        assert pairs.tables is not None
        return sum(pairs.tables[np.arange(len(pairs)), left, right].tolist())
    levels = pairs.levels[pairs.left, left].tolist(), pairs.levels[pairs.right, right].tolist()
    return sum(a * b * c for a, b, c in zip(pairs.coefficient.tolist(), *levels, strict=True))


def _term(problem: Problem, term: CostTerm, choice: IntArray) -> Fraction:
    """Return one cost term of a choice (G,), in its unit."""
    peaks = term.peaks(problem)
    if peaks is not None:
        return max(_linear(problem, slope, choice) for _, slope in peaks)
    slope, total = term.slope(problem), Fraction(term.constant(problem))
    if slope is not None:
        total += _linear(problem, slope, choice)
    else:
        values, quantum = term.table(problem)
        total += _sum(values[np.arange(len(choice)), choice]) * quantum
    pairs = term.pairs(problem)
    if pairs is not None:
        bits = problem.candidates.bits(choice)
        left, right = bits[pairs.left], bits[pairs.right]
        for ends in {*zip(left.tolist(), right.tolist(), strict=True)}:
            inside = (left == ends[0]) & (right == ends[1])
            total += _decimal(ends[0]) * _decimal(ends[1]) * _sum(pairs.coefficient[inside])
    lookup = term.lookup(problem)
    if lookup is not None:
        places = np.arange(len(lookup.left)), choice[lookup.left], choice[lookup.right]
        total += _sum(lookup.values[places]) * lookup.quantum
    return total


def _sum(values: IntArray) -> int:
    """Return the exact sum, by another method than the solvers'."""
    return sum(values.tolist())


def _linear(problem: Problem, slope: IntArray, choice: IntArray) -> Fraction:
    """Return the sum of ``slope`` (G,) times the bits of a choice (G,)."""
    bits = problem.candidates.bits(choice)
    return sum((_decimal(b) * _sum(slope[bits == b]) for b in np.unique(bits).tolist()), Fraction(0))


def _candidate(problem: Problem, group: int, column: int) -> tuple[float, str]:
    return float(problem.candidates.of(group)[column]), problem.candidates.label(group, column)


def _decimal(value: Fraction | float) -> Fraction:
    """Return a number as the decimal that people wrote, which is what costs mean by it."""
    return Fraction(value) if isinstance(value, (int, Fraction)) else Fraction(repr(float(value)))
