"""A ``.gguf`` file as it lies: metadata, tensors, and the same file with other types, whose size is known before."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.encodings.base import Rows
from impq_opt.encodings.gguf import GGUF_TYPES, GgufType
from impq_opt.errors import FileError
from impq_opt.registry import need

__all__ = ["GgufModel", "GgufTensor", "gguf_reader"]

Bytes = npt.NDArray[np.uint8]

# docs/gguf.md of ggml: a head of magic, version, numbers of tensors and of entries, then entries, tensors, and data.
_HEAD = struct.Struct("<4sIQQ")
_UINT32 = 4
# What ggml's quantizing code has been called since 2023, and is written by all tools (ggml.h, GGML_QNT_VERSION).
_QUANTIZATION_VERSION = 2
# The number that stands for a file most of whose weights have a type (llama.h, enum llama_ftype).
_FILE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k": 12, "q4_k": 15,
    "q5_k": 17, "q6_k": 18, "iq2_xxs": 19, "iq2_xs": 20, "iq3_xxs": 23, "iq4_nl": 25, "iq3_s": 26, "iq2_s": 28,
    "iq4_xs": 30, "bf16": 32,
}  # fmt: skip
_BY_NUMBER = {kind.number: kind for kind in GGUF_TYPES}
# Matrices that llama.cpp computes with as they are (tensor_allows_quantization in llama-quant.cpp).
_LEFT = (
    "_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
    "shortconv.conv.weight", "time_mix_", "attn_rel_b.weight", "position_embd", "token_types", "pos_embd", "rel_pos",
    "patch_embd", "patch_merger", "indexer.",
)  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file.

    Parameters
    ----------
    name : str
    sides : tuple of int
        Innermost first, as the file has them: the length of a row, then how many there are.
    number : int
        Of its type.
    data : ndarray of uint8
        As they stand in the file.
    """

    name: str
    sides: tuple[int, ...]
    number: int
    data: Bytes

    @property
    def kind(self) -> GgufType | None:
        """Its type; None where it is none that is read here."""
        return _BY_NUMBER.get(self.number)

    @property
    def length(self) -> int:
        """Weights of a row."""
        return self.sides[0]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.sides[1:])

    @property
    def elements(self) -> int:
        """How many weights there are."""
        return math.prod(self.sides)

    @property
    def quantizable(self) -> bool:
        """Whether it is a matrix of weights that llama.cpp computes with in any type."""
        return (
            len(self.sides) in (2, 3)
            and self.name.endswith("weight")
            and self.kind is not None
            and not any(part in self.name for part in _LEFT)
        )

    def weights(self, first: int = 0, last: int | None = None) -> Rows:
        """Return rows (n, length) from ``first`` to before ``last``, as float32."""
        assert self.kind is not None
        data = self.data.reshape(self.rows, -1)[first:last]
        return self.kind.decode(data)


