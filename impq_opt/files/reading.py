"""Reading a file and telling what does not fit, with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from impq_opt.documents.reading import key_at, read_bytes, read_json, stated_format, steps_of, value_at
from impq_opt.documents.wording import rule_text
from impq_opt.errors import FileError, nearest
from impq_opt.files import allocation_record as answers
from impq_opt.files import problem_record as questions
from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.problem.allocation import Status

__all__ = ["check_format", "convert", "mistaken"]

Record = TypeVar("Record", bound=msgspec.Struct)

# A place in a decoded document, as msgspec words it: "Expected `int`, got `str` - at `$.groups[0].size`".
_PLACED = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<place>.*)`)?$", re.DOTALL)


def mistaken(path: Path, wanted: str) -> FileError | None:
    """Return in a sentence what the file at ``path`` is, where it is known and is not ``wanted``; None elsewhere.

    Swapped arguments, an answer where its problem is due, a table of scores that was never imported.
    """
    stated, start = stated_format(path), read_bytes(path)[:10]
    what, hint = "", ""
    if stated and stated != wanted:
        what, hint = f"is an {stated}, not an {wanted}", "the problem comes first, then the allocation"
    elif start.endswith(b'{"') and b"\0" in start:  # safetensors: the length of the JSON that follows
        what, hint = f"is a file of arrays, not an {wanted}", "name the .toml beside it"
    elif path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        what, hint = f"is a table, not an {wanted}", "impq-opt import TABLE -o problem.toml makes a problem of scores"
    elif not stated and wanted == questions.FORMAT and _is_json(path):
        what, hint = f"is JSON, not an {wanted}", "impq-opt import FILE --from FORMAT -o problem.toml reads scores"
    return FileError(what, where=str(path), hint=hint) if what else None


def _is_json(path: Path) -> bool:
    try:
        read_json(path, infinite=True)
    except FileError:
        return False
    return True


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
        raise _placed(str(error), document, where, kind) from None
    except (RecursionError, OverflowError):
        raise FileError("cannot be read: nested too deeply, or a number too large", where=where) from None


def _placed(message: str, document: Any, where: str, kind: type[msgspec.Struct]) -> FileError:
    """Turn msgspec's words into ours: the place as in the file, the value found there, near names."""
    match = _PLACED.match(message)
    assert match is not None
    what, place = match["what"], match["place"] or ""
    named = key_at(document, kind, place) if "[...]" in place else ""
    value, hint = value_at(document, place, named), ""
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        fields = kind.__struct_fields__
        for key, _ in steps_of(place):
            fields = _FIELDS.get(key, fields)
        meant = _CALLED_ELSEWHERE.get(unknown[1].casefold())
        hint = f"did you mean {meant!r}?" if meant in fields else nearest(unknown[1], fields)
        what, value = "unknown key", unknown[1]
    if "missing required field" in what:
        value = ...
    if what.startswith("Invalid enum value"):
        known = _VALUES.get(place.rpartition(".")[2], ())
        hint = nearest(str(value), known)
    place = place.replace("[...]", f".{named}" if named else "", 1).lstrip(".")
    return FileError(rule_text(what), where=f"{where}: {place}" if place else where, value=value, hint=hint)


_FIELDS = {key: kind.__struct_fields__ for key, kind in (questions.NESTED | answers.NESTED).items()}

# What tables of scores call what a group says.
_CALLED_ELSEWHERE = {
    "group": "name",
    "module": "name",
    "tensor": "name",
    "score": "damage",
    "loss": "damage",
} | dict.fromkeys(("numel", "params", "elements", "parameters", "count"), "size")

# What the keys that take one of a few words may say.
_VALUES: dict[str, tuple[str, ...]] = {
    "kind": KIND_NAMES,
    "status": tuple(status.value for status in Status),
    "minimizes": ("cost", "damage"),
    "format_version": ("1",),
}
