"""The cost terms that every problem can name."""

from __future__ import annotations

from impq_opt.costs.memory import PeakActivationMemory
from impq_opt.costs.operations import Adders, BitOperations, Slides
from impq_opt.costs.terms import ActivationMemory, CostTerm, Representational, Storage
from impq_opt.registry import look_up

__all__ = ["COSTS", "cost_named"]

COSTS: dict[str, CostTerm] = {
    term.name: term
    for term in (
        Storage(),
        ActivationMemory(),
        PeakActivationMemory(),
        Representational(),
        BitOperations(),
        Adders(),
        Slides(),
    )
}


def cost_named(name: str, extra: tuple[CostTerm, ...] = ()) -> CostTerm:
    """Return the built-in or declared cost term called ``name``."""
    return look_up(COSTS | {term.name: term for term in extra}, name, "cost", where="minimize")
