"""Writing a problem down: the document and the arrays that stand for it; see :mod:`impq_opt.files.problem_record`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.costs import TableCost
from impq_opt.documents.numbers import exact_value
from impq_opt.errors import FileError, InputError
from impq_opt.files.costs import cost_arrays, cost_head
from impq_opt.files.problem_record import FORMAT, OPTIONAL, ProblemRecord, problem_from_record
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import PowerLaw
from impq_opt.groups.interactions import Factors
from impq_opt.groups.names import GroupNames
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import STORED, by_reason

__all__ = ["problem_document"]

# Up to here a problem is written group by group.
_BY_GROUP = 256


def problem_document(problem: Problem) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return the document and the arrays that stand for ``problem``; no arrays where it is written by group."""
    head = _head(problem)
    tables = all(isinstance(term, TableCost) for term in problem.costs)
    alone = tables and problem.interactions is None
    if len(problem) <= _BY_GROUP and all(shape == () for shape in problem.names.shapes) and alone:
        record = head | _goals(problem) | _by_group(problem)
        try:
            same = problem_from_record(msgspec.convert(record, ProblemRecord), None).digest == problem.digest
        except (InputError, msgspec.ValidationError):
            same = False
        if same:  # else something in it, such as an unused candidate set, has no form by group
            return record, {}
    record, arrays = _by_array(problem)
    return head | {k: v for k, v in _goals(problem).items() if k not in ("pins", "ties")} | record, arrays


