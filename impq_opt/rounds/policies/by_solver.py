"""Any strategy of :func:`impq_opt.solve`, asked anew in every round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from impq_opt.errors import OptionError
from impq_opt.rounds.policy import Choice, Policy, Turn
from impq_opt.rounds.precisions import cost_of_uniform, not_above
from impq_opt.rounds.schedule import Schedule
from impq_opt.solve import solve_in_passing
from impq_opt.solvers import make_solver

__all__ = ["BySolver"]


@dataclass(frozen=True)
class BySolver(Policy):
    """Ask a strategy for the least damage within a budget, or the least cost within a bound, that change by round.

    Parameters
    ----------
    solver : str
        A strategy of :func:`impq_opt.solve`.
    options : mapping
        Its options.
    minimize : str
        The cost that is budgeted or minimised.
    budget : Schedule, optional
        What a round may cost, as the bits of a uniform network that costs so much (between whole bits, on the line that
        joins them); for storage these are the effective weight bits. The strategy looks for the least damage within it.
    bound : Schedule, optional
        Damage that a round may do: the strategy looks for the least cost within it. Give one of the two.
    monotone : bool
        Bits never go up again.
    """

    name: ClassVar[str] = "by-solver"
    summary: ClassVar[str] = "a strategy of `solve` within each round's budget or bound"

    solver: str = "exact"
    options: Mapping[str, Any] = field(default_factory=dict)
    minimize: str = "storage"
    budget: Schedule | None = None
    bound: Schedule | None = None
    monotone: bool = False

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.bound is None):
            raise OptionError(
                "a strategy needs either a schedule of budgets or of bounds",
                where="rounds",
                value=self.solver,
                hint="for example --bits-schedule geometric:3.5:2 or --bound-schedule geometric:0.01:10",
            )
        strategy = make_solver(self.solver, **self.options)
        if self.budget is not None and "damage" not in strategy.supports:
            raise OptionError(
                "does not look for the least damage under a budget", where="rounds.strategy", value=self.solver
            )

    @property
    def falls(self) -> bool:
        """Bits never rise where they are monotone."""
        return self.monotone

    def choose(self, turn: Turn) -> Choice:
        """Return the strategy's answer.

        Raises
        ------
        OptionError
            Where nothing is feasible, or the solver gave no answer.
        """
        problem, limits = turn.problem, self._limits(turn)
        if self.monotone:  # after the budget, which is a share of what all candidates would cost
            problem = not_above(problem, turn.columns)
        answer = solve_in_passing(
            problem, solver=self.solver, minimize=self.minimize, seed=turn.seed, **limits, **self.options
        )
        if answer.choice is None:
            raise OptionError(
                f"no allocation: {answer.diagnosis or answer.status.value}",
                where=f"round {turn.number}",
                hint="a gentler schedule, or more candidates",
            )
        return Choice(answer.choice, answer)

    def _limits(self, turn: Turn) -> dict[str, Any]:
        if self.budget is not None:
            bits = self.budget.at(turn.number, turn.rounds)
            return {"budget": cost_of_uniform(turn.problem, self.minimize, bits)}
        assert self.bound is not None
        return {"bound": self.bound.at(turn.number, turn.rounds)}
