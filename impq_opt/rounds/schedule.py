"""Quantities that change from round to round."""

from __future__ import annotations

from dataclasses import dataclass

from impq_opt.errors import OptionError, nearest

__all__ = ["Schedule", "parse_schedule"]

_SHAPES = ("geometric", "linear", "fixed")


@dataclass(frozen=True)
class Schedule:
    """A quantity that goes from ``first`` in round 1 to ``last`` in round ``steps``, and stays there.

    Parameters
    ----------
    shape : {"geometric", "linear", "fixed"}
        Equal factors, equal differences, or ``last`` from the start.
    first, last : float
    steps : int
        Rounds until ``last``; all rounds where 0.
    """

    shape: str = "geometric"
    first: float = 4.0
    last: float = 2.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise OptionError("unknown shape", where="schedule", value=self.shape, hint=nearest(self.shape, _SHAPES))
        if not (0 < self.first < float("inf") and 0 < self.last < float("inf")):
            raise OptionError("must go between positive numbers", where="schedule", value=(self.first, self.last))
        if self.steps < 0:
            raise OptionError("must not be negative", where="schedule.steps", value=self.steps)

    def at(self, number: int, rounds: int) -> float:
        """Return the value in round ``number`` (from 1) of ``rounds``."""
        steps = self.steps or rounds
        if self.shape == "fixed" or number >= steps:
            return self.last
        share = (number - 1) / (steps - 1)
        if self.shape == "linear":
            return self.first + share * (self.last - self.first)
        return float(self.first * (self.last / self.first) ** share)


def parse_schedule(text: str, where: str = "schedule") -> Schedule:
    """Read ``"geometric:FIRST:LAST[:STEPS]"``, ``"linear:..."`` or ``"fixed:VALUE"``.

    Raises
    ------
    OptionError
        Where it is no schedule.
    """
    shape, *numbers = text.split(":")
    try:
        values = [float(n) for n in numbers]
        if shape == "fixed" and len(values) == 1:
            return Schedule(shape, values[0], values[0])
        if len(values) not in (2, 3):
            raise ValueError
        return Schedule(shape, values[0], values[1], int(values[2]) if len(values) == 3 else 0)
    except ValueError as error:
        if isinstance(error, OptionError):
            raise error.within(where) from None
        raise OptionError(
            "is not a schedule", where=where, value=text, hint="geometric:4:2, linear:4:2:6 or fixed:0.01"
        ) from None
