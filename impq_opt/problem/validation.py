"""Is it a problem? The rules for what a layout is given beside its groups: damages, tables, goals, pins and ties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.costs import CostTerm, TableCost, cost_named
from impq_opt.errors import OptionError, ProblemError, nearest
from impq_opt.groups.arrays import exact_bound, positive
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Interactions
from impq_opt.groups.layout import Layout
from impq_opt.types import FloatArray, IntArray

__all__ = [
    "check_damage",
    "check_goals",
    "check_grids",
    "check_interactions",
    "check_pins",
    "check_tables",
    "check_ties",
]


def check_tables(layout: Layout, costs: tuple[CostTerm, ...]) -> None:
    """Raise ProblemError unless every table of costs has a row per group and a column per candidate."""
    for term in costs:
        if isinstance(term, TableCost):
            _check_shape(layout, term.values, f"costs.{term.name}")


def _check_shape(layout: Layout, table: npt.NDArray[np.int64] | FloatArray, where: str) -> None:
    if table.ndim != 2 or len(table) != len(layout) or table.shape[1] < layout.candidates.width:
        raise ProblemError(
            "must have a row per group and a column per candidate",
            where=where,
            value=table.shape,
            hint=f"{len(layout)} groups, up to {layout.candidates.width} candidates",
        )


def check_damage(layout: Layout, damage: PowerLaw | DamageTable) -> None:
    """Raise ProblemError unless damages are not negative, finite but for candidates that are not allowed.

    A group of which no candidate is allowed is an error too.
    """
    if len(damage) != len(layout):
        raise ProblemError("one row per group", where="damage", value=(len(damage), len(layout)))
    for values, what in ((damage.stderr, "stderr"), (getattr(damage, "values", None), "damage")):
        if values is not None and values.ndim == 2:
            _check_shape(layout, values, what)
    if isinstance(damage, PowerLaw):
        if damage.stderr is not None and len(damage.stderr) != len(layout):
            raise ProblemError("one value per group", where="stderr", value=(len(damage.stderr), len(layout)))
        _non_negative(layout, damage.sensitivity, "sensitivity", np.inf)
        return
    for number, widths in enumerate(layout.candidates.sets):
        if layout.candidates.set_of is None:
            table = damage.values
            _non_negative(layout, table if table.shape[1] == len(widths) else table[:, : len(widths)], "damage")
        else:
            members = layout.candidates.members(number, len(layout))
            if len(members):
                _non_negative(layout, damage.values[members, : len(widths)], "damage", groups=members)
    allowed = damage.allowed(layout.candidates)
    if allowed is not None and not allowed.any(axis=1).all():
        raise ProblemError(
            "allows none of the group's candidates",
            where=layout.place(int(allowed.any(axis=1).argmin()), "damage"),
            hint="one that is masked, or whose cost or damage is infinite, is not allowed",
        )


def _non_negative(
    layout: Layout, values: FloatArray, what: str, most: float = math.nan, groups: IntArray | None = None
) -> None:
    # min and max see every entry, and NaN comes through both: two passes without temporaries.
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high != most:
        return
    place = tuple(int(i) for i in np.argwhere(~((values >= 0) & (values != most)))[0])
    group = place[0] if groups is None else int(groups[place[0]])
    raise ProblemError(
        "must be finite and not negative",
        where=layout.place(group, what + "".join(f"[{k}]" for k in place[1:])),
        value=float(values[place]),
        hint="a group that does no damage has 0" if most == np.inf else "inf is a candidate that is not allowed",
    )


def check_interactions(layout: Layout, interactions: Interactions | None) -> None:
    """Raise ProblemError unless cross terms are of the layout's groups and candidates, and finite."""
    if interactions is None:
        return
    if not isinstance(interactions, Interactions):
        raise ProblemError("must be Factors or Pairs", where="interactions", value=type(interactions).__name__)
    interactions.check(layout.candidates, len(layout))


