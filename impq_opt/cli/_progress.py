"""How far long work is, and how much longer it takes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from impq_opt.cli._common import console, say
from impq_opt.text import visible

__all__ = ["duration", "shown"]

_FIRST, _LATER = 10.0, 60.0  # seconds before the first line, and between lines


@contextlib.contextmanager
def shown(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far ``what`` is; the yielded function is told the part of the work, how much is done, and of how much.

    The time left is that of the part, if it goes on as it went so far.
    """
    if not sys.stderr.isatty():
        yield _Lines(what).tell
        return
    what = visible(what)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tell(part: str, done: int, total: int) -> None:
            if bar.tasks[0].description != f"{what}: {part}":
                bar.reset(task, description=f"{what}: {part}", total=total)
            bar.update(task, completed=done)

        yield tell


class _Lines:
    """Lines on stderr, few enough for a log."""

    def __init__(self, what: str) -> None:
        self.what, self.part = what, ""
        self.began = self.told = time.monotonic()
        self.pause = _FIRST

    def tell(self, part: str, done: int, total: int) -> None:
        now = time.monotonic()
        if part != self.part:
            self.part, self.began = part, now
        if now - self.told < self.pause or done in (0, total):
            return
        self.told, self.pause = now, _LATER
        left = (now - self.began) * (total - done) / done
        say(f"{self.what}: {part}: {done / total:.0%}, about {duration(left)} left")


def duration(seconds: float) -> str:
    """Return a time for people: ``"40 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
