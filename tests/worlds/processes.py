"""Processes with the environment that ``torchrun`` gives them, forked from one that has imported torch for them all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable


def in_processes(count: int, work: Callable[[], int]) -> int:
    """Do the work in every process, and return the largest of the exit statuses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    started = []
    for rank in range(count):
        started.append(os.fork())
        if started[-1] == 0:
            os.environ["RANK"] = str(rank)
            os._exit(work())
    return max(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started)
