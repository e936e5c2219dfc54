"""The cost terms that every problem can name: built-in ones, then those of other packages (``impq_opt.costs``)."""

from __future__ import annotations

from impq_opt.costs.compiled import Flash, Ram
from impq_opt.costs.hardware import BitFusionCycles, MpicCycles
from impq_opt.costs.memory import PeakActivationMemory
from impq_opt.costs.operations import Adders, BitOperations, Slides
from impq_opt.costs.terms import ActivationMemory, CostTerm, Representational, Storage
from impq_opt.registry import Registry, look_up

__all__ = ["COSTS", "cost_named", "cost_names"]

COSTS: dict[str, CostTerm] = {
    term.name: term
    for term in (
        Storage(),
        ActivationMemory(),
        PeakActivationMemory(),
        Flash(),
        Ram(),
        Representational(),
        BitOperations(),
        Adders(),
        Slides(),
        MpicCycles(),
        BitFusionCycles(),
    )
}
# Of other packages: asked for only where a name is not built in, since looking for entry points takes milliseconds.
_THEIRS: Registry[CostTerm] = Registry("cost", {}, "impq_opt.costs")


def cost_names() -> tuple[str, ...]:
    """Return the names of the built-in cost terms, then of those that other packages bring."""
    return (*COSTS, *(name for name in _THEIRS.names() if name not in COSTS))


def cost_named(name: str, extra: tuple[CostTerm, ...] = (), *, where: str = "minimize") -> CostTerm:
    """Return the cost term called ``name``: built-in, declared in ``extra``, or of another package.

    Raises
    ------
    OptionError
        Where there is none, with near matches, at ``where``.
    """
    known = COSTS | {term.name: term for term in extra}
    if name in known:
        return known[name]
    if name in _THEIRS.names():
        return _THEIRS.make(name)
    return look_up(dict.fromkeys(cost_names()) | known, name, "cost", where=where)  # type: ignore[return-value]
