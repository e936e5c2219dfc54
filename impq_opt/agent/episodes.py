"""HAQ's search: episodes of an agent that proposes precisions layer by layer, brought within the budget by the walk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from impq_opt.agent.ddpg import Agent, Settings, one_thread
from impq_opt.agent.units import Units
from impq_opt.errors import OptionError
from impq_opt.instance.question import make_instance
from impq_opt.problem.problem import Problem
from impq_opt.types import BoolArray, FloatArray, IntArray, Real

__all__ = ["Found", "explore", "reward", "search"]

# The evaluation of what no walk brings within the limits: an accuracy of 0 %, counted from one of 100 %.
_OUTSIDE = -100.0


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Parameters
    ----------
    choice : ndarray of int64, optional
        Of the largest reward, the first of equals, among those that keep all limits; None where none does.
    rewards : ndarray of float64 (episodes,)
    held : ndarray of bool (episodes,)
        Whether the limits held after the walk.
    evaluated : int
        How many choices were evaluated: one that comes again is not evaluated again.
    """

    choice: IntArray | None
    rewards: FloatArray
    held: BoolArray
    evaluated: int

    @property
    def reward(self) -> float:
        """The largest reward within the limits; -inf where there is none."""
        return float(self.rewards[self.held].max(initial=-np.inf))


def reward(evaluation: float, of_float: float) -> float:
    """Return the reward 0.1 (evaluation - evaluation of the float network), accuracies in percent (section 3.4)."""
    return 0.1 * (evaluation - of_float)


def search(
    problem: Problem,
    evaluate: Callable[[IntArray], float],
    *,
    of_float: float | None = None,
    budget: str | Real | None = None,
    minimize: str | Mapping[str, float] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
) -> Found:
    """Return the best precisions within the budgets that HAQ's agent finds, by an evaluation of one's own.

    Parameters
    ----------
    problem : Problem
        Its groups, candidates, pins, ties and costs; its ``budgets`` hold. Its damages are not looked at.
    evaluate : callable
        From columns (G,) of candidates to what is to be large: the paper's is the validation accuracy, in percent,
        after an epoch of fine-tuning. The same columns are evaluated once.
    of_float : float, optional
        The evaluation of the float network, from which rewards count; where left out, that of the most bits everywhere,
        which is evaluated first.
    budget, minimize
        A budget, and the cost that it is on, beside the problem's, as for :func:`impq_opt.solve`. The problem's
        bound is not used.
    settings : Settings, optional
    seed : int

    Returns
    -------
    Found
        Its ``choice`` are columns (G,).

    Raises
    ------
    OptionError
        Where there is no budget, no such cost, or nothing within the budgets.
    """
    instance = make_instance(dataclasses.replace(problem, bound=None), budget=budget, minimize=minimize)
    nothing = np.zeros(0, dtype=np.int64)
    units = Units(instance) if instance.size else None
    if not (instance.is_feasible(nothing) if units is None else units.within([0] * len(units)).holds):
        raise OptionError("is broken at the least bits of every group", where="budget", value=budget)
    if units is None:
        return Found(instance.lift(nothing), np.zeros(0), np.zeros(0, dtype=bool), 0)
    found = explore(
        units, lambda choice: evaluate(instance.lift(choice)), of_float=of_float, settings=settings, seed=seed
    )
    return dataclasses.replace(found, choice=None if found.choice is None else instance.lift(found.choice))


def explore(
    units: Units,
    evaluate: Callable[[IntArray], float],
    *,
    of_float: float | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Found:
    """Return what :func:`search` does of an instance: choices are (size,).

    ``check`` is called before each step, and ends the search by raising.
    """
    settings = settings or Settings()
    agent = Agent(units.observations.shape[1] + 1, len(units), settings, seed)
    rewards, held = np.zeros(settings.episodes), np.zeros(settings.episodes, dtype=bool)
    known: dict[tuple[int, ...], float] = {}
    best, choice = -np.inf, None
    if of_float is None:
        of_float = evaluate(units.choice(units.widths - 1))
    for episode in range(settings.episodes):
        check()
        with one_thread():
            states, actions, levels = _proposed(units, agent, episode - settings.warm_up)
        walked = units.within(levels)
        if walked.levels not in known:
            chosen = units.choice(walked.levels)
            known[walked.levels] = evaluate(chosen) if walked.holds else _OUTSIDE + of_float
        rewards[episode], held[episode] = reward(known[walked.levels], of_float), walked.holds
        if walked.holds and rewards[episode] > best:
            best, choice = rewards[episode], units.choice(walked.levels)
        agent.remember(states, actions, rewards[episode])
        if episode >= settings.warm_up:
            with one_thread():
                for _ in range(len(units)):
                    check()
                    agent.learn()
    return Found(choice, rewards, held, len(known))


def _proposed(units: Units, agent: Agent, after: int) -> tuple[FloatArray, FloatArray, list[int]]:
    """Return states (U, S), actions (U,) and levels of an episode, so many ``after`` the warm-up; before it if below 0.

    A state is what is observed of the unit, and the precision of the step before as a share of its levels. Each level
    has an equal share of the actions, so that candidates 2..8 are round(1.5 + 7 action), as in the paper.
    """
    states = np.column_stack([units.observations, np.ones(len(units))])
    actions = np.zeros(len(units))
    levels: list[int] = []
    for unit, width in enumerate(units.widths.tolist()):
        if unit:
            states[unit, -1] = (levels[-1] + 1) / units.widths[unit - 1]
        actions[unit] = agent.draw() if after < 0 else agent.act(states[unit], after)
        levels.append(min(int(actions[unit] * width), width - 1))
    return states, actions, levels
