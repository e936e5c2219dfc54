"""The contract between a strategy and :func:`impq_opt.solve`: what it is given, and what it may claim."""

from __future__ import annotations

import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from types import FrameType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.types import FloatArray, IntArray

__all__ = ["Claim", "Control", "ExpiredError", "Solver", "clock", "listening"]

Flag = npt.NDArray[np.uint8]

# The clock of all limits, and of the times that answers tell: seconds, never set back.
clock = time.perf_counter


class ExpiredError(Exception):
    """Time is over, or an interrupt came: raised by :meth:`Control.check`, caught by the strategy that called it."""


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
        See :func:`impq_opt.proof.bound.dual_bound`; what the lower bound can be checked with.
    tangent : ndarray of float64 (r,), optional
        Where damages interact by factors: the point at which the multipliers prove the bound.
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
    tangent: FloatArray | None = None


@dataclass(frozen=True)
class Control:
    """Limits of one run.

    A strategy looks at them so often that it ends within a tenth of a second of them, with its best answer so far. Why
    it ended is :func:`impq_opt.solve`'s to say: to a strategy an interrupt is a deadline.

    Parameters
    ----------
    deadline : float
        On :func:`clock`.
    memory_limit : float, optional
        Bytes that the run may allocate on top of the instance.
    seed : int
    warm_start : ndarray of int64 (size,), optional
        A choice to start from; it may be infeasible.
    interrupt : ndarray of uint8 (1,)
        Not 0 once the run is to end; compiled code reads it where it lies.
    """

    deadline: float = math.inf
    memory_limit: float | None = None
    seed: int = 0
    warm_start: IntArray | None = None
    interrupt: Flag = field(default_factory=lambda: np.zeros(1, dtype=np.uint8), compare=False)

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt came."""
        return bool(self.interrupt[0])

    def expired(self) -> bool:
        """Return whether the run is to end: the deadline has passed, or an interrupt came."""
        return self.interrupted or clock() >= self.deadline

    def check(self) -> None:
        """Go on only while the run is not to end.

        Raises
        ------
        ExpiredError
            Where it is.
        """
        if self.expired():
            raise ExpiredError

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - clock()


@contextmanager
def listening() -> Iterator[Flag]:
    """Turn the first Ctrl-C inside into a flag (1,), for :class:`Control`; a second one raises KeyboardInterrupt.

    An exception could come anywhere, between two lines that belong together or after the answer was found; a flag is
    seen where a strategy looks for it. Where Python's own handler is not in place, or this is not the main thread,
    which alone may set one, nothing is changed and the flag stays 0.

    Raises
    ------
    KeyboardInterrupt
        At the second Ctrl-C.
    """
    flag: Flag = np.zeros(1, dtype=np.uint8)

    def note(number: int, frame: FrameType | None) -> None:
        if flag[0]:
            raise KeyboardInterrupt
        flag[0] = 1

    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield flag
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, usual)


@dataclass(frozen=True)
class Solver(ABC):
    """A strategy. Subclasses are frozen dataclasses: their fields are the options, checked when built.

    ``summary`` is one line for people, ``proves`` is what an answer comes with, and ``supports`` names the features
    that the strategy handles beside the plain problem (least cost under a bound): ``"damage"`` (least damage under a
    budget), ``"budgets"`` (further budgets), ``"pairs"`` (costs that couple two groups) and ``"peaks"`` (a cost that is
    the largest of several sums). A problem with any other feature is refused by name. A strategy that ``decides`` finds
    an answer or shows that there is none, so that feasibility need not be looked into before it runs. One that is
    ``slow``, minutes where others take moments, is compared with others only where it is named. One that ``draws``
    random numbers takes them from the seed of its :class:`Control`; the others give one answer whatever the seed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    proves: ClassVar[str] = "nothing"
    supports: ClassVar[frozenset[str]] = frozenset()
    decides: ClassVar[bool] = False
    slow: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    @abstractmethod
    def run(self, instance: Instance, control: Control) -> Claim:
        """Return what can be claimed about ``instance``, which has at least one free group."""
