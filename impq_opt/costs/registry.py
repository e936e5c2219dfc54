"""The cost terms that every problem can name."""

from __future__ import annotations

from impq_opt.costs.memory import PeakActivationMemory
from impq_opt.costs.operations import Adders, BitOperations, Slides
from impq_opt.costs.terms import ActivationMemory, CostTerm, Representational, Storage
from impq_opt.errors import OptionError, nearest

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
    known = COSTS | {term.name: term for term in extra}
    if name not in known:
        raise OptionError("unknown cost", where="minimize", value=name, hint=nearest(name, known))
    return known[name]
