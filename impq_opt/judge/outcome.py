"""How an attempt to prove that nothing better exists ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from impq_opt.types import IntArray

__all__ = ["Outcome", "Recount"]


class Outcome(enum.Enum):
    """How an enumeration ended."""

    PROVED = "proved"
    REFUTED = "refuted"  # an assignment below the target was found
    OPEN = "open"  # too many states


@dataclass(frozen=True)
class Recount:
    """What was enumerated; ``better`` is an assignment (size,) below the target where there is one."""

    outcome: Outcome
    groups: int
    states: int
    better: IntArray | None = None
