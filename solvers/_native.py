"""The compiled kernels where they were built, and None where they were not: NumPy then does the same, more slowly."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from impq_opt._native import MOST_COLUMNS, MOST_ROWS, PURE, thread_count

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "kernel", "stars", "thread_count"]

kernel: Any = None
stars: Any = None
if not PURE:
    with suppress(ImportError):
        from impq_opt.solvers import _kernel as kernel  # type: ignore[attr-defined,no-redef]
    with suppress(ImportError):
        from impq_opt.solvers import _stars as stars  # type: ignore[attr-defined,no-redef]
