"""Differences of paired shares, and the search for the cheapest level within a loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multinomial

from impq_opt.pipeline.differences import Difference, difference
from impq_opt.pipeline.loss import cheapest, crossing


@pytest.mark.parametrize(("gain", "loss"), [(0.02, 0.02), (0.1, 0.02), (0.0, 0.01), (0.3, 0.1)])
def test_the_interval_covers_the_difference_about_as_often_as_it_says(gain: float, loss: float) -> None:
    """Summed over all outcomes of 100 samples, not drawn."""
    samples, covered, highest = 100, 0.0, 0.0
    counts = np.array([(g, n) for g, n in itertools.product(range(samples + 1), repeat=2) if g + n <= samples])
    chances = multinomial.pmf(np.c_[counts, samples - counts.sum(1)], samples, [gain, loss, 1 - gain - loss])
    for (gained, lost), chance in zip(counts.tolist(), chances.tolist(), strict=True):
        if chance > 1e-9:
            seen = Difference(gained, lost, samples)
            low, high = seen.interval(0.9)
            covered += chance * (low <= gain - loss <= high)
            highest += chance * (gain - loss <= seen.highest(0.95))
    assert covered >= 0.86 and highest >= 0.93


def test_a_difference_is_of_pairs() -> None:
    first, second = torch.tensor([1, 1, 0, 0, 1]).bool(), torch.tensor([0, 1, 1, 0, 0]).bool()
    assert difference(first, second) == Difference(2, 1, 5) and difference(first, second).value == pytest.approx(0.2)


def test_as_many_samples_as_are_asked_for_decide() -> None:
    seen = Difference(6, 4, 1000)
    needed = seen.samples_for(0.004, 0.95)
    assert needed is not None and seen.highest(0.95) > 0.004
    scale = needed / seen.samples
    assert Difference(round(6 * scale), round(4 * scale), needed).highest(0.95) <= 0.004 * 1.05
    fewer = scale * 0.8
    assert Difference(round(6 * fewer), round(4 * fewer), round(0.8 * needed)).highest(0.95) > 0.004
    assert Difference(10, 2, 1000).samples_for(0.004, 0.95) is None  # seen to be above


def test_levels_are_tested_in_a_fixed_order_until_one_fails() -> None:
    losses = [0.0, 0.0, 0.001, 0.002, 0.004, 0.02, 0.0]
    looked: list[int] = []

    def loss(level: int) -> Difference:
        looked.append(level)
        return Difference(round(100_000 * losses[level]), 0, 100_000)

    best, order = cheapest(7, 4, loss, 0.005, 0.95)
    assert best == 4 and list(order) == looked == [3, 4, 5]  # what is behind the first failure is not looked at
    looked.clear()
    best, order = cheapest(7, 6, loss, 0.005, 0.95)
    assert best == 4 and list(order) == [5, 0, 4]  # the expected place fails: from the first level, in strides
    assert cheapest(7, 6, lambda level: Difference(900, 0, 1000), 0.005, 0.95)[0] is None


def test_a_level_that_loses_more_is_seldom_taken() -> None:
    random, wrong, runs = np.random.default_rng(0), 0, 2000
    true = [0.0, 0.004, 0.0055, 0.008, 0.02]

    def drawn(level: int) -> Difference:
        gained, lost, _ = random.multinomial(4000, [true[level] + 0.005, 0.005, 0.99 - true[level]])
        return Difference(int(gained), int(lost), 4000)

    for _ in range(runs):
        best, _ = cheapest(5, 2, drawn, 0.005, 0.95, stride=1)
        wrong += best is not None and true[best] > 0.005
    assert wrong / runs < 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_the_crossing_is_found_in_a_few_looks() -> None:
    for count, last in itertools.product((1, 2, 5, 29), range(29)):
        if last >= count:
            continue
        looked: list[int] = []

        def loss(level: int, last: int = last, looked: list[int] = looked) -> Difference:
            looked.append(level)
            return Difference(0 if level <= last else 500, 0, 1000)

        found = crossing(count, loss, 0.01)
        assert found == last and len(looked) <= 6
