"""Every strategy on every shipped problem: exactly feasible, and no bound above an answer."""

from __future__ import annotations

from fractions import Fraction

import pytest
from quick import QUICK

from impq_opt import Status, problems, solve, verify
from impq_opt.errors import UnsupportedError

# On thousands of groups these run for minutes: native code heeds no time limit, and the paper's walk is long.
SLOW = ("milp", "ilp", "iterative")
BOUNDS = (0.5, 0.05)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("name", problems.names())
def test_no_bound_is_above_an_answer(name: str, bound: float) -> None:
    problem = problems.load(name)
    best, exact = None, None
    highest: float | Fraction = -float("inf")
    for solver in QUICK:
        if (solver in SLOW and len(problem) > 1000) or (solver in SLOW[:2] and len(problem) > 100):
            continue
        try:
            found = solve(problem, bound=bound, solver=solver)
        except UnsupportedError as error:
            assert solver in str(error)
            continue
        highest = max(highest, found.exact_lower_bound)
        if found.choice is None:
            assert found.status in (Status.UNKNOWN, Status.INFEASIBLE)
            continue
        assert found.exact_damage is not None and found.exact_damage <= Fraction(bound)
        assert found.exact_cost is not None
        best = found.exact_cost if best is None else min(best, found.exact_cost)
        exact = found if solver == "exact" else exact
    if exact is None:
        assert best is None  # out of reach of this problem, and nobody found an answer
        return
    assert exact.status is Status.OPTIMAL
    assert best == exact.exact_cost
    assert best is not None and highest <= best


@pytest.mark.parametrize("name", [n for n in problems.names() if "synthetic" not in n])
def test_shipped_problems_say_where_they_come_from(name: str) -> None:
    provenance = problems.load(name).provenance
    for key in ("command", "data", "samples", "seed", "network"):
        assert provenance.get(key) is not None, key


def test_the_default_answer_is_proved_again_from_nothing() -> None:
    problem = problems.load(problems.DEFAULT)
    assert verify(problem, solve(problem, bound=0.01)).proved
