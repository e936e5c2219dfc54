"""Cost terms combined into rows of integers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from impq_opt.costs.terms import CostTerm, Pairs, PairTables, TableCost, common_quantum, largest_entry
from impq_opt.errors import ProblemError, UnsupportedError
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.exactness.sums import exact_int_sum
from impq_opt.groups.arrays import positive
from impq_opt.groups.candidates import Candidates
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["CostRow", "budget_rows", "cost_row"]


@dataclass(frozen=True, eq=False)
class CostRow:
    """A cost in whole numbers of ``quantum``.

    The sum of ``slope[g] * level``, ``table[g, k]``, ``coefficient[e] * level * level`` over ``pairs``,
    ``values[e, k, k]`` over each of ``lookups``, and ``constant``, where a level is a precision in 1/denominator bits;
    and the largest of the sums of ``slope[g] * level`` over each of ``peaks``.

    slope : ndarray of int64 (G,), optional
    table : ndarray of int64 (G, K), optional
    denominator : int
        Precisions are whole multiples of 1/denominator bits.
    weights : mapping
        The cost terms that the row combines.
    pairs : Pairs, optional
    lookups : tuple of PairTables
        Their quantum is the row's.
    peaks : tuple of (name, ndarray of int64 (G,))
        Slopes by the name of their step.
    """

    quantum: Fraction
    slope: IntArray | None
    table: IntArray | None
    denominator: int
    weights: Mapping[str, Fraction | int | float]
    unit: str
    constant: int = 0
    pairs: Pairs | None = None
    lookups: tuple[PairTables, ...] = ()
    peaks: tuple[tuple[str, IntArray], ...] = ()

    @property
    def coupled(self) -> bool:
        """Whether some of the cost belongs to pairs of groups."""
        return self.pairs is not None or bool(self.lookups)

    def levels(self, bits: Sequence[float]) -> IntArray:
        """Return precisions (K,) as whole multiples of 1/denominator."""
        return _levels(tuple(bits), self.denominator)

    def level_table(self, candidates: Candidates) -> IntArray:
        """Return the levels (sets, K) of all candidate sets, 0 past the end of a set."""
        table = np.zeros((len(candidates.sets), candidates.width), dtype=np.int64)
        for row, bits in zip(table, candidates.sets, strict=True):
            row[: len(bits)] = self.levels(bits)
        return table

    def dense(self, groups: IntArray | slice, bits: Sequence[float]) -> IntArray:
        """Return the uncoupled cost (n, K) of ``groups``, all of whose candidates are ``bits``; a view where it can."""
        if self.table is None:
            assert self.slope is not None
            return self.slope[groups, None] * self.levels(bits)
        rows = self.table[groups]
        rows = rows if rows.shape[1] == len(bits) else rows[:, : len(bits)]
        return rows if self.slope is None else rows + self.slope[groups, None] * self.levels(bits)

    def steps(self) -> list[tuple[str, CostRow]]:
        """Return, by name, the rows that a limit on this one limits: itself, or each that its peak is taken of."""
        own = "+".join(self.weights)
        return [(name, replace(self, slope=slope, peaks=())) for name, slope in self.peaks] or [(own, self)]

    def chosen(self, candidates: Candidates, choice: IntArray) -> IntArray:
        """Return the uncoupled cost (G,) of a choice (G,); of a peak, what each group has in the largest step."""
        total = None if self.table is None else self.table[np.arange(len(choice)), choice]
        if self.slope is not None:
            slope = self._largest_step(candidates, choice) if self.peaks else self.slope
            linear = slope * self._chosen_levels(candidates, choice)
            total = linear if total is None else total + linear
        assert total is not None
        return total

    def _largest_step(self, candidates: Candidates, choice: IntArray) -> IntArray:
        """Return the slope (G,) of the step that is the largest for a choice (G,)."""
        levels = self._chosen_levels(candidates, choice)
        return max((slope for _, slope in self.peaks), key=lambda slope: exact_int_sum(slope * levels))

    def by_group(self, candidates: Candidates, columns: IntArray, choice: IntArray) -> IntArray:
        """Return what each group (G,) costs at ``columns`` (G,) while all others keep ``choice`` (G,).

        The cost of a pair counts with its left group: the weights that read an activation.
        """
        at_peak = replace(self, slope=self._largest_step(candidates, choice), peaks=()) if self.peaks else self
        total = at_peak.chosen(candidates, columns).copy()
        left, _, cost = self.chosen_pairs(candidates, columns, choice)
        np.add.at(total, left, cost)
        return total

    def chosen_pairs(
        self, candidates: Candidates, choice: IntArray, right_choice: IntArray | None = None
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return left, right and cost (E,) of every pair of groups for a choice (G,), of right ends where given."""
        other = choice if right_choice is None else right_choice
        parts: list[tuple[IntArray, IntArray, IntArray]] = []
        if self.pairs is not None:
            level = self._chosen_levels(candidates, choice)
            right_level = level if other is choice else self._chosen_levels(candidates, other)
            left, right = self.pairs.left, self.pairs.right
            parts.append((left, right, self.pairs.coefficient * level[left] * right_level[right]))
        for lookup in self.lookups:
            values = lookup.values[np.arange(len(lookup.left)), choice[lookup.left], other[lookup.right]]
            parts.append((lookup.left, lookup.right, values))
        if not parts:
            return (np.empty(0, dtype=np.int64),) * 3
        left, right, cost = (np.concatenate(p) for p in zip(*parts, strict=True))
        return left, right, cost

    def _chosen_levels(self, candidates: Candidates, choice: IntArray) -> IntArray:
        number = 0 if candidates.set_of is None else candidates.set_of
        levels: IntArray = self.level_table(candidates)[number, choice]
        return levels

    def total(self, candidates: Candidates, choice: IntArray) -> int:
        """Return the exact cost of a choice (G,)."""
        total = self.constant + exact_int_sum(self.chosen(candidates, choice))
        return total + exact_int_sum(self.chosen_pairs(candidates, choice)[2]) if self.coupled else total


