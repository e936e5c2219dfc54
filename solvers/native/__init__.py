"""The compiled kernels where they were built, and None where they were not: NumPy then does the same, more slowly."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.build import load
from impq_opt.exactness.limits import SHORT_COLUMNS
from impq_opt.exactness.native import MOST_COLUMNS, MOST_ROWS, thread_count

__all__ = [
    "MOST_COLUMNS",
    "MOST_ROWS",
    "ColumnArray",
    "blank",
    "column_type",
    "core",
    "kernel",
    "stars",
    "thread_count",
]

ColumnArray = npt.NDArray[np.integer[Any]]

kernel = load("impq_opt.solvers.native._kernel")
core = load("impq_opt.solvers.native._core")
stars = load("impq_opt.solvers.native._stars")

# NumPy asks for huge pages from this size on; touching fresh small pages can take longer than the work in them.
_HUGE = 1 << 22

# glibc hands freed memory back to the system, a page fault for each page of it that is used again, unless it has seen a
# large piece come and go: from then on it keeps twice as much (mallopt(3), M_MMAP_THRESHOLD).
np.empty(_HUGE, np.uint8)


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
