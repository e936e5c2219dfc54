"""What an allocation file says: the schema of allocation.json, version 1, and the way from and to an Allocation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.documents.numbers import exact_value, read_exact
from impq_opt.errors import AllocationError, nearest
from impq_opt.exactness.sums import nearest_float
from impq_opt.files.revision import Number, Revision
from impq_opt.problem.allocation import Allocation, Certificate, Diagnosis, Enumeration, Status, Stop
from impq_opt.problem.allocation import number as plain_number
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Whole

__all__ = ["AllocationRecord", "allocation_from_record", "allocation_record", "whole_record"]

FORMAT = "impq-opt allocation"


class EffectiveBits(msgspec.Struct, forbid_unknown_fields=True):
    """Sum N B / sum N, by kind."""

    weight: float | None
    activation: float | None


class WholeRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What the whole network takes, in bits; see :class:`impq_opt.problem.stays.Whole`."""

    bits: Number
    parameters: int
    staying: int
    bits_per_parameter: float
    compression_ratio: float | None


class ExactRecord(msgspec.Struct, forbid_unknown_fields=True):
    """The numbers as fractions, so that nothing is lost in decimals."""

    cost: str | None
    damage: str | None
    lower_bound: str | None
    bound: str | None


class EnumerationRecord(msgspec.Struct, forbid_unknown_fields=True):
    """See :class:`impq_opt.Enumeration`."""

    groups: int
    states: int
    by: str = ""


class CertificateRecord(msgspec.Struct, forbid_unknown_fields=True):
    """See :class:`impq_opt.Certificate`."""

    multipliers: dict[str, float]
    quantum: str
    dual_bound: str | None
    enumeration: EnumerationRecord | None = None


class DiagnosisRecord(msgspec.Struct, forbid_unknown_fields=True):
    """See :class:`impq_opt.Diagnosis`."""

    limit: str
    smallest: float
    allowed: float | None  # JSON has no infinity: what no float64 reaches is null
    held_by: list[str]
    conflict: list[tuple[str, str]] = []
    minimal: bool = True
    attained: bool = True
    without: float | None = None


class AllocationRecord(msgspec.Struct, forbid_unknown_fields=True):
    """All of an allocation file."""

    format: str
    format_version: Literal[1]
    version: str
    problem_digest: str
    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    minimizes: Literal["cost", "damage"]
    minimize: dict[str, Number | str]
    objective: Number | None
    lower_bound: Number | None
    gap: float | None
    cost: Number | None
    damage: float | None
    bound: float | None
    budgets: dict[str, Number | str]
    compression_ratio: float | None
    effective_bits: EffectiveBits
    solver: str
    options: dict[str, Any]
    seed: int
    seconds: float
    stop: str
    exact: ExactRecord
    certificate: CertificateRecord | None
    diagnosis: DiagnosisRecord | None
    statistics: dict[str, Any]
    bits: dict[str, Number] | None
    whole: WholeRecord | None = None
    unknown: list[str] = []
    formats: dict[str, str] | None = None
    revision: Revision | None = None


NESTED = {
    "effective_bits": EffectiveBits,
    "whole": WholeRecord,
    "exact": ExactRecord,
    "certificate": CertificateRecord,
    "enumeration": EnumerationRecord,
    "diagnosis": DiagnosisRecord,
    "revision": Revision,
}


