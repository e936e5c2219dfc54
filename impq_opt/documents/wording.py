"""What does not fit a declared shape, in words of a document instead of Python's types, and with its place."""

from __future__ import annotations

import re

__all__ = ["in_words", "rule_text"]

# "Expected `int`, got `str` - at `$.groups[0].size`", as msgspec words it.
_PLACED = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<place>.*)`)?$", re.DOTALL)


def in_words(error: Exception) -> tuple[str, str]:
    """Return what a validation error of msgspec says, and the place in the document, empty for all of it."""
    match = _PLACED.match(str(error))
    assert match is not None
    return rule_text(match["what"]), match["place"] or ""


def rule_text(said: str) -> str:
    """Return what msgspec says of a value that does not fit, in words of a document instead of Python's types."""
    said = re.sub(r",? got .*$", "", said, flags=re.DOTALL)
    missing = re.search(r"missing required field `(.*)`", said)
    if missing:
        return f"the key {missing[1]!r} is missing"
    unknown = re.search(r"unknown field `(.*)`", said)
    if unknown:
        return f"unknown key {unknown[1]!r}"
    said = re.sub(r"^Expected ", "must be ", said)
    said = re.sub(r"^Invalid enum value.*", "unknown value", said)
    return re.sub(r"`([^`]*)`", lambda kinds: " or ".join(_words(kinds[1])), said)


def _words(kinds: str) -> list[str]:
    named = list(dict.fromkeys(_KINDS.get(kind, kind) for kind in kinds.split(" | ")))
    return [kind for kind in named if not (kind == _KINDS["int"] and _KINDS["float"] in named)]


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a table",
}
