"""What decides precisions from round to round: a policy, what it is told, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["Choice", "Policy", "Trial", "Turn"]


class Trial(Protocol):
    """Trying precisions out on the network."""

    def __call__(self, columns: IntArray, epochs: int = 1) -> float:
        """Return the validation accuracy of the network at ``columns`` (G,) after so many epochs of fine-tuning.

        Every trial starts from the present network. What a trial gave is kept: a run that was stopped asks the policy
        again, and is answered from what is kept, so trials must be asked in an order that follows from their results.
        """
        ...


def _no_trial(columns: IntArray, epochs: int = 1) -> float:
    raise OptionError("needs a network to try precisions on, and none is there", where="policy")


@dataclass(frozen=True, eq=False)
class Turn:
    """A round as a policy sees it.

    Parameters
    ----------
    problem : Problem
        As measured in this round; activations of a fixed precision are pinned.
    columns : ndarray of int64 (G,)
        Present precisions, as columns of each group's candidates.
    number, rounds : int
        This round, from 1, and how many there are.
    seed : int
        Of whatever the policy draws.
    magnitudes : ndarray of float64 (G,)
        Mean absolute weight of each weight group as it is now, in its present precision; 1 for activations.
    memory : mapping
        What the policy wished to remember in the round before; empty in the first.
    trial : Trial
    """

    problem: Problem
    columns: IntArray
    number: int = 1
    rounds: int = 1
    seed: int = 0
    magnitudes: FloatArray = field(default_factory=lambda: np.ones(0))
    memory: Mapping[str, Any] = field(default_factory=dict)
    trial: Trial = _no_trial

    def __post_init__(self) -> None:
        if not len(self.magnitudes):
            object.__setattr__(self, "magnitudes", np.ones(len(self.problem)))


@dataclass(frozen=True, eq=False)
class Choice:
    """What a policy answers.

    Parameters
    ----------
    columns : ndarray of int64 (G,)
        Column of the candidate that each group gets. Pins keep theirs, and tied groups take one precision.
    answer : Allocation, optional
        What a solver said, of which its status, limits and gap are recorded.
    memory : mapping
        Plain values (numbers, strings, lists, mappings of them) for the next round.
    done : str
        Why no later round could change anything; the run ends after this one.
    """

    columns: IntArray
    answer: Allocation | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)
    done: str = ""


@dataclass(frozen=True)
class Policy(ABC):
    """Who gets which precision in a round.

    Subclasses are frozen dataclasses: their fields are the options, plain values, checked when built, and named unlike
    the other settings of rounds. They keep nothing else between calls. :func:`impq_opt.testing.check_policy` holds a
    policy to what is said here.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    @property
    def falls(self) -> bool:
        """Whether no group's precision ever rises."""
        return False

    @abstractmethod
    def choose(self, turn: Turn) -> Choice:
        """Return the precisions of a round: the same for the same turn, drawn with its seed alone.

        Raises
        ------
        OptionError
            There are none, or the policy cannot take such a problem.
        """