def allocation_record(
    allocation: Allocation, *, base: Problem | None = None, revision: Revision | None = None
) -> dict[str, Any]:
    """Return the document that stands for ``allocation``; the same is printed by ``--json``.

    ``base`` is the problem of the file, where ``allocation`` answers it after ``revision``.
    """
    from impq_opt import __version__

    answered = allocation.choice is not None
    weight, activation = allocation.effective_bits if answered else (None, None)
    record: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1,
        "version": __version__,
        "problem_digest": (base or allocation.problem).digest,
        "status": allocation.status.value,
        "minimizes": allocation.minimizes,
        "minimize": {name: exact_value(weight) for name, weight in allocation.cost_weights.items()},
        "objective": _finite(allocation.objective) if answered else None,
        "lower_bound": _finite(allocation.lower_bound),
        "gap": _finite(allocation.gap),
        "cost": _finite(allocation.cost) if answered else None,
        "damage": _finite(allocation.damage) if answered else None,
        "bound": None if allocation.bound is None else _finite(nearest_float(allocation.bound)),
        "budgets": {name: exact_value(limit) for name, limit in allocation.budgets.items()},
        "compression_ratio": allocation.compression_ratio if answered else None,
        "effective_bits": {"weight": weight, "activation": activation},
        "solver": allocation.solver,
        "options": _plain(allocation.options),
        "seed": allocation.seed,
        "seconds": allocation.seconds,
        "stop": allocation.stop.value,
        "exact": {
            "cost": _text(allocation.exact_cost),
            "damage": _text(allocation.exact_damage),
            "lower_bound": _text(allocation.exact_lower_bound),
            "bound": _text(allocation.bound),
        },
        "certificate": _certificate(allocation.certificate),
        "diagnosis": _diagnosis(allocation.diagnosis),
        "statistics": _plain(allocation.statistics),
        "bits": dict(zip(allocation.problem.names, allocation.bits.tolist(), strict=True)) if answered else None,
    }
    whole = allocation.whole if answered else None
    if whole is not None:
        record["whole"] = whole_record(whole)
    if answered and len(allocation.unknown):
        record["unknown"] = [allocation.problem.names[g] for g in allocation.unknown.tolist()]
    if answered and allocation.problem.candidates.formats:
        record["formats"] = dict(zip(allocation.problem.names, _formats(allocation), strict=True))
    if revision:
        record["revision"] = msgspec.to_builtins(revision)
    return record


def whole_record(whole: Whole) -> dict[str, Any]:
    """Return the part of the document that says what the whole network takes."""
    return {
        "bits": _finite(plain_number(whole.bits)),
        "parameters": whole.parameters,
        "staying": whole.staying,
        "bits_per_parameter": nearest_float(whole.mean),
        "compression_ratio": None if whole.ratio is None else nearest_float(whole.ratio),
    }


def _finite(value: float) -> float | int | None:
    """Return a number as JSON holds it: None for an infinite one, a float64 for a whole one past 64 bits."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        value = nearest_float(Fraction(value))
    return value if math.isfinite(value) else None


def _text(value: Fraction | float | None) -> str | None:
    return str(value) if isinstance(value, (Fraction, int)) else None


def _plain(value: Any) -> Any:
    """Return ``value`` in JSON's own types; what has none is written as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, float):
        return _finite(value)
    return value if isinstance(value, int) and abs(value) < 1 << 63 else str(value)


