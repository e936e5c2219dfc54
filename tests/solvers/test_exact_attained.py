"""Whole-numbered damages: optima that meet the bound with equality, against a dynamic program over all bounds."""

from __future__ import annotations

import numpy as np
import pytest

from impq_opt import Problem, Status, solve
from impq_opt.solvers import native

BIG = 1 << 50


def least_cost(cost: np.ndarray, damage: np.ndarray, bound: int) -> int | None:
    """Return the least cost by Bellman's recursion over whole bounds; tables (groups, candidates)."""
    best = np.full(bound + 1, BIG)
    best[0] = 0
    for costs, damages in zip(cost.tolist(), damage.tolist(), strict=True):
        grown = np.full(bound + 1, BIG)
        for one, used in zip(costs, damages, strict=True):
            if used <= bound:
                grown[used:] = np.minimum(grown[used:], best[: bound + 1 - used] + one)
        best = grown
    return int(best.min()) if best.min() < BIG // 2 else None


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, int, float]:
    rng = np.random.default_rng(seed)
    groups, width = int(rng.integers(20, 90)), int(rng.integers(2, 7))
    damage = rng.integers(0, 60, (groups, width))
    kind = seed % 4
    if kind == 0:
        cost = rng.integers(0, 1000, (groups, width))
    elif kind == 1:  # strongly correlated
        cost = (60 - damage) * 10 + rng.integers(0, 3, (groups, width))
    elif kind == 2:  # subset sum
        cost = (60 - damage) * 7
    else:  # even damages under an odd bound and back: hardly any slack
        damage, cost = damage * 2, rng.integers(0, 40, (groups, width)) * 3
    low, high = int(damage.min(axis=1).sum()), int(damage.max(axis=1).sum())
    return cost, damage, int(rng.integers(low, max(low + 1, high // 2))), 2.0 ** float(rng.integers(-50, 10))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_optima_that_fill_the_bound(seed: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "kernel", None)
        monkeypatch.setattr(native, "core", None)
    elif native.kernel is None:
        pytest.skip("the kernel is not compiled here")
    cost, damage, bound, scale = drawn(seed)
    if bound == 0:
        return
    found = solve(Problem.from_tables(cost, damage * scale), bound=bound * scale)
    truth = least_cost(cost, damage, bound)
    assert truth is not None
    assert found.status is Status.OPTIMAL
    assert found.objective == truth
