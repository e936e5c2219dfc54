"""Ways to damage a file: its bytes, its tokens, a value somewhere in it, an array behind it."""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import tomli_w

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Numbers as they may stand in a text.
NUMBERS = (
    "0", "-0", "-0.0", "0.0", "-1", "1e400", "1e-400", "1e308", "1.7976931348623157e308", "5e-324", "1e9999999",
    "-1e9999999", "1e-9999999", "9" * 400, "9" * 4000, "9" * 5000, "0." + "3" * 4000, "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "18446744073709551616", "36028797018963968", "2305843009213693951",
    "2305843009213693952", "1152921504606846976", "nan", "inf", "-inf", "NaN", "Infinity", "0x10", "1_000", "1/3",
    "1/0", "0.1", "3.5", "1e3", "1e15", "1e16", "1e22", "1e-300", "4.9999999999999999", "+5", "00012", "1e", "--1",
)  # fmt: skip
TEXTS = (
    "", " ", "\u0000", "\u001b[31m", "[/bold]", "[red]", "<!--<script>", "</script>", "a\nb", "\u202e", "\ud800",
    "group[0]", "*", "[", "..", "../../etc/passwd", "/etc/passwd", "x" * 10000, "nan", "inf", "1/3", "1/0", "3/-4",
    "-0", "1e9999999", "9" * 5000, "0.1", "100KiB", "1e99B", "=1+1", "storage", "optimal", "bound", "budget", "exact",
    "\u00e9", "\ufeff", "a" + "\u0301" * 200,
)  # fmt: skip
WHOLE = (0, -1, 1, 2, 2**31, 2**53 + 1, 2**55, 2**55 + 1, 2**61, 2**62, 2**63 - 1, -(2**63))
FLOATS = (-0.0, 0.5, 1e308, 5e-324, -1e308, 1e-300, 4.25, 1e16, math.nan, math.inf, -math.inf)


def value(rng: Random, *, own: Any = None) -> Any:  # noqa: PLR0911
    """Return a hostile value, of the type of ``own`` in one half."""
    kinds = ["whole", "float", "text", "list", "table", "deep", "truth", "nothing", "wide"]
    same = {int: "whole", float: "float", str: "text", list: "list", dict: "table"}.get(type(own))
    kind = same if same and rng.random() < 0.5 else rng.choice(kinds)
    if kind == "whole":
        return rng.choice(WHOLE)
    if kind == "float":
        return rng.choice(FLOATS)
    if kind == "text":
        return rng.choice([t for t in TEXTS if "\ud800" not in t])
    if kind == "list":
        items = list(own) if isinstance(own, list) else [1, "a", 2.5]
        pick = rng.randrange(5)
        changed = [items[:-1], [*items, *items], items[::-1], [], [*items, value(rng)]][pick]
        return changed
    if kind == "table":
        return {rng.choice(["a", "", "bits", "group[0]", "storage"]): value(rng) for _ in range(rng.randrange(3))}
    if kind == "deep":
        found: Any = 1
        for _ in range(rng.choice([2, 60, 400])):
            found = [found]
        return found
    if kind == "wide":
        return [rng.choice([1, 2.0, "a"])] * rng.choice([100, 20000])
    return rng.choice([True, False]) if kind == "truth" else None


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, one in list(items):
        yield from _places(one, (*path, key))


def _changed(document: Any, rng: Random) -> str:
    """Change the document at one to three places; return how."""
    how = "nothing"
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(document))
        if not places:
            return how
        *path, last = rng.choice(places)
        holder = document
        for key in path:
            holder = holder[key]
        how = rng.choice(["value", "value", "value", "removed", "twice", "swapped", "new key"])
        if how == "value":
            holder[last] = value(rng, own=holder[last])
        elif how == "removed":
            del holder[last]
        elif how == "twice" and isinstance(holder, list):
            holder.insert(last, holder[last])
        elif how == "swapped":
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            other = rng.choice(list(keys))
            holder[last], holder[other] = holder[other], holder[last]
        elif isinstance(holder, dict):
            holder[rng.choice(["revision", "formats", "numbered", "csv", "array", "x", "", "ties", "names"])] = value(
                rng
            )
    return how


