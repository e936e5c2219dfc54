"""The compiled exact sums where they were built, and None where they were not: NumPy then does the same, more slowly.

Set the environment variable IMPQ_OPT_PURE to use NumPy in any case.
"""

from __future__ import annotations

import os

from impq_opt.exactness.build import load
from impq_opt.exactness.limits import MOST_COLUMNS, MOST_TERMS

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "ROWS_A_THREAD", "library", "thread_count"]

# A sum has a term for each row.
MOST_ROWS = MOST_TERMS
# Starting a thread takes longer than a few thousand rows.
ROWS_A_THREAD = 1 << 14

library = load("impq_opt.exactness._exact")


def thread_count(rows: int) -> int:
    """Return the number of threads for an array of some rows; answers do not depend on it."""
    most = rows // ROWS_A_THREAD
    if most < 2:
        return 1
    return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
