"""The cheapest network whose accuracy falls by no more than is accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import isotonic_regression

from impq_opt.pipeline.differences import Difference

__all__ = ["cheapest", "crossing"]

Loss = Callable[[int], Difference]


def crossing(count: int, loss: Loss, allowed: float, looks: int = 6) -> int:
    """Return the last of ``count`` levels, cheaper and cheaper, whose loss seems to be within what is allowed.

    Levels are halved, a look at each; losses of what was seen are made to rise with the level (isotonic regression),
    and the first level, the dearest, stands where none seems to do.

    Parameters
    ----------
    count : int
    loss : callable (level) -> Difference
    allowed : float
    looks : int
        At most.
    """
    seen: dict[int, float] = {}
    low, high = 0, count
    while high - low > 1 and len(seen) < looks:
        middle = (low + high) // 2
        seen[middle] = loss(middle).value
        low, high = (middle, high) if seen[middle] <= allowed else (low, middle)
    if not seen:
        return 0
    levels = np.array(sorted(seen))
    rising = isotonic_regression(np.array([seen[level] for level in levels])).x
    inside = np.interp(np.arange(count), levels, rising, left=-np.inf) <= allowed
    return int(np.flatnonzero(inside).max(initial=0))


def cheapest(
    count: int, expected: int, loss: Loss, allowed: float, confidence: float, *, stride: int = 4
) -> tuple[int | None, Sequence[int]]:
    """Return the cheapest level whose loss is surely within what is allowed, and the levels that were looked at.

    Levels are tested in an order that is laid down before any is looked at, each at the full confidence, and testing
    ends with the first that fails: then the chance that any level is wrongly taken is that of one test (fixed-sequence
    testing; Angelopoulos et al., Learn then Test, arXiv:2110.01052). Half of it is spent on levels from a step before
    the expected one onwards, the other half, should already that one fail, on those from the first level onwards.

    Parameters
    ----------
    count : int
        Levels, from the dearest, 0, to the cheapest.
    expected : int
        Where it is likely to be, from other samples.
    loss : callable (level) -> Difference
        On samples that nothing was chosen by.
    allowed, confidence : float
    stride : int
        Of the second sequence.
    """
    half = 1 - (1 - confidence) / 2
    start = max(0, expected - 1)
    looked: list[int] = []
    for sequence in (range(start, count), range(0, start, stride)):
        best = None
        for level in sequence:
            looked.append(level)
            if loss(level).highest(half) > allowed:
                break
            best = level
        if best is not None:
            return best, looked
    return None, looked
