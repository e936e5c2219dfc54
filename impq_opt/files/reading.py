"""Reading a file and telling what does not fit, with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from impq_opt.documents.wording import in_words
from impq_opt.errors import FileError, nearest
from impq_opt.files import allocation_record as answers
from impq_opt.files import problem_record as questions
from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.problem.allocation import Status

__all__ = ["check_format", "check_kind", "convert"]

Record = TypeVar("Record", bound=msgspec.Struct)

# A step in a place such as "groups[0].size".
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")


_STATED = re.compile(rb"""["']?format["']?\s*[=:]\s*["'](impq-opt [a-z]+)["']""")
_NOUNS = {questions.FORMAT: "a problem", answers.FORMAT: "an allocation"}


def check_kind(path: Path, name: str) -> None:
    """Raise FileError where a file begins as one of the other format of this package: arguments are easily swapped."""
    try:
        with path.open("rb") as file:
            stated = _STATED.search(file.read(4096))
    except (OSError, ValueError):
        return  # told by whoever reads it
    other = "" if stated is None else stated[1].decode()
    if other in _NOUNS and other != name:
        raise FileError(
            f"is {_NOUNS[other]} file, where {_NOUNS[name]} is due",
            where=str(path),
            hint="a problem comes before its allocation",
        )


def check_format(document: Any, name: str, path: Path) -> None:
    """Raise FileError where a document is not of this format, or of a later version."""
    if not isinstance(document, dict) or document.get("format") != name:
        stated = document.get("format") if isinstance(document, dict) else None
        raise FileError(
            f"is not an {name} file",
            where=str(path),
            **({} if stated is None else {"value": stated}),
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


def convert(document: Any, kind: type[Record], where: str) -> Record:
    """Return the record that a document holds; raise FileError with the place of what does not fit."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _placed(error, document, where, kind) from None
    except (RecursionError, OverflowError):
        raise FileError("cannot be read: nested too deeply, or a number too large", where=where) from None


def _placed(error: Exception, document: Any, where: str, kind: type[msgspec.Struct]) -> FileError:
    """Turn msgspec's words into ours: the place as in the file, the value found there, near names."""
    what, place = in_words(error)
    value: Any = document
    try:
        for key, index in _STEP.findall(f".{place}"):
            value = value[key] if key else value[int(index)]
    except (KeyError, IndexError, TypeError, ValueError):
        value = ...
    hint = ""
    unknown = re.search(r"unknown key '(.*)'", what)
    if unknown:
        fields = kind.__struct_fields__
        for key, _ in _STEP.findall(f".{place}"):
            fields = _FIELDS.get(key, fields)
        what, value, hint = "unknown key", unknown[1], nearest(unknown[1], fields)
    if what.startswith("the key "):
        value = ...
    if what.startswith("Invalid enum value"):
        known = _VALUES.get(place.rpartition(".")[2], ())
        what, hint = "unknown value", nearest(str(value), known)
    return FileError(what, where=f"{where}: {place}" if place else where, value=value, hint=hint)


_FIELDS = {key: kind.__struct_fields__ for key, kind in (questions.NESTED | answers.NESTED).items()}

# What the keys that take one of a few words may say.
_VALUES: dict[str, tuple[str, ...]] = {
    "kind": KIND_NAMES,
    "status": tuple(status.value for status in Status),
    "minimizes": ("cost", "damage"),
    "format_version": ("1",),
}
