"""Random graphs, pins, ties, candidate sets and budgets: the exact strategy against looking at everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from known import known

from impq_opt import Group, Problem, Status, solve
from impq_opt.errors import ProblemError
from impq_opt.instance.cost_row import budget_rows
from impq_opt.judge.verify import verify
from impq_opt.solvers.exact.strategy import Exact
from impq_opt.solvers.exact.tuning import Tuning

COSTS = ("storage", "bit-operations", "adders", "slides", "representational", "activation-memory")
SETS = ((2, 4), (1, 2, 3), (2, 4.25, 8), (3, 8))


def random_problem(seed: int) -> Problem:
    random = np.random.default_rng(seed)
    activations = [f"a{i}" for i in range(random.integers(1, 4))]
    weights = [f"w{i}" for i in range(random.integers(1, 5))]
    sets = [SETS[i] for i in random.permutation(len(SETS))[: random.integers(1, 3)]]

    def bits() -> Any:
        return sets[random.integers(len(sets))]

    groups = [
        Group(
            a,
            int(random.integers(1, 99)),
            float(10 ** random.uniform(-3, 0)),
            bits=bits(),
            kind="activation",
            steps=(i, i + 1),
        )
        for i, a in enumerate(activations)
    ]
    for name in weights:
        length = int(random.integers(1, 9))
        reads = activations[random.integers(len(activations))] if random.random() < 0.9 else ""
        more = [(a, length * int(random.integers(1, 9))) for a in activations if a != reads and random.random() < 0.25]
        groups.append(
            Group(
                name,
                length * int(random.integers(1, 9)),
                float(10 ** random.uniform(-3, 0)),
                bits=bits(),
                reads=reads,
                also_reads=more,
                length=length,
                macs=length * int(random.integers(1, 20)),
            )
        )
    problem = Problem.declare(groups)
    names = activations + weights
    if random.random() < 0.4 and len(names) > 2:
        problem = problem.revise(ties=[[str(n) for n in random.permutation(names)[:2]]])
    if random.random() < 0.4:
        name = names[random.integers(len(names))]
        problem = problem.revise(pins={name: problem.candidates.of(problem.names.index_of(name))[0]})
    return problem


def case(seed: int) -> Any:
    """Return a problem and its goals; None where the draw is no problem."""
    random = np.random.default_rng([seed, 1])
    try:
        problem = random_problem(seed)
    except ProblemError:
        return None
    costs = random.permutation(COSTS).tolist()
    minimize = {costs[0]: 1} if random.random() < 0.7 else {costs[0]: 1, costs[1]: 3}
    if random.random() < 0.3:
        minimize = {"peak-activation-memory": 1}
    bound = float(10 ** random.uniform(-3, 0.5))
    limits = {}
    for name in [*costs[2 : 2 + random.integers(0, 3)], *(["peak-activation-memory"] if random.random() < 0.3 else [])]:
        lowest = solve(problem.revise(budgets={name: 1e9}), bound=100.0, minimize="storage", solver="exhaustive")
        most = max(
            float(r.total(problem.candidates, known(lowest.choice)) * r.quantum) for _, r in budget_rows(problem, name)
        )
        limits[name] = max(1.0, most * float(random.uniform(0.9, 3)))
    goal = {"bound": bound}
    if random.random() < 0.3:
        cheap = solve(problem, bound=100.0, minimize=minimize, solver="exhaustive")
        goal = {"budget": float(known(cheap.exact_cost)) * float(random.uniform(1, 3)) + 1}
    return problem.revise(budgets=limits), goal, minimize


@pytest.mark.parametrize("how", ["joined", "branched", "priced"])
@pytest.mark.parametrize("block", range(8))
def test_exact_is_exact(block: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small clusters would become single groups: branch instead.
    strategy = Exact(tuning=Tuning(joined=1)) if how == "branched" else Exact()
    if how == "priced":  # limits would be on few groups: price them instead
        monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)
    for seed in range(block * 12, block * 12 + 12):
        drawn = case(seed)
        if drawn is None:
            continue
        problem, goal, minimize = drawn
        truth = solve(problem, minimize=minimize, solver="exhaustive", **goal)
        found = solve(problem, minimize=minimize, solver=strategy, **goal)
        # The least damage is proved but for the last bit of its float.
        assert found.status is truth.status or found.gap < 1e-15, seed
        if truth.status is Status.OPTIMAL:
            assert found.objective == truth.objective, seed
            assert verify(problem, found).ok, seed
            assert found.exact_lower_bound <= known(truth.exact_objective)