@dataclass(frozen=True)
class GgufModel:
    """A file, held open.

    Parameters
    ----------
    path : Path
    version : int
        Of the format.
    entries : bytes
        The metadata, as they stand in the file.
    count : int
        How many entries there are.
    places : mapping of str to int
        Where, in ``entries``, the value of an entry of type uint32 stands.
    alignment : int
        Bytes of which tensors start at a multiple.
    tensors : tuple of GgufTensor
    """

    path: Path
    version: int
    entries: bytes
    count: int
    places: Mapping[str, int]
    alignment: int
    tensors: tuple[GgufTensor, ...]

    @classmethod
    def open(cls, path: str | Path) -> GgufModel:
        """Read the head of the file at ``path``; what its tensors hold is read when it is asked for.

        Raises
        ------
        FileError
            Where it is not GGUF, not whole, of another byte order, or one part of several.
        MissingPackageError
            Without gguf.
        """
        path = Path(path)
        reader = gguf_reader(path)
        told = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        if reader.endianess.name != "LITTLE":
            raise FileError("is written for processors of another byte order", where=str(path))
        if "split.count" in told and int(told["split.count"].contents()) > 1:
            raise FileError(
                "is one part of a model", where=str(path), hint="put it together with `llama-gguf-split --merge`"
            )
        if not reader.tensors:
            raise FileError("has no tensors", where=str(path))
        end = min(tensor.field.offset for tensor in reader.tensors)
        # an entry is its name, with a length before, a type and a value
        places = {
            name: field.offset + 8 + len(name.encode()) + 4 - _HEAD.size
            for name, field in told.items()
            if len(field.types) == 1 and int(field.types[0]) == _UINT32
        }
        tensors = tuple(
            GgufTensor(
                tensor.name,
                tuple(map(int, tensor.shape)),
                int(tensor.tensor_type),
                reader.data[int(tensor.data_offset) : int(tensor.data_offset) + int(tensor.n_bytes)],
            )
            for tensor in reader.tensors
        )
        entries = reader.data[_HEAD.size : end].tobytes()
        version, count = int(reader.fields["GGUF.version"].contents()), int(reader.fields["GGUF.kv_count"].contents())
        return cls(path, version, entries, count, places, int(reader.alignment), tensors)

    @cached_property
    def by_name(self) -> dict[str, GgufTensor]:
        """The tensors by their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    # -- with other types ----------------------------------------------------------------------------------------

    def head(self, kinds: Mapping[str, GgufType]) -> bytes:
        """Return all that stands before the tensors where some of them have other types, by name.

        Metadata are kept as they are, but for ``general.file_type``, which names the type that most weights have, and
        ``general.quantization_version``.
        """
        entries = bytearray(self.entries)
        added = 0
        for name, value in (
            ("general.quantization_version", _QUANTIZATION_VERSION),
            ("general.file_type", _FILE_TYPES.get(self._usual(kinds), 0)),
        ):
            if name in self.places:
                struct.pack_into("<I", entries, self.places[name], value)
            else:
                entries += _text(name) + struct.pack("<II", _UINT32, value)
                added += 1
        described, offset = [], 0
        for tensor in self.tensors:
            kind = kinds.get(tensor.name)
            sides = struct.pack(f"<I{len(tensor.sides)}Q", len(tensor.sides), *tensor.sides)
            number = tensor.number if kind is None else kind.number
            described.append(_text(tensor.name) + sides + struct.pack("<IQ", number, offset))
            offset += self.padded(tensor, kind)
        first = _HEAD.pack(b"GGUF", self.version, len(self.tensors), self.count + added)
        head = first + bytes(entries) + b"".join(described)
        return head + bytes(-len(head) % self.alignment)

    def padded(self, tensor: GgufTensor, kind: GgufType | None) -> int:
        """Return the bytes of a tensor at a type, or as it is, up to where the next one starts."""
        own = tensor.data.size if kind is None else kind.size(tensor.rows, tensor.length) // 8
        return own + -own % self.alignment

    def size(self, kinds: Mapping[str, GgufType]) -> int:
        """Return the bytes of the file with these types, by name of tensor."""
        return len(self.head(kinds)) + sum(self.padded(tensor, kinds.get(tensor.name)) for tensor in self.tensors)

    def pieces(self, kinds: Mapping[str, GgufType]) -> Iterator[bytes | memoryview]:
        """Yield the file with these types, piece by piece.

        A tensor that has its type already is kept as it is.

        Raises
        ------
        ProblemError
            Where a tensor's rows, or weights, are none that its type can hold.
        MissingPackageError
            Without libgguf.
        """
        yield self.head(kinds)
        for tensor in self.tensors:
            kind = kinds.get(tensor.name)
            written = 0
            for part in _parts(tensor, kind):
                written += part.nbytes
                yield part
            yield bytes(-written % self.alignment)

    def _usual(self, kinds: Mapping[str, GgufType]) -> str:
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            kind = kinds.get(tensor.name, tensor.kind)
            if kind is not None:
                counts[kind.name] = counts.get(kind.name, 0) + tensor.elements
        return max(counts, key=lambda name: counts[name], default="")

    @property
    def stored(self) -> Fraction:
        """Mean bits of a weight of all tensors that can be quantized, as the file has them."""
        inside = [tensor for tensor in self.tensors if tensor.quantizable]
        return Fraction(8 * sum(tensor.data.size for tensor in inside), sum(tensor.elements for tensor in inside))


# Weights that are decoded at once.
_AT_ONCE = 1 << 24


def _parts(tensor: GgufTensor, kind: GgufType | None) -> Iterator[memoryview]:
    if kind is None or kind.number == tensor.number:
        yield np.ascontiguousarray(tensor.data).data
        return
    step = max(1, _AT_ONCE // tensor.length)
    for first in range(0, tensor.rows, step):
        yield np.ascontiguousarray(kind.encode(tensor.weights(first, first + step))).data


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_reader(path: Path) -> Any:
    """Return what gguf makes of the file at ``path``.

    Raises
    ------
    FileError
        Where it is not GGUF, or not whole.
    MissingPackageError
        Without gguf.
    """
    gguf = need("gguf", "the tensors of a .gguf file", "gguf")
    if not path.is_file():
        raise FileError("there is no such file", where=str(path))
    try:
        return gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        raise FileError("is not GGUF, or not whole", where=str(path)) from error
