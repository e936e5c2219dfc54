"""The compiled kernels where they were built, and None where they were not: NumPy then does the same, more slowly."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from impq_opt._native import MOST_COLUMNS, MOST_ROWS, PURE, thread_count

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "blank", "kernel", "stars", "thread_count"]

# NumPy asks for huge pages from this size on; touching fresh small pages can take longer than the work in them.
_HUGE = 1 << 22

kernel: Any = None
stars: Any = None
if not PURE:
    with suppress(ImportError):
        from impq_opt.solvers import _kernel as kernel  # type: ignore[attr-defined,no-redef]
    with suppress(ImportError):
        from impq_opt.solvers import _stars as stars  # type: ignore[attr-defined,no-redef]


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