def cost_row(problem: Problem, weights: Mapping[str, Fraction | int | float]) -> CostRow:
    """Combine the named cost terms of ``problem``, each times its weight, into one integer row.

    Raises
    ------
    OptionError
        For a cost that the problem does not have.
    ProblemError
        For sums that 64 bits do not hold.
    UnsupportedError
        For a peak beside other costs.
    """
    for name, weight in weights.items():
        positive(weight, f"minimize.{name}")
    # Problems do not change, and are often asked the same thing again: rows are kept beside the problem.
    rows: dict[tuple[tuple[str, Fraction | int | float], ...], CostRow] = vars(problem).setdefault("_rows", {})
    key = tuple(weights.items())
    if key not in rows:
        rows[key] = _combined(problem, dict(weights))
    return rows[key]


def _combined(problem: Problem, weights: Mapping[str, Fraction | int | float]) -> CostRow:
    terms = {name: (factor, problem.cost(name)) for name, factor in weights.items()}
    for name, (factor, term) in terms.items():
        peaks = term.peaks(problem)
        if peaks is not None:
            if len(terms) > 1:
                raise UnsupportedError(
                    f"{name!r} is the largest of several sums: minimise it alone, or make it a budget beside others"
                )
            denominator = _denominator(problem.candidates.sets)
            zero, quantum = np.zeros(len(problem), dtype=np.int64), _decimal(factor) / denominator
            most = max((_sum_of(slope) for _, slope in peaks), default=0) * _most_level(problem, denominator)
            _check_total([(quantum, most)], quantum, weights)
            return CostRow(quantum, zero, None, denominator, weights, term.unit, peaks=peaks)
    return _row(problem, terms, weights)


def budget_rows(problem: Problem, name: str) -> list[tuple[str, CostRow]]:
    """Return the rows, by name, all of which a budget on cost ``name`` limits: one, or each that a peak is taken of."""
    return cost_row(problem, {name: 1}).steps()


@lru_cache(maxsize=256)
def _denominator(sets: tuple[tuple[float, ...], ...]) -> int:
    """Return the smallest number of parts of a bit of which all precisions are whole multiples."""
    return math.lcm(*(_decimal(b).denominator for bits in sets for b in bits))


