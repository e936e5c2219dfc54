"""Files as text, TOML and JSON: what cannot be read is told in one sentence with its place, whoever reads."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Any

from impq_opt.errors import FileError

__all__ = ["read_bytes", "read_json", "read_text", "read_toml", "unique_keys"]

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


def read_text(path: Path, what: str = "text") -> str:
    """Return the text of a file in UTF-8, without the mark that some editors put before it.

    Raises
    ------
    FileError
        Where it cannot be read or is not UTF-8.
    """
    data = read_bytes(path)
    for mark, name in _FOREIGN.items():
        if data.startswith(mark):
            raise FileError(f"is a text in {name}", where=str(path), hint="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            "is not a text file", where=str(path), hint=f"{what} in UTF-8; byte {error.start} is not"
        ) from None


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
        raise FileError(f"is not valid TOML: {_first_line(error)}", where=str(path)) from None


def read_json(path: Path) -> Any:
    """Return the JSON document at ``path``; raise FileError where it is none, or says something twice."""
    import json

    import msgspec

    text = read_text(path, "JSON")
    try:
        document = msgspec.json.decode(text)
        # JSON leaves open which of two equal keys counts, so none does.
        json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise FileError("is not valid JSON: it is nested too deeply", where=str(path)) from None
    except FileError as error:
        raise error.within(str(path)) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise FileError(f"is not valid JSON: {_first_line(error)}", where=str(path)) from None
    return document


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
