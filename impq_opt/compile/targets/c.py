"""C99 without dependencies: one file, one header, weights packed in their bits, one static arena."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.compile.apart import with_additions
from impq_opt.compile.memory import Piece, peak_bits, plan
from impq_opt.compile.program import Add, Concat, Flatten, IntTensor, Layer, Move, Operation, Part, Pool, Program
from impq_opt.compile.targets.base import Compiled, Size
from impq_opt.compile.targets.c_text import DOT, GATHER, HEADER, LAYER, PLANES, STRUCTS
from impq_opt.errors import DataError, OptionError
from impq_opt.types import IntArray

__all__ = ["compile_c", "packed_planes"]

_WIDTHS = (8, 4, 2, 1)
_MOST = 2**16 - 1  # of sides and channels, which are held in 16 bits
_ADDEND, _MULTIPLIER = 8, 4  # bytes


def compile_c(program: Program) -> Compiled:
    """Return NAME.c and NAME.h of a program.

    Raises
    ------
    DataError
        A layer larger than the file's types: sides or channels of 65,536, or kernels of 256 rows.
    OptionError
        The program's name is no name in C.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", program.name):
        raise OptionError("must be letters, digits and underscores", where="name", value=program.name)
    return _Writer(program).written()


def packed_planes(codes: npt.NDArray[np.unsignedinteger], bits: int) -> npt.NDArray[np.uint8]:
    """Return codes (kernels, length) of ``bits`` as bytes (kernels, bytes): planes of 8, 4, 2 and 1 bits."""
    kernels, length = codes.shape
    planes, shift = [], 0
    for width in (width for width in _WIDTHS if bits & width):
        each = 8 // width
        size = -(-length // each)
        wide = np.zeros((kernels, each * size), dtype=np.uint8)
        wide[:, :length] = (codes.astype(np.int64) >> shift) & (2**width - 1)
        shifts = (width * np.arange(each, dtype=np.uint8)).reshape(1, -1, 1)
        planes.append(np.bitwise_or.reduce(wide.reshape(kernels, each, size) << shifts, axis=1))
        shift += width
    return np.concatenate(planes, axis=1)


def _type(tensor: IntTensor) -> str:
    """Return the type of a tensor's elements."""
    for bits in (8, 16, 32):
        if tensor.bits <= bits:
            return f"{'' if tensor.signed else 'u'}int{bits}_t"
    raise DataError("has more than 32 bits", where=tensor.name, value=tensor.bits)


def _bytes(kind: str) -> int:
    return int(re.sub(r"\D", "", kind)) // 8


@dataclass(frozen=True)
class _Kind:
    """Types of a layer: of what it reads, of a window, of sums, of what it writes."""

    source: str
    window: str
    sums: str
    target: str

    def fill(self, text: str) -> str:
        """Put them into a text."""
        for mark, kind in (("T", self.source), ("P", self.window), ("A", self.sums), ("O", self.target)):
            text = text.replace(f"@{mark}@", kind)
        return text


class _Writer:
    """The C file of one program, as far as it is written."""

    def __init__(self, program: Program) -> None:
        self.promised = -(-peak_bits(program) // 8)
        self.program = with_additions(program)
        self.constants: list[str] = []
        self.body: list[str] = []
        self.kinds: dict[_Kind, None] = {}
        self.widths: set[int] = set()
        self.windows = {"int16_t": 0, "int32_t": 0}
        self.weights = self.scales = self.tables = 0
        self.aliases = self._aliases()
        self.places, self.arena = self._plan()

    def written(self) -> Compiled:
        for number, operation in enumerate(self.program.operations):
            self.body.append(f"    /* {operation.name.replace('*/', '')} */")
            _OPERATIONS[type(operation)](self, number, operation)
        name = self.program.name
        ram = sum(size * _bytes(kind) for kind, size in (*self.arena.items(), *self.windows.items()))
        scratch = sum(size * _bytes(kind) for kind, size in self.windows.items())
        sizes = (
            Size("weights", -(-self.program.weight_bits // 8), self.weights),
            Size("scales and biases", None, self.scales),
            Size("tables", None, self.tables),
            Size("activations", self.promised, ram - scratch),
            Size("scratch", None, scratch),
        )
        files = {f"{name}.h": self._header(ram), f"{name}.c": self._source()}
        return Compiled({path: text.encode() for path, text in files.items()}, sizes)

    # -- files -------------------------------------------------------------------------------------------------------

    def _header(self, ram: int) -> str:
        program, macro = self.program, self.program.name.upper()
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
            "RAM_BYTES": ram,
            "LOGIT_SCALE": repr(out.scale),
        }
        text = HEADER
        for mark, value in {
            "NAME": program.name,
            "MACRO": macro,
            "GUARD": f"{macro}_H",
            "USAGE": f"Codes of inputs, within -128 and 127: {codes}.",
            "DEFINES": "\n".join(f"#define {macro}_{key} {value}" for key, value in defines.items()),
            "INPUTS": str(entry.elements),
            "CLASSES": str(out.elements),
            "OUT": _type(out),
        }.items():
            text = text.replace(f"@{mark}@", value)
        return text

    def _source(self) -> str:
        program, out = self.program, self.program.tensors[self.program.output]
        windows = {(kind.window, kind.sums): kind for kind in self.kinds}
        gathers = {(kind.source, kind.window): kind for kind in self.kinds}
        planes = "".join(PLANES[width] for width in _WIDTHS if width in self.widths)
        locals_ = ["i"] + ["n"] * (self.widths != {8}) + ["k"] * bool(self.widths & {1, 2})
        unit = "    @A@ unit = 1;\n" if self.widths & {1, 2} or 4 in self.widths else ""
        dot = DOT.replace("@PLANES@", planes).replace("@LOCALS@", f"{unit}    int {', '.join(locals_)};")
        if 4 in self.widths and not self.widths & {1, 2}:
            dot = dot.replace("        unit = 16;\n", "").replace("    @A@ unit = 1;\n", "")
        functions = [
            *(kind.fill(dot) for kind in windows.values()),
            *(kind.fill(GATHER) for kind in gathers.values()),
            *(kind.fill(LAYER) for kind in self.kinds),
        ]
        members = [f"    {kind} {_member(kind)}[{size}];" for kind, size in self.arena.items() if size]
        members += [f"    {kind} window{_bytes(kind)}[{size}];" for kind, size in self.windows.items() if size]
        arena = ["static struct {", *members, "} arena;"] if members else []
        run = [
            f"int {program.name}_run(const int8_t *in, {_type(out)} *out)",
            "{",
            "    int32_t i, best = 0;",
            *self.body,
            f"    for (i = 1; i < {out.elements}; i++)",
            "        if (out[i] > out[best])",
            "            best = i;",
            "    return (int)best;",
            "}",
        ]
        parts = [
            f'#include "{program.name}.h"\n',
            STRUCTS,
            *functions,
            "\n".join(self.constants) + "\n",
            "\n".join(arena) + "\n",
            "\n".join(run) + "\n",
        ]
        return "\n".join(parts)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _aliases(self) -> dict[str, str]:
        """Return the flattened tensors that layers alone read, which need no copy, with what they are."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.program.operations:
            for source in operation.sources:
                readers.setdefault(source, []).append(operation)
        aliases: dict[str, str] = {}
        for operation in self.program.operations:
            if isinstance(operation, Flatten) and operation.target != self.program.output:
                single = self.program.tensors[operation.source].shape[1:] == (1, 1)
                if single or all(isinstance(reader, Layer) for reader in readers.get(operation.target, ())):
                    aliases[operation.target] = aliases.get(operation.source, operation.source)
        return aliases

    def _plan(self) -> tuple[dict[str, str], dict[str, int]]:
        """Return where every tensor is, in C, and the elements of each part of the arena."""
        program = self.program
        spans: dict[str, tuple[int, int]] = {}
        for name, first, last in program.uses():
            own = self.aliases.get(name, name)
            before = spans.get(own, (first, last))
            spans[own] = min(first, before[0]), max(last, before[1])
        places, arena = {program.input: "in", program.output: "out"}, {}
        for kind in ("uint8_t", "int16_t", "int32_t"):
            pieces = [
                Piece(name, program.tensors[name].elements, *span)
                for name, span in spans.items()
                if name not in places and _bytes(_type(program.tensors[name])) == _bytes(kind)
            ]
            starts, arena[kind] = plan(pieces)
            for name, start in starts.items():
                own = _type(program.tensors[name])
                places[name] = f"{'' if own == kind else f'({own} *)'}(arena.{_member(kind)} + {start})"
        places |= {name: places[own] for name, own in self.aliases.items()}
        return places, arena

    def pointer(self, name: str) -> str:
        """Return an expression for the first element of a tensor."""
        return self.places[name]

    # -- constants ---------------------------------------------------------------------------------------------------

    def array(self, name: str, kind: str, values: Iterable[int], what: str) -> str:
        """Write a constant array and count its bytes; return its name."""
        numbers = [int(value) for value in values]
        lines, line = [], "   "
        for number in numbers:
            text = f" INT64_C({number})," if kind == "int64_t" else f" {number},"
            if len(line) + len(text) > 118:
                lines.append(line)
                line = "   "
            line += text
        self.constants.append("\n".join([f"static const {kind} {name}[{len(numbers)}] = {{", *lines, line, "};"]))
        setattr(self, what, getattr(self, what) + len(numbers) * _bytes(kind))
        return name

    def shared(self, name: str, kind: str, values: IntArray, what: str) -> str:
        """Return values (channels,) as an expression in ``c``: one number where they are alike."""
        if (values == values[0]).all():
            return f"INT64_C({int(values[0])})"
        return f"{self.array(name, kind, values.tolist(), what)}[c]"

    # -- operations --------------------------------------------------------------------------------------------------

    def layer(self, number: int, layer: Layer) -> None:
        program = self.program
        source, target = program.tensors[layer.source], program.tensors[layer.target]
        inputs = layer.parts[0].codes.shape[1]
        height, width = layer.kernel
        length = height * width * inputs
        shape, out = (*source.shape, 1, 1)[:3], (*target.shape, 1, 1)[:3]
        for value, most in ((max(*shape, *out), _MOST), (max(height, width, *layer.stride, *layer.dilation), 255)):
            if value > most:
                raise DataError(
                    f"has a side of more than {most:,}, which the C file's types do not hold", where=layer.name
                )
        largest = source.largest * length * max(2**part.bits for part in layer.parts)
        wide = source.largest > 2**15 - 1 or largest >= 2**31
        window, sums = ("int32_t", "int64_t") if wide else ("int16_t", "int32_t")
        kind = _Kind(_type(source), window, sums, _type(target))
        self.kinds[kind] = None
        self.windows[window] = max(self.windows[window], -(-length // 8) * 8)
        whole = inputs == shape[0]
        rows = [self._part(f"part{number}_{place}", layer, part, whole) for place, part in enumerate(layer.parts)]
        self.constants.append(
            "\n".join(
                [f"static const struct part parts{number}[{len(rows)}] = {{", *(f"    {row}," for row in rows), "};"]
            )
        )
        (above, _), (left, _) = layer.padding
        fields = (
            f"parts{number}", source.zero, len(rows), *shape, inputs, *out, height, width, *layer.stride,
            *layer.dilation, above, left,
        )  # fmt: skip
        self.constants.append(f"static const struct layer layer{number} = {{{', '.join(map(str, fields))}}};")
        self.body.append(
            f"    layer_{kind.source}_{window}_{kind.target}(&layer{number}, {self.pointer(layer.source)}, "
            f"{self.pointer(layer.target)}, arena.window{_bytes(window)});"
        )

    def _part(self, name: str, layer: Layer, part: Part, whole: bool) -> str:
        """Write the constants of a part; return its initializer."""
        self.widths |= {width for width in _WIDTHS if part.bits & width}
        codes = part.codes.transpose(0, 2, 3, 1).reshape(len(part), -1)
        if layer.source in self.aliases:
            codes = codes[:, self._memory_order(layer.source)]
        rescale = part.rescale
        channels, offsets = part.channels, part.offsets
        row = bool((np.diff(channels) == 1).all())
        same = bool((offsets == offsets[0]).all())
        fields = (
            self.array(f"{name}_codes", "uint8_t", packed_planes(codes, part.bits).reshape(-1).tolist(), "weights"),
            self.array(f"{name}_multipliers", "int32_t", rescale.multipliers.tolist(), "scales"),
            self.array(f"{name}_addends", "int64_t", rescale.addends.tolist(), "scales"),
            "0" if same else self.array(f"{name}_offsets", "int16_t", offsets.tolist(), "scales"),
            "0" if row else self.array(f"{name}_channels", "uint16_t", channels.tolist(), "tables"),
            "0" if whole else self.array(f"{name}_reads", "uint16_t", part.reads.tolist(), "tables"),
            int(offsets[0]) if same else 0, rescale.low, rescale.high,
            int(channels[0]) if row else 0, len(part), part.bits, part.factor, rescale.shift,
        )  # fmt: skip
        return f"{{{', '.join(map(str, fields))}}}"

    def _memory_order(self, flat: str) -> IntArray:
        """Return which feature of a flattened tensor is at each place in memory, where channels are last."""
        made = next(op for op in self.program.operations if op.target == flat)
        assert isinstance(made, Flatten)
        shape = self.program.tensors[made.source].shape
        return np.arange(self.program.tensors[flat].elements).reshape(shape[0], -1).T.reshape(-1)

    def add(self, number: int, add: Add) -> None:
        target, rescale = self.program.tensors[add.target], add.rescale
        channels, kind = target.shape[0], _type(target)
        terms = []
        for place, (source, multipliers) in enumerate(zip(add.sources, rescale.multipliers, strict=True)):
            tensor = self.program.tensors[source]
            wide = bool((np.abs(multipliers) >= 2**31).any())
            kind_of = "int64_t" if wide else "int32_t"
            factor = self.shared(f"add{number}_multipliers{place}", kind_of, multipliers, "scales")
            value = f"x{place}[i + c]" if not tensor.zero else f"(x{place}[i + c] - ({tensor.zero}))"
            terms.append(f"{value} * (int64_t){factor}")
            self.body.append(
                f"    {'{' if not place else ' '} const {_type(tensor)} *x{place} = {self.pointer(source)};"
            )
        terms.append(self.shared(f"add{number}_addends", "int64_t", rescale.addends, "scales"))
        self.body += [
            f"      {kind} *y = {self.pointer(add.target)};",
            "      int32_t c;",
            f"      for (i = 0; i < {target.elements}; i += {channels})",
            f"          for (c = 0; c < {channels}; c++)",
            f"              y[i + c] = ({kind})rescaled({' + '.join(terms)},",
            f"                  {rescale.shift}, {rescale.low}, {rescale.high}); }}",
        ]

    def pool(self, number: int, pool: Pool) -> None:
        source, target = self.program.tensors[pool.source], self.program.tensors[pool.target]
        (channels, rows, columns), (_, out_rows, out_columns) = source.shape, target.shape
        (above, _), (left, _) = pool.padding
        largest = pool.kind == "max"
        taken = f"x[(y * {columns} + z) * {channels} + c]"
        step = f"value = {taken} > value ? {taken} : value;" if largest else f"value += {taken} - ({source.zero});"
        self.body += [
            f"    {{ const {_type(source)} *x = {self.pointer(pool.source)};",
            f"      {_type(target)} *to = {self.pointer(pool.target)};",
            "      int32_t row, column, c, j, y, z, value;",
            f"      for (row = 0; row < {out_rows}; row++)",
            f"          for (column = 0; column < {out_columns}; column++)",
            f"              for (c = 0; c < {channels}; c++) {{",
            f"                  value = {source.low if largest else 0};",
            f"                  for (i = 0; i < {pool.kernel[0]}; i++)",
            f"                      for (j = 0; j < {pool.kernel[1]}; j++) {{",
            f"                          y = row * {pool.stride[0]} - {above} + i * {pool.dilation[0]};",
            f"                          z = column * {pool.stride[1]} - {left} + j * {pool.dilation[1]};",
            f"                          if (y >= 0 && y < {rows} && z >= 0 && z < {columns})",
            f"                              {step}",
            "                      }",
            f"                  *to++ = ({_type(target)})value;",
            "              } }",
        ]

    def move(self, number: int, move: Move) -> None:
        source, target = self.program.tensors[move.source], self.program.tensors[move.target]
        shape, out = (*source.shape, 1, 1)[:3], (*target.shape, 1, 1)[:3]
        rows, columns = (place if len(place) else np.zeros(1, dtype=np.int64) for place in (move.rows, move.columns))
        tables = [
            self.array(f"move{number}_{what}", "int16_t", place.tolist(), "tables")
            for what, place in (("channels", move.channels), ("rows", rows), ("columns", columns))
        ]
        taken = ("c", "i", "j")
        places = [f"{table}[{index}]" for table, index in zip(tables, taken, strict=True)]
        self.body += [
            f"    {{ const {_type(source)} *x = {self.pointer(move.source)};",
            f"      {_type(target)} *to = {self.pointer(move.target)};",
            "      int32_t c, j;",
            f"      for (i = 0; i < {out[1]}; i++)",
            f"          for (j = 0; j < {out[2]}; j++)",
            f"              for (c = 0; c < {out[0]}; c++)",
            f"                  *to++ = {' || '.join(f'{place} < 0' for place in places)} ? {source.zero}",
            f"                      : x[({places[1]} * {shape[2]} + {places[2]}) * {shape[0]} + {places[0]}]; }}",
        ]

    def concat(self, number: int, concat: Concat) -> None:
        target = self.program.tensors[concat.target]
        channels, start = target.shape[0], 0
        for source in concat.sources:
            own = self.program.tensors[source].shape[0]
            self.body += [
                f"    {{ const {_type(self.program.tensors[source])} *x = {self.pointer(source)};",
                f"      {_type(target)} *to = {self.pointer(concat.target)} + {start};",
                "      int32_t c;",
                f"      for (i = 0; i < {target.elements // channels}; i++)",
                f"          for (c = 0; c < {own}; c++)",
                f"              to[i * {channels} + c] = x[i * {own} + c]; }}",
            ]
            start += own

    def flatten(self, number: int, flatten: Flatten) -> None:
        if flatten.target in self.aliases:
            return
        source = self.program.tensors[flatten.source]
        channels, inner = source.shape[0], source.elements // source.shape[0]
        self.body += [
            f"    {{ const {_type(source)} *x = {self.pointer(flatten.source)};",
            f"      {_type(source)} *to = {self.pointer(flatten.target)};",
            "      int32_t c;",
            f"      for (c = 0; c < {channels}; c++)",
            f"          for (i = 0; i < {inner}; i++)",
            f"              *to++ = x[i * {channels} + c]; }}",
        ]


def _member(kind: str) -> str:
    """Return the name of the arena's part for a type."""
    return f"values{_bytes(kind)}"


_OPERATIONS: dict[type[Operation], Callable[[_Writer, int, Any], None]] = {
    Layer: _Writer.layer,
    Add: _Writer.add,
    Pool: _Writer.pool,
    Move: _Writer.move,
    Concat: _Writer.concat,
    Flatten: _Writer.flatten,
}