def _row(
    problem: Problem,
    terms: Mapping[str, tuple[Fraction | int | float, CostTerm]],
    weights: Mapping[str, Fraction | int | float],
) -> CostRow:
    denominator = _denominator(problem.candidates.sets)
    slopes: list[tuple[Fraction, IntArray]] = []
    tables: list[tuple[Fraction, IntArray]] = []
    pairs: list[tuple[Fraction, Pairs]] = []
    lookups: list[tuple[Fraction, PairTables]] = []
    constant = Fraction(0)
    for weight, term in terms.values():
        factor = _decimal(weight)
        slope, product, looked_up = term.slope(problem), term.pairs(problem), term.lookup(problem)
        if slope is not None:
            slopes.append((factor / denominator, slope))
        else:
            values, quantum = term.table(problem)
            tables.append((factor * quantum, values))
        if product is not None:
            pairs.append((factor / denominator**2, product))
        if looked_up is not None:
            lookups.append((factor * looked_up.quantum, looked_up))
        constant += factor * term.constant(problem)
    factors = [factor for factor, _ in (*slopes, *tables, *pairs, *lookups)]
    quantum = common_quantum([*factors, *([constant] if constant else [])])
    # A single table has been checked when it was declared.
    if len(terms) > 1 or not all(isinstance(term, TableCost) for _, term in terms.values()):
        parts = [(factor, _sum_of(slope) * _most_level(problem, denominator)) for factor, slope in slopes]
        parts += [(factor, largest_entry(values) * len(values)) for factor, values in tables]
        parts += [
            (factor, _sum_of(coupled.coefficient) * _most_level(problem, denominator) ** 2) for factor, coupled in pairs
        ]
        parts += [(factor, largest_entry(lookup.values) * len(lookup.values)) for factor, lookup in lookups]
        _check_total([(abs(constant), 1), *parts], quantum, weights)
    units = {term.unit for _, term in terms.values()}
    return CostRow(
        quantum,
        _combine(slopes, quantum),
        _combine(tables, quantum),
        denominator,
        weights,
        units.pop() if len(units) == 1 else "",
        int(constant / quantum) if constant else 0,
        _combine_pairs(pairs, quantum),
        tuple(
            replace(lookup, values=_scaled(lookup.values, factor / quantum), quantum=quantum)
            for factor, lookup in lookups
        ),
    )


def _check_total(
    parts: list[tuple[Fraction, int]], quantum: Fraction, weights: Mapping[str, Fraction | int | float]
) -> None:
    """Raise ProblemError unless the parts of a row, each a factor and what no sum of it exceeds, add up in 64 bits."""
    if sum(factor * most for factor, most in parts) >= LARGEST_TOTAL * quantum:
        raise ProblemError(
            "the weighted costs are too large for exact 64-bit sums",
            where="minimize",
            value=dict(weights),
            hint="use weights, precisions and costs with fewer digits",
        )


def _most_level(problem: Problem, denominator: int) -> int:
    """Return the highest precision of all candidates in 1/denominator bits."""
    return max(int(_levels(bits, denominator).max()) for bits in problem.candidates.sets)


def _sum_of(values: IntArray) -> int:
    """Return the exact sum of absolute values."""
    if values.min(initial=0) >= 0:
        return exact_int_sum(values)
    return exact_int_sum(np.maximum(values, 0)) - exact_int_sum(np.minimum(values, 0))


def _combine_pairs(parts: list[tuple[Fraction, Pairs]], quantum: Fraction) -> Pairs | None:
    if not parts:
        return None
    return Pairs(
        np.concatenate([pairs.left for _, pairs in parts]),
        np.concatenate([pairs.right for _, pairs in parts]),
        np.concatenate([_scaled(pairs.coefficient, factor / quantum) for factor, pairs in parts]),
    )


def _combine(parts: list[tuple[Fraction, IntArray]], quantum: Fraction) -> IntArray | None:
    total = None
    for factor, values in parts:
        scaled = _scaled(values, factor / quantum)
        total = scaled if total is None else total + scaled
    return total


def _scaled(values: IntArray, times: Fraction) -> IntArray:
    if times == 1 or not values.any():
        return values
    return values * int(times)


@lru_cache(maxsize=256)
def _levels(bits: tuple[float, ...], denominator: int) -> IntArray:
    exact = [_decimal(b) * denominator for b in bits]
    if max(exact) >= LARGEST_TOTAL:
        raise ProblemError(
            "precisions need more than 64 bits to add exactly",
            where="bits",
            value=bits[exact.index(max(exact))],
            hint=f"all are whole multiples of 1/{denominator}; use precisions with fewer digits",
        )
    levels = np.array(exact, dtype=np.int64)
    levels.flags.writeable = False
    return levels


@lru_cache(maxsize=1024)
def _decimal(value: float | Fraction) -> Fraction:
    """Read a number as the decimal that people wrote: 0.1 is one tenth."""
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    return Fraction(repr(float(value)))
