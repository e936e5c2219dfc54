"""The lower convex hulls of all groups as steps; found in ``native.hulls``, sorted once for many bounds here."""

from __future__ import annotations

from dataclasses import dataclass

from impq_opt.solvers.native.hulls import Steps, descending, hull_edges, hull_steps, sums_along

__all__ = ["Hulls", "Steps", "descending", "hull_edges", "hull_steps", "sums_along"]


@dataclass(frozen=True)
class Hulls:
    """The hull steps of all groups, best first, and what the groups' cheapest candidates cost and damage.

    ``lattice`` divides all differences of costs inside a group.
    """

    steps: Steps
    start_cost: int
    start_damage: float
    lattice: int
