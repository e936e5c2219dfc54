"""MobileNetV1 in the memory of a microcontroller: both limits by hand, and the answer by another way of thinking."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from known import known

from impq_opt import Allocation, Problem, Status, problems, solve, verify
from impq_opt.problems.mobilenet import LAYERS, microcontroller, mobilenet_v1
from impq_opt.types import FloatArray

FLASH, RAM = 2 * 2**20 * 8, 512 * 2**10 * 8
BITS = (2, 4, 8)


@pytest.mark.parametrize("granularity", ["layer", "kernel"])
def test_the_least_damage_within_both_limits_is_proved(granularity: str) -> None:
    problem = microcontroller(granularity=granularity)
    answer = solve(problem, budget="2MiB")
    assert answer.status is Status.OPTIMAL
    weights, bits = problem.weights(), answer.bits.astype(np.int64)
    assert int(np.dot(problem.sizes[weights], bits[weights])) <= FLASH
    held = [layer.inputs * width for layer, width in zip(LAYERS, bits[:28].tolist(), strict=True)]
    assert bits[0] == 8  # the picture
    assert max(read + written for read, written in itertools.pairwise(held)) <= RAM
    # Only the weights meet the one limit, only the activations the other, so the answer is the sum of two.
    apart = _weights_alone(granularity)
    alone = problem.damage.chosen(problem.candidates, known(apart.choice))[28:].sum()
    damage = problem.damage.at(np.arange(28), BITS)
    sizes = [layer.inputs for layer in LAYERS[1:]]
    expected = damage[0, 2] + _least_damage_of_a_chain(damage[1:], sizes) + alone
    assert known(answer.damage) == pytest.approx(expected, rel=1e-12)


def _least_damage_of_a_chain(damage: FloatArray, sizes: list[int]) -> float:
    """Return the least damage of tensors, the picture before them, of which every two neighbours fit."""
    picture = LAYERS[0].inputs
    best = {8: 0.0}
    for before, here, damages in zip([picture, *sizes], sizes, damage.tolist(), strict=False):
        best = {
            width: at + min((d for b, d in best.items() if before * b + here * width <= RAM), default=math.inf)
            for width, at in zip(BITS, damages, strict=True)
        }
    return min(best.values())


def _weights_alone(granularity: str) -> Allocation:
    problem = mobilenet_v1(granularity=granularity, bits=BITS, bound=None)
    return solve(problem.revise(minimize="storage", pins={"kind:activation": 8}), budget="2MiB")


@pytest.mark.parametrize("name", ["", "-kernel"])
def test_the_measured_one_leaves_room_for_the_picture(name: str) -> None:
    measured = problems.load(f"mobilenet-v1-imagenet{name}")
    problem = problems.load(f"mobilenet-v1-imagenet-microcontroller{name}")
    answer = solve(problem, budget="2MiB")
    assert answer.status is Status.OPTIMAL
    weights, bits = problem.weights(), answer.bits.astype(np.int64)
    assert int(np.dot(problem.sizes[weights], bits[weights])) <= FLASH
    held = [8 * LAYERS[0].inputs, *(problem.sizes[~weights] * bits[~weights]).tolist()]
    assert max(read + written for read, written in itertools.pairwise(held)) <= RAM
    damages = measured.revise(bits=BITS, weights_only=True).damage.at(slice(None), BITS)
    alone = Problem.from_tables(problem.sizes[weights, None] * np.array(BITS), damages)
    damage = measured.revise(bits=BITS).damage.at(np.flatnonzero(~measured.weights()), BITS)
    expected = _least_damage_of_a_chain(damage, problem.sizes[~weights].tolist()) + known(
        solve(alone, budget=FLASH).damage
    )
    assert known(answer.damage) == pytest.approx(expected, rel=1e-12)


def test_the_gallery_has_it_and_the_judge_proves_it_again() -> None:
    problem = problems.load("mobilenet-v1-synthetic-microcontroller")
    assert set(problem.budgets) == {"storage", "peak-activation-memory"}
    assert verify(problem, solve(problem, budget="2MiB")).proved
