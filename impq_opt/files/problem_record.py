"""What a problem file says: the schema of problem.toml, version 1, and the problem that it stands for.

Two forms. *By group*: ``[[groups]]``, for people. *By array*: ``names``, ``candidates`` and named arrays, for many.
Goals, pins and ties are written the same way in both; pins and ties of large problems are arrays as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.costs import TableCost
from impq_opt.documents.numbers import read_exact, read_float
from impq_opt.errors import ProblemError
from impq_opt.files.costs import CostRecord, cost_array_types, cost_from_arrays, cost_from_csv, table_cost
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Factors, Interactions, Pairs
from impq_opt.groups.names import GroupNames
from impq_opt.problem.declaration import Group, from_groups
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import STORED, Stay

__all__ = ["FORMAT", "ProblemRecord", "problem_from_record"]

FORMAT = "impq-opt problem"

Arrays = Mapping[str, npt.NDArray[Any]]
Number = int | float
Whole = Annotated[int, msgspec.Meta(ge=-(2**55), le=2**55)]


class _Struct(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    pass


class GroupRecord(_Struct):
    """One group; see :class:`impq_opt.Group`."""

    name: str
    size: Whole
    sensitivity: float | None = None
    damage: list[float] | None = None
    bits: list[Number] | None = None
    formats: list[str] | None = None
    kind: Literal["weight", "activation"] | None = None
    layer: str | None = None
    stderr: float | list[float] | None = None
    range: float | None = None
    macs: Whole | None = None
    reads: str | None = None
    also_reads: list[tuple[str, Whole]] = []
    length: Whole | None = None
    steps: tuple[Whole, Whole] | None = None
    measured: bool = True
    costs: dict[str, list[Number]] = {}


class NamesRecord(_Struct):
    """See :class:`impq_opt.GroupNames`; without shapes every label names one group, without layers it is its own."""

    labels: list[str]
    shapes: list[list[Whole]] = []
    layers: list[str] = []


class CandidatesRecord(_Struct):
    """One set of candidates."""

    bits: list[Number]
    formats: list[str] = []


class ArraysRecord(_Struct):
    """The arrays file beside the problem file."""

    file: str
    sha256: str


class StaysRecord(_Struct):
    """Parameters that stay as they are for one reason, by name; see :class:`impq_opt.Stay`."""

    reason: str
    bits: Number | str
    elements: dict[str, Whole]


class ProblemRecord(_Struct):
    """All of a problem file."""

    format: str
    format_version: Literal[1]
    metric: str = "impq"
    damage_unit: str | None = None
    minimize: str | dict[str, Number | str] = "storage"
    bound: Number | str | None = None
    bits: list[Number] | None = None
    formats: list[str] | None = None
    numbered: bool = False
    ties: list[list[str]] = []
    budgets: dict[str, Number | str] = {}
    pins: dict[str, Number | str] = {}
    free_unmeasured: bool = False
    costs: list[CostRecord] = []
    stays: list[StaysRecord] | None = None
    stored: Number | str = STORED
    grids: dict[str, str] = {}
    types: dict[str, list[str]] = {}
    arrays: ArraysRecord | None = None
    names: NamesRecord | None = None
    candidates: list[CandidatesRecord] = []
    provenance: dict[str, Any] = {}
    groups: list[GroupRecord] = []


NESTED = {
    "groups": GroupRecord,
    "names": NamesRecord,
    "candidates": CandidatesRecord,
    "costs": CostRecord,
    "stays": StaysRecord,
    "arrays": ArraysRecord,
}


def problem_from_record(record: ProblemRecord, arrays: Arrays | None, folder: Path = Path()) -> Problem:
    """Build the problem that a decoded file in ``folder`` and its arrays describe; raise InputError with the place."""
    given: dict[str, Any] = {
        "bound": None if record.bound is None else _number(record.bound, "bound"),
        "metric": record.metric,
        "free_unmeasured": record.free_unmeasured,
        "stays": None if record.stays is None else _stays(record.stays),
        "stored": record.stored,
        "grids": record.grids,
        "provenance": record.provenance,
    }
    if record.damage_unit is not None:
        given["damage_unit"] = record.damage_unit
    if (arrays is None) == (not record.groups):
        raise ProblemError("give either [[groups]] or [arrays]", where="groups", value=len(record.groups))
    given |= _from_groups(record) if arrays is None else _from_arrays(record, arrays)
    problem = Problem(**given | {"types": _types(record.types)})
    tables = [cost_from_csv(cost, folder, problem) for cost in record.costs if cost.csv is not None]
    problem = replace(problem, costs=(*problem.costs, *tables), objective=_objective(record))
    return problem.revise(budgets=record.budgets, pins=record.pins, ties=record.ties)


def _types(labels: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the type of each label, from the labels of each type."""
    types: dict[str, str] = {}
    for kind, members in labels.items():
        for label in members:
            if label in types:
                raise ProblemError("is of one type only", where=f"types.{kind}", value=label)
            types[label] = kind
    return types


