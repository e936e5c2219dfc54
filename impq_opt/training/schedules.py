"""Learning rates by step: functions of the peak, the step and their number, so that any step can be resumed at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SCHEDULES", "Pace", "cosine", "cosine_from_start", "one_cycle"]


class Pace(NamedTuple):
    """What one step is taken with: a rate, and a momentum where the schedule moves that too."""

    rate: float
    momentum: float | None = None


def cosine(peak: float, warmup: float, step: int, steps: int, per_epoch: int = 1) -> Pace:
    """Return a linear rise over the share ``warmup`` of the steps, then a cosine to 0."""
    warm = max(1, round(warmup * steps)) if warmup else 0
    if step < warm:
        return Pace(peak * (step + 1) / warm)
    return Pace(peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def cosine_from_start(peak: float, warmup: float, step: int, steps: int, per_epoch: int = 1) -> Pace:
    """Return a linear rise over whole epochs, then the rest of a cosine that is counted from the first step.

    The share ``warmup`` of the epochs, rounded down, rises. With a tenth of 10 epochs the cosine is joined at 0.976 of
    the peak, and below 10 epochs nothing rises (IMPQ, authors' code).
    """
    epochs = steps // per_epoch
    warm = int(round(warmup * epochs, 9)) * per_epoch  # 0.29 * 100 is a hair below 29
    if step < warm:
        return Pace(peak * (step + 1) / warm)
    return Pace(peak * 0.5 * (1 + math.cos(math.pi * step / steps)))


def one_cycle(peak: float, warmup: float, step: int, steps: int, per_epoch: int = 1) -> Pace:
    """Return the one-cycle policy (Smith and Topin 2017): cosines from peak/25 to the peak and down to peak/250,000.

    Momentum goes the other way, from 0.95 to 0.85 and back: the values of
    :class:`torch.optim.lr_scheduler.OneCycleLR`.
    """
    first = peak / 25
    top, last = warmup * steps - 1, steps - 1
    if step <= top:
        share = step / top if top > 0 else 0.0
        return Pace(_between(first, peak, share), _between(0.95, 0.85, share))
    share = (step - top) / (last - top)
    return Pace(_between(peak, first / 1e4, share), _between(0.85, 0.95, share))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


# Peak rate, share that rises, step, number of steps, and of those in an epoch.
SCHEDULES: dict[str, Callable[[float, float, int, int, int], Pace]] = {
    "cosine": cosine,
    "cosine-from-start": cosine_from_start,
    "one-cycle": one_cycle,
}