def _certificate(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    enumeration = certificate.enumeration
    return {
        "multipliers": {name: float(value) for name, value in certificate.multipliers.items()},
        "quantum": str(certificate.quantum),
        "dual_bound": _text(certificate.dual_bound),
        "enumeration": None if enumeration is None else _enumeration(enumeration),
    }


def _enumeration(enumeration: Enumeration) -> dict[str, Any]:
    by = {"by": enumeration.by} if enumeration.by else {}
    return {"groups": enumeration.groups, "states": enumeration.states, **by}


def _diagnosis(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    if diagnosis is None:
        return None
    return {
        "limit": diagnosis.limit,
        "smallest": diagnosis.smallest,
        "allowed": _finite(diagnosis.allowed),
        "held_by": list(diagnosis.held_by),
        "conflict": [list(item) for item in diagnosis.conflict],
        "minimal": diagnosis.minimal,
        "attained": diagnosis.attained,
        "without": diagnosis.without,
    }


def _formats(allocation: Allocation) -> list[str]:
    candidates = allocation.problem.candidates
    assert allocation.choice is not None
    sets = candidates.numbers(len(allocation.choice)).tolist()
    return [candidates.formats[s][k] for s, k in zip(sets, allocation.choice.tolist(), strict=True)]


def allocation_from_record(record: AllocationRecord, problem: Problem) -> Allocation:
    """Return the allocation as it was claimed; raise AllocationError where it does not belong to ``problem``."""
    if record.problem_digest != problem.digest:
        raise AllocationError(
            "answers another problem, or this one before it was changed",
            where="problem_digest",
            value=record.problem_digest[:12] + "...",
            hint=f"this problem's digest is {problem.digest[:12]}...",
        )
    revised = record.revision.apply(problem) if record.revision else problem
    for name in ("cost", "damage"):
        if record.bits is not None and getattr(record.exact, name) is None:
            raise AllocationError("must be stated where there are bits", where=f"exact.{name}", hint="such as '3/4'")
    lower = _fraction(record.exact.lower_bound, "exact.lower_bound")
    return Allocation(
        problem=revised,
        status=Status(record.status),
        choice=None if record.bits is None else _choice(record, revised),
        minimizes=record.minimizes,
        cost_weights={k: _weight(v, f"minimize.{k}") for k, v in record.minimize.items()},
        exact_cost=_fraction(record.exact.cost, "exact.cost"),
        exact_damage=_fraction(record.exact.damage, "exact.damage"),
        exact_lower_bound=-math.inf if lower is None else lower,
        bound=_fraction(record.exact.bound, "exact.bound"),
        budgets={k: _need_fraction(v, f"budgets.{k}") for k, v in record.budgets.items()},
        certificate=_read_certificate(record.certificate),
        diagnosis=None
        if record.diagnosis is None
        else Diagnosis(
            record.diagnosis.limit,
            record.diagnosis.smallest,
            math.inf if record.diagnosis.allowed is None else record.diagnosis.allowed,
            tuple(record.diagnosis.held_by),
            tuple(record.diagnosis.conflict),
            record.diagnosis.minimal,
            record.diagnosis.attained,
            record.diagnosis.without,
        ),
        solver=record.solver,
        options=record.options,
        seed=record.seed,
        seconds=record.seconds,
        stop=_stop(record.stop),
        statistics=record.statistics,
        stated=_stated(record),
        origin=problem if record.revision else None,
    )


def _stated(record: AllocationRecord) -> dict[str, Any]:
    """Return what the file says for people, by the name under which a false one is told."""
    names = ("objective", "lower_bound", "gap", "cost", "damage", "bound", "compression_ratio")
    stated: dict[str, Any] = {name: getattr(record, name) for name in names}
    stated |= {f"{kind} bits": getattr(record.effective_bits, kind) for kind in ("weight", "activation")}
    if record.whole is not None:
        stated |= {f"whole {name}": value for name, value in msgspec.structs.asdict(record.whole).items()}
    if record.unknown:
        stated["unknown"] = record.unknown
    return stated if record.bits is None else stated | {"bits": record.bits}


def _fraction(text: str | None, where: str) -> Fraction | None:
    return None if text is None else _need_fraction(text, where)


def _need_fraction(value: Number | str, where: str) -> Fraction:
    return read_exact(value, where, error=AllocationError, hint="such as '3/4'", what="must be a fraction")


def _weight(value: Number | str, where: str) -> Fraction | int:
    # A float weight stands for its shortest decimal, as it does where costs are combined.
    return value if isinstance(value, int) else _need_fraction(str(value), where)


def _stop(text: str) -> Stop:
    try:
        return Stop(text)
    except ValueError:
        raise AllocationError(
            "unknown reason", where="stop", value=text, hint=nearest(text, [s.value for s in Stop])
        ) from None


def _read_certificate(record: CertificateRecord | None) -> Certificate | None:
    if record is None:
        return None
    for name, value in record.multipliers.items():
        if not 0 <= value < math.inf:
            raise AllocationError("must be finite and >= 0", where=f"certificate.multipliers.{name}", value=value)
    dual = _fraction(record.dual_bound, "certificate.dual_bound")
    return Certificate(
        multipliers=record.multipliers,
        quantum=_need_fraction(record.quantum, "certificate.quantum"),
        dual_bound=-math.inf if dual is None else dual,
        enumeration=None
        if record.enumeration is None
        else Enumeration(record.enumeration.groups, record.enumeration.states, record.enumeration.by),
    )


def _choice(record: AllocationRecord, problem: Problem) -> npt.NDArray[np.int64]:
    """Return the column (G,) that each group's bits or format stand for."""
    given: Mapping[str, Number | str] = record.formats if record.formats is not None else record.bits or {}
    where = "formats" if record.formats is not None else "bits"
    candidates = problem.candidates
    sets = candidates.numbers(len(problem)).tolist()
    columns: list[dict[Number | str, int | None]] = [{} for _ in candidates.sets]
    choice = np.empty(len(problem), dtype=np.int64)
    for group, (name, number) in enumerate(zip(problem.names, sets, strict=True)):
        if name not in given:
            raise AllocationError("a group has no precision", where=where, value=name)
        bits, known = given[name], columns[number]
        if bits not in known:
            known[bits] = candidates.position(number, bits)
        column = known[bits]
        if column is None:
            raise AllocationError(
                "is not among the group's candidates",
                where=f"{where}.{name}",
                value=bits,
                hint="they are " + ", ".join(candidates.labels(number)),
            )
        choice[group] = column
    if len(given) != len(problem):
        named = set(problem.names)
        extra = next(name for name in given if name not in named)
        raise AllocationError("no such group", where=where, value=extra, hint=nearest(extra, problem.names.labels))
    return choice
