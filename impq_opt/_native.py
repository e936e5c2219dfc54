"""The compiled exact sums where they were built, and None where they were not: NumPy then does the same, more slowly.

Set the environment variable IMPQ_OPT_PURE to use NumPy in any case.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "PURE", "ROWS_A_THREAD", "library", "thread_count"]

PURE = bool(os.environ.get("IMPQ_OPT_PURE"))
# The compiled code keeps a group in arrays of this size; NumPy takes wider ones.
MOST_COLUMNS = 64
# More terms could overflow its sums.
MOST_ROWS = 1 << 30
# Starting a thread takes longer than a few thousand rows.
ROWS_A_THREAD = 1 << 14

library: Any = None
if not PURE:
    with suppress(ImportError):
        from impq_opt import _exact as library  # type: ignore[no-redef]


def thread_count(rows: int) -> int:
    """Return the number of threads for an array of some rows; answers do not depend on it."""
    most = rows // ROWS_A_THREAD
    if most < 2:
        return 1
    return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
