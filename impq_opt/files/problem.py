"""A problem's file: TOML, with an optional safetensors file beside it."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tomli_w
from safetensors import SafetensorError, safe_open

from impq_opt.documents.reading import read_bytes, read_toml
from impq_opt.documents.writing import alone, atomic_write, writing
from impq_opt.errors import FileError, InputError
from impq_opt.files import problem_record as questions
from impq_opt.files.problem_document import problem_document
from impq_opt.files.problem_record import ProblemRecord, problem_from_record
from impq_opt.files.reading import check_format, convert, mistaken
from impq_opt.files.toml import folded
from impq_opt.problem.problem import Problem

__all__ = ["load_problem", "save_problem"]

Arrays = dict[str, npt.NDArray[Any]]

_ARRAYS_FILE = re.compile(r"""^\[arrays\][^\[]*?^file *= *["']([^"']+\.safetensors)["'] *$""", re.MULTILINE)


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
            if os.path.exists(beside) and _sha256(beside) != digest:
                beside = path.with_name(f"{path.stem}-{digest[:12]}.safetensors")
            record["arrays"] |= {"file": beside.name, "sha256": digest}
            atomic_write(beside, data)
        atomic_write(path, folded(tomli_w.dumps(record)).encode())
        if arrays and not os.path.exists(beside):  # without the turn another writer may have cleared it as left
            atomic_write(beside, data)
        for old in {before} | _left_arrays(path) if locked else {before}:
            if old is None or old.name == record.get("arrays", {}).get("file") or _named_elsewhere(old):
                continue
            with contextlib.suppress(OSError):
                old.unlink(missing_ok=True)


def _named_arrays(path: Path) -> Path | None:
    """Return the arrays file that the problem file at ``path`` names, if it was made for it."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if os.path.isfile(path) else ""
    except OSError:
        return None
    named = _ARRAYS_FILE.search(text)  # of a hundred thousand names the rest takes long to read
    own = named is not None and Path(named[1]).name == named[1] and named[1].startswith(path.stem)
    return path.with_name(named[1]) if own and named is not None else None


def _left_arrays(path: Path) -> set[Path | None]:
    """Return the arrays files beside ``path`` that were written for it and perhaps never named, as after a kill."""
    digits = "[0-9a-f]" * 12
    files = {*path.parent.glob(f"{glob.escape(path.stem)}-{digits}.safetensors"), path.with_suffix(".safetensors")}
    return {file for file in files if _holds_a_problem(file)}


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
    try:
        document = read_toml(path, "a problem file is TOML")
    except FileError as error:
        known = mistaken(path, questions.FORMAT) if os.path.isfile(path) else None
        raise known or error from None
    check_format(document, questions.FORMAT, path)
    record = convert(document, ProblemRecord, where)
    arrays = None if record.arrays is None else _load_arrays(path, record.arrays.file, record.arrays.sha256)
    try:
        return problem_from_record(record, arrays, path.parent)
    except InputError as error:
        raise error.within(where) from None


def _load_arrays(path: Path, name: str, digest: str) -> Arrays:
    if not name or Path(name).name != name:
        raise FileError("must be a file beside the problem file", where=f"{path.name}: arrays.file", value=name)
    beside = path.with_name(name)
    if not os.path.exists(beside):
        raise FileError(
            "there is no such file",
            where=str(beside),
            hint=f"{path.name} has its arrays there; copy both files together",
        )
    data = read_bytes(beside)
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise FileError(
            f"is not the arrays file that {path.name} was written with: its SHA-256 is {actual[:12]}..., "
            f"not {digest[:12]}...",
            where=str(beside),
            hint="truncated, changed, or from another problem; copy both files together",
        )
    try:
        return dict(safetensors.numpy.load(data))
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise FileError("is not a safetensors file", where=str(beside)) from None


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with writing(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
