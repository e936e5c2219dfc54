"""A layer in C: its constants, and the call of the loops that run it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impq_opt.compile.program import Flatten, IntTensor, Layer, Part, Program
from impq_opt.compile.targets.c.codes import OVERRUN, packed_codes
from impq_opt.compile.targets.c.draft import Draft, Kind
from impq_opt.compile.targets.c.places import type_of
from impq_opt.errors import DataError
from impq_opt.types import IntArray

__all__ = ["BLOCK", "adds", "write_layer"]

_MOST = 2**16 - 1  # of sides and channels, which are held in 16 bits
_NARROW = 2**15 - 1  # values and weights that 16 bits hold

BLOCK = 32
"""Channels that a layer with a kernel a channel does together."""


def write_layer(draft: Draft, number: int, layer: Layer) -> None:
    """Write a layer.

    Raises
    ------
    DataError
        It is larger than the file's types: sides or channels of 65,536, or kernels of 256 rows.
    """
    program = draft.program
    source, target = program.tensors[layer.source], program.tensors[layer.target]
    shape, out = _three(source), _three(target)
    inputs, (height, width) = layer.parts[0].codes.shape[1], layer.kernel
    for value, most in ((max(*shape, *out), _MOST), (max(height, width, *layer.stride, *layer.dilation), 255)):
        if value > most:
            raise DataError(f"has a side of more than {most:,}, which the C file's types do not hold", where=layer.name)
    own = _every_channel_once(layer, shape[0])
    largest = max(source.largest, *(int(np.abs(part.weights).max()) for part in layer.parts))
    inner = "int16_t" if largest <= _NARROW else "int32_t"
    added = program.tensors[layer.added[0]] if layer.added else None
    kind = Kind(
        "depthwise" if own else "layer", type_of(source), inner, type_of(target), type_of(added) if added else ""
    )
    draft.kinds[kind] = None
    _count(draft, layer, kind, height * width * inputs, out[1] * out[2])
    whole = inputs == shape[0]
    parts = [_sorted(part) if own else part for part in layer.parts]
    rows = [_part(draft, f"part{number}_{place}", layer, part, whole) for place, part in enumerate(parts)]
    lines = [f"static const struct part parts{number}[{len(rows)}] = {{", *(f"    {row}," for row in rows), "};"]
    draft.constants.append("\n".join(lines))
    (above, _), (left, _) = layer.padding
    fields = (
        f"parts{number}", source.zero, added.zero if added else 0, len(rows), *shape, inputs, *out, height, width,
        *layer.stride, *layer.dilation, above, left,
    )  # fmt: skip
    draft.constants.append(f"static const struct layer layer{number} = {{{', '.join(map(str, fields))}}};")
    pointers = ", ".join(draft.pointer(name) for name in (*layer.sources, layer.target))
    draft.body.append(f"    {kind.function}(&layer{number}, {pointers});")


def adds(program: Program, layer: Layer) -> bool:
    """Return whether the loops of a layer add what it adds: one tensor, and not where a kernel reads a channel."""
    return len(layer.added) == 1 and not _every_channel_once(layer, _three(program.tensors[layer.source])[0])


def _three(tensor: IntTensor) -> tuple[int, ...]:
    return (*tensor.shape, 1, 1)[:3]


def _every_channel_once(layer: Layer, channels: int) -> bool:
    """Return whether every one of several channels is read by one kernel of one channel."""
    if layer.parts[0].codes.shape[1] != 1 or channels == 1:
        return False
    reads = np.concatenate([part.reads for part in layer.parts])
    return np.array_equal(np.sort(reads), np.arange(channels))


def _sorted(part: Part) -> Part:
    """Return a part whose kernels come in the order of the channels that they read."""
    order, rescale = np.argsort(part.reads), part.rescale
    return replace(
        part,
        codes=part.codes[order],
        offsets=part.offsets[order],
        channels=part.channels[order],
        reads=part.reads[order],
        rescale=replace(rescale, multipliers=rescale.multipliers[order], addends=rescale.addends[order]),
        added=part.added[:, order],
    )


def _count(draft: Draft, layer: Layer, kind: Kind, length: int, positions: int) -> None:
    """Note what a layer needs of scratch: kernels are padded to 16, four windows are gone through together."""
    step = -(-length // 16) * 16
    own = kind.loops == "depthwise"
    weights = step + OVERRUN + 1 + (BLOCK * length if own else 0)
    draft.weights[kind.inner] = max(draft.weights.get(kind.inner, 0), weights)
    draft.windows[kind.inner] = max(draft.windows.get(kind.inner, 0), 0 if own else step)
    draft.windows_used[kind.inner] = max(draft.windows_used.get(kind.inner, 0), 0 if own else step * positions)
    draft.parts = max(draft.parts, len(layer.parts) if own else 0)


def _part(draft: Draft, name: str, layer: Layer, part: Part, whole: bool) -> str:
    """Write the constants of a part; return its initializer."""
    if part.bits > 8:
        raise DataError("has weights of more than 8 bits", where=layer.name, value=part.bits)
    draft.bits.add(part.bits)
    codes = part.codes.transpose(0, 2, 3, 1).reshape(len(part), -1)
    if layer.source in draft.places.aliases:
        codes = codes[:, _memory_order(draft.program, layer.source)]
    start = sum(len(own) for _, own in draft.codes)
    draft.codes.append((f"{layer.name}: {part.bits} bits", packed_codes(codes, part.bits).tobytes()))
    rescale, channels, offsets = part.rescale, part.channels, part.offsets
    row = bool((np.diff(channels) == 1).all())
    same = bool((offsets == offsets[0]).all())
    fields = (
        f"codes + {start}",
        draft.array(f"{name}_multipliers", "int32_t", rescale.multipliers.tolist(), "scales"),
        draft.array(f"{name}_addends", "int64_t", rescale.addends.tolist(), "scales"),
        draft.array(f"{name}_added", "int64_t", part.added[0].tolist(), "scales") if len(part.added) else "0",
        "0" if same else draft.array(f"{name}_offsets", "int16_t", offsets.tolist(), "scales"),
        "0" if row else draft.array(f"{name}_channels", "uint16_t", channels.tolist(), "tables"),
        "0" if whole else draft.array(f"{name}_reads", "uint16_t", part.reads.tolist(), "tables"),
        int(offsets[0]) if same else 0, rescale.low, rescale.high,
        int(channels[0]) if row else 0, len(part), part.bits, part.factor, rescale.shift,
    )  # fmt: skip
    return f"{{{', '.join(map(str, fields))}}}"


def _memory_order(program: Program, flat: str) -> IntArray:
    """Return which feature of a flattened tensor is at each place in memory, where channels are last."""
    made = next(op for op in program.operations if op.target == flat)
    assert isinstance(made, Flatten)
    shape = program.tensors[made.source].shape
    return np.arange(program.tensors[flat].elements).reshape(shape[0], -1).T.reshape(-1)
