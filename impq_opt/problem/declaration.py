"""What is declared, as fields of a problem: groups one by one, pins, ties, fewer candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from impq_opt.costs import CostTerm, TableCost
from impq_opt.errors import InputError, ProblemError
from impq_opt.groups.arrays import KIND_NAMES, float_array, int_array, kind_array
from impq_opt.groups.candidates import Candidates, gather_sets
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Interactions
from impq_opt.groups.layout import Layout
from impq_opt.groups.names import GroupNames
from impq_opt.problem.plain import plain
from impq_opt.types import BoolArray, IntArray

__all__ = ["Group", "from_groups", "group_at", "pin", "restrict", "tie", "without_activations"]


@dataclass(frozen=True)
class Group:
    """One group, for problems written by hand; see :meth:`Problem.declare`.

    Parameters
    ----------
    name : str
    size : int
        Elements, N >= 1.
    sensitivity : float, optional
        E, range folded in. Either this or ``damage``.
    damage : sequence of float, optional
        Damage at each of ``bits``.
    bits : sequence of float
        Candidate precisions.
    kind : {"weight", "activation"}
    layer : str
        The layer's name; the group's own where empty.
    stderr : float, optional
        Standard error of ``sensitivity``.
    range : float, optional
        Span of the quantizer, whose square is folded into ``sensitivity``.
    macs : int
        Multiply-accumulates per sample that use this weight group.
    reads : str
        Name of the activation group that this weight group reads.
    also_reads : sequence of (str, int)
        Further activation groups that it reads, each with its multiply-accumulates.
    length : int
        Length D of its dot products.
    steps : (int, int), optional
        First and last step of the execution at which this activation group is in memory.
    type : str
        What kind of layer it belongs to, such as ``"Linear"``, for patterns.
    measured : bool
        Whether anybody knows its damage; where not it keeps its most bits.
    """

    name: str
    size: int
    sensitivity: float | None = None
    damage: Sequence[float] | None = None
    bits: Sequence[float] = (1, 2, 3, 4, 5, 6, 7, 8)
    formats: Sequence[str] | None = None
    kind: str = "weight"
    layer: str = ""
    stderr: float | None = None
    range: float | None = None
    macs: int = 0
    reads: str = ""
    also_reads: Sequence[tuple[str, int]] = ()
    length: int = 0
    steps: tuple[int, int] | None = None
    type: str = ""
    measured: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return what is said of it as JSON has it: without what nobody said."""
        said = {column.name: plain(getattr(self, column.name)) for column in fields(self)}
        said["bits"] = [int(width) if float(width).is_integer() else float(width) for width in self.bits]
        usual = {column.name: column.default for column in fields(self)}
        return {name: value for name, value in said.items() if name in _ALWAYS or value != plain(usual[name])}


_ALWAYS = ("name", "size", "kind", "bits")


