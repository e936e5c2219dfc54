"""``impq-opt report``: an allocation or a run as one page to read."""

from __future__ import annotations

import json as json_module
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._choices import PROBLEMS
from impq_opt.cli._common import JsonFlag, Output, check_ending, find_problem, refuse, write_output
from impq_opt.cli._progress import native_silence, watched
from impq_opt.cli._screen import print_json
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError, ImpqError, InputError, OptionError, UnsupportedError, first_line
from impq_opt.exactness.sums import nearest_float
from impq_opt.files import allocation_record, load_allocation
from impq_opt.files.reading import mistaken
from impq_opt.insight.frontier import frontier as sweep
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.report import Measured, Report, Strategy, render_page, write_pictures
from impq_opt.report.curve import Curve, curve
from impq_opt.report.packed import packed_bytes
from impq_opt.solve import solve_in_passing
from impq_opt.solvers import solver_class, solver_names

__all__ = ["report"]

_LOG = "log.jsonl"
# Strategies beside the answer's own: the quick ones on any size.
_SECONDS = 20
_QUICK = ("exact", "uniform", "noise-equalization", "greedy", "lagrangian")
# Factors on the answer's own damage at which exact points are marked on the frontier.
_AROUND = (0.1, 0.3, 3.0, 10.0)


