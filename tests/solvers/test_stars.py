"""The Lagrangian over stars: compiled and NumPy give the same bits, and floors of sums are floors of exact sums."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from graphs import SHAPES, graph

from impq_opt.instance.question import make_instance
from impq_opt.problems.mobilenet import mobilenet_v1
from impq_opt.solvers import native
from impq_opt.solvers.exact.model import _floor_sums
from impq_opt.solvers.lagrange import oracle as _oracle


@pytest.mark.skipif(native.stars is None, reason="no compiled kernel")
@pytest.mark.parametrize("shape", [*SHAPES, "mobilenet"])
def test_compiled_and_numpy_agree_bit_for_bit(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = mobilenet_v1(seed=3, bits=(1, 2, 4, 5, 8)) if shape == "mobilenet" else graph(shape, kernels=3)
    instance = make_instance(problem.revise(budgets={"adders": 1e12}), bound=0.05)
    found = []
    for stars in (native.stars, None):
        monkeypatch.setattr(native, "stars", stars)
        oracle = _oracle.Oracle(instance)
        allowed = np.random.default_rng(1).random(oracle.everything.allowed.shape) < 0.6
        allowed[:, 0] = True
        points = [oracle.evaluate(np.array([price, 0.3])) for price in (1e2, 1e5, 1e11)]
        points.append(oracle.evaluate(np.array([1e4, 0.0]), _oracle.Domain(allowed & oracle.everything.allowed)))
        found.append(points)
    for one, other in zip(*found, strict=True):
        assert one.value == other.value
        assert np.array_equal(one.choice, other.choice)
        assert np.array_equal(one.stars, other.stars)


def test_floors_of_sums_are_exact() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        values = 10.0 ** random.uniform(-12, 0, (int(random.integers(1, 4)), 20))
        if random.random() < 0.5:
            values = np.round(values * 2**20) / 2**20
        shift = int(random.integers(-5, 50))
        exact = [math.floor(sum(map(Fraction, column)) * Fraction(2) ** shift) for column in values.T.tolist()]
        assert _floor_sums(values, shift).tolist() == exact
    close = np.array([[0.5, 1 - 2**-53, 2**-60], [0.5, 2**-54, 1 - 2**-53]])
    assert _floor_sums(close, 0).tolist() == [1, 0, 0]
