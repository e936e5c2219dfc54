"""Deep deterministic policy gradient (Lillicrap et al. 2016) with what HAQ's authors changed in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch.nn import functional

from impq_opt.errors import OptionError
from impq_opt.types import FloatArray

__all__ = ["Agent", "Settings", "one_thread"]


@dataclass(frozen=True)
class Settings:
    """Of the search and of its agent; the defaults are those of HAQ's authors.

    Parameters
    ----------
    episodes : int
    warm_up : int
        Episodes at the beginning that draw their actions uniformly, and teach the agent nothing yet.
    hidden : int
        Neurons of each of two hidden layers, of actor and critic.
    actor_rate, critic_rate : float
        Of Adam.
    tau : float
        How far the target networks follow in a step.
    noise, decay : float
        Standard deviation of the truncated normal noise of actions after the warm-up, and its factor an episode.
    batch : int
        Transitions of a step of learning; there is one step for each transition of an episode.
    memory : int
        Episodes whose transitions are kept.

    Raises
    ------
    OptionError
        For numbers that cannot be.
    """

    episodes: int = 600
    warm_up: int = 20
    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    noise: float = 0.5
    decay: float = 0.99
    batch: int = 64
    memory: int = 128

    def __post_init__(self) -> None:
        for name in ("episodes", "hidden", "batch", "memory"):
            if getattr(self, name) < 1:
                raise OptionError("must be at least 1", where=name, value=getattr(self, name))
        if self.warm_up < 0:
            raise OptionError("must not be negative", where="warm_up", value=self.warm_up)
        for name in ("actor_rate", "critic_rate", "tau", "noise", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionError("must be above 0 and at most 1", where=name, value=getattr(self, name))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: quicker for networks as small as these, and sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Weights and biases, layer after layer; modules would take as long again as the arithmetic of networks of this size.
Parameters = list[torch.Tensor]


def _drawn(shapes: Sequence[tuple[int, int]], generator: torch.Generator) -> Parameters:
    """Return parameters of layers of (inputs, outputs), drawn as those of ``torch.nn.Linear`` are."""
    found = []
    for inputs, outputs in shapes:
        for shape in ((outputs, inputs), (outputs,)):
            drawn = torch.rand(shape, generator=generator).sub_(0.5).mul_(2 / inputs**0.5)
            found.append(drawn.requires_grad_())
    return found


def _action(actor: Parameters, states: torch.Tensor) -> torch.Tensor:
    """Return an action (n, 1), between 0 and 1, for each state (n, S)."""
    first, first_bias, inner, inner_bias, last, last_bias = actor
    hidden = functional.linear(states, first, first_bias).relu()
    hidden = functional.linear(hidden, inner, inner_bias).relu()
    return functional.linear(hidden, last, last_bias).sigmoid()


def _value(critic: Parameters, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return the value (n, 1) of an action (n, 1) in each state (n, S)."""
    state, state_bias, action, action_bias, *inner = critic
    hidden = functional.linear(states, state, state_bias) + functional.linear(actions, action, action_bias)
    hidden = functional.linear(hidden.relu(), inner[0], inner[1]).relu()
    return functional.linear(hidden, inner[2], inner[3])


class Agent:
    """An actor that proposes and a critic that values, with target networks and a memory of transitions.

    Every transition of an episode gets the episode's reward, without discount; from the rewards of a batch a moving
    average of such means is taken off (section 3.5 of the paper). Torch's global generator is not touched.

    Parameters
    ----------
    states : int
        Length S of a state.
    steps : int
        Transitions of an episode.
    settings : Settings
    seed : int
    """

    def __init__(self, states: int, steps: int, settings: Settings, seed: int) -> None:
        self.settings, self._random = settings, np.random.default_rng(seed)
        generator, hidden = torch.Generator().manual_seed(int(self._random.integers(1 << 62))), settings.hidden
        self._actor = _drawn([(states, hidden), (hidden, hidden), (hidden, 1)], generator)
        self._critic = _drawn([(states, hidden), (1, hidden), (hidden, hidden), (hidden, 1)], generator)
        self._parameters = [*self._actor, *self._critic]
        targets = [parameter.detach().clone() for parameter in self._parameters]
        self._targets, self._slow = targets, (targets[: len(self._actor)], targets[len(self._actor) :])
        self._of_actor = torch.optim.Adam(self._actor, settings.actor_rate, fused=True)
        self._of_critic = torch.optim.Adam(self._critic, settings.critic_rate, fused=True)
        room = settings.memory * steps
        self._states, self._next = torch.zeros(room, states), torch.zeros(room, states)
        # Action, reward, and whether another step follows.
        self._rest = torch.zeros(room, 3)
        self._kept, self._average = 0, None

    def draw(self) -> float:
        """Return an action of the warm-up."""
        return float(self._random.uniform())

    def act(self, state: FloatArray, episodes: int) -> float:
        """Return the action, between 0 and 1, in a state (S,), with the noise of so many episodes after the warm-up."""
        with torch.no_grad():
            mean = float(_action(self._actor, torch.as_tensor(state[None], dtype=torch.float32)))
        spread = self.settings.noise * self.settings.decay**episodes
        low, high = ndtr((0 - mean) / spread), ndtr((1 - mean) / spread)
        return float(np.clip(mean + spread * ndtri(self._random.uniform(low, high)), 0, 1))

    def remember(self, states: FloatArray, actions: FloatArray, reward: float) -> None:
        """Keep an episode: the states (T, S) of its steps, its actions (T,), and its reward."""
        now = torch.as_tensor(states, dtype=torch.float32)
        count = len(now)
        places = (self._kept + torch.arange(count)) % len(self._states)
        self._states[places], self._next[places] = now, now.roll(-1, 0)
        self._rest[places, 0] = torch.as_tensor(actions, dtype=torch.float32)
        self._rest[places, 1] = reward
        self._rest[places, 2] = (torch.arange(count) < count - 1).float()
        self._kept += count

    def learn(self) -> None:
        """Make one step of learning, critic first."""
        drawn = self._random.integers(min(self._kept, len(self._states)), size=self.settings.batch)
        rows = torch.as_tensor(drawn)
        states, following = self._states[rows], self._next[rows]
        action, reward, goes_on = self._rest[rows].split(1, dim=1)
        mean = reward.mean()
        self._average = mean if self._average is None else self._average + 0.5 * (mean - self._average)
        actor, critic = self._slow
        with torch.no_grad():
            target = reward - self._average + goes_on * _value(critic, following, _action(actor, following))
        error = functional.mse_loss(_value(self._critic, states, action), target)
        _step(self._of_critic, self._critic, error)
        _step(self._of_actor, self._actor, -_value(self._critic, states, _action(self._actor, states)).mean())
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._parameters, self.settings.tau)


def _step(optimizer: torch.optim.Optimizer, parameters: Parameters, loss: torch.Tensor) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