def json_document(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Change values of a JSON file."""
    document = json.loads(data)
    how = _changed(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.1:  # the same key again
        key = rng.choice(list(document) or ["a"])
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(value(rng))}" + "}"
        how = "key twice"
    return text.encode("utf-8", "surrogatepass"), f"document, {how}"


def toml(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Change values of a TOML file."""
    document = tomllib.loads(data.decode())
    for _ in range(5):
        how = _changed(document, rng)
        try:
            return tomli_w.dumps(document).encode("utf-8", "surrogatepass"), f"document, {how}"
        except (TypeError, ValueError, RecursionError):  # TOML knows no null
            document = tomllib.loads(data.decode())
    return tokens(data, rng)


def table(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Change cells of a CSV file."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.choice(rows)
    place = rng.randrange(len(row))
    how = rng.choice(["number", "number", "text", "removed", "row twice", "quotes", "semicolons"])
    if how == "number":
        row[place] = rng.choice(NUMBERS)
    elif how == "text":
        row[place] = rng.choice(TEXTS)
    elif how == "removed":
        del row[place]
    elif how == "row twice":
        rows.append(row)
    elif how == "quotes":
        row[place] = '"' + row[place] + rng.choice(['"', '""', '"x', "\n"])
    text = "\n".join((";" if how == "semicolons" else ",").join(row) for row in rows)
    return text.encode("utf-8", "surrogatepass"), f"cells, {how}"


def tokens(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Put other numbers, texts and lines into a text."""
    text = data.decode("utf-8", "replace")
    how = rng.choice(["number", "number", "number", "text", "line twice", "line removed", "lines swapped", "nested"])
    if how in ("number", "text"):
        pattern = r"(?<![\w\"])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w\"])" if how == "number" else r"\"[^\"\n]*\""
        found = list(re.finditer(pattern, text))
        if found:
            one = rng.choice(found)
            new = rng.choice(NUMBERS) if rng.random() < 0.8 else f'"{rng.choice(NUMBERS)}"'
            if how == "text":
                new = rng.choice([json.dumps(rng.choice(TEXTS)), f'"{rng.choice(TEXTS)}"', rng.choice(NUMBERS)])
            text = text[: one.start()] + new + text[one.end() :]
    elif how == "nested":
        depth = rng.choice([100, 1000, 100_000])
        place = rng.choice([m.end() for m in re.finditer(r"[=:]", text)] or [0])
        text = text[:place] + rng.choice(["[", "{", '{"a":', "[["]) * depth + text[place:]
    else:
        lines = text.splitlines()
        first, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        if how == "line twice":
            lines.insert(other, lines[first])
        elif how == "line removed":
            del lines[first]
        else:
            lines[first], lines[other] = lines[other], lines[first]
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogatepass"), f"tokens, {how}"


def raw(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Damage bytes."""
    how = rng.choice(["flipped", "cut", "taken out", "doubled", "swapped", "put in", "BOM", "UTF-16", "empty", "CRLF"])
    place = rng.randrange(len(data) + 1)
    other = min(len(data), place + rng.choice([1, 2, 8, 50]))
    junk = bytes(rng.randrange(256) for _ in range(rng.choice([1, 4, 30])))
    changed = {
        "flipped": data[:place] + bytes(b ^ (1 << rng.randrange(8)) for b in data[place:other][:1]) + data[place + 1 :],
        "cut": data[:place],
        "taken out": data[:place] + data[other:],
        "doubled": data[:other] + data[place:],
        "swapped": data[other:] + data[:other],
        "put in": data[:place] + junk + data[place:],
        "BOM": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode("utf-8", "replace").encode("utf-16"),
        "empty": b"",
        "CRLF": data.replace(b"\n", b"\r\n"),
    }
    return changed[how], f"bytes, {how}"


def arrays(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Damage a safetensors file: its header, or the numbers behind it."""
    if rng.random() < 0.15:
        return raw(data, rng)
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    how = rng.choice(["numbers", "numbers", "numbers", "header", "length", "swapped", "renamed"])
    names = [name for name in header if name != "__metadata__"]
    if how == "numbers":
        for _ in range(rng.choice([1, 1, 3])):
            one = header[rng.choice(names)]
            first, last = one["data_offsets"]
            wide = one["dtype"] in ("F64", "I64")
            if last - first >= 8 and wide:
                place = first + 8 * rng.randrange((last - first) // 8)
                packed = struct.pack("<d", rng.choice(FLOATS)) if one["dtype"] == "F64" else None
                body[place : place + 8] = packed or struct.pack("<q", rng.choice(WHOLE))
            elif last > first:
                body[rng.randrange(first, last)] = rng.choice([0, 1, 2, 127, 128, 255])
    elif how == "header":
        _changed(header, rng)
    elif how == "length":
        length = rng.choice([0, 1, length + 1, length - 1, 2**31, 2**63 - 1, 2**64 - 1])
        return struct.pack("<Q", length) + data[8:], "arrays, length"
    elif how == "swapped" and len(names) > 1:
        one, other = rng.sample(names, 2)
        header[one], header[other] = header[other], header[one]
    else:
        header[rng.choice([*names, "x"])] = header.pop(rng.choice(names))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body), f"arrays, {how}"
