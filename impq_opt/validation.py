"""Is it a problem? Every rule of a declaration, checked whole, and the canonical form that its digest covers."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impq_opt.arrays import exact_bound, positive
from impq_opt.costs import TableCost, cost_named
from impq_opt.damage import DamageTable, PowerLaw
from impq_opt.errors import InputError, OptionError, ProblemError

if TYPE_CHECKING:
    from impq_opt.problem import Problem

__all__ = ["canonical", "validate"]

# Sums of sizes times bits stay in int64 with room to spare.
_LARGEST_SIZE_SUM = 1 << 55


def validate(problem: Problem) -> None:
    """Raise ProblemError with the first rule that ``problem`` breaks; freeze its mappings and arrays."""
    count = len(problem.sizes)
    if count == 0:
        raise ProblemError("a problem needs at least one group", where="groups")
    if len(problem.names) != count:
        raise ProblemError("one name per group", where="names", value=(len(problem.names), count))
    _lengths(problem, count)
    _sizes(problem)
    _damage(problem)
    _goals(problem)
    _pins(problem)
    _ties(problem)
    # One tie, one form: neither the digest nor the answer depends on the order in which it was written.
    object.__setattr__(problem, "ties", tuple(sorted(tuple(sorted(int(g) for g in tie)) for tie in problem.ties)))
    for name in ("objective", "budgets", "pins", "provenance"):
        object.__setattr__(problem, name, MappingProxyType(dict(getattr(problem, name))))


def _lengths(problem: Problem, count: int) -> None:
    for name in ("kinds", "ranges", "macs", "reads", "lengths", "steps"):
        array = getattr(problem, name)
        if array is not None and len(array) != count:
            raise ProblemError("one value per group", where=name, value=(len(array), count))
    if len(problem.damage) != count:
        raise ProblemError("one row per group", where="damage", value=(len(problem.damage), count))
    sets = problem.candidates.set_of
    if sets is None:
        if len(problem.candidates.sets) != 1:
            raise ProblemError("set_of is needed with several candidate sets", where="candidates")
    elif len(sets) != count or sets.min() < 0 or sets.max() >= len(problem.candidates.sets):
        raise ProblemError("one known set per group", where="candidates.set_of", value=len(sets))
    tables: list[tuple[str, npt.NDArray[Any]]] = [
        ("costs." + t.name, t.values) for t in problem.costs if isinstance(t, TableCost)
    ]
    if isinstance(problem.damage, DamageTable):
        tables.append(("damage", problem.damage.values))
    for where, table in tables:
        if table.ndim != 2 or len(table) != count or table.shape[1] < problem.candidates.width:
            raise ProblemError(
                "must have a row per group and a column per candidate",
                where=where,
                value=table.shape,
                hint=f"{count} groups, up to {problem.candidates.width} candidates",
            )


def _sizes(problem: Problem) -> None:
    smallest = int(problem.sizes.argmin())
    if problem.sizes[smallest] <= 0:
        raise ProblemError(
            "must be positive",
            where=_place(problem, smallest, "size"),
            value=int(problem.sizes[smallest]),
            hint="a group has at least one element",
        )
    if float(problem.sizes.sum(dtype=np.float64)) * max(map(max, problem.candidates.sets)) >= _LARGEST_SIZE_SUM:
        raise ProblemError("sizes are too large for exact 64-bit sums", where="sizes")
    for name in ("macs", "lengths"):
        values = getattr(problem, name)
        if values is not None and int(values.min()) < 0:
            worst = int(values.argmin())
            raise ProblemError("must not be negative", where=_place(problem, worst, name), value=int(values[worst]))
    _graph(problem)


def _graph(problem: Problem) -> None:
    """Check who reads what, and when it is in memory."""
    count = len(problem.sizes)
    reads, further, steps = problem.reads, problem.also_reads, problem.steps
    if reads is not None:
        wrong = (reads < -1) | (reads >= count) | (reads == np.arange(count))
        if wrong.any():
            worst = int(wrong.argmax())
            raise ProblemError(
                "must be another group or -1", where=_place(problem, worst, "reads"), value=int(reads[worst])
            )
    if further is not None:
        if further.ndim != 2 or further.shape[1] != 3 or further.dtype != np.int64:
            raise ProblemError("must be rows of (weight, activation, macs)", where="also_reads", value=further.shape)
        ends = further[:, :2]
        wrong = ((ends < 0) | (ends >= count)).any(axis=1) | (ends[:, 0] == ends[:, 1]) | (further[:, 2] < 0)
        if wrong.any():
            worst = int(wrong.argmax())
            raise ProblemError(
                "must name two groups and a count >= 0", where=f"also_reads[{worst}]", value=further[worst].tolist()
            )
    if steps is not None and (steps.shape != (count, 2) or bool((steps[:, 0] > steps[:, 1]).any())):
        raise ProblemError("must be (first, last) with first <= last for each group", where="steps", value=steps.shape)


def _damage(problem: Problem) -> None:
    damage = problem.damage
    if isinstance(damage, PowerLaw):
        _non_negative(problem, damage.sensitivity, "sensitivity")
        return
    for number, one in enumerate(problem.candidates.sets):
        if problem.candidates.set_of is None:
            table = damage.values
            _non_negative(problem, table if table.shape[1] == len(one) else table[:, : len(one)], "damage")
        else:
            members = problem.candidates.members(number, len(problem.sizes))
            if len(members):
                _non_negative(problem, damage.values[members, : len(one)], "damage", members)


def _non_negative(problem: Problem, values: npt.NDArray[np.float64], what: str, groups: Any = None) -> None:
    # min and max see every entry, and NaN comes through both: two passes without temporaries.
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high < np.inf:
        return
    place = tuple(int(i) for i in np.argwhere(~((values >= 0) & (values < np.inf)))[0])
    group = place[0] if groups is None else int(groups[place[0]])
    raise ProblemError(
        "must be finite and not negative",
        where=_place(problem, group, what + "".join(f"[{k}]" for k in place[1:])),
        value=float(values[place]),
        hint="a group that does no damage has 0",
    )


def _goals(problem: Problem) -> None:
    if not problem.objective:
        raise ProblemError("needs at least one cost", where="minimize", hint="for example storage")
    names = [term.name for term in problem.costs]
    if len(set(names)) != len(names):
        raise ProblemError("cost names must be distinct", where="costs", value=names)
    for name, weight in problem.objective.items():
        _known(problem, name, "minimize")
        positive(weight, f"minimize.{name}")
    for name, limit in problem.budgets.items():
        _known(problem, name, "budgets")
        if not limit > 0:
            raise ProblemError("must be positive", where=f"budgets.{name}", value=float(limit))
    if problem.bound is not None:
        exact_bound(problem.bound)


def _known(problem: Problem, name: str, where: str) -> None:
    try:
        cost_named(name, problem.costs)
    except OptionError as error:
        raise ProblemError(error.what, where=where, value=error.value, hint=error.hint) from None


def _pins(problem: Problem) -> None:
    for group, column in problem.pins.items():
        if not 0 <= group < len(problem.sizes):
            raise ProblemError("no such group", where="pins", value=group)
        if not 0 <= column < len(problem.candidates.of(group)):
            raise ProblemError("no such candidate", where=f"pins: {problem.names[group]}", value=column)


def _ties(problem: Problem) -> None:
    seen: set[int] = set()
    for place, tie in enumerate(problem.ties):
        where = f"ties[{place}]"
        if len(tie) < 2 or len(set(tie)) != len(tie) or not all(0 <= g < len(problem.sizes) for g in tie):
            raise ProblemError("must name at least two distinct groups", where=where, value=tie)
        if not seen.isdisjoint(tie):
            raise ProblemError("shares a group with another tie", where=where, value=tie)
        seen.update(tie)
        sets = [set(problem.candidates.of(group)) for group in tie]
        names = [problem.names[group] for group in tie]
        if not set.intersection(*sets):
            raise ProblemError("the tied groups have no candidate in common", where=where, value=names)
        pinned = {g: problem.candidates.of(g)[problem.pins[g]] for g in tie if g in problem.pins}
        if len(set(pinned.values())) > 1:
            said = ", ".join(f"{problem.names[g]}={b:g}" for g, b in pinned.items())
            raise ProblemError("tied groups are pinned to different bits", where=where, value=said)
        for bits in pinned.values():
            without = [problem.names[g] for g, s in zip(tie, sets, strict=True) if bits not in s]
            if without:
                raise ProblemError(
                    f"a pin at {bits:g} bits is not a candidate of a tied group",
                    where=where,
                    value=without[0],
                )


def _place(problem: Problem, group: int, what: str) -> str:
    try:
        return f"groups[{group}].{what} ({problem.names[group]})"
    except InputError:  # pragma: no cover - names are checked before
        return f"groups[{group}].{what}"


def canonical(problem: Problem) -> Iterator[tuple[str, Any]]:
    """Yield what determines the answer, in a fixed order, for the digest."""
    yield "format", 1
    yield "labels", problem.names.labels
    yield "shapes", problem.names.shapes
    yield "layers", problem.names.layers
    yield "candidates", tuple(tuple(float(b) for b in one) for one in problem.candidates.sets)
    yield "formats", problem.candidates.formats
    yield "set_of", problem.candidates.set_of
    if isinstance(problem.damage, PowerLaw):
        yield "sensitivity", problem.damage.sensitivity
    else:
        yield "damage", problem.damage.values
    for name in ("sizes", "kinds", "macs", "reads"):
        yield name, getattr(problem, name)
    for name in ("also_reads", "lengths", "steps"):
        if getattr(problem, name) is not None:
            yield name, getattr(problem, name)
    for term in problem.costs:
        yield "cost", (term.name, term.unit)
        yield from term.canonical()
    yield "objective", sorted((k, str(v)) for k, v in problem.objective.items())
    yield "bound", None if problem.bound is None else str(exact_bound(problem.bound))
    yield "budgets", sorted((k, str(v)) for k, v in problem.budgets.items())
    yield "pins", sorted(problem.pins.items())
    yield "ties", problem.ties
    yield "metric", (problem.metric, problem.damage_unit)