def from_groups(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the fields of a problem made of ``groups``.

    Raises
    ------
    ProblemError
        Where there are no groups, or one says what cannot be.
    """
    if not groups:
        raise ProblemError("a problem needs at least one group", where="groups")
    names = GroupNames.explicit([g.name for g in groups], [g.layer or g.name for g in groups])
    formats = (
        [tuple(g.formats or (f"{b:g}" for b in g.bits)) for g in groups] if any(g.formats for g in groups) else None
    )
    try:
        candidates = gather_sets([tuple(g.bits) for g in groups], formats)
    except TypeError:
        raise ProblemError("must be lists of finite numbers >= 0", where="groups: bits") from None
    macs = int_array([g.macs for g in groups], "macs") if any(g.macs for g in groups) else None
    return {
        "names": names,
        "candidates": candidates,
        "damage": _damage(groups, candidates.width),
        "sizes": int_array([g.size for g in groups], "sizes"),
        "kinds": kind_array([g.kind for g in groups]),
        "ranges": _optional(groups, "range"),
        "macs": macs,
        "reads": _reads(groups, names),
        "also_reads": _also_reads(groups, names),
        "lengths": int_array([g.length for g in groups], "lengths") if any(g.length for g in groups) else None,
        "steps": _steps(groups),
        "types": {g.name: g.type for g in groups if g.type},
        "unmeasured": np.array([not g.measured for g in groups]),
    }


def group_at(layout: Layout, damage: PowerLaw | DamageTable, unmeasured: BoolArray | None, group: int) -> Group:
    """Return the declaration of one group."""
    names, candidates = layout.names, layout.candidates
    number, label = candidates.number_of(group), int(names.label_of[group])
    bits, law = candidates.sets[number], isinstance(damage, PowerLaw)
    error = damage.stderr[group] if isinstance(damage, PowerLaw) and damage.stderr is not None else None
    steps = None if layout.steps is None or layout.steps[group, 0] < 0 else layout.steps[group].tolist()
    reads = -1 if layout.reads is None else int(layout.reads[group])
    also = [] if layout.also_reads is None else layout.also_reads[layout.also_reads[:, 0] == group].tolist()
    return Group(
        name=names[group],
        size=int(layout.sizes[group]),
        sensitivity=float(damage.sensitivity[group]) if law else None,
        damage=None if isinstance(damage, PowerLaw) else tuple(damage.values[group, : len(bits)].tolist()),
        bits=bits,
        formats=candidates.formats[number] if candidates.formats else None,
        kind=KIND_NAMES[0 if layout.kinds is None else int(layout.kinds[group])],
        layer=names.layers[label] if names.layers[label] != names.labels[label] else "",
        stderr=None if error is None or not np.isfinite(error) else float(error),
        range=None if layout.ranges is None or not np.isfinite(layout.ranges[group]) else float(layout.ranges[group]),
        macs=0 if layout.macs is None else int(layout.macs[group]),
        reads=names[reads] if reads >= 0 else "",
        also_reads=tuple((names[other], macs) for _, other, macs in also),
        length=0 if layout.lengths is None else int(layout.lengths[group]),
        steps=None if steps is None else (steps[0], steps[1]),
        type=layout.types.get(names.labels[label], ""),
        measured=unmeasured is None or not bool(unmeasured[group]),
    )


def _damage(groups: Sequence[Group], width: int) -> PowerLaw | DamageTable:
    for place, group in enumerate(groups):
        if (group.sensitivity is None) == (group.damage is None):
            raise ProblemError("give either sensitivity or damage", where=f"groups[{place}]", value=group.name)
        if group.damage is not None and len(group.damage) != len(group.bits):
            raise ProblemError(
                "must have one value per candidate",
                where=f"groups[{place}].damage",
                value=list(group.damage),
                hint=f"bits = {list(group.bits)}",
            )
    if all(g.damage is None for g in groups):
        return PowerLaw(float_array([g.sensitivity or 0.0 for g in groups], "sensitivity"), _optional(groups, "stderr"))
    table = np.zeros((len(groups), width))
    for place, (row, group) in enumerate(zip(table, groups, strict=True)):
        if group.damage is not None:
            row[: len(group.damage)] = float_array(group.damage, f"groups[{place}].damage")
        else:
            law = PowerLaw(np.array([group.sensitivity], dtype=np.float64))
            row[: len(group.bits)] = law.at(slice(None), group.bits)[0]
    return DamageTable(table)


def _optional(groups: Sequence[Group], name: str) -> Any:
    values = [getattr(g, name) for g in groups]
    if all(v is None for v in values):
        return None
    return float_array([np.nan if v is None else v for v in values], name)


def _reads(groups: Sequence[Group], names: GroupNames) -> Any:
    if not any(g.reads for g in groups):
        return None
    places = []
    for place, group in enumerate(groups):
        try:
            places.append(names.index_of(group.reads) if group.reads else -1)
        except ProblemError as error:
            raise error.within(f"groups[{place}].reads") from None
    return np.array(places, dtype=np.int64)


def _also_reads(groups: Sequence[Group], names: GroupNames) -> Any:
    rows = []
    for place, group in enumerate(groups):
        for name, macs in group.also_reads:
            try:
                rows.append((place, names.index_of(name), macs))
            except ProblemError as error:
                raise error.within(f"groups[{place}].also_reads") from None
    return np.array(rows, dtype=np.int64) if rows else None


def _steps(groups: Sequence[Group]) -> Any:
    if all(g.steps is None for g in groups):
        return None
    return np.array([g.steps or (-1, -1) for g in groups], dtype=np.int64)


def restrict(
    layout: Layout,
    damage: PowerLaw | DamageTable,
    interactions: Interactions | None,
    costs: tuple[CostTerm, ...],
    pins: Mapping[int, int],
    bits: Iterable[float],
) -> dict[str, Any]:
    """Return the fields of the problem with only the candidates in ``bits``; a group left without one is an error.

    Raises
    ------
    ProblemError
        Where a group, or a pin, is left without a candidate.
    """
    wanted = {float(b) for b in bits}
    old = layout.candidates
    keep = [[k for k, b in enumerate(widths) if float(b) in wanted] for widths in old.sets]
    for number, columns in enumerate(keep):
        members = old.members(number, len(layout))
        if not columns and len(members):
            raise ProblemError(
                "no candidate is left",
                where=f"{layout.names[int(members[0])]}.bits",
                value=sorted(wanted),
                hint=f"it has {list(old.sets[number])}",
            )
    keep = [columns or [0] for columns in keep]
    candidates = Candidates(
        tuple(tuple(widths[k] for k in columns) for widths, columns in zip(old.sets, keep, strict=True)),
        old.set_of,
        tuple(tuple(widths[k] for k in c) for widths, c in zip(old.formats, keep, strict=True)) if old.formats else (),
        old.numbered,
    )
    kept_columns = _columns(candidates, keep)
    take = _taking(candidates, kept_columns)
    if isinstance(damage, DamageTable):
        damage = DamageTable(take(damage.values), None if damage.stderr is None else take(damage.stderr))
    if interactions is not None:
        interactions = interactions.with_columns(kept_columns[candidates.numbers(len(layout))])
    kept_pins = {}
    for group, column in pins.items():
        kept = keep[old.number_of(group)]
        if column not in kept:
            raise ProblemError("its pin is not among the candidates that are left", where=layout.names[group])
        kept_pins[group] = kept.index(column)
    costs = tuple(term.with_columns(take) for term in costs)
    return {
        "candidates": candidates,
        "damage": damage,
        "interactions": interactions,
        "costs": costs,
        "pins": kept_pins,
    }


def without_activations(
    layout: Layout,
    damage: PowerLaw | DamageTable,
    interactions: Interactions | None,
    costs: tuple[CostTerm, ...],
    pins: Mapping[int, int],
    ties: tuple[tuple[int, ...], ...],
) -> dict[str, Any]:
    """Return the fields of the problem of the weights alone, for targets that leave activations in float.

    Raises
    ------
    ProblemError
        Where no weights are left, or a cost was declared for activations too.
    """
    keep = layout.weights()
    if not keep.any():
        raise ProblemError("has no weights", where="groups")
    for term in costs:
        if not isinstance(term, TableCost):
            raise ProblemError("was declared for activations too", where=f"costs.{term.name}")
    names = layout.names
    labels = [k for k in range(len(names.labels)) if keep[names.offsets[k] : names.offsets[k + 1]].any()]
    place = np.cumsum(keep) - 1
    vectors: dict[str, Any] = {
        column.name: value[keep]
        for column in fields(layout)
        if isinstance(value := getattr(layout, column.name), np.ndarray) and len(value) == len(layout)
    }
    return vectors | {
        "kinds": None,
        "reads": None,
        "also_reads": None,
        "names": GroupNames(
            tuple(names.labels[k] for k in labels),
            tuple(names.shapes[k] for k in labels),
            tuple(names.layers[k] for k in labels),
        ),
        "types": {names.labels[k]: kind for k in labels if (kind := layout.types.get(names.labels[k]))},
        "candidates": replace(
            layout.candidates,
            set_of=None if layout.candidates.set_of is None else layout.candidates.set_of[keep],
        ),
        "damage": _rows(damage, keep),
        "interactions": None if interactions is None else interactions.of_groups(keep),
        "costs": tuple(replace(term, values=term.values[keep]) for term in costs if isinstance(term, TableCost)),
        "pins": {int(place[group]): column for group, column in pins.items() if keep[group]},
        "ties": tuple(
            tuple(int(place[group]) for group in tie if keep[group])
            for tie in ties
            if sum(bool(keep[group]) for group in tie) > 1
        ),
    }


def _rows(damage: PowerLaw | DamageTable, keep: BoolArray) -> PowerLaw | DamageTable:
    errors = None if damage.stderr is None else damage.stderr[keep]
    if isinstance(damage, PowerLaw):
        return PowerLaw(damage.sensitivity[keep], errors)
    return DamageTable(damage.values[keep], errors)


def _columns(candidates: Candidates, keep: list[list[int]]) -> IntArray:
    """Return the columns (S, K) ``keep[s]`` that are kept of candidate set s, filled up with its first."""
    columns = np.zeros((len(keep), candidates.width), dtype=np.int64)
    for row, kept in zip(columns, keep, strict=True):
        row[: len(kept)] = kept
    return columns


def _taking(candidates: Candidates, columns: IntArray) -> Callable[[Any], Any]:
    """Return what takes the ``columns`` (S, K) of each candidate set out of any table (G, K)."""

    def take(table: Any) -> Any:
        if len(columns) == 1:
            return table[:, columns[0]]
        assert candidates.set_of is not None
        return np.take_along_axis(table, columns[candidates.set_of], axis=1)

    return take


def pin(layout: Layout, pins: Mapping[int, int], wanted: Mapping[str, float | str]) -> dict[int, int]:
    """Return ``pins`` and those ``wanted``, given as pattern to bits or format.

    Raises
    ------
    ProblemError
        Where a pattern names no group, or a group has no such candidate or another pin.
    """
    columns = dict(pins)
    for pattern, precision in wanted.items():
        for group in _select(layout, pattern, f"pins.{pattern}" if isinstance(pattern, str) else "pins").tolist():
            number = layout.candidates.number_of(group)
            column = layout.candidates.position(number, precision)
            if column is None:
                raise ProblemError(
                    "is pinned to a precision that is not among its candidates",
                    where=f"pins: {layout.names[group]}",
                    value=precision,
                    hint="it may take " + ", ".join(layout.candidates.labels(number)),
                )
            if columns.get(group, column) != column:
                raise ProblemError("is pinned twice", where=f"pins: {layout.names[group]}", value=precision)
            columns[group] = column
    return columns


def tie(
    layout: Layout, ties: Iterable[tuple[int, ...]], wanted: Iterable[Sequence[str]]
) -> tuple[tuple[int, ...], ...]:
    """Return ``ties`` and those ``wanted``, given as patterns; labels of one shape are tied element by element.

    Raises
    ------
    ProblemError
        Where a pattern names no group, or groups cannot be tied.
    """
    joined = list(ties)
    for place, patterns in enumerate(wanted):
        if isinstance(patterns, str) or not patterns:
            raise ProblemError("must be a list of names", where=f"ties[{place}]", value=patterns)
        chosen = [_select(layout, pattern, f"ties[{place}]") for pattern in patterns]
        if len(chosen) > 1 and len({len(c) for c in chosen}) == 1:
            joined += [tuple(int(g) for g in row) for row in zip(*chosen, strict=True)]
        else:
            joined.append(tuple(int(g) for g in np.concatenate(chosen)))
    return _merge(joined)


def _merge(ties: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Join ties that share a group, so that every group is in one tie at most."""
    parent: dict[int, int] = {}

    def root(group: int) -> int:
        parent.setdefault(group, group)
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for tie in ties:
        first = root(tie[0])
        for group in tie[1:]:
            parent[root(group)] = first
    members: dict[int, list[int]] = {}
    for group in sorted(parent):
        members.setdefault(root(group), []).append(group)
    return tuple(tuple(tie) for tie in members.values() if len(tie) > 1)


def _select(layout: Layout, pattern: str, where: str) -> Any:
    try:
        return layout.select(pattern)
    except InputError as error:
        raise error.within(where) from None
