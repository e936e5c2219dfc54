"""Files: a problem as TOML with an optional safetensors file beside it, an allocation as JSON.

Everything is written whole or not at all (:mod:`impq_opt.documents.writing`). Nothing is pickled. Every file carries a
format name and a version; what does not fit is told with its place.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tomli_w
from safetensors import SafetensorError, safe_open

from impq_opt import allocation_record as answers
from impq_opt import problem_record as questions
from impq_opt.allocation_record import AllocationRecord, Revision, allocation_from_record
from impq_opt.documents.reading import read_bytes, read_json, read_toml
from impq_opt.documents.writing import alone, atomic_write, writing
from impq_opt.errors import FileError, InputError, nearest
from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.problem_document import problem_document
from impq_opt.problem_record import ProblemRecord, problem_from_record

__all__ = [
    "Revision",
    "atomic_write",
    "load_allocation",
    "load_problem",
    "save_allocation",
    "save_problem",
]

Arrays = dict[str, npt.NDArray[Any]]
Record = TypeVar("Record", bound=msgspec.Struct)

# A place in a decoded document, as msgspec words it: "Expected `int`, got `str` - at `$.groups[0].size`".
_PLACED = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<place>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")


# -- problems ----------------------------------------------------------------------------------------------------


def save_problem(problem: Problem, path: str | os.PathLike[str]) -> None:
    """Write ``problem`` to ``path`` (TOML); arrays of large problems go to a safetensors file beside it.

    A problem of up to 256 groups with names of their own is written group by group, to be read and edited by people.
    Otherwise the TOML file names the arrays file and its SHA-256. Where an arrays file of another problem is in the
    way, the new one gets a name of its own and the old one goes once nothing names it any more.
    """
    path = Path(path)
    record, arrays = problem_document(problem)
    # One turn for both files: nobody else takes the arrays for left ones before the TOML file names them.
    with alone(path.parent) as locked:
        before = _named_arrays(path)
        if arrays:
            with writing(path):
                data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
            digest = hashlib.sha256(data).hexdigest()
            beside = path.with_suffix(".safetensors")
            if beside.exists() and _sha256(beside) != digest:
                beside = path.with_name(f"{path.stem}-{digest[:12]}.safetensors")
            record["arrays"] |= {"file": beside.name, "sha256": digest}
            atomic_write(beside, data)
        atomic_write(path, _folded(tomli_w.dumps(record)).encode())
        if arrays and not beside.exists():  # without the turn another writer may have cleared it as left
            atomic_write(beside, data)
        for old in {before} | _left_arrays(path) if locked else {before}:
            if old is None or old.name == record.get("arrays", {}).get("file") or _named_elsewhere(old):
                continue
            with contextlib.suppress(OSError):
                old.unlink(missing_ok=True)


def _folded(text: str) -> str:
    """Put lists that tomli_w writes one item a line on lines of up to 120 characters."""
    lines: list[str] = []
    open_: list[list[str]] = []
    for line in text.removesuffix("\n").split("\n"):
        # Strings never span lines here, so a line that ends in "[" opens a list and one that begins with "]" closes it.
        item = line.strip()
        if open_ and item.startswith("]"):
            part = open_.pop()
            whole = part[0] + " ".join(part[1:]).removesuffix(",") + item
            if item.endswith("["):  # a table inside a list goes on with its next list
                open_.append([whole])
            elif open_:
                open_[-1].append(whole)
            else:
                lines += [whole] if len(whole) <= 120 else _filled([*part, item])
        elif item.endswith("["):
            open_.append([item])
        elif open_:
            open_[-1].append(item)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _filled(part: list[str]) -> list[str]:
    """Break a list between its items; tables get a line each."""
    lines = ["    "]
    for item in part[1:-1]:
        if lines[-1].strip() and (item.startswith("{") or len(lines[-1]) + len(item) >= 120):
            lines.append("    ")
        lines[-1] += item if not lines[-1].strip() else " " + item
    return [part[0], *lines, part[-1]]


def _named_arrays(path: Path) -> Path | None:
    """Return the arrays file that the problem file at ``path`` names, if it was made for it."""
    try:
        if not path.is_file():
            return None
        name = read_toml(path)["arrays"]["file"]
    except (FileError, OSError, KeyError, TypeError):
        return None
    own = isinstance(name, str) and Path(name).name == name and name.startswith(path.stem)
    return path.with_name(name) if own and name.endswith(".safetensors") else None


def _left_arrays(path: Path) -> set[Path | None]:
    """Return the arrays files beside ``path`` that were written for it and perhaps never named, as after a kill."""
    digits = "[0-9a-f]" * 12
    found = {*path.parent.glob(f"{glob.escape(path.stem)}-{digits}.safetensors"), path.with_suffix(".safetensors")}
    return {file for file in found if _holds_a_problem(file)}


def _holds_a_problem(file: Path) -> bool:
    """Return whether ``file`` has the arrays of a problem and nothing else, such as the weights of a network."""
    try:
        with safe_open(file, framework="numpy") as arrays:
            names = set(arrays.keys())
    except (OSError, SafetensorError):
        return False
    own = all(name in questions.ARRAYS or name.startswith(("cost.", "pairs.")) for name in names)
    return own and "sizes" in names and not names.isdisjoint(("sensitivity", "damage"))


def _named_elsewhere(arrays: Path) -> bool:
    """Return whether some TOML file beside ``arrays``, such as a copy of its problem file, still names it."""
    for file in arrays.parent.glob("*.toml"):
        try:
            if arrays.name in file.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            return True  # it cannot be read, so it may
    return False


def load_problem(path: str | os.PathLike[str]) -> Problem:
    """Read a problem from a TOML file and the arrays file that it names.

    Raises
    ------
    FileError
        Where a file is missing, truncated, foreign or of a later version, or the arrays are not those it was written
        with.
    ProblemError
        Where what it says cannot be a problem; with the place, such as ``problem.toml: groups[3].bits[2]``.
    """
    path = Path(path)
    where = path.name
    document = read_toml(path, "a problem file is TOML")
    _check_format(document, questions.FORMAT, path)
    record = _convert(document, ProblemRecord, where)
    arrays = None if record.arrays is None else _load_arrays(path, record.arrays.file, record.arrays.sha256)
    try:
        return problem_from_record(record, arrays, path.parent)
    except InputError as error:
        raise error.within(where) from None


def _load_arrays(path: Path, name: str, digest: str) -> Arrays:
    if not name or Path(name).name != name:
        raise FileError("must be a file beside the problem file", where=f"{path.name}: arrays.file", value=name)
    beside = path.with_name(name)
    data = read_bytes(beside)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise FileError(
            f"is not the arrays file that {path.name} was written with: its SHA-256 is {found[:12]}..., "
            f"not {digest[:12]}...",
            where=str(beside),
            hint="truncated, changed, or from another problem; copy both files together",
        )
    try:
        return dict(safetensors.numpy.load(data))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FileError(f"is not a safetensors file: {error}", where=str(beside)) from None


# -- allocations -------------------------------------------------------------------------------------------------


def save_allocation(
    allocation: Allocation,
    path: str | os.PathLike[str],
    *,
    base: Problem | None = None,
    revision: Revision | None = None,
) -> None:
    """Write ``allocation`` to ``path`` as JSON.

    Parameters
    ----------
    allocation : Allocation
    path : path
    base : Problem, optional
        The problem as it stands in its file, where ``allocation`` answers a revision of it.
    revision : Revision, optional
        What was revised, so that the answer can be checked against the file of ``base``.
    """
    record = answers.allocation_record(allocation, base=base, revision=revision)
    atomic_write(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def load_allocation(path: str | os.PathLike[str], problem: Problem) -> Allocation:
    """Read an answer to ``problem``. What it claims is kept as claimed: :func:`impq_opt.verify` checks it.

    Raises
    ------
    FileError
        Where the file is missing, truncated or foreign.
    AllocationError
        Where it is an answer to another problem, or names groups or precisions that ``problem`` does not have.
    """
    path = Path(path)
    document = read_json(path)
    _check_format(document, answers.FORMAT, path)
    record = _convert(document, AllocationRecord, path.name)
    try:
        return allocation_from_record(record, problem)
    except InputError as error:
        raise error.within(path.name) from None


# -- shared ------------------------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with writing(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _check_format(document: Any, name: str, path: Path) -> None:
    if not isinstance(document, dict) or document.get("format") != name:
        found = document.get("format") if isinstance(document, dict) else None
        raise FileError(
            f"is not an {name} file",
            where=str(path),
            **({} if found is None else {"value": found}),
            hint=f"such a file says format = {name!r} and format_version = 1",
        )
    version = document.get("format_version")
    if isinstance(version, int) and version > 1:
        raise FileError(
            "was written by a later release: its format_version is not known here",
            where=str(path),
            value=version,
            hint="upgrade impq-opt",
        )


def _convert(document: Any, kind: type[Record], where: str) -> Record:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _placed(str(error), document, where, kind) from None
    except (RecursionError, OverflowError) as error:
        raise FileError(f"cannot be read: {error}", where=where) from None


def _placed(message: str, document: Any, where: str, kind: type[msgspec.Struct]) -> FileError:
    """Turn msgspec's words into ours: the place as in the file, the value found there, near names."""
    match = _PLACED.match(message)
    assert match is not None
    what, place = match["what"], match["place"] or ""
    value: Any = document
    try:
        for key, index in _STEP.findall(place):
            value = value[key] if key else value[int(index)]
    except (KeyError, IndexError, TypeError, ValueError):
        value = ...
    hint = ""
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        fields = kind.__struct_fields__
        for key, _ in _STEP.findall(place):
            fields = _FIELDS.get(key, fields)
        what, value, hint = "unknown key", unknown[1], nearest(unknown[1], fields)
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        what, value = f"the key {missing[1]!r} is missing", ...
    if what.startswith("Invalid enum value"):
        known = _VALUES.get(place.rpartition(".")[2], ())
        what, hint = "unknown value", nearest(str(value), known)
    what = re.sub(r",? got `.*`$", "", what).replace("`", "").replace("Expected", "must be").replace(" | ", " or ")
    return FileError(what, where=f"{where}: {place.lstrip('.')}" if place else where, value=value, hint=hint)


_FIELDS = {key: kind.__struct_fields__ for key, kind in (questions.NESTED | answers.NESTED).items()}

# What the keys that take one of a few words may say.
_VALUES: dict[str, tuple[str, ...]] = {
    "kind": KIND_NAMES,
    "status": tuple(status.value for status in Status),
    "minimizes": ("cost", "damage"),
    "format_version": ("1",),
}
