"""What the judge says: a verdict on each statement, and what they come to together."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Check", "Verdict", "Verification"]


class Verdict(enum.Enum):
    """What is known about one statement."""

    PROVED = "proved"  # recomputed here
    TOLD = "told"  # how the answer came about, or what was asked: nothing to prove
    CLAIMED = "claimed"  # stated by the solver, neither proved nor refuted here
    WRONG = "wrong"


@dataclass(frozen=True)
class Check:
    """One statement of an allocation and what became of it."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Verification:
    """What :func:`~impq_opt.judge.verify.verify` found.

    Parameters
    ----------
    checks : tuple of Check
    lower_bound : Fraction or float
        What is proved here: no allocation has a smaller objective; -inf where nothing is. In the objective's unit.
    """

    checks: tuple[Check, ...]
    lower_bound: Fraction | float

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return all(check.verdict is not Verdict.WRONG for check in self.checks)

    @property
    def proved(self) -> bool:
        """Whether everything that is stated was proved here, its status first of all."""
        known = all(check.verdict in (Verdict.PROVED, Verdict.TOLD) for check in self.checks)
        return known and any(check.name == "status" and check.verdict is Verdict.PROVED for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(f"{check.verdict.value:<8}{check.name}: {check.text}" for check in self.checks)
