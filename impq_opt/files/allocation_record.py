"""What an allocation file says: the schema of allocation.json, version 1, and the way from and to an Allocation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.documents.numbers import read_exact
from impq_opt.errors import AllocationError, nearest
from impq_opt.files.revision import Number, Revision
from impq_opt.problem.allocation import Allocation, Certificate, Diagnosis, Enumeration, Status, Stop
from impq_opt.problem.problem import Problem

__all__ = ["AllocationRecord", "allocation_from_record", "allocation_record"]

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
    tangent: list[float] | None = None


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


class TogetherRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What of the damage groups do together; see :attr:`impq_opt.Allocation.together`."""

    damage: float | None
    stderr: float | None
    below_noise: bool


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
    together: TogetherRecord | None = None
    unknown: list[str] = []
    formats: dict[str, str] | None = None
    revision: Revision | None = None


NESTED = {
    "effective_bits": EffectiveBits,
    "whole": WholeRecord,
    "together": TogetherRecord,
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

    record: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1,
        "version": __version__,
        "problem_digest": (base or allocation.problem).digest,
        **allocation.to_dict(),
    }
    if revision:
        record["revision"] = msgspec.to_builtins(revision)
    return record


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
    if record.together is not None:
        stated |= {f"together {name}": value for name, value in msgspec.structs.asdict(record.together).items()}
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
        tangent=None if record.tangent is None else np.array(record.tangent, dtype=np.float64),
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
