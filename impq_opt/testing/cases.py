"""Small problems that break naive methods, each with a bound; small enough for exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from impq_opt.exactness.sums import ceil_float, exact_sum
from impq_opt.groups.interactions import Factors, Pairs
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.solve import solve

__all__ = ["CASES", "Case", "random_case"]


@dataclass(frozen=True, eq=False)
class Case:
    """A problem and a bound on its damage."""

    name: str
    build: Callable[[], tuple[Problem, float | Fraction]]

    @cached_property
    def problem(self) -> Problem:
        """The problem, built once."""
        return self._built[0]

    @cached_property
    def bound(self) -> float | Fraction:
        """The bound on damage."""
        return self._built[1]

    @cached_property
    def _built(self) -> tuple[Problem, float | Fraction]:
        return self.build()

    @cached_property
    def optimum(self) -> Allocation:
        """What exhaustive search finds."""
        return solve(self.problem, bound=self.bound, solver="exhaustive")

    def __str__(self) -> str:
        return self.name


def random_case(seed: int) -> Case:
    """Return a seeded case: any shape of table, up to seven groups, damages over up to twelve decades."""
    return Case(f"random-{seed}", lambda: _random(seed))


def _random(seed: int) -> tuple[Problem, float]:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    decades = float(rng.choice([0, 2, 12]))
    scale = 10.0 ** rng.uniform(-12, 3)
    kind = seed % 4
    if kind == 0:
        bits = np.sort(rng.choice(np.arange(1, 9), width, replace=False)).tolist()
        problem = Problem.from_sensitivities(
            rng.integers(1, 500, count), scale * 10 ** rng.uniform(-decades, 0, count), bits=bits
        )
    elif kind == 1:  # any table: neither convex nor monotone
        damage = scale * 10 ** rng.uniform(-decades, 0, (count, width))
        problem = Problem.from_tables(rng.integers(0, 100, (count, width)), damage)
    elif kind == 2:  # monotone, ragged, fractional formats
        rows = [sorted(rng.choice([2, 3, 4, 4.5, 8], int(rng.integers(1, 6)), replace=False)) for _ in range(count)]
        most = max(map(len, rows))
        damage = -np.sort(-(scale * 10 ** rng.uniform(-decades, 0, (count, most))), axis=1)
        cost = np.sort(rng.integers(1, 100, (count, most)), axis=1)
        problem = Problem.from_tables(cost, damage, bits=rows)
    else:  # many equal values
        damage = scale * rng.integers(0, 4, (count, width)).astype(float)
        problem = Problem.from_tables(rng.integers(1, 4, (count, width)), damage)
    problem = _restricted(problem, rng)
    return problem, _bound(problem, rng)


def _restricted(problem: Problem, rng: np.random.Generator) -> Problem:
    """Pin or tie a few groups of one in three problems."""
    if len(problem) < 3 or rng.integers(3):
        return problem
    first = problem.candidates.of(0)
    shared = set(first) & set(problem.candidates.of(1))
    names = problem.names
    ties = [(names[0], names[1])] if shared else []
    return problem.revise(ties=ties, pins={names[2]: problem.candidates.of(2)[-1]})


def _bound(problem: Problem, rng: np.random.Generator) -> float:
    """Return a bound anywhere between the extremes, at them, or just beyond."""
    low = float(sum(_row(problem, g).min() for g in range(len(problem))))
    high = float(sum(_row(problem, g).max() for g in range(len(problem))))
    place = rng.choice([0.0, rng.uniform(0, 0.1), rng.uniform(0, 1), 1.0, 1.5])
    return max(low + place * (high - low), 1e-300)


def _row(problem: Problem, group: int) -> np.ndarray:
    bits = problem.candidates.of(group)
    return problem.damage.at(slice(group, group + 1), bits)[0]


def _attained() -> tuple[Problem, Fraction]:
    """Return a bound that one selection meets with equality, exactly, where the float sum is below it."""
    damage = np.array([[0.3, 0.1], [0.6, 0.2], [0.1, 0.05], [0.7, 0.1]])
    problem = Problem.from_tables([[1, 9], [1, 8], [1, 7], [1, 6]], damage)
    return problem, exact_sum(damage[:, 1])


def _strongly_correlated(spread: int) -> tuple[Problem, float]:
    rng = np.random.default_rng(spread)
    gain = rng.integers(1, spread, 9)
    cost = np.stack([np.zeros(9, dtype=np.int64), gain + spread // 10], axis=1)
    damage = np.stack([gain.astype(float), np.zeros(9)], axis=1)
    return Problem.from_tables(cost, damage), float(gain.sum() // 2)


def _subset_sum() -> tuple[Problem, float]:
    rng = np.random.default_rng(5)
    cost = np.stack([np.zeros(10, dtype=np.int64), rng.integers(50, 100, 10)], axis=1)
    damage = np.stack([cost[:, 1] * 0.1, np.zeros(10)], axis=1)
    return Problem.from_tables(cost, damage), float(damage[:, 0].sum() / 2)


def _peers_wrong(sizes: list[int], sensitivities: list[float]) -> tuple[Problem, float]:
    return Problem.from_sensitivities(sizes, sensitivities, bits=(2, 4, 8)), 1e-6


def _table(cost: list[list[int]], damage: list[list[float]], bound: float) -> Callable[[], tuple[Problem, float]]:
    return lambda: (Problem.from_tables(cost, damage), bound)


def _interacting(seed: int, by_pairs: bool) -> tuple[Problem, Fraction]:
    """Return damages of which much is interaction, and a bound that one selection meets with equality."""
    rng = np.random.default_rng(seed)
    count, width = 5, 3
    factors = rng.normal(size=(count, width, 2)) * np.exp2(-np.arange(width))[:, None]
    damage = np.square(factors).sum(axis=2)
    ends = np.array([(i, j) for i in range(count) for j in range(i)])
    measured = Pairs(ends, rng.normal(size=(len(ends), width, width)) / 4)
    problem = Problem.from_tables(
        rng.integers(1, 20, (count, width)).cumsum(axis=1),
        damage,
        interactions=measured if by_pairs else Factors(factors),
    )
    return problem, max(problem.total_damage(np.ones(count, dtype=np.int64)), Fraction(1, 100))


CASES: tuple[Case, ...] = (
    Case("one-group", _table([[1, 2, 3]], [[0.9, 0.5, 0.1]], 0.5)),
    Case("one-candidate", _table([[3], [4]], [[0.1], [0.2]], 0.5)),
    Case("all-equal", lambda: (Problem.from_sensitivities([7] * 6, [0.25] * 6, bits=(1, 2, 3)), 0.2)),
    Case("equal-ratios", _table([[0, 2], [0, 4], [0, 6], [0, 8]], [[2, 0], [4, 0], [6, 0], [8, 0]], 9.0)),
    Case("bound-attained", _attained),
    Case("smallest-reachable", _table([[1, 9], [2, 5]], [[0.5, 0.1], [0.5, 0.2]], float(np.float64(0.1) + 0.2))),
    Case("everything-fits", _table([[1, 9], [2, 5]], [[0.5, 0.1], [0.5, 0.2]], 1e3)),
    Case("zero-damage", _table([[5, 1], [5, 2]], [[0.0, 0.0], [0.0, 0.3]], 1e-12)),
    Case("denormals", _table([[1, 2, 3]] * 4, [[1e-320, 5e-324, 0.0]] * 4, 2.5e-323)),
    Case("one-dominates", lambda: (Problem.from_sensitivities([10**9, 3, 5], [1e-9, 1.0, 2.0], bits=(2, 4, 8)), 1e-2)),
    Case("no-monotone", _table([[4, 1, 3], [2, 5, 1]], [[0.2, 0.3, 0.9], [0.8, 0.1, 0.2]], 0.55)),
    Case("strongly-correlated-1e3", lambda: _strongly_correlated(1000)),
    Case("strongly-correlated-1e6", lambda: _strongly_correlated(10**6)),
    Case("subset-sum", _subset_sum),
    Case("highs-wrong", lambda: _peers_wrong([9216, 432], [2.1531e-5, 1.64e-7])),
    Case("cbc-wrong", lambda: _peers_wrong([1152, 2304, 1152], [8.63e-7, 1.5814e-5, 1.113e-6])),
    Case(
        "tied-and-pinned",
        lambda: (
            Problem.from_sensitivities([10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4], names=["q", "k", "v", "out"]).revise(
                ties=[("q", "k", "v")], pins={"out": 5}
            ),
            0.01,
        ),
    ),
    Case("interacting-factors", lambda: _interacting(1, False)),
    Case("interacting-pairs", lambda: _interacting(2, True)),
    Case("infeasible", _table([[1, 2]] * 3, [[0.5, 0.4]] * 3, ceil_float(Fraction(1)))),
)
