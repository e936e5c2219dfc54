"""What a run says while it trains, when it keeps its state, and when it stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import distributed

from impq_opt.training import Course, Hook, Progress
from impq_opt.training.seeds import processes

__all__ = ["PausedError", "Report", "Watch"]


class PausedError(Exception):
    """The time given to this call is over; the same call goes on from its checkpoint."""


@dataclass
class Report:
    """What the loop says while it works: round, epoch, step, and speed.

    Parameters
    ----------
    show : callable
        Gets one line of text; called at most once a second.
    deadline : float
        Stop with :class:`PausedError` at this :func:`time.monotonic`.
    save_every : float
        Seconds between checkpoints while training.
    """

    show: Callable[[str], None] = lambda line: None
    deadline: float = float("inf")
    save_every: float = 30.0

    def over(self, now: float) -> bool:
        """Return whether the deadline has passed for any process."""
        passed = now >= self.deadline
        if processes()[1] == 1 or self.deadline == float("inf"):
            return passed
        flag = torch.tensor(int(passed))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)


class Watch(Hook):
    """Keep a round's training, tell of it, and stop it when the time is over.

    Parameters
    ----------
    report : Report
    keep : callable
        Gets the progress and the seconds spent since this watch began.
    title : str
        Of the round.
    batch : int
    later : int
        Epochs of all later rounds.
    """

    def __init__(
        self, report: Report, keep: Callable[[Progress, float], None], title: str, batch: int, later: int
    ) -> None:
        self.report, self.keep, self.title, self.batch, self.later = report, keep, title, batch, later
        self.began, self.saved, self.shown = time.perf_counter(), time.monotonic(), 0.0
        self.steps = 0

    def spent(self) -> float:
        """Return the seconds since this watch began."""
        return time.perf_counter() - self.began

    def after_step(self, course: Course) -> None:
        self.steps += 1
        now = time.monotonic()
        over = self.report.over(now)
        # Processes save together, so not by their own clocks.
        at_epoch = course.progress.step % course.per_epoch == 0
        due = now - self.saved >= self.report.save_every if processes()[1] == 1 else at_epoch
        if over or due:
            self.saved = now
            self.keep(course.progress, self.spent())
        if over:
            raise PausedError
        if now - self.shown >= 1:
            self.shown = now
            self.report.show(self._line(course))

    def _line(self, course: Course) -> str:
        step, per_epoch, loss = course.progress.step, course.per_epoch, course.progress.loss
        speed = self.steps / self.spent()
        left = course.steps - step + self.later * per_epoch
        return (
            f"{self.title}  epoch {step // per_epoch + 1}/{course.steps // per_epoch}  "
            f"step {step % per_epoch}/{per_epoch}  loss {loss / max(1, course.progress.seen):.3f}  "
            f"{speed * self.batch:.0f} images/s  {left / speed / 60:.1f} min left"
        )
