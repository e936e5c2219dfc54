"""The contract between a strategy and :func:`impq_opt.solve`: what it is given, and what it may claim."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.allocation import Enumeration, Stop
from impq_opt.errors import SolverError
from impq_opt.instance import Instance

__all__ = ["Claim", "Control", "Solver", "checked"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Claim:
    """What a solver says. Nothing in it is believed before it is checked, and nothing defaults to success.

    Parameters
    ----------
    choice : ndarray of int64 (size,), optional
        One column per free group.
    lower_bound : int, Fraction or float
        In quanta of cost (pinned groups included), or in damage; -inf where nothing is claimed.
    multipliers : mapping
        See :func:`impq_opt.verification.dual_bound`; what the lower bound can be checked with.
    enumeration : Enumeration, optional
        Set only where ``lower_bound`` rests on a complete enumeration in exact arithmetic. A bound without
        multipliers or enumeration behind it is reported and not used.
    stop : Stop
    statistics : mapping
        Anything worth showing.
    """

    choice: IntArray | None = None
    lower_bound: int | Fraction | float = -math.inf
    multipliers: Mapping[str, float] = field(default_factory=dict)
    enumeration: Enumeration | None = None
    stop: Stop = Stop.COMPLETED
    statistics: Mapping[str, Any] = field(default_factory=dict)


def checked(claim: object, name: str) -> Claim:
    """Return a claim whose fields have their types; raise SolverError, naming solver and field, if one has not."""
    if not isinstance(claim, Claim):
        raise SolverError(f"solver {name!r} returned {type(claim).__name__}, not a Claim")
    right = {
        "choice": claim.choice is None or isinstance(claim.choice, np.ndarray),
        "lower_bound": _is_number(claim.lower_bound, Fraction) and not math.isnan(claim.lower_bound),
        "multipliers": isinstance(claim.multipliers, Mapping)
        and all(isinstance(key, str) and _is_number(value) for key, value in claim.multipliers.items()),
        "enumeration": claim.enumeration is None or _counts(claim.enumeration),
        "stop": isinstance(claim.stop, Stop),
        "statistics": isinstance(claim.statistics, Mapping),
    }
    for field_name, is_right in right.items():
        if not is_right:
            raise SolverError(f"solver {name!r} claimed a {field_name} of {getattr(claim, field_name)!r:.80}")
    bound = claim.lower_bound
    return replace(claim, lower_bound=int(bound)) if isinstance(bound, np.integer) else claim


def _is_number(value: object, *others: type) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating, *others)) and not isinstance(value, bool)


def _counts(enumeration: object) -> bool:
    return isinstance(enumeration, Enumeration) and all(
        isinstance(count, (int, np.integer)) for count in (enumeration.groups, enumeration.states)
    )


@dataclass(frozen=True)
class Control:
    """Limits of one run.

    Parameters
    ----------
    deadline : float
        On the clock of :func:`time.perf_counter`.
    memory_limit : int, optional
        Bytes that the run may allocate on top of the instance.
    seed : int
    warm_start : ndarray of int64 (size,), optional
        A choice to start from; it may be infeasible.
    """

    deadline: float = math.inf
    memory_limit: int | None = None
    seed: int = 0
    warm_start: IntArray | None = None

    def expired(self) -> bool:
        """Return whether the deadline has passed."""
        return time.perf_counter() >= self.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.perf_counter()


@dataclass(frozen=True)
class Solver(ABC):
    """A strategy. Subclasses are frozen dataclasses: their fields are the options, checked when built.

    ``summary`` is one line for people, ``proves`` is what an answer comes with, and ``supports`` names the features
    that the strategy handles beside the plain problem (least cost under a bound): ``"damage"`` (least damage under a
    budget), ``"budgets"`` (further budgets), ``"pairs"`` (costs that couple two groups) and ``"peaks"`` (a cost that is
    the largest of several sums). A problem with any other feature is refused by name. A strategy that ``decides`` finds
    an answer or shows that there is none, so that feasibility need not be looked into before it runs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    proves: ClassVar[str] = "nothing"
    supports: ClassVar[frozenset[str]] = frozenset()
    decides: ClassVar[bool] = False

    @abstractmethod
    def run(self, instance: Instance, control: Control) -> Claim:
        """Return what can be claimed about ``instance``, which has at least one free group."""
