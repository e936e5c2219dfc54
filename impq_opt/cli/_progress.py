"""How far long work is, and how much longer it takes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip

from impq_opt.cli._streams import say, silenced
from impq_opt.text import visible

__all__ = ["duration", "native_silence", "progress", "shown", "watched"]

_FIRST, _LATER = 10.0, 60.0  # seconds before the first line, and between lines


def _bars(*columns: ProgressColumn) -> Progress:
    """Return a display on stderr to which a description is text and nothing else."""
    screen = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=screen, transient=True)


@contextlib.contextmanager
def progress(what: str, most: float | None = None) -> Iterator[None]:
    """Run long work of which nobody knows how much there is, and keep stdout for data.

    Native solvers print as they like (HiGHS a line of its own debugging); it would end up between our data.
    """
    with native_silence(), watched(what, most):
        yield


@contextlib.contextmanager
def watched(what: str, most: float | None = None) -> Iterator[Callable[[str], None]]:
    """Show that ``what`` goes on, for how long it has, and how much longer it can where it may take ``most`` seconds.

    The yielded function is told what it does now.
    """
    limit = "" if most is None or not 0 < most < math.inf else f", at most {duration(most)}"
    if not sys.stderr.isatty():
        lines = _Ticking(what, limit)
        try:
            yield lines.tell
        finally:
            lines.over.set()
        return
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    spinner = SpinnerColumn("dots" if encoding.lower().startswith("utf") else "line")
    with _bars(spinner, TimeElapsedColumn(), TextColumn(limit.removeprefix(", "), markup=False)) as bar:
        task = bar.add_task(visible(what), total=None)
        yield lambda line: bar.update(task, description=visible(line))


class _Ticking:
    """Lines on stderr while work goes on that tells of no end."""

    def __init__(self, what: str, limit: str) -> None:
        self.what, self.limit = what, limit
        self.over = threading.Event()
        self.began = time.monotonic()
        threading.Thread(target=self._tick, daemon=True).start()

    def tell(self, line: str) -> None:
        self.what = line

    def _tick(self) -> None:
        pause = _FIRST
        while not self.over.wait(pause):
            say(f"{self.what}: {duration(time.monotonic() - self.began)} so far{self.limit}")
            pause = _LATER


@contextlib.contextmanager
def shown(what: str) -> Iterator[Callable[..., None]]:
    """Show how far ``what`` is; the yielded function is told the part of the work, how much is done, and of how much.

    The time left is that of the part, if it goes on as it went so far. A fourth argument is a note on where it is.
    """
    if not sys.stderr.isatty():
        yield _Lines(what).tell
        return
    what = visible(what)
    parts: list[str] = []
    with _bars(BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=None)

        def tell(part: str, done: int, total: int, note: str = "") -> None:
            if [part] != parts:
                parts[:] = [part]
                bar.reset(task, total=total)
            text = f"{what}: {part}" + (f", {note}" if note else "")
            bar.update(task, completed=done, description=visible(text))

        yield tell


class _Lines:
    """Lines on stderr, few enough for a log."""

    def __init__(self, what: str) -> None:
        self.what, self.part, self.first = what, "", 0
        self.began = self.told = time.monotonic()
        self.pause = _FIRST

    def tell(self, part: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if part != self.part:
            self.part, self.began, self.first = part, now, done  # what went on from a checkpoint began further on
        if now - self.told < self.pause or done in (self.first, total):
            return
        self.told, self.pause = now, _LATER
        left = (now - self.began) * (total - done) / (done - self.first)
        more = f", {note}" if note else ""
        say(f"{self.what}: {part}: {done / total:.0%}{more}, about {duration(left)} left")


def duration(seconds: float) -> str:
    """Return a time for people: ``"40 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def native_silence() -> Iterator[None]:
    """Send what is written to file descriptor 1 past Python to nowhere."""
    with contextlib.suppress(ValueError, AttributeError):  # stdout is closed
        sys.stdout.flush()
    with silenced(1):
        try:
            yield
        finally:
            with contextlib.suppress(OSError, AttributeError, TypeError):
                ctypes.CDLL(None).fflush(None)  # the C library has a buffer of its own
