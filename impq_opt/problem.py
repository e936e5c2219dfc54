"""The declared problem: groups, candidates, damage, costs, bounds, pins and ties. Frozen and validated whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt import declaration
from impq_opt.arrays import (
    WEIGHT,
    candidate_sets,
    float_array,
    group_names,
    int_array,
    kind_array,
)
from impq_opt.costs import CostTerm, TableCost, cost_named, parse_quantity
from impq_opt.damage import DamageTable, PowerLaw
from impq_opt.declaration import Group, from_groups
from impq_opt.errors import ProblemError
from impq_opt.groups import Candidates, GroupNames
from impq_opt.validation import canonical, validate

__all__ = ["Problem"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
KindArray = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Problem:
    """Which precision each group may take, what it costs and what it damages.

    Build it with :meth:`from_sensitivities`, :meth:`from_tables` or :meth:`declare`, or load a file. Arrays are kept as
    read-only views, not copied: do not change them afterwards.

    Parameters
    ----------
    names, candidates, damage
        Of G groups.
    sizes : ndarray of int64 (G,)
        Elements of each group.
    kinds : ndarray of int8 (G,), optional
        0 weight, 1 activation; all weights where left out.
    ranges : ndarray of float64 (G,), optional
        Span of each quantizer; its square is already folded into the sensitivities.
    macs : ndarray of int64 (G,), optional
        Multiply-accumulates per sample that use a weight group.
    reads : ndarray of int64 (G,), optional
        The activation group that a weight group reads, or -1: the network's input, at 8 bits.
    also_reads : ndarray of int64 (E, 3), optional
        Further reads as (weight group, activation group, multiply-accumulates): a weight shared by several layers, a
        layer that reads several tensors. ``macs`` counts the multiply-accumulates of ``reads`` alone.
    lengths : ndarray of int64 (G,), optional
        Length D of the dot products of a weight group; 0 where unknown.
    steps : ndarray of int64 (G, 2), optional
        First and last step of the execution at which an activation group is in memory; -1 for weights.
    costs : tuple of CostTerm
        Declared cost terms beside the built-in ones.
    objective : mapping of str to number
        Weights of the cost terms that are minimised together.
    bound : float or Fraction, optional
        Largest damage allowed, p_m. A float is read as the exact binary number that it is.
    budgets : mapping of str to Fraction
        Largest value allowed of a cost term, in its unit.
    pins : mapping of int to int
        Column of the candidate that a group must take.
    ties : tuple of tuple of int
        Groups that must take equal precisions.
    metric, damage_unit : str
        What the damage is, and its unit.
    provenance : mapping
        Where the numbers come from.
    """

    names: GroupNames
    candidates: Candidates
    damage: PowerLaw | DamageTable
    sizes: IntArray
    kinds: KindArray | None = None
    ranges: FloatArray | None = None
    macs: IntArray | None = None
    reads: IntArray | None = None
    also_reads: IntArray | None = None
    lengths: IntArray | None = None
    steps: IntArray | None = None
    costs: tuple[CostTerm, ...] = ()
    objective: Mapping[str, Fraction | int] = field(default_factory=lambda: {"storage": 1})
    bound: float | Fraction | None = None
    budgets: Mapping[str, Fraction] = field(default_factory=dict)
    pins: Mapping[int, int] = field(default_factory=dict)
    ties: tuple[tuple[int, ...], ...] = ()
    metric: str = "impq"
    damage_unit: str = "mismatch probability bound"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate(self)

    # -- building ------------------------------------------------------------------------------------------------

    @classmethod
    def from_sensitivities(
        cls,
        sizes: npt.ArrayLike,
        sensitivities: npt.ArrayLike,
        *,
        bits: Sequence[float] = range(1, 9),
        names: Sequence[str] | GroupNames | None = None,
        kinds: Sequence[str] | npt.ArrayLike | None = None,
        stderr: npt.ArrayLike | None = None,
        **fields: Any,
    ) -> Problem:
        """Declare G groups by size (G,) and sensitivity (G,), all with the candidates ``bits``.

        ``fields`` are further fields of :class:`Problem`.
        """
        size_array = int_array(sizes, "sizes")
        errors = None if stderr is None else float_array(stderr, "stderr")
        return cls(
            names=group_names(names, len(size_array)),
            candidates=Candidates((tuple(float(b) for b in bits),)),
            damage=PowerLaw(float_array(sensitivities, "sensitivities"), errors),
            sizes=size_array,
            kinds=kind_array(kinds),
            **fields,
        )

    @classmethod
    def from_tables(
        cls,
        cost: npt.ArrayLike,
        damage: npt.ArrayLike,
        *,
        bits: Sequence[float] | Sequence[Sequence[float]] | None = None,
        names: Sequence[str] | GroupNames | None = None,
        sizes: npt.ArrayLike | None = None,
        unit: str = "",
        **fields: Any,
    ) -> Problem:
        """Declare G groups by a cost (G, K) and a damage (G, K) for each of their candidates.

        Tables may be non-convex and non-monotone. For ragged candidates give ``bits`` as one list a group; columns past
        the end of a group's list are ignored. Where ``bits`` is left out a candidate is called by its column.
        """
        table = float_array(damage, "damage", dimensions=2)
        term = TableCost.from_array(cost, unit=unit)
        count, width = table.shape
        if term.values.shape != table.shape:
            raise ProblemError(
                "cost and damage must have one shape",
                where="cost",
                value=(term.values.shape, table.shape),
            )
        return cls(
            names=group_names(names, count),
            candidates=candidate_sets(bits, count, width),
            damage=DamageTable(table),
            sizes=np.ones(count, dtype=np.int64) if sizes is None else int_array(sizes, "sizes"),
            costs=(term, *fields.pop("costs", ())),
            objective=fields.pop("objective", {"cost": 1}),
            damage_unit=fields.pop("damage_unit", ""),
            metric=fields.pop("metric", "table"),
            **fields,
        )

    @classmethod
    def declare(
        cls,
        groups: Iterable[Group],
        *,
        minimize: str | Mapping[str, float] = "storage",
        bound: float | None = None,
        budgets: Mapping[str, str | float] | None = None,
        pins: Mapping[str, float | str] | None = None,
        ties: Iterable[Sequence[str]] = (),
        **fields: Any,
    ) -> Problem:
        """Build a problem from groups written one by one; names in pins and ties may be patterns.

        Examples
        --------
        >>> problem = Problem.declare(
        ...     [Group("conv1", size=432, sensitivity=0.8), Group("fc", size=640, sensitivity=0.1, bits=(2, 4, 8))],
        ...     bound=0.01, pins={"conv1": 8},
        ... )
        >>> len(problem)
        2
        """
        problem = cls(**from_groups(tuple(groups)), **fields)
        return problem.revise(minimize=minimize, bound=bound, budgets=budgets, pins=pins, ties=ties)

    def revise(
        self,
        *,
        minimize: str | Mapping[str, float] | None = None,
        bound: float | Fraction | None = None,
        budgets: Mapping[str, str | float | Fraction] | None = None,
        pins: Mapping[str, float | str] | None = None,
        ties: Iterable[Sequence[str]] = (),
        bits: Sequence[float] | None = None,
    ) -> Problem:
        """Return the problem with other goals, and with more pins and ties.

        Parameters
        ----------
        minimize : str or mapping
            Cost term, or weights of several.
        bound : float or Fraction
        budgets : mapping
            Cost term to a number of its unit or a text such as ``"2MiB"``; added to those there are.
        pins : mapping
            Pattern (see :meth:`GroupNames.select`) to bits or format; added to those there are.
        ties : iterable of sequences of patterns
            Each sequence makes one tie of all groups it means; groups of one shape are tied one by one when two
            patterns mean labels of one shape (kernel 3 of q with kernel 3 of k).
        bits : sequence of float
            Keep only these candidates.
        """
        changes: dict[str, Any] = {}
        if minimize is not None:
            changes["objective"] = {minimize: 1} if isinstance(minimize, str) else dict(minimize)
        if bound is not None:
            changes["bound"] = bound
        if budgets:
            changes["budgets"] = dict(self.budgets) | {
                name: parse_quantity(value, cost_named(name, self.costs).unit, f"budgets.{name}")
                for name, value in budgets.items()
            }
        problem = replace(self, **changes) if changes else self
        if bits is not None:
            problem = declaration.restrict(problem, bits)
        if pins:
            problem = declaration.pin(problem, pins)
        ties = tuple(ties)
        return declaration.tie(problem, ties) if ties else problem

    # -- reading -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.sizes)

    def cost(self, name: str) -> CostTerm:
        """Return the cost term called ``name``."""
        return cost_named(name, self.costs)

    def weights(self) -> npt.NDArray[np.bool_]:
        """Return which groups (G,) are weights."""
        return np.ones(len(self), dtype=bool) if self.kinds is None else self.kinds == WEIGHT

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that determines the answer; not over provenance."""
        state = hashlib.sha256()
        for key, value in canonical(self):
            state.update(key.encode() + b"\0")
            if isinstance(value, np.ndarray):
                state.update(f"{value.dtype.str}{value.shape}".encode())
                state.update(np.ascontiguousarray(value).data)
            else:
                state.update(repr(value).encode())
            state.update(b"\n")
        return state.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only views of mappings do not travel to another process; the problem is declared anew there.
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return _declared, ({k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()},)

    def __repr__(self) -> str:
        return f"Problem({len(self)} groups, minimize={'+'.join(self.objective)}, bound={self.bound})"


def _declared(values: dict[str, Any]) -> Problem:
    return Problem(**values)
