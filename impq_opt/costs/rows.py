"""Cost terms combined into one row of integers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum
from impq_opt.costs.terms import LARGEST_TOTAL, common_quantum
from impq_opt.errors import ProblemError
from impq_opt.groups import Candidates

if TYPE_CHECKING:
    from impq_opt.problem import Problem

__all__ = ["CostRow", "cost_row"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CostRow:
    """A cost in whole numbers of ``quantum``: ``slope[g] * B * denominator``, or ``table[g, k]``, or their sum.

    slope : ndarray of int64 (G,), optional
    table : ndarray of int64 (G, K), optional
    denominator : int
        Precisions are whole multiples of 1/denominator bits.
    weights : mapping
        The cost terms that the row combines.
    """

    quantum: Fraction
    slope: IntArray | None
    table: IntArray | None
    denominator: int
    weights: Mapping[str, Fraction | int | float]
    unit: str

    def levels(self, bits: Sequence[float]) -> IntArray:
        """Return precisions (K,) as whole multiples of 1/denominator."""
        return np.array([_decimal(b) * self.denominator for b in bits], dtype=np.int64)

    def dense(self, groups: IntArray | slice, bits: Sequence[float]) -> IntArray:
        """Return the cost (n, K) of ``groups``, all of whose candidates are ``bits``; a view where it can."""
        if self.table is None:
            assert self.slope is not None
            return self.slope[groups, None] * self.levels(bits)
        rows = self.table[groups]
        rows = rows if rows.shape[1] == len(bits) else rows[:, : len(bits)]
        return rows if self.slope is None else rows + self.slope[groups, None] * self.levels(bits)

    def chosen(self, candidates: Candidates, choice: IntArray) -> IntArray:
        """Return the cost (G,) of a choice (G,)."""
        total = None if self.table is None else self.table[np.arange(len(choice)), choice]
        if self.slope is not None:
            levels = np.zeros((len(candidates.sets), candidates.width), dtype=np.int64)
            for row, one in zip(levels, candidates.sets, strict=True):
                row[: len(one)] = self.levels(one)
            number = 0 if candidates.set_of is None else candidates.set_of
            linear = self.slope * levels[number, choice]
            total = linear if total is None else total + linear
        assert total is not None
        return total

    def total(self, candidates: Candidates, choice: IntArray) -> int:
        """Return the exact cost of a choice (G,)."""
        return exact_int_sum(self.chosen(candidates, choice))


def cost_row(problem: Problem, weights: Mapping[str, Fraction | int | float]) -> CostRow:
    """Combine the named cost terms of ``problem``, each times its weight, into one integer row."""
    denominator = math.lcm(*(_decimal(b).denominator for one in problem.candidates.sets for b in one))
    slopes: list[tuple[Fraction, IntArray]] = []
    tables: list[tuple[Fraction, IntArray]] = []
    for name, weight in weights.items():
        term, factor = problem.cost(name), _decimal(weight)
        slope = term.slope(problem)
        if slope is not None:
            slopes.append((factor / denominator, slope))
        else:
            values, quantum = term.table(problem)
            tables.append((factor * quantum, values))
    quantum = common_quantum([factor for factor, _ in slopes + tables])
    slope, table = _combine(slopes, quantum), _combine(tables, quantum)
    units = {problem.cost(name).unit for name in weights}
    unit = units.pop() if len(units) == 1 else ""
    row = CostRow(quantum, slope, table, denominator, weights, unit)
    largest = 0.0
    if slope is not None:
        largest += float(slope.sum(dtype=np.float64)) * float(row.levels([max(map(max, problem.candidates.sets))])[0])
    if table is not None and len(tables) + len(slopes) > 1:
        largest += float(np.abs(table).max()) * len(table)
    if largest >= LARGEST_TOTAL:
        raise ProblemError(
            "the weighted costs are too large for exact 64-bit sums",
            where="minimize",
            value=dict(weights),
            hint="use weights with fewer digits",
        )
    return row


def _combine(parts: list[tuple[Fraction, IntArray]], quantum: Fraction) -> IntArray | None:
    total = None
    for factor, values in parts:
        times = factor / quantum
        if times * int(max(abs(int(values.max())), abs(int(values.min())), 1)) >= LARGEST_TOTAL:
            raise ProblemError(
                "a weighted cost is too large for exact 64-bit sums",
                where="minimize",
                hint="use weights with fewer digits",
            )
        scaled = values if times == 1 else values * int(times)
        total = scaled if total is None else total + scaled
    return total


def _decimal(value: float | Fraction) -> Fraction:
    """Read a number as the decimal that people wrote: 0.1 is one tenth."""
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    return Fraction(int(value)) if float(value).is_integer() else Fraction(repr(float(value)))
