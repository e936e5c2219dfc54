"""What is minimised and what is limited: sums over the free groups, all of one type."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum, exact_sum, reported_as_low
from impq_opt.instance.blocks import Tables
from impq_opt.instance.coupling import Coupling
from impq_opt.types import IntArray

__all__ = ["Row", "Table", "Value"]

# Of int64 where sums are whole, else of float64.
Table = npt.NDArray[Any]
# Of costs in quanta, and of damages.
Value = int | Fraction


@dataclass(frozen=True, eq=False)
class Row:
    """An entry of ``table`` for each group, one of ``pairs`` for each pair, and ``base``, all added up.

    Parameters
    ----------
    name : str
        What its price is called among the multipliers: ``"bound"`` on damage, ``"budget"`` on the cost under which
        damage is minimised, else the name of the cost, or of a step of a peak.
    entries : ndarray (size, K) of int64 or float64, or Tables
        Columns past a group's width repeat its last candidate. Tables stand for the cost or the damage that is theirs,
        so that vectors stay vectors until somebody asks for a table.
    base : int or Fraction
        Of pinned groups, and constants.
    limit : int or Fraction, optional
        The sum is at most that; left out for what is minimised.
    quantum : Fraction
        What 1 is worth in the unit.
    pairs : Coupling, optional
    term : str
        The cost that is limited; a peak has a row for each step.
    whole : bool
        Costs are whole numbers of the quantum; damages are float64 that are read exactly.
    """

    name: str
    entries: Table | Tables
    base: Value
    limit: Value | None = None
    quantum: Fraction = Fraction(1)
    pairs: Coupling | None = None
    term: str = ""
    whole: bool = True

    @property
    def of_blocks(self) -> bool:
        """Whether it is the cost or the damage of the instance's blocks, which may be vectors."""
        return isinstance(self.entries, Tables)

    @property
    def table(self) -> Table:
        """The entries (size, K)."""
        return self.entries.both[0 if self.whole else 1] if isinstance(self.entries, Tables) else self.entries

    @property
    def room(self) -> Value:
        """What the limit leaves to the groups."""
        assert self.limit is not None
        return self.limit - self.base

    @cached_property
    def touched(self) -> IntArray:
        """The groups whose candidates differ in ``table``."""
        return np.flatnonzero((self.table != self.table[:, :1]).any(axis=1))

    @property
    def ends(self) -> tuple[Value, Value]:
        """The sums of the smallest and of the largest entries, pairs left out; no choice is beyond them."""
        return self.base + self._sum(self.table.min(axis=1)), self.base + self._sum(self.table.max(axis=1))

    def _sum(self, entries: Table) -> Value:
        return exact_int_sum(entries) if self.whole else exact_sum(entries)

    def limited(self, limit: Value) -> Row:
        """Return the row with another limit."""
        return replace(self, limit=limit)

    def broken_by(self, value: Value) -> bool:
        """Return whether ``value`` is above the limit."""
        return self.limit is not None and value > self.limit

    def at(self, choice: IntArray) -> Value:
        """Return the sum for a choice (size,), exactly, but that tied damages are rounded down in tables."""
        chosen = self.table[np.arange(len(choice)), choice]
        total = self.base + self._sum(chosen)
        return total if self.pairs is None else total + exact_int_sum(self.pairs.at(choice))

    def lowest(self, bound: Value | float) -> Value | float:
        """Return the least value the sum can have that is not below ``bound``."""
        finite = not isinstance(bound, float) or math.isfinite(bound)
        return math.ceil(bound) if self.whole and finite else bound

    def closes(self, bound: Value | float, value: Value) -> bool:
        """Return whether nothing that is not below ``bound`` is better than ``value``.

        Costs are whole numbers of quanta. Damages are compared as they are reported, rounded once to the nearest
        float64; what float64 does not reach is compared exactly.
        """
        if self.whole or abs(bound) == math.inf:
            return bound >= value
        return reported_as_low(Fraction(value), Fraction(bound))
