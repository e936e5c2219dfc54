"""HAQ's agent as a strategy: precisions layer by layer by reinforcement learning, brought within the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Claim, Control, ExpiredError, Solver
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Stop
from impq_opt.solvers._best import Incumbent
from impq_opt.types import IntArray

__all__ = ["Haq"]


@dataclass(frozen=True)
class Haq(Solver):
    """Reinforcement learning by HAQ's agent (Wang et al. 2019), with what is minimised as its reward.

    The agent goes through the network layer by layer, two steps a layer: the weights, then the activation that they
    read. The groups of a layer take one precision, of all that the problem allows. What breaks a budget loses bits in
    sweeps from the last layer, as in the paper; what breaks a bound on damage, of which the paper has none, gets bits
    in sweeps from the last layer. Prefer it to see what a search without a model finds: it needs torch, runs for
    minutes, and proves nothing. The seed decides the answer, on one kind of processor and one version of torch.

    Parameters
    ----------
    episodes : int
        Allocations that are tried.
    warm_up : int
        Those at the beginning that are drawn.

    Raises
    ------
    OptionError
        For no episodes.
    MissingPackageError
        When run without torch.
    """

    name: ClassVar[str] = "haq"
    summary: ClassVar[str] = "reinforcement learning layer by layer, brought within the limits (HAQ); needs torch"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs", "peaks"})
    slow: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    episodes: int = 600
    warm_up: int = 20

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise OptionError("must be at least 1", where="haq.episodes", value=self.episodes)
        if self.warm_up < 0:
            raise OptionError("must not be negative", where="haq.warm_up", value=self.warm_up)

    def run(self, instance: Instance, control: Control) -> Claim:
        from impq_opt.agent import Settings, Units, explore

        best, units = Incumbent(instance), Units(instance)
        if control.warm_start is not None:
            best.offer(control.warm_start)
        settings = Settings(episodes=self.episodes, warm_up=self.warm_up)
        score = _Score(instance, units.choice(np.zeros(len(units), dtype=np.int64)), best)
        try:
            found = explore(units, score, of_float=0.0, settings=settings, seed=control.seed, check=control.check)
        except ExpiredError:
            return Claim(best.choice, stop=Stop.TIME_LIMIT, statistics={"evaluated": score.count})
        told = {"evaluated": found.evaluated, "best episode": int(found.rewards.argmax())}
        return Claim(best.choice, statistics=told)


class _Score:
    """Minus what is minimised, counted from 0 for damage and from the least bits for costs; the first answer has -10.

    What is minimised spans decades from problem to problem, and rewards should not.
    """

    def __init__(self, instance: Instance, least: IntArray, best: Incumbent) -> None:
        self._instance, self._best, self.count = instance, best, 0
        self._base = instance.objective_of(least) if instance.objective.whole else 0
        self._unit = 0.0

    def __call__(self, choice: IntArray) -> float:
        self.count += 1
        self._best.offer(choice)
        value = nearest_float(self._instance.objective_of(choice) - self._base)
        if not self._unit:
            self._unit = abs(value) or 1.0
        return max(-100.0, min(100.0, -10 * value / self._unit)) if abs(value) < np.inf else -100.0