def _head(problem: Problem) -> dict[str, Any]:
    head: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1,
        "metric": problem.metric,
        "damage_unit": problem.damage_unit,
    }
    if problem.candidates.numbered:
        head["numbered"] = True
    if problem.free_unmeasured:
        head["free_unmeasured"] = True
    if problem.stays is not None:
        head["stays"] = [
            {"reason": reason, "bits": exact_value(bits), "elements": {stay.name: stay.elements for stay in entries}}
            for (reason, bits), entries in by_reason(problem.stays).items()
        ]
    if problem.stored != STORED:
        head["stored"] = exact_value(problem.stored)
    if problem.grids:
        head["grids"] = dict(problem.grids)
    if problem.types:
        kinds: dict[str, list[str]] = {}
        for label, kind in problem.types.items():
            kinds.setdefault(kind, []).append(label)
        head["types"] = kinds
    if problem.provenance:
        head["provenance"] = _plain(problem.provenance, "provenance")
    return head


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` in TOML's own types; None inside a mapping is left out."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, (str, bool, int, float)):
        return value
    raise FileError("must be text, a number, a list or a mapping", where=where, value=value)


def _goals(problem: Problem) -> dict[str, Any]:
    weights = {name: exact_value(weight) for name, weight in problem.objective.items()}
    goals: dict[str, Any] = {"minimize": next(iter(weights)) if list(weights.values()) == [1] else weights}
    if problem.bound is not None:
        goals["bound"] = exact_value(problem.bound)
    if problem.ties:
        goals["ties"] = [[problem.names[g] for g in tie] for tie in problem.ties]
    if problem.budgets:
        goals["budgets"] = {name: exact_value(limit) for name, limit in problem.budgets.items()}
    if problem.pins:
        goals["pins"] = {problem.names[g]: _called(problem.candidates, g, k) for g, k in sorted(problem.pins.items())}
    return goals


def _called(candidates: Candidates, group: int, column: int) -> int | float | str:
    number = candidates.number_of(group)
    return candidates.formats[number][column] if candidates.formats else _width(candidates.sets[number][column])


def _width(bits: float) -> int | float:
    return int(bits) if float(bits).is_integer() else float(bits)


def _by_group(problem: Problem) -> dict[str, Any]:
    number_of = problem.candidates.numbers(len(problem))
    usual = int(np.bincount(number_of).argmax())
    head: dict[str, Any] = {"bits": [_width(b) for b in problem.candidates.sets[usual]]}
    if problem.candidates.formats:
        head["formats"] = list(problem.candidates.formats[usual])
    if problem.costs:
        head["costs"] = [cost_head(term) for term in problem.costs]
    return head | {"groups": [_one_group(problem, g, int(number_of[g]), usual) for g in range(len(problem))]}


def _one_group(problem: Problem, group: int, number: int, usual: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": problem.names[group], "size": int(problem.sizes[group])}
    layer = problem.names.layers[int(problem.names.label_of[group])]
    if layer != entry["name"]:
        entry["layer"] = layer
    if problem.kinds is not None:
        entry["kind"] = "activation" if problem.kinds[group] else "weight"
    widths = problem.candidates.sets[number]
    if number != usual:
        entry["bits"] = [_width(b) for b in widths]
        if problem.candidates.formats:
            entry["formats"] = list(problem.candidates.formats[number])
    damage = problem.damage
    if isinstance(damage, PowerLaw):
        entry["sensitivity"] = float(damage.sensitivity[group])
        if damage.stderr is not None and np.isfinite(damage.stderr[group]):
            entry["stderr"] = float(damage.stderr[group])
    else:
        entry["damage"] = damage.values[group, : len(widths)].tolist()
        if damage.stderr is not None and not np.isnan(damage.stderr[group, : len(widths)]).all():
            entry["stderr"] = damage.stderr[group, : len(widths)].tolist()
    if problem.costs:
        entry["costs"] = {
            t.name: t.values[group, : len(widths)].tolist() for t in problem.costs if isinstance(t, TableCost)
        }
    return entry | _graph_of(problem, group)


def _graph_of(problem: Problem, group: int) -> dict[str, Any]:
    """Return what a group says about its quantizer, its place in the network and who measured it, where known."""
    entry: dict[str, Any] = {}
    if problem.ranges is not None and np.isfinite(problem.ranges[group]):
        entry["range"] = float(problem.ranges[group])
    if problem.macs is not None:
        entry["macs"] = int(problem.macs[group])
    if problem.lengths is not None:
        entry["length"] = int(problem.lengths[group])
    if problem.reads is not None and problem.reads[group] >= 0:
        entry["reads"] = problem.names[int(problem.reads[group])]
    if problem.also_reads is not None:
        further = problem.also_reads[problem.also_reads[:, 0] == group].tolist()
        if further:
            entry["also_reads"] = [[problem.names[activation], macs] for _, activation, macs in further]
    if problem.steps is not None and problem.steps[group, 0] >= 0:
        entry["steps"] = problem.steps[group].tolist()
    if problem.unmeasured is not None and problem.unmeasured[group]:
        entry["measured"] = False
    return entry


def _names(names: GroupNames) -> dict[str, Any]:
    return {
        "labels": list(names.labels),
        "shapes": [list(s) for s in names.shapes],
        "layers": list(names.layers),
    }


def _by_array(problem: Problem) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    candidates, names = problem.candidates, problem.names
    sets: list[dict[str, Any]] = [{"bits": [_width(b) for b in entry]} for entry in candidates.sets]
    for entry, formats in zip(sets, candidates.formats, strict=False):
        entry["formats"] = list(formats)
    record: dict[str, Any] = {"costs": [cost_head(term) for term in problem.costs]} if problem.costs else {}
    record |= {
        "names": _names(names),
        "candidates": sets,
        "arrays": {},
    }
    arrays: dict[str, Any] = {name: getattr(problem, name) for name in ("sizes", *OPTIONAL)}
    arrays["set_of"] = candidates.set_of
    if problem.unmeasured is not None:
        arrays["unmeasured"] = problem.unmeasured.astype(np.int8)
    if isinstance(problem.damage, PowerLaw):
        arrays |= {"sensitivity": problem.damage.sensitivity, "stderr": problem.damage.stderr}
    else:
        arrays |= {"damage": problem.damage.values, "damage_stderr": problem.damage.stderr}
    if isinstance(problem.interactions, Factors):
        arrays |= {"factors": problem.interactions.values, "factors_stderr": problem.interactions.stderr}
    elif problem.interactions is not None:
        pairs = problem.interactions
        arrays |= {
            "interacting": pairs.groups,
            "interactions": pairs.values,
            "interactions_stderr": pairs.stderr,
        }
    for term in problem.costs:
        arrays |= cost_arrays(term)
    if problem.pins:
        arrays["pins"] = np.array(sorted(problem.pins.items()), dtype=np.int64)
    if problem.ties:
        arrays["tie_members"] = np.concatenate([np.array(tie, dtype=np.int64) for tie in problem.ties])
        arrays["tie_starts"] = np.cumsum([0] + [len(tie) for tie in problem.ties[:-1]]).astype(np.int64)
    return record, {name: array for name, array in arrays.items() if array is not None}
