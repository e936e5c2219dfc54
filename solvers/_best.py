"""The best of several allocations that keep the limits."""

from __future__ import annotations

from collections.abc import Iterable

from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.instance import Instance
from impq_opt.instance.row import Value
from impq_opt.problem.allocation import Stop
from impq_opt.types import IntArray

__all__ = ["Incumbent", "best_feasible"]


class Incumbent:
    """The best choice (size,) so far that keeps all limits of an instance, decided exactly, and its objective."""

    choice: IntArray | None = None
    value: Value | None = None

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def offer(self, choice: IntArray) -> bool:
        """Keep the choice if it keeps the limits and is better than the best so far; return whether it keeps them."""
        if not self.instance.is_feasible(choice):
            return False
        value = self.instance.objective_of(choice)
        if self.value is None or value < self.value:
            self.choice, self.value = choice.copy(), value
        return True


def best_feasible(instance: Instance, choices: Iterable[IntArray], control: Control) -> Claim:
    """Return the first of the best ``choices`` (size,) that keep all limits, decided exactly, as far as time goes."""
    best = Incumbent(instance)
    for choice in choices:
        best.offer(choice)
        if control.expired():
            return Claim(best.choice, stop=Stop.TIME_LIMIT)
    return Claim(best.choice)
