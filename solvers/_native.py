"""The compiled kernel where it was built, and None where it was not: NumPy then does the same, more slowly.

Set the environment variable IMPQ_OPT_PURE to use NumPy in any case.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["kernel", "thread_count"]

kernel: Any = None
if not os.environ.get("IMPQ_OPT_PURE"):
    try:
        from impq_opt.solvers import _kernel as kernel  # type: ignore[attr-defined,no-redef]
    except ImportError:
        pass


def thread_count() -> int:
    """Return the number of processors that this process may use; answers do not depend on it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
