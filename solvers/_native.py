"""The compiled kernels where they were built, and None where they were not: NumPy then does the same, more slowly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from impq_opt._built import load
from impq_opt._native import MOST_COLUMNS, MOST_ROWS, thread_count

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "blank", "kernel", "stars", "thread_count"]

kernel = load("impq_opt.solvers._kernel")
stars = load("impq_opt.solvers._stars")

# NumPy asks for huge pages from this size on; touching fresh small pages can take longer than the work in them.
_HUGE = 1 << 22


def blank(*wanted: tuple[tuple[int, ...], type]) -> list[Any]:
    """Return uninitialised arrays of the wanted shapes and types, carved from one allocation where they are large."""
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in wanted]
    ends = np.cumsum([size + -size % 64 for size in sizes]).tolist()
    if ends[-1] < _HUGE // 4:
        return [np.empty(shape, kind) for shape, kind in wanted]
    whole = np.empty(max(ends[-1], _HUGE), np.uint8)
    starts = [0, *ends]
    return [
        whole[start : start + size].view(kind).reshape(shape)
        for start, size, (shape, kind) in zip(starts, sizes, wanted, strict=False)
    ]
