"""Ctrl-C while the command line is being loaded: the process ends with a sentence, not with a traceback.

NumPy and the packages of the command line take a good part of a second to load, before any ``except`` is in force.
So this is loaded first, loads next to nothing, and does nothing in other programs.
"""

import os
import signal
import sys

__all__ = ["leave"]


def leave(number: int, frame: object) -> None:
    """End the process at once; nothing is being written yet."""
    try:
        os.write(2, b"impq-opt: interrupted\n")
    finally:
        os._exit(128 + number)


def _is_command() -> bool:
    """Whether this process is the command line: ``impq-opt`` or ``python -m impq_opt``."""
    program = (getattr(sys, "argv", None) or [""])[0]
    if program == "-m":  # as long as the package is being found
        words = sys.orig_argv
        return "-mimpq_opt" in words or "impq_opt" in words[words.index("-m") + 1 :][:1]
    return program.replace(os.sep, "/").rpartition("/")[2] in ("impq-opt", "impq-opt.exe")


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
