"""The types of GGUF files, rounded by the reference code of ggml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.encodings.base import Encoding, Family, Rows
from impq_opt.encodings.minifloat import BFLOAT16
from impq_opt.errors import ProblemError
from impq_opt.registry import need

__all__ = ["GGUF_TYPES", "GgufType", "GgufTypes"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GgufType(Encoding):
    """One type of GGUF's tensors: scales, minima and codebooks are part of its blocks.

    Parameters
    ----------
    number : int
        Of the type in files.
    nominal : int
        Bits in its name.
    guided : bool
        ggml writes it only by an importance matrix, so it has no error of its own.
    """

    number: int = 0
    nominal: int = 0
    guided: bool = False

    def encode(self, rows: npt.ArrayLike) -> Bytes:
        """Return the bytes (rows, bytes of a row) that a file holds of a matrix (rows, length).

        Raises
        ------
        ProblemError
            As :meth:`round` does, or where ggml writes this type by an importance matrix only.
        MissingPackageError
            Without libgguf, except for floating-point types.
        """
        array = self.read(rows)
        if self.name == "f32":
            return array.view(np.uint8)
        if self.name == "f16":
            return array.astype(np.float16).view(np.uint8)
        if self.name == "bf16":
            return (BFLOAT16.nearest(array).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        if self.guided:
            raise ProblemError(
                "is written by an importance matrix only", where=self.name, hint="take iq3_s or a k-quant"
            )
        coded: Bytes = np.ascontiguousarray(_reference().quantize_rows(array, self.number)).view(np.uint8)
        return coded

    def decode(self, data: Bytes) -> Rows:
        """Return the matrix (rows, length) that bytes (rows, bytes of a row) stand for.

        Raises
        ------
        MissingPackageError
            Without libgguf, except for floating-point types.
        """
        data = np.ascontiguousarray(data)
        if self.name == "f32":
            return data.view(np.float32)
        if self.name == "f16":
            return data.view(np.float16).astype(np.float32)
        if self.name == "bf16":
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        rows: Rows = _reference().dequantize_rows(data, self.number)
        return rows

    def _round(self, rows: Rows) -> Rows:
        return self.decode(self.encode(rows))


def _reference() -> Any:
    return need("libgguf", "the types of GGUF files", "libgguf")


# llama-quantize refuses these without an importance matrix (tensor_requires_imatrix in llama-quant.cpp).
_GUIDED = ("iq2_s", "iq2_xs", "iq2_xxs", "iq3_xxs")
# Bytes a block of ggml's types (ggml-common.h), and their numbers in files (ggml.h).
GGUF_TYPES: tuple[GgufType, ...] = tuple(
    GgufType(name, block, 8 * size, number=number, nominal=nominal, guided=name in _GUIDED)
    for name, nominal, block, size, number in (
        ("q2_k", 2, 256, 84, 10),
        ("iq2_s", 2, 256, 82, 22),
        ("iq2_xs", 2, 256, 74, 17),
        ("iq2_xxs", 2, 256, 66, 16),
        ("q3_k", 3, 256, 110, 11),
        ("iq3_s", 3, 256, 110, 21),
        ("iq3_xxs", 3, 256, 98, 18),
        ("q4_k", 4, 256, 144, 12),
        ("iq4_xs", 4, 256, 136, 23),
        ("q4_0", 4, 32, 18, 2),
        ("q4_1", 4, 32, 20, 3),
        ("iq4_nl", 4, 32, 18, 20),
        ("q5_k", 5, 256, 176, 13),
        ("q5_0", 5, 32, 22, 6),
        ("q5_1", 5, 32, 24, 7),
        ("q6_k", 6, 256, 210, 14),
        ("q8_0", 8, 32, 34, 8),
        ("bf16", 16, 1, 2, 30),
        ("f16", 16, 1, 2, 1),
        ("f32", 32, 1, 4, 0),
    )
)


@dataclass(frozen=True)
class GgufTypes(Family):
    """``q2_k`` to ``q8_0``, and floating point."""

    name: ClassVar[str] = "gguf"
    summary: ClassVar[str] = "the types of GGUF files, by the reference code"
    source: ClassVar[str] = "https://github.com/ggml-org/llama.cpp/wiki/Tensor-Encoding-Schemes"
    package: ClassVar[str] = "libgguf"

    def encodings(self) -> tuple[Encoding, ...]:
        return GGUF_TYPES
