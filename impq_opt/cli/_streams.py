"""stdout, stderr and Ctrl-C of the process: what can go wrong with them ends in a sentence and an exit status."""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from impq_opt._start import leave
from impq_opt.errors import ImpqError
from impq_opt.text import visible

__all__ = ["StreamError", "debugging", "interrupted", "own_streams", "quiet_hooks", "say", "signals", "silenced"]


class StreamError(ImpqError):
    """stdout cannot be written: the disk is full, or it was closed."""


def say(sentence: object) -> None:
    """Print a sentence to stderr, under the command's name."""
    print(f"impq-opt: {visible(sentence)}", file=sys.stderr)


def debugging() -> bool:
    """Whether tracebacks are asked for."""
    return bool(os.environ.get("IMPQ_OPT_DEBUG"))


# -- streams -----------------------------------------------------------------------------------------------------


class _Stream(io.FileIO):
    """A standard stream; what nobody reads any more goes nowhere, and the command goes on to its exit status."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _nowhere(self.fileno())
            if isinstance(error, BrokenPipeError) or self.fileno() == 2:
                return memoryview(data).nbytes
            raise StreamError(f"stdout cannot be written: {error.strerror}") from None


def _nowhere(descriptor: int, flags: int = os.O_WRONLY) -> None:
    nowhere = os.open(os.devnull, flags)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """Send what is written to ``descriptor`` past Python's streams, or by processes that are started, to nowhere."""
    try:
        kept = os.dup(descriptor)
    except OSError:  # it is closed
        yield
        return
    try:
        _nowhere(descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def own_streams() -> None:
    """Put streams in place of ``sys.stdout`` and ``sys.stderr`` that mind closed pipes and full disks."""
    if os.name != "posix":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # A file that is opened later would get this number, and what is printed would end in it. Nothing can be
            # written to what is open for reading: that stdout was closed comes out when something is written to it.
            _nowhere(descriptor, os.O_RDONLY if descriptor < 2 else os.O_WRONLY)
    # A terminal without block characters shows others; what is told on stderr keeps its names.
    sys.stdout = _wrapped(1, sys.stdout, "replace")
    sys.stderr = _wrapped(2, sys.stderr, "backslashreplace")


def _wrapped(descriptor: int, before: Any, errors: str) -> io.TextIOWrapper:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: it was closed, there is none
        before.flush()
    raw = _Stream(descriptor, "w", closefd=False)
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=descriptor == 2 or raw.isatty()
    )


# -- Ctrl-C ------------------------------------------------------------------------------------------------------

_seen = threading.Event()


def interrupted() -> bool:
    """Whether Ctrl-C was pressed: an error that follows may be its work."""
    return _seen.is_set()


def _interrupt(number: int, frame: Any) -> None:
    _seen.set()
    raise KeyboardInterrupt


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C inside; afterwards, when all is written, it changes nothing any more."""
    if signal.getsignal(signal.SIGINT) not in (leave, signal.default_int_handler):
        yield  # it is ignored, as under nohup, and stays so
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def quiet_hooks() -> None:
    """Tell warnings in a sentence, and nothing of errors where no one can handle them; all where debugging is on."""
    if debugging():
        return
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    threading.excepthook = lambda _: None
    sys.unraisablehook = _unraisable


def _unraisable(unraisable: Any) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # It came in the middle of a destructor or of a C library's callback, where it ends: it comes again after it.
        threading.Timer(0.02, _thread.interrupt_main).start()
