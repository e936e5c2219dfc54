"""The paper's iterative heuristic without its retraining: one bit off the least sensitive groups at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Stop
from impq_opt.solvers._best import Incumbent
from impq_opt.types import FloatArray, IntArray

__all__ = ["Iterative"]


@dataclass(frozen=True)
class Iterative(Solver):
    """Walk down from the highest precision by the paper's ordering and keep the best feasible point of the trail.

    Sensitivities stay as measured: the trail with retraining is ``impq_opt.rounds``.

    Parameters
    ----------
    variant : {"paper", "authors-code"}
        ``paper``: the metric is the damage at the present precision, Delta^2 E; weights and activations are ranked
        together; exactly N groups lose a step. ``authors-code``: mean_h(E_h) range 2^-B for weights and
        sum_h(E_h) range 2^-B for activations (first power of the step; the range stands in for mean abs(w),
        which a problem lacks), weights and activations in turn, and every group at or under the N-th smallest
        value loses a step, so N + 1 and ties.
    share : float
        N as a share of the groups that can still lose a step, in the first iterations.
    halve_every : int
        Iterations after which N is halved (8 on the slides).

    Raises
    ------
    OptionError
        For another variant, a share outside (0, 1], or halving before any iteration.
    """

    name: ClassVar[str] = "iterative"
    summary: ClassVar[str] = "the paper's ordering: one bit off the least sensitive groups, without retraining"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets"})

    variant: str = "paper"
    share: float = 0.1
    halve_every: int = 8

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "authors-code"):
            raise OptionError("must be 'paper' or 'authors-code'", where="iterative.variant", value=self.variant)
        if not 0 < self.share <= 1:
            raise OptionError("must be in (0, 1]", where="iterative.share", value=self.share)
        if self.halve_every < 1:
            raise OptionError("must be at least 1", where="iterative.halve_every", value=self.halve_every)

    def run(self, instance: Instance, control: Control) -> Claim:
        best, length, stop = Incumbent(instance), 0, Stop.COMPLETED
        for choice in self._trail(instance):
            length += 1
            fits = best.offer(choice)
            # Costs fall along the trail as long as it keeps the limits, and damages rise.
            if best.choice is not None and not (fits and instance.objective.whole):
                break
            if control.expired():
                stop = Stop.TIME_LIMIT
                break
        return Claim(best.choice, stop=stop, statistics={"iterations": length})

    def _trail(self, instance: Instance) -> Iterator[IntArray]:
        """Yield the allocations of the walk, from the most precise down."""
        rows = np.arange(instance.size)
        position = instance.widths - 1
        passes = self._passes(instance)
        metric = self._metric(instance)
        count = max(1, int(self.share * instance.size))
        iteration = 0
        ascending = _valid_order(instance)
        while True:
            yield ascending[rows, position]
            moved = False
            for members in passes:
                able = members[position[members] > 0]
                if len(able) == 0:
                    continue
                values = metric[able, ascending[able, position[able]]]
                number = min(count, len(able))
                if self.variant == "paper":
                    chosen = able[np.argsort(values, kind="stable")[:number]]
                else:
                    threshold = np.sort(values)[min(number, len(able) - 1)]
                    chosen = able[values <= threshold]
                position[chosen] -= 1
                moved = True
            if not moved:
                return
            iteration += 1
            if iteration % self.halve_every == 0:
                count = max(1, count // 2)

    def _passes(self, instance: Instance) -> list[IntArray]:
        everyone = np.arange(instance.size)
        kinds = instance.problem.kinds
        if self.variant == "paper" or kinds is None:
            return [everyone]
        own = kinds[instance.representatives]
        return [everyone[own == kind] for kind in (0, 1) if (own == kind).any()]

    def _metric(self, instance: Instance) -> FloatArray:
        """Return the ranking value (size, K) of each group at each candidate."""
        damage = instance.tables[1]
        if self.variant == "paper":
            return damage
        problem, groups = instance.problem, instance.representatives
        step = np.exp2(-instance.bits)
        # damage / step^2 is E; E / range^2 is the sum of second moments, times range is one power of the step.
        spans = np.ones(len(groups)) if problem.ranges is None else problem.ranges[groups]
        spans = np.where(np.isfinite(spans) & (spans > 0), spans, 1.0)
        moments = damage / step / spans[:, None]
        weights = problem.weights()[groups]
        return np.where(weights[:, None], moments / problem.sizes[groups][:, None], moments)


def _valid_order(instance: Instance) -> IntArray:
    """Return each group's candidates (size, K) from the least to the most precise; unused past its width."""
    bits = instance.bits.copy()
    bits[np.arange(bits.shape[1]) >= instance.widths[:, None]] = np.inf
    return np.argsort(bits, axis=1, kind="stable")
