"""Text from files and arguments where it is shown: one function for each place that reads more into it than letters.

Names, units, sources and provenance may hold anything. A terminal obeys control characters, a browser obeys tags, a
spreadsheet runs formulas; what is shown goes through here, so that it is text there too.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "bits_text",
    "csv_text",
    "csv_value",
    "figure_text",
    "html_text",
    "json_lines",
    "script_json",
    "shortened",
    "visible",
]

# More marks than any script piles on one letter would run over the lines above and below.
_MOST_MARKS = 4


def bits_text(bits: float) -> str:
    """Return a precision in words: ``"1 bit"``, ``"4.5 bits"``."""
    return f"{bits:g} {'bit' if bits == 1 else 'bits'}"


def visible(text: object) -> str:
    r"""Return ``text`` on one line, what is not printable written as an escape such as ``\x1b``.

    Control characters, line breaks, overrides of the writing direction, invisible characters, halves of surrogate
    pairs, and marks that would stand on a character that is not the text's own.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = _MOST_MARKS  # the first character has nothing to stand on
    for character in text:
        if unicodedata.category(character) in ("Mn", "Me"):
            marks += 1
        else:
            marks = 0 if character.isprintable() and character != " " else _MOST_MARKS
        printable = character.isprintable() and marks <= _MOST_MARKS
        shown.append(character if printable else character.encode("unicode_escape").decode())
    return "".join(shown)


def shortened(text: str, most: int) -> str:
    """Return ``text`` with its middle cut out where it is longer than ``most``: its ends tell most."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return text[:head] + "…" + text[len(text) - (most - 1 - head) :]


def html_text(value: object) -> str:
    """Return ``value`` as text of HTML or SVG, in an element or in a quoted attribute."""
    return html.escape(visible(value))


def figure_text(text: str, most: int = 60) -> str:
    r"""Return ``text`` as a label of matplotlib: no part of it is a formula (``$x^{$`` would be none that ends).

    A label that begins with an underscore would be left out of the legend.
    """
    shown = shortened(visible(text), most).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def script_json(document: Any) -> str:
    r"""Return ``document`` as JSON that can stand in a ``<script>``: with its strings visible, and no ``<``.

    ``</script`` would end the element and ``<!--<script`` would hide its end.
    """
    text = json.dumps(_shown(document), separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(key): _shown(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    return [_shown(item) for item in value] if isinstance(value, (list, tuple)) else value


_ODD = re.compile(r"[^\n -~]")


def json_lines(text: str) -> str:
    """Return JSON text with what a terminal may obey escaped inside its strings, as JSON escapes it."""
    return _ODD.sub(lambda match: match[0] if match[0].isprintable() else _json_escape(match[0]), text)


def _json_escape(character: str) -> str:
    return r"\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


# -- CSV ---------------------------------------------------------------------------------------------------------

# What a spreadsheet takes for the start of a formula; a quotation mark before it makes it text.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four are the wide forms


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return ``rows`` as CSV (RFC 4180) that a spreadsheet only shows: no string begins a formula; numbers stay.

    :func:`csv_value` gives the string back.
    """
    return "".join(",".join(map(_cell, row)) + "\n" for row in rows)


def _cell(value: Any) -> str:
    text = str(value)
    if isinstance(value, str) and _FORMULA.match(value):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def csv_value(cell: str) -> str:
    """Return the string that :func:`csv_text` wrote as ``cell``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
