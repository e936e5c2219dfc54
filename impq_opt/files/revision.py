"""What was revised before a problem was solved, as an allocation's file keeps it."""

from __future__ import annotations

import msgspec

from impq_opt.problem.problem import Problem
from impq_opt.problem.uncertainty import upper_limit

__all__ = ["Number", "Revision"]

Number = int | float


class Revision(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What was changed on the problem of a file before it was solved; see :meth:`impq_opt.Problem.revise`.

    ``confidence`` raises damages to their upper limits; see :func:`impq_opt.problem.uncertainty.upper_limit`.
    ``free_unmeasured`` lets groups go whose damage is not known. ``weights_only`` leaves out the activations.
    """

    pins: dict[str, Number | str] = {}
    ties: list[list[str]] = []
    bits: list[Number] | None = None
    budgets: dict[str, str] = {}
    confidence: float | None = None
    free_unmeasured: bool = False
    weights_only: bool = False

    def apply(self, problem: Problem) -> Problem:
        """Return ``problem`` so revised."""
        if self.confidence is not None:
            problem = upper_limit(problem, self.confidence)
        return problem.revise(
            pins=self.pins,
            ties=self.ties,
            bits=self.bits,
            budgets=self.budgets,
            free_unmeasured=self.free_unmeasured or None,
            weights_only=self.weights_only,
        )

    def __bool__(self) -> bool:
        return self != Revision()
