"""Compiled kernels, each behind a typed function that also does their work where they cannot.

A function of ``passes``, ``hulls``, ``cores``, ``program`` or ``leaves`` takes arrays of any layout and any size, and
asks by itself whether its kernel was built and may take them; if not, NumPy gives the same answer bit for bit, more
slowly. Nobody else has to know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.build import load
from impq_opt.exactness.limits import SHORT_COLUMNS
from impq_opt.exactness.native import MOST_COLUMNS, MOST_ROWS, thread_count
from impq_opt.solvers.native.signatures import CoreModule, KernelModule, StarsModule

__all__ = [
    "BOOL",
    "COMPILED",
    "FLOAT",
    "INT",
    "ColumnArray",
    "Limits",
    "blank",
    "column_type",
    "core",
    "kernel",
    "plain",
    "stars",
    "thread_count",
]

ColumnArray = npt.NDArray[np.integer[Any]]

# None where they were not built.
kernel = cast("KernelModule | None", load("impq_opt.solvers.native._kernel"))
core = cast("CoreModule | None", load("impq_opt.solvers.native._core"))
stars = cast("StarsModule | None", load("impq_opt.solvers.native._stars"))

# NumPy asks for huge pages from this size on; touching fresh small pages can take longer than the work in them.
_HUGE = 1 << 22

# glibc hands freed memory back to the system, a page fault for each page of it that is used again, unless it has seen a
# large piece come and go: from then on it keeps twice as much (mallopt(3), M_MMAP_THRESHOLD).
np.empty(_HUGE, np.uint8)


@dataclass(frozen=True)
class Limits:
    """How many rows, whose damages are summed, and columns compiled code may be given; NumPy takes any number."""

    rows: int = MOST_ROWS
    columns: int = MOST_COLUMNS

    def hold(self, rows: int, columns: int = 1) -> bool:
        """Return whether an array is within them."""
        return rows <= self.rows and columns <= self.columns


COMPILED = Limits()


INT, FLOAT, BOOL = np.dtype(np.int64), np.dtype(np.float64), np.dtype(np.bool_)


def plain(array: npt.NDArray[Any], kind: np.dtype[Any]) -> bool:
    """Return whether compiled code can read ``array`` as it lies, of type ``kind`` and row after row."""
    return array.dtype == kind and array.flags.c_contiguous


def column_type(width: int) -> type[np.integer[Any]]:
    """Return the type of the numbers of so many columns: a short one where it holds them, as the kernels want it."""
    return np.uint16 if width <= SHORT_COLUMNS else np.int64


def blank(*wanted: tuple[tuple[int, ...], type]) -> list[Any]:
    """Return uninitialised arrays of the wanted shapes and types of 8 bytes, carved from one piece where large."""
    sizes = [math.prod(shape) * 8 for shape, _ in wanted]
    if sum(sizes) < _HUGE // 4:
        return [np.empty(shape, kind) for shape, kind in wanted]
    starts = list(accumulate((size + -size % 64 for size in sizes), initial=0))
    whole = np.empty(max(starts[-1], _HUGE), np.uint8)
    return [np.ndarray(shape, kind, whole, start) for start, (shape, kind) in zip(starts, wanted, strict=False)]
