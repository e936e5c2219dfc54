"""Ctrl-C before and after the work of the command line: the process ends with a sentence, not with a traceback.

NumPy and the packages of the command line take a good part of a second to load, before any ``except`` is in force.
So this is loaded first, and does nothing in other programs.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from pathlib import PurePath
from typing import Any

__all__ = ["leave"]


def leave(number: int, frame: Any, write: Any = os.write, end: Any = os._exit) -> None:
    """End the process at once; nothing is being written yet, or everything has been."""
    try:
        write(2, b"impq-opt: interrupted\n")
    finally:
        end(128 + number)  # its names are bound here, since those of the module go while Python ends


def _is_command() -> bool:
    """Whether this process is the command line: ``impq-opt`` or ``python -m impq_opt``."""
    program = (getattr(sys, "argv", None) or [""])[0]
    if program == "-m":  # as long as the package is being found
        words = sys.orig_argv
        return ("-m", "impq_opt") in pairwise(words) or "-mimpq_opt" in words
    return PurePath(program).name in ("impq-opt", "impq-opt.exe")


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
