"""Two costs against each other at fixed bounds: exact points of the surface between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from impq_opt.errors import OptionError
from impq_opt.insight.cost_at import cost_at
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve_in_passing

__all__ = ["TradeoffPoint", "tradeoff"]


@dataclass(frozen=True)
class TradeoffPoint:
    """One answer: the least first cost under a budget on the second.

    Parameters
    ----------
    bound : Fraction, optional
        Limit on damage.
    budget : Fraction, optional
        Limit on the second cost; None where there was none.
    first, second : Fraction
        What the answer costs, exactly, each in its unit.
    allocation : Allocation
        Its status says whether the first cost is proved least.
    """

    bound: Fraction | None
    budget: Fraction | None
    first: Fraction
    second: Fraction
    allocation: Allocation


def tradeoff(
    problem: Problem,
    against: str,
    *,
    minimize: str | None = None,
    bounds: Sequence[float | Fraction] = (),
    points: int = 9,
    time_limit: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TradeoffPoint, ...]:
    """Return exact points between two costs at each bound, those that another point beats in both left out.

    The ends are the least ``against`` and the least ``minimize``; between them ``against`` gets evenly spaced budgets
    (the epsilon-constraint method, Haimes et al. 1971), so that points in the dents of the frontier are found too.

    Parameters
    ----------
    problem : Problem
    against : str
        The cost that gets the budgets.
    minimize : str, optional
        The cost that is minimised; the problem's objective where it is a single cost.
    bounds : sequence of float or Fraction
        Bounds on damage; the problem's own where left out.
    points : int
        Budgets at each bound, ends included.
    time_limit : float, optional
        Seconds for each point.
    progress : callable, optional
        Told how many points are done, of how many.

    Returns
    -------
    tuple of TradeoffPoint
        By bound as given, then by falling first cost.

    Raises
    ------
    OptionError
        For less than two points, or other than two single costs.
    """
    if points < 2:
        raise OptionError("must be at least 2", where="points", value=points)
    if minimize is None:
        if len(problem.objective) != 1:
            raise OptionError("needs the name of one cost", where="minimize", hint="for example bit-operations")
        minimize = next(iter(problem.objective))
    if minimize == against:
        raise OptionError("must be two different costs", where="against", value=against)
    problem.cost(against)
    levels: Sequence[float | Fraction | None] = tuple(bounds) or (None,)
    frontier: list[TradeoffPoint] = []
    for number, bound in enumerate(levels):
        told = _counter(progress, number * (points + 1), len(levels) * (points + 1))
        frontier += _undominated(_sweep(problem, minimize, against, bound, points, time_limit, told))
    return tuple(frontier)


def _counter(progress: Callable[[int, int], None] | None, start: int, total: int) -> Callable[[], None]:
    done = [start]

    def told() -> None:
        done[0] += 1
        if progress is not None:
            progress(done[0], total)

    return told


def _sweep(
    problem: Problem,
    minimize: str,
    against: str,
    bound: float | Fraction | None,
    points: int,
    time_limit: float | None,
    told: Callable[[], None],
) -> list[TradeoffPoint]:
    def at(budget: Fraction | None) -> TradeoffPoint | None:
        asked = problem if budget is None else problem.revise(budgets={against: budget})
        answer = solve_in_passing(asked, bound=bound, minimize=minimize, time_limit=time_limit)
        told()
        return _point(problem, answer, minimize, against, budget)

    # A budget of zero is no budget: the least of the second cost comes from minimizing it.
    least = solve_in_passing(problem, bound=bound, minimize=against, time_limit=time_limit)
    told()
    free = at(None)
    if least.choice is None or least.exact_cost is None or free is None:
        return []
    low, high = least.exact_cost, free.second
    step = (high - low) / (points - 1)
    budgets = [low + step * number for number in range(points - 1)] if high > low else [low]
    return [free, *(point for budget in budgets if budget > 0 and (point := at(budget)) is not None)]


def _point(
    problem: Problem, answer: Allocation, minimize: str, against: str, budget: Fraction | None
) -> TradeoffPoint | None:
    if answer.choice is None or answer.status not in (Status.OPTIMAL, Status.FEASIBLE):
        return None
    first, second = (cost_at(problem, answer.bits, name) for name in (minimize, against))
    return TradeoffPoint(answer.bound, budget, first, second, answer)


def _undominated(points: list[TradeoffPoint]) -> list[TradeoffPoint]:
    kept: list[TradeoffPoint] = []
    for point in sorted(points, key=lambda p: (p.second, p.first)):
        if not kept or point.first < kept[-1].first:
            kept.append(point)
    return kept
