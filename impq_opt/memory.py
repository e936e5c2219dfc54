"""Freed memory kept for the next layer: networks on processors spend no time on pages that the kernel clears again.

The GNU C library maps large blocks one by one and gives them back when they are freed. A layer's output is such a
block, so every layer of every pass starts on new pages, which the kernel has to clear first: half of the time of a
forward pass at ImageNet sizes. The library can be asked to keep what is freed; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["kept_memory"]

# Names of malloc.h, and by what users set the same in the environment.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USERS_OWN = re.compile(r"MALLOC_(MMAP|TRIM)_|glibc\.malloc\.(mmap|trim)_")
_NEVER = -1  # the free end of the heap is not given back, however large


class _Stays:
    """How many are inside; the first and the last of them change the setting."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == 1:
                _keep()

    def leave(self) -> None:
        with self._lock:
            self.count -= 1
            if self.count == 0:
                _give_back()


_stays = _Stays()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in this process while inside; the last one to leave gives it back.

    May be entered again, and from several threads: it is a setting of the whole process. Where the user has set
    ``MALLOC_MMAP_...`` or ``MALLOC_TRIM_...``, the same in ``GLIBC_TUNABLES``, or the C library is another, nothing
    happens.
    """
    _stays.enter()
    try:
        yield
    finally:
        _stays.leave()


def _keep() -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def _give_back() -> None:
    """Let the library map large blocks again, and return what is free to the system.

    Its thresholds begin at 128 KiB and follow the largest block that was freed, up to 32 MiB; that they were set has
    ended that. So they are set to where they would have come: who has run a network has freed such blocks.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 65536)
        library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the GNU C library of this process; None where there is another, or the user has settings of their own."""
    settings = [*os.environ, os.environ.get("GLIBC_TUNABLES", "")]
    if sys.platform != "linux" or any(_USERS_OWN.search(setting) for setting in settings):
        return None
    library = ctypes.CDLL(None)
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None
