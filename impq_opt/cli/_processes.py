"""The processes that torchrun starts beside this one: which is the first, and leaving their group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["first_process", "group_left", "group_of_processes"]


def first_process() -> bool:
    """Return whether this process is alone, or the first: it alone shows, prints and writes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def group_of_processes() -> Iterator[None]:
    """Join the group where torchrun started more than one, and leave it at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from torch import distributed

        distributed.init_process_group("gloo")
    with group_left():
        yield


@contextmanager
def group_left() -> Iterator[None]:
    """Leave the group at the end, if it was joined meanwhile."""
    try:
        yield
    finally:
        if "RANK" in os.environ:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()
