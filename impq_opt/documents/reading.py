"""Files as text, TOML and JSON: what cannot be read is told in one sentence with its place, whoever reads."""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path
from typing import Any

from impq_opt.errors import FileError

__all__ = [
    "key_at",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
    "stated_format",
    "steps_of",
    "unique_keys",
    "value_at",
]

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_FOREIGN = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raise FileError where it is missing, a folder, a device or not readable."""
    try:
        if path.is_char_device() or path.is_block_device():
            raise FileError("is a device, not a file", where=str(path))  # it may never end
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError("there is no such file", where=str(path)) from None
    except IsADirectoryError:
        raise FileError("is a folder, not a file", where=str(path)) from None
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None


def read_text(path: Path, what: str = "text", *, utf16: bool = False) -> str:
    """Return the text of a file in UTF-8, without the mark that some editors put before it.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for the error.
    utf16 : bool
        Take UTF-16 with such a mark too, as spreadsheets write it.

    Raises
    ------
    FileError
        Where it cannot be read or is not UTF-8.
    """
    data = read_bytes(path)
    name = next((name for mark, name in _FOREIGN.items() if data.startswith(mark)), "UTF-8")
    if name != "UTF-8" and not (utf16 and name == "UTF-16"):
        raise FileError(f"is a text in {name}", where=str(path), hint="save it as UTF-8")
    try:
        return data.decode("utf-8-sig" if name == "UTF-8" else name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(
            "is not a text file",
            where=str(path),
            hint=f"{what} in {name}; byte {error.start}, in line {line}, is not",
        ) from None


def stated_format(path: Path) -> str:
    """Return the format that a file says to be of, such as ``"impq-opt problem"``; empty where it says none of ours."""
    head = read_bytes(path)[:_HEAD].decode("utf-8", errors="replace")
    stated = _STATED.search(head)
    return stated[1] if stated else ""


_HEAD = 1 << 14
_STATED = re.compile(r"""^[ \t{]*["']?format["']?[ \t]*[:=][ \t]*["'](impq-opt [a-z ]+)["']""", re.MULTILINE)


def read_toml(path: Path, what: str = "TOML") -> dict[str, Any]:
    """Return the TOML document at ``path``; raise FileError where it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover - one of the two is there
        import tomli as tomllib

    text = read_text(path, what)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FileError("is not valid TOML: it is nested too deeply", where=str(path)) from None
    except (ValueError, OverflowError) as error:  # ValueError: of the syntax, or a number of thousands of digits
        said = re.fullmatch(
            r"(?P<what>.*?) \(at (?P<place>line [0-9]+, column [0-9]+|end of document)\)", _first_line(error)
        )
        what, place = (said["what"], said["place"]) if said else ("it holds a number that is too long", "")
        where = f"{path}: {place}" if place else str(path)
        raise FileError(f"is not valid TOML: {what[:1].lower()}{what[1:]}", where=where) from None


def read_json(path: Path, *, infinite: bool = False) -> Any:
    """Return the JSON document at ``path``.

    Parameters
    ----------
    path : path
    infinite : bool
        Take ``NaN`` and ``Infinity``, which Python and JavaScript write and JSON does not have.

    Raises
    ------
    FileError
        Where it is none, or says something twice.
    """
    import json

    import msgspec

    text = read_text(path, "JSON")
    try:
        # JSON leaves open which of two equal keys counts, so none does.
        document = json.loads(text, object_pairs_hook=unique_keys)
        return document if infinite else msgspec.json.decode(text)
    except RecursionError:
        raise FileError("is not JSON: it is nested too deeply", where=str(path)) from None
    except json.JSONDecodeError as error:
        raise FileError(
            "is not JSON" if text.strip() else "is empty, and no JSON",
            where=f"{path}: line {error.lineno}, column {error.colno}",
            hint="is it whole?" if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else "",
        ) from None
    except FileError as error:
        raise error.within(str(path)) from None
    except msgspec.DecodeError:
        raise FileError("is not JSON: it holds a number that JSON does not have", where=str(path)) from None
    except ValueError:
        raise FileError("is not JSON: it holds a number of thousands of digits", where=str(path)) from None


_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")


def steps_of(place: str) -> list[tuple[str, str]]:
    """Return the keys and indices, one of each pair, of a place as msgspec words it: ``.groups[0].size``."""
    return _STEP.findall(place)


def value_at(document: Any, place: str, named: str = "") -> Any:
    """Return what stands at such a place, or ``...`` where nothing does; ``named`` is the key behind ``[...]``."""
    value = document
    try:
        for key, index in steps_of(place):
            value = value[key or named] if key or index == "..." else value[int(index)]
    except (KeyError, IndexError, TypeError, ValueError):
        return ...
    return value


def key_at(document: Any, kind: type[Any], place: str) -> str:
    """Return the key for which the first ``[...]`` stands in a place where ``document`` is no ``kind``; else empty."""
    import msgspec

    steps = steps_of(place.partition("[...]")[0])
    table = value_at(document, place.partition("[...]")[0])
    keys = list(table) if isinstance(table, dict) else []
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        try:
            msgspec.convert(_replaced(document, steps, {key: table[key] for key in half}), kind)
        except msgspec.ValidationError:
            keys = half
        else:
            keys = keys[len(half) :]
    return str(keys[0]) if keys else ""


def _replaced(document: Any, steps: list[tuple[str, str]], value: Any) -> Any:
    """Return ``document`` with ``value`` at a place."""
    if not steps:
        return value
    (key, index), *rest = steps
    if key:
        return {**document, key: _replaced(document[key], rest, value)}
    copy = list(document)
    copy[int(index)] = _replaced(document[int(index)], rest, value)
    return copy


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise FileError where a key stands in it twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FileError("stands there twice", where=key)
            seen.add(key)
    return table


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(";")[0].removeprefix("JSON is malformed: ")
