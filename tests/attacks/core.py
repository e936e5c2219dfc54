"""What all attacks share: a fault, the outcome of one attack, and a limit on the time that it may take."""

from __future__ import annotations

import contextlib
import importlib
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

# Seconds of processor time that any one step (a solve, a verify, a load) may take: all questions are tiny.
SLOW = 4.0
# After so many it is broken off.
BROKEN_OFF = 8.0

# kind -> module with ``attack(seed) -> Attack``
ATTACKS = {
    "instances": "attacks.instances",
    "forgeries": "attacks.forgeries",
    "claims": "attacks.claims",
    "files": "attacks.mutations",
    "numbers": "attacks.numbers",
}


@dataclass(frozen=True)
class Fault:
    """Something false, a traceback, or a step without end; ``code`` reproduces it."""

    kind: str
    seed: int
    what: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.kind} seed {self.seed}: {self.what}" + (f"\n{self.code}" if self.code else "")


@dataclass
class Attack:
    """The outcome of one attack.

    ``done`` is the number of things tried, ``counts`` says which and what became of them (statuses, refusals,
    lies), and ``digest`` is what must be the same compiled and not.
    """

    seed: int
    done: int = 1
    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    digest: str = ""


class TooLong(BaseException):
    """A step was broken off; no ``except Exception`` on the way may swallow it."""


@contextlib.contextmanager
def limited(seconds: float = BROKEN_OFF) -> Iterator[None]:
    """Raise TooLong in the body once it has used so many seconds of processor time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Step:
    """Times a step and turns what escapes from it, other than ``allowed``, into a fault text."""

    def __init__(self, name: str, *allowed: type[Exception]) -> None:
        self.name, self.allowed = name, allowed
        self.fault = ""
        self.refusal: Exception | None = None

    def __enter__(self) -> Step:
        self._started = time.process_time()
        self._limit = limited()
        self._limit.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._limit.__exit__(None, None, None)
        used = time.process_time() - self._started
        if isinstance(error, TooLong):
            self.fault = f"{self.name} was broken off after {used:.0f} s"
        elif error is None:
            if used > SLOW:
                self.fault = f"{self.name} took {used:.1f} s"
        elif isinstance(error, self.allowed):
            self.refusal = error
        elif isinstance(error, Exception):
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            self.fault = f"{self.name} raised {type(error).__name__}: {str(error)[:200]} ({place})"
        else:
            return False
        return True


def load(kind: str) -> Any:
    """Return the ``attack`` function of a kind."""
    return importlib.import_module(ATTACKS[kind]).attack
