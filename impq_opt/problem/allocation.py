"""The answer: which precision each group gets, what is claimed about it, and what proves the claim."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.errors import AllocationError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.arrays import ACTIVATION, WEIGHT
from impq_opt.groups.held import Held, held
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Whole
from impq_opt.problem.unmeasured import unknown_groups
from impq_opt.types import IntArray

__all__ = ["Allocation", "Certificate", "Diagnosis", "Enumeration", "Status", "Stop"]


class Status(enum.Enum):
    """What is known about the answer; set by :func:`impq_opt.solve` alone."""

    OPTIMAL = "optimal"  # feasible, and a checked lower bound meets the objective
    FEASIBLE = "feasible"  # feasible, and the gap is open
    INFEASIBLE = "infeasible"  # proved: no allocation meets the limits
    UNKNOWN = "unknown"  # no feasible allocation was found and none was ruled out


class Stop(enum.Enum):
    """Why a solver stopped."""

    COMPLETED = "completed"
    TIME_LIMIT = "time limit"
    MEMORY_LIMIT = "memory limit"
    STATE_LIMIT = "state limit"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Enumeration:
    """A claim that every assignment of a core was covered, in exact arithmetic.

    Parameters
    ----------
    groups : int
        Groups of the core: those with more than one choice whose reduced cost does not exceed the gap.
    states : int
        Partial assignments that were looked at.
    by : str
        Whose word it is: a strategy of this package, by name, or ``"recount"`` where another's was repeated.
    """

    groups: int
    states: int
    by: str = ""


@dataclass(frozen=True)
class Certificate(Held):
    """What proves the lower bound.

    ``dual_bound`` follows from ``multipliers`` alone: for any lambda >= 0 the sum over groups of
    min_k (cost + lambda damage), less lambda times the bound, is below every feasible cost (Everett 1963).
    Anything above it rests on ``enumeration``.

    Parameters
    ----------
    multipliers : mapping of str to float
        One per limit (``"bound"``, or the name of a budget), in ``quantum`` per unit of the limited quantity
        (damage, or quanta of the budget); in damage per quantum where damage is minimised.
    quantum : Fraction
        What one integer of cost is worth in the cost's unit.
    dual_bound : Fraction or float
        In the objective's unit, rounding accounted for; -inf where there are no multipliers.
    enumeration : Enumeration, optional
    """

    multipliers: Mapping[str, float]
    quantum: Fraction
    dual_bound: Fraction | float
    enumeration: Enumeration | None = None


@dataclass(frozen=True)
class Diagnosis(Held):
    """Why nothing is feasible: a conflict, and what one limit of it comes down to under the rest of it.

    Parameters
    ----------
    limit : str
        The limit that cannot be met: "damage", or the name of a cost.
    smallest : float
        The smallest value of it that can be reached under exactly the rest of the conflict; rounded down to a float64,
        damages within two of the last place.
    allowed : float
        What the limit allows, rounded up to a float64.
    held_by : tuple of str
        The rest of the conflict in words, in its order. Where damage is held by nothing but pins and ties, then the
        groups that have most of it.
    conflict : tuple of (str, str)
        ("bound", ""), ("budget", cost), ("pins", label) and ("ties", label). With nothing but these limits, pins and
        ties the problem is infeasible. Empty where it is not known.
    minimal : bool
        Whether each of the conflict is needed: with any one of them left out the problem is feasible.
    attained : bool
        Whether ``smallest`` is reached; else it is a lower bound.
    without : float, optional
        The smallest value without the rest of the conflict, rounded up; None where there is no rest or it is not known.
    """

    limit: str
    smallest: float
    allowed: float
    held_by: tuple[str, ...] = ()
    conflict: tuple[tuple[str, str], ...] = ()
    minimal: bool = True
    attained: bool = True
    without: float | None = None

    def __str__(self) -> str:
        for digits in range(6, 18):
            smallest, allowed = rounded(self.smallest, digits), rounded(self.allowed, digits, up=True)
            if float(smallest) > float(allowed):
                break
        return self.sentence(smallest, allowed, "" if self.without is None else rounded(self.without, 6, up=True))

    def sentence(self, smallest: str, allowed: str, without: str) -> str:
        """Return the diagnosis with its values written as given."""
        text = f"the smallest reachable {self.limit} is "
        if self.smallest > self.allowed:
            text += f"{'' if self.attained else 'at least '}{smallest}, above {allowed}"
        else:  # by less than a float64 tells
            text += f"above {allowed}"
        held = list(self.held_by)
        rest = min(len(held), max(len(self.conflict) - 1, 0))
        if rest and without:
            alone = rest == 1 and not held[0].startswith("the pins")
            held[rest - 1] += f" (without {'it' if alone else 'them'} {without})"
        text += f"; held there by {'; '.join(held)}" if held else ""
        return text if self.minimal else f"{text}; that all of this is needed could not be shown"


@dataclass(frozen=True, eq=False)
class Allocation(Held):
    """One answer to one problem. Nothing in it can be written to: what was checked stays what was checked.

    Parameters
    ----------
    problem : Problem
    status : Status
    choice : ndarray of int64 (G,), optional
        Column of the candidate that each group takes, in the problem's own tables; None where there is no answer.
    minimizes : {"cost", "damage"}
    exact_cost : Fraction, optional
        Of ``cost_weights``, in their unit.
    exact_damage : Fraction, optional
        Sum of the float64 damages without rounding.
    lower_bound_exact : Fraction or float
        No allocation has a smaller objective; -inf where nothing is known.
    bound : Fraction, optional
        Limit on damage.
    budgets : mapping of str to Fraction
        Limits on costs.
    stated : mapping
        What a file says beside the exact values, for people; :func:`impq_opt.verify` checks it.
    origin : Problem, optional
        The problem of the file that the answer was read beside, where it says to answer a revision of it.
    """

    problem: Problem
    status: Status
    choice: IntArray | None
    minimizes: str
    cost_weights: Mapping[str, Fraction | int | float]
    exact_cost: Fraction | None
    exact_damage: Fraction | None
    exact_lower_bound: Fraction | float
    bound: Fraction | None
    budgets: Mapping[str, Fraction]
    certificate: Certificate | None = None
    diagnosis: Diagnosis | None = None
    solver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    stop: Stop = Stop.COMPLETED
    statistics: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, Any] = field(default_factory=dict)
    origin: Problem | None = None

    def _need(self) -> IntArray:
        if self.choice is None:
            raise AllocationError(
                f"there is no allocation: the status is {self.status.value}",
                hint=str(self.diagnosis) if self.diagnosis else "",
            )
        return self.choice

    @cached_property
    def bits(self) -> npt.NDArray[np.float64] | IntArray:
        """Precision (G,) of each group; integers where all candidates are whole."""
        bits = self.problem.candidates.bits(self._need())
        whole = all(float(b).is_integer() for widths in self.problem.candidates.sets for b in widths)
        return held(bits.astype(np.int64) if whole else bits)

    @property
    def exact_objective(self) -> Fraction | None:
        """The minimised quantity, exactly."""
        return self.exact_cost if self.minimizes == "cost" else self.exact_damage

    @property
    def objective(self) -> int | float:
        """The minimised quantity: an int where it is whole, else the nearest float64."""
        self._need()
        assert self.exact_objective is not None
        return number(self.exact_objective)

    @property
    def lower_bound(self) -> int | float:
        """No allocation has a smaller objective; rounded down to a float64 where it is not whole."""
        return number(self.exact_lower_bound)

    @property
    def gap(self) -> float:
        """(objective - lower bound) / objective; 0 where they are equal, inf where nothing is known."""
        objective, below = self.exact_objective, self.exact_lower_bound
        if objective is None or below == -math.inf:
            return math.inf
        if self.status is Status.OPTIMAL or objective <= below:
            return 0.0
        return nearest_float((objective - Fraction(below)) / abs(objective)) if objective else math.inf

    @property
    def cost(self) -> int | float:
        """The cost, in the unit of the problem's objective."""
        self._need()
        assert self.exact_cost is not None
        return number(self.exact_cost)

    @property
    def damage(self) -> float:
        """The exact sum of damages, rounded once to the nearest float64; inf where it is out of range."""
        self._need()
        assert self.exact_damage is not None
        return nearest_float(self.exact_damage)

    @property
    def effective_bits(self) -> tuple[float | None, float | None]:
        """Sum N B / sum N over weight groups and over activation groups; None where there are none.

        Of the groups alone, B_w,eff and B_a,eff of the IMPQ paper: :attr:`whole` is about the whole network.
        """
        kinds = self.problem.kinds
        return self._effective(kinds, WEIGHT), self._effective(kinds, ACTIVATION)

    def _effective(self, kinds: Any, kind: int) -> float | None:
        if self.problem.candidates.numbered:
            return None
        sizes, bits = self.problem.sizes, self.bits
        if kinds is None:
            return float(np.dot(sizes, bits) / sizes.sum()) if kind == WEIGHT else None
        inside = kinds == kind
        if not inside.any():
            return None
        return float(np.dot(sizes[inside], bits[inside]) / sizes[inside].sum())

    @property
    def compression_ratio(self) -> float | None:
        """16 sum N / sum N B over weight groups (IMPQ slides), not of the network; None where there are no bits."""
        effective = self.effective_bits[0]
        return 16 / effective if effective else None

    @cached_property
    def unknown(self) -> IntArray:
        """The groups whose damage nobody knows and :attr:`damage` lacks: unmeasured, and below 16 bits."""
        groups = unknown_groups(self.problem.unmeasured, self.bits, numbered=self.problem.candidates.numbered)
        return held(groups)

    @cached_property
    def whole(self) -> Whole | None:
        """What the whole network takes; None where the problem does not say what of it is in no group."""
        return self.problem.whole(self.bits)

    def __repr__(self) -> str:
        if self.choice is None:
            return f"Allocation({self.status.value}, {len(self.problem)} groups)"
        return (
            f"Allocation({self.status.value}, {len(self.problem)} groups, objective={self.objective}, "
            f"lower_bound={self.lower_bound}, damage={self.damage:.6g})"
        )


def rounded(value: float, digits: int, *, up: bool = False) -> str:
    """Return ``value`` as a decimal, whole numbers in full, others rounded down to so many digits, or up."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    exact = Decimal(repr(value))  # a float64 stands for its shortest decimal
    short = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR).plus(exact)
    return repr(float(short)).removesuffix(".0")


def number(value: Fraction | float) -> int | float:
    """Return an int where ``value`` is whole, else the nearest float64."""
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else nearest_float(value)
    return value
