"""Integers in groups of a row with a scale, with or without a zero point, as GPTQ's checkpoints have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.encodings.base import Encoding, Family, Rows

__all__ = ["GroupedIntegers", "Integers"]

_BITS = (2, 3, 4, 8)
_GROUPS = (32, 64, 128)
# The scale is a float16.
_SCALE = np.finfo(np.float16)


@dataclass(frozen=True)
class Integers(Encoding):
    """``2^codes`` levels ``scale * (q - zero)``, q from 0; rounded to nearest, ties to even, without compensation.

    With a zero point (asymmetric) levels go from the group's smallest weight, or 0, to its largest, or 0. Without one
    the largest absolute weight M is both ends: steps of 2 M / (2^codes - 1), and the zero point is the middle code,
    2^(codes - 1). The scale is rounded to float16 first, so that codes are those of the scale that is stored.
    Checkpoints of GPTQ store the zero point in both cases, and it is counted in both.
    """

    codes: int = 4
    asymmetric: bool = False

    def _round(self, rows: Rows) -> Rows:
        blocks, most = self.blocks(rows), np.float32(2**self.codes - 1)
        low = np.minimum(blocks.min(axis=2, keepdims=True), 0)
        high = np.maximum(blocks.max(axis=2, keepdims=True), 0)
        if not self.asymmetric:
            high = np.maximum(-low, high)
            low = -high
        scale = np.clip((high - low) / most, float(_SCALE.smallest_subnormal), float(_SCALE.max))
        scale = scale.astype(np.float16).astype(np.float32)
        zero = np.clip(np.rint(-low / scale), 0, most) if self.asymmetric else np.float32(2 ** (self.codes - 1))
        codes = np.clip(np.rint(blocks / scale) + zero, 0, most)
        return ((codes - zero) * scale).reshape(rows.shape)


@dataclass(frozen=True)
class GroupedIntegers(Family):
    """``int4-g128`` without a zero point, ``uint4-g128`` with one; 2, 3, 4 and 8 bits in groups of 32, 64 and 128."""

    name: ClassVar[str] = "integers"
    summary: ClassVar[str] = "integers in groups with a float16 scale, intB-gG without and uintB-gG with a zero point"
    source: ClassVar[str] = "https://github.com/ModelCloud/GPTQModel"

    def encodings(self) -> tuple[Encoding, ...]:
        return tuple(
            Integers(f"{sign}int{bits}-g{group}", group, (group + 1) * bits + 16, codes=bits, asymmetric=bool(sign))
            for sign in ("", "u")
            for bits in _BITS
            for group in _GROUPS
        )