def _stays(records: list[StaysRecord]) -> list[Stay]:
    stays = []
    for place, record in enumerate(records):
        try:
            bits = read_exact(record.bits, "bits")
            stays += [Stay(name, elements, bits, record.reason) for name, elements in record.elements.items()]
        except ProblemError as error:
            raise error.within(f"stays[{place}]") from None
    return stays


def _objective(record: ProblemRecord) -> dict[str, Any]:
    if isinstance(record.minimize, str):
        return {record.minimize: 1}
    return {name: _number(weight, f"minimize.{name}") for name, weight in record.minimize.items()}


def _number(value: Number | str, where: str) -> Number | Fraction:
    return read_exact(value, where, hint="or a fraction such as '1/3'") if isinstance(value, str) else value


def _from_groups(record: ProblemRecord) -> dict[str, Any]:
    for name in ("names", "candidates"):
        if getattr(record, name):
            raise ProblemError("goes with [arrays], not with [[groups]]", where=name)
    groups = [_group(place, group, record) for place, group in enumerate(record.groups)]
    parts = from_groups(groups)
    # What no group says is left out, as it is when a problem is built from arrays.
    if all(group.kind is None for group in record.groups):
        parts["kinds"] = None
    if any(group.macs is not None for group in record.groups):
        parts["macs"] = np.array([group.macs or 0 for group in record.groups], dtype=np.int64)
    if any(group.length is not None for group in record.groups):
        parts["lengths"] = np.array([group.length or 0 for group in record.groups], dtype=np.int64)
    if isinstance(parts["damage"], DamageTable):
        parts["damage"] = DamageTable(parts["damage"].values, _stderr_table(record, parts["damage"].values.shape))
    if record.numbered:
        candidates = parts["candidates"]
        parts["candidates"] = Candidates(candidates.sets, candidates.set_of, candidates.formats, numbered=True)
    tables = [cost for cost in record.costs if cost.csv is None]
    parts["costs"] = tuple(_cost_of_groups(record, cost, parts["candidates"]) for cost in tables)
    declared = {cost.name for cost in tables}
    for place, group in enumerate(record.groups):
        for name in group.costs:
            if name not in declared:
                raise ProblemError(
                    "is not declared",
                    where=f"groups[{place}].costs.{name}",
                    hint="add [[costs]] with its name and unit",
                )
    return parts


