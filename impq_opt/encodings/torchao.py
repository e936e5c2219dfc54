"""The integers of torchao's weight-only configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.encodings.base import Encoding, Family, Rows
from impq_opt.encodings.minifloat import BFLOAT16

__all__ = ["TinyInt4", "TorchAoInt8", "TorchAoIntegers"]

_GROUPS = (32, 64, 128, 256)
_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class TinyInt4(Encoding):
    """``Int4WeightOnlyConfig``: 16 levels from a group's smallest weight to its largest, ``zero + scale * (q - 8)``.

    Scale and zero (a weight, not a code) are bfloat16, and 0 need not be a level.
    """

    def _round(self, rows: Rows) -> Rows:
        blocks = self.blocks(rows)
        low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
        scale = np.maximum((high - low) / np.float32(15), _FLOAT32.smallest_normal)
        zero = BFLOAT16.nearest(low + scale * np.float32(8))
        scale = BFLOAT16.nearest(scale)
        codes = np.clip(np.rint((blocks - (zero - scale * np.float32(8))) / scale), 0, 15)
        return ((codes - np.float32(8)) * scale + zero).reshape(rows.shape)


@dataclass(frozen=True)
class TorchAoInt8(Encoding):
    """``Int8WeightOnlyConfig``: integers of 8 bits with a float32 scale a row, 2 M / 255 of its largest weight M."""

    def _round(self, rows: Rows) -> Rows:
        scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127.5)
        scale = np.maximum(scale, _FLOAT32.eps)
        return np.clip(np.rint(rows * (np.float32(1) / scale)), -128, 127) * scale


@dataclass(frozen=True)
class TorchAoIntegers(Family):
    """``torchao-int4-g32`` to ``torchao-int4-g256``, and ``torchao-int8``."""

    name: ClassVar[str] = "torchao"
    summary: ClassVar[str] = "Int4WeightOnlyConfig in groups, and Int8WeightOnlyConfig"
    source: ClassVar[str] = "https://docs.pytorch.org/ao/stable/api_reference/api_ref_quantization.html"
    package: ClassVar[str] = ""

    def encodings(self) -> tuple[Encoding, ...]:
        small = [TinyInt4(f"torchao-int4-g{group}", group, 4 * group + 2 * BFLOAT16.bits) for group in _GROUPS]
        return (*small, TorchAoInt8("torchao-int8", 1, 8, row_bits=32))