def report(
    what: Annotated[Path, Parameter(help="An allocation file, or the folder of a run.")],
    /,
    *,
    problem: Annotated[
        str | None, PROBLEMS, Parameter(help="The problem of the allocation; looked for beside it and in the gallery.")
    ] = None,
    measured: Annotated[Path | None, Parameter(help="What `impq-opt validate --json` printed.")] = None,
    packed: Annotated[Path | None, Parameter(help="What `impq-opt pack` wrote of it: its size on disk.")] = None,
    figures: Annotated[Path | None, Parameter(help="Write the figures to this folder too, as PNG and SVG.")] = None,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Write one self-contained page about an allocation or a run; it needs no network and no server."""
    if output is None and figures is None:
        raise OptionError("nothing is written", where="--output", hint="-o report.html, or --figures FOLDER")
    check_ending(output, ".html", ".htm")
    if figures is not None and (os.path.isfile(figures) or figures.suffix.lower() in (".png", ".svg", ".pdf")):
        raise OptionError("names a folder, which gets a picture a figure", where="--figures", value=str(figures))
    if os.path.isdir(what):
        refuse("--problem", problem, "goes with an allocation: a run has its own problems")
    rows = [] if measured is None else _read_measured(measured)
    with native_silence(), watched("gathering") as tell:
        gathered = _gather(what, problem, rows, tell)
        if packed is not None:
            gathered = replace(gathered, packed_bytes=packed_bytes(packed, gathered.allocation))
    if output is not None:
        page = render_page(gathered).encode()
        write_output(output, lambda path: atomic_write(path, page))
    pictures = [] if figures is None else write_pictures(gathered, figures)
    if json:
        print_json({"output": output and str(output), "figures": [str(path) for path in pictures]})
    return 0


def _gather(what: Path, name: str | None, measured: Sequence[Measured], tell: Callable[[str], None]) -> Report:
    records: list[Mapping[str, Any]] = []
    if os.path.isdir(what):
        runs = _runs(what)
        records = [record for run in runs.values() for record in run]
        shown = next((folder for folder in runs if folder.name == "exact"), next(iter(runs)))
        allocation, title = _of_run(shown, runs[shown])
    else:
        declared = find_problem(name) if name is not None else _problem_beside(what)
        allocation, title = load_allocation(what, declared), _title(declared, what)
    if allocation.choice is None:
        return Report(title, allocation)  # which tells why there is none
    others, unasked = _strategies(allocation, tell)
    tell("sweeping the trade-off")
    return Report(
        title,
        allocation,
        _curve(allocation),
        others,
        measured,
        records,
        {"read from": what.name},
        unasked,
    )


def _title(declared: Problem, path: Path) -> str:
    provenance = declared.provenance
    return str(provenance.get("title") or provenance.get("description") or provenance.get("network") or path.stem)


# -- reading -------------------------------------------------------------------------------------------------------


def _document(text: str) -> Any:
    """Return a JSON document; NaN, which Python writes and JSON does not have, is no number here either."""
    return json_module.loads(text, parse_constant=lambda _: None)


def _text_of(path: Path, hint: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    except ValueError:
        raise FileError("is not UTF-8", where=str(path), hint=hint) from None


def _problem_beside(path: Path) -> Problem:
    """Return the problem that the allocation at ``path`` names by its digest."""
    try:
        digest = _document(_text_of(path))["problem_digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        unknown = FileError("is not an allocation file", where=str(path), hint="impq-opt solve -o writes one")
        raise mistaken(path, allocation_record.FORMAT) or unknown from None
    for name in (*(str(p) for p in sorted(path.resolve().parent.glob("*.toml"))), *problems.names()):
        try:
            candidate = find_problem(name)
        except InputError:
            continue  # some other file
        if candidate.digest == digest:
            return candidate
    raise OptionError(
        "is needed: no problem with the allocation's digest is beside it or in the gallery",
        where="--problem",
        value=str(digest)[:16],
    )


def _runs(folder: Path) -> dict[Path, list[Mapping[str, Any]]]:
    """Return the records of the run in ``folder``, or of the runs of a comparison (``seed-0/exact`` and so on)."""
    logs = [] if os.path.exists(folder / _LOG) else sorted(folder.glob(f"seed-*/*/{_LOG}"))
    # A comparison may run one strategy several times, under other names.
    several: dict[Path, list[Mapping[str, Any]]] = {
        path.parent: [{**record, "strategy": path.parent.name} for record in _read_log(path)]
        for path in logs
        if path.parent.name != "start"
    }
    return several or {folder: _read_log(folder / _LOG)}


class _Round(msgspec.Struct):
    """What is read of a line of a run's log."""

    round: int
    bits: list[float]
    strategy: str = "run"
    seed: int = 0
    status: str = ""
    damage: float | None = None
    effective_bits: dict[str, float | None] = {}
    accuracy: dict[str, float | None] = {}


def _read_log(path: Path) -> list[Mapping[str, Any]]:
    lines = _text_of(path, hint="is it a run's folder?").split("\n")
    try:
        records = [msgspec.convert(_document(line), _Round) for line in lines if line.strip()]
    except msgspec.ValidationError:
        raise FileError("has no finished round", where=str(path)) from None
    except (ValueError, RecursionError):
        raise FileError("is not a run's log, a JSON object a line", where=str(path)) from None
    if not records:
        raise FileError("has no finished round", where=str(path))
    return [msgspec.to_builtins(record) for record in records]


def _of_run(folder: Path, records: Sequence[Mapping[str, Any]]) -> tuple[Allocation, str]:
    """Return the last round's answer: its bits on the problem that was measured for it."""
    last = records[-1]
    declared = find_problem(str(folder / f"round-{last['round']:02}.problem.toml"))
    bits = np.asarray(last["bits"], dtype=np.float64)
    if len(bits) != len(declared):
        raise FileError("does not belong to the run's problem", where=f"{folder.name}/{_LOG}", value=len(bits))
    pins = {}
    for group, wanted in enumerate(bits.tolist()):
        candidates = [float(b) for b in declared.candidates.of(group)]
        if wanted not in candidates:
            raise FileError("is not a candidate", where=f"{_LOG}: {declared.names[group]}", value=wanted)
        pins[group] = candidates.index(wanted)
    # Everything is pinned to what the round had, so that "solving" only recomputes its cost and damage; nothing is
    # proved about them.
    pinned = replace(declared, pins=pins, ties=(), bound=None, budgets={})
    free = replace(
        solve_in_passing(pinned, bound=1e300),
        problem=replace(declared, bound=None, budgets={}),
        status=Status.FEASIBLE,
        bound=None,
        exact_lower_bound=-math.inf,
        certificate=None,
        solver=str(last.get("strategy", "rounds")),
        options={},
        seconds=0.0,
        statistics={},
    )
    return free, f"{folder.name}, round {last['round']}"


def _read_measured(path: Path) -> list[Measured]:
    """Return the rows of a validation: a JSON object with ``rows``."""
    try:
        document = _document(_text_of(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise FileError("is not JSON", where=str(path), hint="impq-opt validate --json prints it") from None
    try:
        return [
            Measured(
                label=str(row.get("name", path.stem)),
                bound=float(row["bound"]),
                mismatch=float(row["mismatch"]),
                low=float(row["low"]),
                high=float(row["high"]),
                gaussian=_number(row.get("gaussian")),
                accuracy=_number(row.get("accuracy")),
                float_accuracy=_number(row.get("float_accuracy")),
                samples=None if row.get("samples") is None else int(row["samples"]),
            )
            for row in document["rows"]
        ]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise FileError("has no bound and measured mismatch", where=str(path)) from None


def _number(value: Any) -> float | None:
    return None if value is None else nearest_float(value)


# -- beside the answer ---------------------------------------------------------------------------------------------


def _question(allocation: Allocation) -> dict[str, Any]:
    """Return the keywords that ask :func:`solve` what ``allocation`` answers."""
    minimize = {name: nearest_float(weight) for name, weight in allocation.cost_weights.items()}
    name = "+".join(allocation.cost_weights)
    if allocation.minimizes == "damage":
        return {"minimize": minimize, "budget": allocation.budgets.get(name)}
    return {"minimize": minimize, "bound": allocation.bound or allocation}


def _strategies(allocation: Allocation, tell: Callable[[str], None]) -> tuple[list[Strategy], dict[str, str]]:
    """Return the answers of the quick strategies to the same question, and why others were not asked."""
    answers, unasked = [Strategy(allocation.solver, allocation)], {}
    needs = {"damage"} if allocation.minimizes == "damage" else set()
    question = _question(allocation)
    for name in solver_names():
        if name == allocation.solver:
            continue
        if not needs <= solver_class(name).supports:
            unasked[name] = "cannot minimize damage"
        elif name not in _QUICK:
            unasked[name] = "can take long; impq-opt compare --solver asks it"
        else:
            tell(f"running {name}, at most {_SECONDS} s")
            try:
                answer = solve_in_passing(allocation.problem, **question, solver=name, time_limit=_SECONDS)
            except ImpqError as error:
                unasked[name] = first_line(error)
            else:
                answers.append(Strategy(name, answer))
    return answers, unasked


def _curve(allocation: Allocation) -> Curve | None:
    weights = {name: nearest_float(weight) for name, weight in allocation.cost_weights.items()}
    try:
        front = sweep(allocation.problem, weights)
    except UnsupportedError:
        return None
    bounds = [allocation.damage * factor for factor in _AROUND]
    bounds = [bound for bound in bounds if front.damage[-1] < bound < front.damage[0]]
    exact = [answer for answer in front.solve(bounds, time_limit=10) if answer.status is Status.OPTIMAL]
    return curve(allocation, front, exact)
