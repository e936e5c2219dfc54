"""The constants of a frozen TensorFlow graph, from the wire format of protocol buffers; TensorFlow is not needed.

Of ``graph.proto`` these fields are read: GraphDef.node = 1; NodeDef.name = 1, .op = 2, .attr = 5 (a map: key = 1,
value = 2); AttrValue.tensor = 8; TensorProto.dtype = 1, .tensor_shape = 2, .tensor_content = 4;
TensorShapeProto.dim = 2, Dim.size = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from impq_opt.errors import FileError
from impq_opt.types import FloatArray

__all__ = ["constants"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = 1  # DT_FLOAT


def constants(path: str | Path) -> dict[str, FloatArray]:
    """Return the float32 constants of a frozen graph by the names of their nodes, in their shapes.

    Raises
    ------
    FileError
        The file cannot be read, or is no such graph.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        found = dict(_constants(memoryview(data)))
    except (ValueError, UnicodeDecodeError, IndexError):
        raise FileError("is no frozen graph of TensorFlow, or is cut short", where=str(path)) from None
    if not found:
        raise FileError("has no constants: it is no frozen graph of TensorFlow", where=str(path))
    return found


def _constants(graph: memoryview) -> Iterator[tuple[str, FloatArray]]:
    for node in _all(graph, 1):
        if bytes(_one(node, 2)) != b"Const":
            continue
        for entry in _all(node, 5):
            tensor = _one(_one(entry, 2), 8)
            if bytes(_one(entry, 1)) == b"value" and _number(tensor, 1) == _FLOAT and len(_one(tensor, 4)):
                shape = [_number(dim, 1) for dim in _all(_one(tensor, 2), 2)]
                yield bytes(_one(node, 1)).decode(), np.frombuffer(_one(tensor, 4), "<f4").reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number of each field and its value."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            number, place = _varint(message, place)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError
        if place + length > len(message):
            raise ValueError
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


def _all(message: memoryview, field: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(message) if number == field and not isinstance(value, int))


def _one(message: memoryview, field: int) -> memoryview:
    """Return the last value of a field; empty where it is missing, as the format has it."""
    value = memoryview(b"")
    for value in _all(message, field):  # noqa: B007
        pass
    return value


def _number(message: memoryview, field: int) -> int:
    return next((value for number, value in _fields(message) if number == field and isinstance(value, int)), 0)
