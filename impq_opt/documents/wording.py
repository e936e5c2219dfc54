"""What does not fit a declared shape, in our words and with its place."""

from __future__ import annotations

import re

__all__ = ["in_words", "type_words"]

# "Expected `int`, got `str` - at `$.groups[0].size`", as msgspec words it.
_PLACED = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<place>.*)`)?$", re.DOTALL)
_TYPES = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing",
}  # fmt: skip


def in_words(error: Exception) -> tuple[str, str]:
    """Return what a validation error of msgspec says, and the place in the document, empty for all of it."""
    match = _PLACED.match(str(error))
    assert match is not None
    return _said(match["what"]), match["place"] or ""


def type_words(types: str) -> str:
    """Return in words what ``"int | null"`` means."""
    return " or ".join(_TYPES.get(part, part) for part in types.split(" | "))


def _said(what: str) -> str:
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        return f"the key {missing[1]!r} is missing"
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        return f"unknown key {unknown[1]!r}"
    what = re.sub(r",? got `.*`$", "", what)
    expected = re.match(r"Expected `([^`]*)`(.*)$", what, re.DOTALL)
    what = f"must be {type_words(expected[1])}{expected[2]}" if expected else what
    return what.replace("`", "")