def _group(place: int, group: GroupRecord, record: ProblemRecord) -> Group:
    bits = group.bits if group.bits is not None else record.bits
    for column, width in enumerate(bits or ()):
        if not 0 <= width <= sys.float_info.max:
            where = f"groups[{place}].bits[{column}]" if group.bits is not None else f"bits[{column}]"
            raise ProblemError("must be finite and not negative", where=where, value=width)
    if bits is not None and not bits:
        raise ProblemError("must name at least one precision", where=f"groups[{place}].bits", value=[])
    formats = group.formats if group.formats is not None else (record.formats if group.bits is None else None)
    if bits is not None and formats is not None and len(formats) != len(bits):
        raise ProblemError("must have one name per candidate", where=f"groups[{place}].formats", value=formats)
    if bits is not None and len(set(formats or map(float, bits))) != len(bits):
        raise ProblemError("must be distinct", where=f"groups[{place}].bits", value=list(formats or bits))
    if isinstance(group.stderr, list) and group.damage is None:
        raise ProblemError(
            "must be one number beside a sensitivity", where=f"groups[{place}].stderr", value=group.stderr
        )
    if group.damage is not None and group.stderr is not None and not isinstance(group.stderr, list):
        raise ProblemError("must have one value per candidate", where=f"groups[{place}].stderr", value=group.stderr)
    return Group(
        name=group.name,
        size=group.size,
        sensitivity=group.sensitivity,
        damage=group.damage,
        bits=tuple(float(b) for b in bits) if bits is not None else _DEFAULT_BITS,
        formats=formats,
        kind=group.kind or "weight",
        layer=group.layer or "",
        stderr=None if isinstance(group.stderr, list) else group.stderr,
        range=group.range,
        macs=group.macs or 0,
        reads=group.reads or "",
        also_reads=group.also_reads,
        length=group.length or 0,
        steps=group.steps,
        measured=group.measured,
    )


_DEFAULT_BITS = tuple(float(b) for b in Group("", 1).bits)


