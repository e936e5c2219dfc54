"""Numbers of few bits: the nearest value of a small floating-point type, ties to even."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BFLOAT16", "E2M1", "E2M3", "E3M2", "E4M3", "E5M2", "Minifloat", "exponent"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Minifloat:
    """A sign, an exponent and a mantissa, with subnormal numbers and without infinity.

    Parameters
    ----------
    bits : int
        Of a number.
    mantissa : int
        Bits behind the point.
    least : int
        Exponent of the smallest normal numbers.
    largest : float
        The largest finite number; what is larger becomes it.
    """

    bits: int
    mantissa: int
    least: int
    largest: float

    @property
    def top(self) -> int:
        """The exponent of the largest number."""
        return int(exponent(np.float32(self.largest)))

    def nearest(self, values: Array) -> Array:
        """Return the nearest numbers of this type, of two that are as near the even one."""
        # a float32 is a whole number of steps after a scaling by a power of two, which rounds nothing
        power = np.maximum(exponent(values), self.least) - self.mantissa
        near = np.ldexp(np.rint(np.ldexp(values, -power)), power)
        return np.clip(near, -self.largest, self.largest)


def exponent(values: Array | np.float32) -> npt.NDArray[np.int32]:
    """Return the whole part of log2 of absolute values, exactly; that of zero is far below all others."""
    power = np.frexp(values)[1] - 1
    return np.where(np.asarray(values) == 0, -(2**15), power)


# OCP Microscaling Formats (MX) v1.0, tables 2 to 5, and OCP 8-bit Floating Point (OFP8) v1.0.
E2M1 = Minifloat(4, 1, 0, 6.0)
E2M3 = Minifloat(6, 3, 0, 7.5)
E3M2 = Minifloat(6, 2, -2, 28.0)
E4M3 = Minifloat(8, 3, -6, 448.0)
E5M2 = Minifloat(8, 2, -14, 57344.0)
BFLOAT16 = Minifloat(16, 7, -126, float(np.ldexp(np.float32(2 - 2**-7), 127)))
