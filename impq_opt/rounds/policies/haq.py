"""HAQ: an agent proposes precisions layer by layer, and learns from the accuracy after a trial epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from impq_opt.errors import OptionError
from impq_opt.rounds.policy import Choice, Policy, Turn
from impq_opt.rounds.precisions import cost_of_uniform
from impq_opt.rounds.schedule import Schedule

__all__ = ["Haq"]


@dataclass(frozen=True)
class Haq(Policy):
    """Reinforcement learning (Wang, Liu, Lin, Lin and Han, CVPR 2019), as :func:`impq_opt.agent.search`.

    An episode is a trial: the network is fine-tuned at the precisions that the agent proposes, and its validation
    accuracy is the reward, counted from a trial at the most bits everywhere. The first round with a budget searches;
    later ones with the same budget keep what it found, and only train. All groups of a layer take one precision.

    Parameters
    ----------
    minimize : str
        Cost that ``budget`` is on.
    budget : Schedule, optional
        As in ``by-solver``: bits of a uniform network, whose cost is the budget.
    budgets : mapping of str to size
        Further budgets, or these alone: cost to a number of its unit or a text such as ``"512KiB"``.
    episodes, warm_up_episodes : int
        Trials, and those among them that are drawn at the beginning. A choice that comes again is not tried again.
    trial_epochs : int
        Epochs of fine-tuning in a trial.
    """

    name: ClassVar[str] = "haq"
    summary: ClassVar[str] = "reinforcement learning by trials, layer by layer (HAQ)"

    minimize: str = "storage"
    budget: Schedule | None = None
    budgets: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 600
    warm_up_episodes: int = 20
    trial_epochs: int = 1

    def __post_init__(self) -> None:
        if self.budget is None and not self.budgets:
            raise OptionError(
                "'haq' needs a schedule of budgets, or budgets",
                where="rounds",
                hint="for example --bits-schedule fixed:4",
            )
        for name, least in (("episodes", 1), ("warm_up_episodes", 0), ("trial_epochs", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"must be at least {least}", where=f"rounds.{name}", value=getattr(self, name))

    def choose(self, turn: Turn) -> Choice:
        """Return the precisions of the largest reward.

        Raises
        ------
        OptionError
            Where nothing is within the budgets.
        MissingPackageError
            Without torch.
        """
        from impq_opt.agent import Settings, search

        bits = None if self.budget is None else self.budget.at(turn.number, turn.rounds)
        stays = all(turn.columns[group] == column for group, column in turn.problem.pins.items())
        if stays and "bits" in turn.memory and turn.memory["bits"] == bits:
            return Choice(turn.columns.copy(), memory=turn.memory)
        found = search(
            turn.problem.revise(budgets=self.budgets),
            lambda columns: 100 * turn.trial(columns, self.trial_epochs),
            budget=None if bits is None else cost_of_uniform(turn.problem, self.minimize, bits),
            minimize=self.minimize if bits is not None else None,
            settings=Settings(episodes=self.episodes, warm_up=self.warm_up_episodes),
            seed=turn.seed,
        )
        if found.choice is None:
            raise OptionError("no allocation within the budget", where=f"round {turn.number}", hint="a larger budget")
        return Choice(found.choice, memory={"bits": bits, "reward": found.reward, "evaluated": found.evaluated})
