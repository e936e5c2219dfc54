"""Small floating-point numbers in blocks with a scale: the MX formats of OCP, and NVFP4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.encodings.base import Encoding, Family, Rows
from impq_opt.encodings.minifloat import E2M1, E2M3, E3M2, E4M3, E5M2, Minifloat, exponent

__all__ = ["MX", "NVFP4", "Microscaling"]

# Exponents of E8M0, the scale of a block: a power of two without sign.
_LEAST_SCALE, _MOST_SCALE = -127, 127


@dataclass(frozen=True)
class MX(Encoding):
    """A block of 32 numbers of type ``element`` and a power of two.

    OCP Microscaling Formats (MX) v1.0, section 6.3: the scale is 2 to the exponent of the largest absolute value, less
    the exponent of the element's largest number; elements are rounded to nearest, ties to even, and saturate.
    """

    element: Minifloat = E2M1

    def _round(self, rows: Rows) -> Rows:
        blocks = self.blocks(rows)
        power = exponent(np.abs(blocks).max(axis=2, keepdims=True)) - self.element.top
        power = np.clip(power, _LEAST_SCALE, _MOST_SCALE)
        return np.ldexp(self.element.nearest(np.ldexp(blocks, -power)), power).reshape(rows.shape)


@dataclass(frozen=True)
class NVFP4(Encoding):
    """A block of 16 E2M1 numbers with a scale in E4M3, and a float32 scale of the whole matrix.

    NVIDIA, "Pretraining Large Language Models with NVFP4" (2025), appendix: the matrix's scale brings its largest
    absolute value to 6 times 448; a block's brings its largest to 6 and is rounded to E4M3. Rounding is to nearest,
    ties to even, and saturates.
    """

    def _round(self, rows: Rows) -> Rows:
        blocks = self.blocks(rows)
        largest = np.abs(blocks).max(axis=2, keepdims=True)
        whole = largest.max() / np.float32(E2M1.largest * E4M3.largest)
        if whole == 0:
            return np.zeros_like(rows)
        # a block whose scale would be 0 has the smallest one that there is
        least = np.float32(2.0 ** (E4M3.least - E4M3.mantissa))
        scale = np.maximum(E4M3.nearest(largest / np.float32(E2M1.largest) / whole), least) * whole
        return (E2M1.nearest(blocks / scale) * scale).reshape(rows.shape)


@dataclass(frozen=True)
class Microscaling(Family):
    """``mxfp4`` and its wider relatives, and ``nvfp4``."""

    name: ClassVar[str] = "microscaling"
    summary: ClassVar[str] = "small floating-point numbers in blocks with a scale: MX formats, NVFP4"
    source: ClassVar[str] = (
        "https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf, "
        "https://arxiv.org/abs/2509.25149"
    )

    def encodings(self) -> tuple[Encoding, ...]:
        elements = {"mxfp4": E2M1, "mxfp6-e2m3": E2M3, "mxfp6-e3m2": E3M2, "mxfp8-e4m3": E4M3, "mxfp8-e5m2": E5M2}
        shared = [MX(name, 32, 32 * element.bits + 8, element=element) for name, element in elements.items()]
        return (NVFP4("nvfp4", 16, 16 * E2M1.bits + E4M3.bits, matrix_bits=32), *shared)