def check_goals(
    costs: tuple[CostTerm, ...],
    objective: Mapping[str, Fraction | int],
    budgets: Mapping[str, Fraction],
    bound: float | Fraction | None,
) -> None:
    """Raise ProblemError unless what is minimised and what limits it are known and positive."""
    if not objective:
        raise ProblemError("needs at least one cost", where="minimize", hint="for example storage")
    names = [term.name for term in costs]
    if len(set(names)) != len(names):
        raise ProblemError("cost names must be distinct", where="costs", value=names)
    for name, weight in objective.items():
        _known(costs, name, "minimize")
        positive(weight, f"minimize.{name}")
    for name, limit in budgets.items():
        _known(costs, name, "budgets")
        if not limit > 0:
            raise ProblemError("must be positive", where=f"budgets.{name}", value=limit)
    if bound is not None:
        exact_bound(bound)


def _known(costs: tuple[CostTerm, ...], name: str, where: str) -> None:
    try:
        cost_named(name, costs)
    except OptionError as error:
        raise ProblemError(error.what, where=where, value=error.value, hint=error.hint) from None


def check_pins(layout: Layout, pins: Mapping[int, int], allowed: npt.NDArray[np.bool_] | None = None) -> None:
    """Raise ProblemError unless every pin is a candidate of a group, and ``allowed`` (G, K) where that is given."""
    for group, column in pins.items():
        if not 0 <= group < len(layout):
            raise ProblemError("no such group", where="pins", value=group)
        if not 0 <= column < len(layout.candidates.of(group)):
            raise ProblemError("no such candidate", where=f"pins: {layout.names[group]}", value=column)
        if allowed is not None and not allowed[group, column]:
            raise ProblemError(
                "is pinned to a candidate that is not allowed",
                where=f"pins: {layout.names[group]}",
                value=layout.candidates.of(group)[column],
            )


def check_ties(
    layout: Layout,
    ties: tuple[tuple[int, ...], ...],
    pins: Mapping[int, int],
    allowed: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Raise ProblemError unless ties are disjoint and each leaves, with the pins, a precision to its groups."""
    seen: set[int] = set()
    for place, tie in enumerate(ties):
        where = f"ties[{place}]"
        if len(tie) < 2 or len(set(tie)) != len(tie) or not all(0 <= g < len(layout) for g in tie):
            raise ProblemError("must name at least two distinct groups", where=where, value=tie)
        if not seen.isdisjoint(tie):
            raise ProblemError("shares a group with another tie", where=where, value=tie)
        seen.update(tie)
        # Where nothing is forbidden, groups of one candidate set may take the same.
        alone = tie if allowed is not None else {layout.candidates.number_of(g): g for g in tie}.values()
        sets = [layout.candidates.tied(group, allowed) for group in alone]
        if not set(sets[0]).intersection(*sets[1:]):
            names = [layout.names[group] for group in tie]
            raise ProblemError("the tied groups have no candidate in common", where=where, value=names)
        pinned = {g: list(layout.candidates.tied(g))[pins[g]] for g in tie if g in pins}
        if len(set(pinned.values())) > 1:
            said = ", ".join(f"{layout.names[g]}={name or f'{b:g}'}" for g, (b, name) in pinned.items())
            raise ProblemError("tied groups are pinned to different bits", where=where, value=said)
        for bits, name in pinned.values():
            without = [layout.names[g] for g, s in zip(alone, sets, strict=True) if (bits, name) not in s]
            if without:
                raise ProblemError(
                    f"a pin at {name or f'{bits:g} bits'} is not a candidate of a tied group",
                    where=where,
                    value=without[0],
                )


def check_grids(layout: Layout, grids: Mapping[str, str]) -> None:
    """Raise ProblemError unless each entry names a label and, in a line of text, a grid."""
    if not isinstance(grids, Mapping):
        raise ProblemError("must be a mapping of labels to grids", where="grids", value=grids)
    labels = layout.names.labels
    known = set(labels) if grids else ()
    for label, grid in grids.items():
        if label not in known:
            raise ProblemError("no such label", where="grids", value=label, hint=nearest(str(label), labels))
        if not isinstance(grid, str) or not grid.strip() or not grid.isprintable():
            raise ProblemError("must be the name of a grid", where=f"grids.{label}", value=grid, hint="e.g. 'zero'")
