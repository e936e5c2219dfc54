"""The two files, put together."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from impq_opt.compile.apart import with_additions
from impq_opt.compile.memory import peak_bits
from impq_opt.compile.program import Add, Concat, Flatten, Layer, Move, Operation, Pool, Program
from impq_opt.compile.targets.base import Compiled, Size
from impq_opt.compile.targets.c import loops
from impq_opt.compile.targets.c.codes import OVERRUN, code_of
from impq_opt.compile.targets.c.draft import Draft, lines
from impq_opt.compile.targets.c.layers import adds, write_layer
from impq_opt.compile.targets.c.places import bytes_of, places_of, type_of
from impq_opt.compile.targets.c.steps import write_add, write_concat, write_flatten, write_move, write_pool
from impq_opt.compile.targets.c.text import HEADER, STRUCTS
from impq_opt.errors import OptionError

__all__ = ["compile_c"]

WINDOW_BYTES = 2**14
"""For windows that are laid out together, where four of them take less and a network has use for more."""

_TOGETHER = 4  # windows that share a pass over a kernel

_WRITERS: dict[type[Operation], Callable[[Draft, int, Any], None]] = {
    Layer: write_layer,
    Add: write_add,
    Pool: write_pool,
    Move: write_move,
    Concat: write_concat,
    Flatten: write_flatten,
}


def compile_c(program: Program, *, ram: int | None = None) -> Compiled:
    """Return NAME.c and NAME.h of a program.

    Parameters
    ----------
    program : Program
    ram : int, optional
        Bytes; windows take what they may of them. Windows that are laid out together save time, one is needed.

    Raises
    ------
    DataError
        A layer larger than the file's types: sides or channels of 65,536, or kernels of 256 rows.
    OptionError
        The program's name is no name in C.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", program.name):
        raise OptionError("must be letters, digits and underscores", where="name", value=program.name)
    promised = -(-peak_bits(program) // 8)
    program = with_additions(program, partial(adds, program))
    draft = Draft(program, places_of(program))
    for number, operation in enumerate(program.operations):
        draft.body.append(f"    /* {_said(operation.name)} */")
        _WRITERS[type(operation)](draft, number, operation)
    name, (least, usual), weights = program.name, _windows(draft), _weights(draft)
    if ram is not None:
        usual = max(least, min(usual, (ram - draft.places.bytes - weights) // 4 * 4))
    files = {f"{name}.h": _header(draft, least, usual, weights), f"{name}.c": _source(draft)}
    sizes = (
        Size("weights", -(-program.weight_bits // 8), sum(len(own) for _, own in draft.codes) + OVERRUN),
        Size("scales and biases", None, draft.scales),
        Size("tables", None, draft.tables),
        Size("activations", promised, draft.places.bytes),
        Size("scratch", None, usual + weights),
    )
    notes = (f"scratch may be down to {least + weights:,} bytes: -D{name.upper()}_WINDOW_BYTES={least}",)
    return Compiled({path: text.encode() for path, text in files.items()}, sizes, notes if least < usual else ())


def _said(name: str) -> str:
    """Return a name for a comment."""
    return name.replace("*/", "")


def _windows(draft: Draft) -> tuple[int, int]:
    """Return the bytes of the largest window, and those of as many as are laid out together unless told otherwise."""
    least = max((size * bytes_of(kind) for kind, size in draft.windows.items()), default=0)
    used = max((size * bytes_of(kind) for kind, size in draft.windows_used.items()), default=0)
    return max(least, 4), max(min(used, max(WINDOW_BYTES, _TOGETHER * least)), 4)


def _weights(draft: Draft) -> int:
    """Return the bytes of unpacked kernels."""
    return max((size * bytes_of(kind) for kind, size in draft.weights.items()), default=4)


def _header(draft: Draft, least: int, usual: int, weights: int) -> str:
    program, macro = draft.program, draft.program.name.upper()
    entry, out = program.tensors[program.input], program.tensors[program.output]
    shape = (1,) * (3 - len(entry.shape)) + (*entry.shape[1:], entry.shape[0])
    scale, zero = program.encoding.scale, program.encoding.zero
    codes = "; ".join(
        f"channel {c}: round(x / {float(scale[c])!r} + {float(zero[c])!r})"
        for c in range(len(scale) if len(entry.shape) == 3 else 1)
    )
    defines = {
        "ROWS": shape[0],
        "COLUMNS": shape[1],
        "CHANNELS": shape[2],
        "CLASSES": out.elements,
        "RAM_BYTES": f"({draft.places.bytes + weights} + {macro}_WINDOW_BYTES)",
        "LOGIT_SCALE": repr(out.scale),
    }
    text = HEADER
    for mark, value in {
        "NAME": program.name,
        "MACRO": macro,
        "GUARD": f"{macro}_H",
        "USAGE": f"Codes of inputs, within -128 and 127: {codes}.",
        "LEAST": str(least),
        "USUAL": str(usual),
        "DEFINES": "\n".join(f"#define {macro}_{key} {value}" for key, value in defines.items()),
        "INPUTS": str(entry.elements),
        "CLASSES": str(out.elements),
        "OUT": type_of(out),
    }.items():
        text = text.replace(f"@{mark}@", value)
    return text


def _source(draft: Draft) -> str:
    program, out = draft.program, draft.program.tensors[draft.program.output]
    arena = [f"    {member}" for member in draft.places.members]
    for what, sizes, size in (
        ("windows", draft.windows, f"{program.name.upper()}_WINDOW_BYTES / {{}}"),
        ("weights", draft.weights, None),
    ):
        each = [f"{kind} as_{kind}[{(size or str(sizes[kind])).format(bytes_of(kind))}];" for kind in sizes]
        if each:
            arena.append(f"    union {{ {' '.join(each)} }} {what};")
    run = [
        f"int {program.name}_run(const int8_t *in, {type_of(out)} *out)",
        "{",
        "    int32_t i, best = 0;",
        *draft.body,
        f"    for (i = 1; i < {out.elements}; i++)",
        "        if (out[i] > out[best])",
        "            best = i;",
        "    return (int)best;",
        "}",
    ]
    parts = [
        f'#include "{program.name}.h"\n',
        STRUCTS,
        *(["\n".join(["static struct {", *arena, "} arena;"]) + "\n"] if arena else []),
        *_functions(draft),
        _codes(draft),
        "\n".join(draft.constants) + "\n",
        "\n".join(run) + "\n",
    ]
    return "\n".join(parts)


def _codes(draft: Draft) -> str:
    """Return the array of all weights."""
    total = sum(len(own) for _, own in draft.codes) + OVERRUN
    text = [
        f"/* Unpacking may read {OVERRUN} bytes behind the last code. */",
        f"static const uint8_t codes[{total}] = {{",
    ]
    for what, own in draft.codes:
        text += [f"    /* {_said(what)} */", *lines(map(str, own))]
    return "\n".join([*text, "};"]) + "\n"


def _functions(draft: Draft) -> list[str]:
    """Return the functions of the layers, those that they call first."""
    kinds = list(draft.kinds)
    inner = dict.fromkeys(kind.inner for kind in kinds)
    windows = dict.fromkeys((kind.source, kind.inner) for kind in kinds if kind.loops == "layer")
    made = [text.replace("@P@", kind) for kind in inner for text in _unpacking(draft.bits)]
    made += [loops.DOTS.replace("@P@", kind) for kind in dict.fromkeys(kind for _, kind in windows)]
    made += [loops.GATHER.replace("@T@", source).replace("@P@", kind) for source, kind in windows]
    for kind in kinds:
        text = loops.LAYER if kind.loops == "layer" else loops.DEPTHWISE.replace("@PARTS@", str(draft.parts))
        for mark, own in loops.ADDING.items():
            text = text.replace(mark, own if kind.added else "")
        types = {"@T@": kind.source, "@P@": kind.inner, "@O@": kind.target, "@A@": kind.added}
        for mark, own in {"@FUNCTION@": kind.function, **types}.items():
            text = text.replace(mark, own)
        made.append(text)
    return made


def _unpacking(bits: set[int]) -> list[str]:
    """Return the functions that unpack kernels of some precisions."""
    chunks = []
    for own in sorted(bits):
        planes, code = code_of(own)
        chunks.append(loops.CHUNK.replace("@B@", str(own)).replace("@PLANES@", planes).replace("@CODE@", code))
    cases = "".join(
        f"        case {own}:\n"
        f"            chunk{own}_@P@(codes, (unsigned)run, factor, offset, to);\n"
        f"            break;\n"
        for own in sorted(bits)
    )
    return [*chunks, loops.UNPACK.replace("@CASES@", cases)]
