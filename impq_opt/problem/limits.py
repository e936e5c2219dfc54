"""Limits on costs as people give them: in a unit, or as mean bits of the weights."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from impq_opt.costs import CostTerm, cost_named, parse_quantity
from impq_opt.types import BoolArray, IntArray, Real

__all__ = ["read_limit"]

# The cost whose limit can be given as mean bits of the weights.
_OF_WEIGHTS = "storage"


class Limited(Protocol):
    """What of a problem says how large a limit is."""

    @property
    def sizes(self) -> IntArray: ...

    @property
    def costs(self) -> tuple[CostTerm, ...]: ...

    def weights(self) -> BoolArray: ...


def read_limit(problem: Limited, cost: str, value: str | Real, where: str) -> Fraction:
    """Return a limit on ``cost`` in its unit; ``"4.5bpw"`` is a limit on storage.

    Raises
    ------
    OptionError
        Where the cost is unknown, or the limit is no quantity of its unit.
    """
    weights = int(problem.sizes[problem.weights()].sum()) if cost == _OF_WEIGHTS else None
    return parse_quantity(value, cost_named(cost, problem.costs, where=where).unit, where, weights=weights)