def _stderr_table(record: ProblemRecord, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    """Return the standard errors (G, K) of explicit damages, NaN where none is given; None where none is at all."""
    if all(group.stderr is None for group in record.groups):
        return None
    table = np.full(shape, np.nan)
    for place, group in enumerate(record.groups):
        if isinstance(group.stderr, list):
            assert group.damage is not None
            if len(group.stderr) != len(group.damage):
                raise ProblemError(
                    "must have one value per candidate", where=f"groups[{place}].stderr", value=group.stderr
                )
            table[place, : len(group.stderr)] = group.stderr
    return table


def _cost_of_groups(record: ProblemRecord, cost: CostRecord, candidates: Candidates) -> TableCost:
    counts = candidates.counts(len(record.groups))
    rows = []
    for place, (group, count) in enumerate(zip(record.groups, counts.tolist(), strict=True)):
        row = group.costs.get(cost.name)
        where = f"groups[{place}].costs.{cost.name}"
        if row is None or len(row) != count:
            raise ProblemError(f"must have one value for each of the {count} candidates", where=where, value=row)
        for column, value in enumerate(row):
            if not abs(value) < 2**61:
                hint = "a candidate that is not allowed has damage = inf" if value == math.inf else ""
                raise ProblemError("must be finite and below 2^61", where=f"{where}[{column}]", value=value, hint=hint)
        # A group's last cost fills the columns that it does not have: they are never read.
        rows.append(row + [row[-1]] * (candidates.width - count))
    return table_cost(cost, np.array(rows))


# name -> (type, dimensions) of the arrays that a file may hold, beside cost.NAME
ARRAYS: dict[str, tuple[str, int]] = {
    "sizes": ("int64", 1),
    "sensitivity": ("float64", 1),
    "stderr": ("float64", 1),
    "damage": ("float64", 2),
    "damage_stderr": ("float64", 2),
    "kinds": ("int8", 1),
    "ranges": ("float64", 1),
    "macs": ("int64", 1),
    "reads": ("int64", 1),
    "also_reads": ("int64", 2),
    "lengths": ("int64", 1),
    "steps": ("int64", 2),
    "set_of": ("int64", 1),
    "pins": ("int64", 2),
    "tie_members": ("int64", 1),
    "tie_starts": ("int64", 1),
    "unmeasured": ("int8", 1),
    "factors": ("float64", 3),
    "factors_stderr": ("float64", 3),
    "interacting": ("int64", 2),
    "interactions": ("float64", 3),
    "interactions_stderr": ("float64", 3),
}


OPTIONAL = ("kinds", "ranges", "macs", "reads", "also_reads", "lengths", "steps", "unmeasured")


def _from_arrays(record: ProblemRecord, arrays: Arrays) -> dict[str, Any]:
    if record.names is None or not record.candidates:
        missing = "names" if record.names is None else "candidates"
        raise ProblemError(f"[arrays] needs {missing} beside it", where=missing)
    known = dict(ARRAYS)
    for cost in record.costs:
        known |= cost_array_types(cost.name)
    for name, array in arrays.items():
        _check_array(name, array, known.get(name))
        array.flags.writeable = False
    optional = {name: arrays.get(name) for name in OPTIONAL}
    if "sizes" not in arrays or ("sensitivity" in arrays) == ("damage" in arrays):
        raise ProblemError("must hold sizes, and either sensitivity or damage", where="arrays", value=sorted(arrays))
    law: PowerLaw | DamageTable
    if "sensitivity" in arrays:
        law = PowerLaw(arrays["sensitivity"], arrays.get("stderr"))
    else:
        law = DamageTable(arrays["damage"], arrays.get("damage_stderr"))
    names, candidates = record.names, _candidates(record, arrays.get("set_of"))
    return optional | {
        "names": GroupNames(
            tuple(names.labels), tuple(map(tuple, names.shapes)) or ((),) * len(names.labels), tuple(names.layers)
        ),
        "candidates": candidates,
        "damage": law,
        "interactions": _interactions(arrays),
        "sizes": arrays["sizes"],
        "costs": tuple(cost_from_arrays(cost, arrays, candidates.width) for cost in record.costs if cost.csv is None),
        "pins": _pins(arrays.get("pins")),
        "ties": _ties(arrays.get("tie_members"), arrays.get("tie_starts")),
    }


def _interactions(arrays: Arrays) -> Interactions | None:
    """Return the cross terms that ``factors``, or ``interactions`` of ``interacting`` groups, stand for."""
    for name, base in (
        ("interactions", "interacting"),
        ("interacting", "interactions"),
        ("factors_stderr", "factors"),
        ("interactions_stderr", "interactions"),
    ):
        if name in arrays and base not in arrays:
            raise ProblemError(f"goes with {base}", where=f"arrays: {name}")
    if "factors" in arrays and "interactions" in arrays:
        raise ProblemError("give either factors or interactions", where="arrays: factors")
    if "factors" in arrays:
        return Factors(arrays["factors"], arrays.get("factors_stderr"))
    if "interactions" not in arrays:
        return None
    return Pairs(arrays["interacting"], arrays["interactions"], arrays.get("interactions_stderr"))


def _check_array(name: str, array: npt.NDArray[Any], wanted: tuple[str, int] | None) -> None:
    where = f"arrays: {name}"
    if wanted is None:
        raise ProblemError("unknown array", where=where, hint=f"known are {', '.join(ARRAYS)} and cost.NAME")
    empty = array.size == 0 and not name.startswith("pairs.")
    if (array.dtype.name, array.ndim) != wanted or empty:
        raise ProblemError(
            f"must be a non-empty {wanted[0]} array of {wanted[1]} dimensions",
            where=where,
            value=(array.dtype.name, array.shape),
        )


def _candidates(record: ProblemRecord, set_of: npt.NDArray[np.int64] | None) -> Candidates:
    sets = tuple(
        tuple(read_float(b, f"candidates[{place}].bits[{column}]") for column, b in enumerate(entry.bits))
        for place, entry in enumerate(record.candidates)
    )
    formats = tuple(tuple(entry.formats) for entry in record.candidates)
    return Candidates(sets, set_of, formats if any(formats) else (), record.numbered)


def _pins(pairs: npt.NDArray[np.int64] | None) -> dict[int, int]:
    if pairs is None:
        return {}
    if pairs.shape[1] != 2 or len(np.unique(pairs[:, 0])) != len(pairs):
        raise ProblemError("must be pairs of distinct group and column", where="arrays: pins", value=pairs.shape)
    return dict(pairs.tolist())


def _ties(members: npt.NDArray[np.int64] | None, starts: npt.NDArray[np.int64] | None) -> tuple[tuple[int, ...], ...]:
    if members is None or starts is None:
        return ()
    if starts[0] != 0 or starts[-1] >= len(members) or (np.diff(starts) <= 0).any():
        raise ProblemError("must rise from 0 and stay inside tie_members", where="arrays: tie_starts")
    return tuple(tuple(part.tolist()) for part in np.split(members, starts[1:]))
