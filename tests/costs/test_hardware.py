"""Costs on processors against the figures that their papers print."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from impq_opt import Group, Problem, solve
from impq_opt.costs import MpicCycles, format_quantity, parse_quantity
from impq_opt.errors import ProblemError
from impq_opt.insight.cost_at import cost_at, uniform_bits
from impq_opt.problems.mobilenet import mobilenet_v1
from impq_opt.testing import check_cost

# Multiply-accumulates a cycle of MPIC by (weight, activation) bits: Ottavi et al. 2020.
SPEED = {
    (2, 2): "6.5", (4, 2): "4.0", (8, 2): "2.2",
    (2, 4): "3.9", (4, 4): "3.5", (8, 4): "2.1",
    (2, 8): "2.5", (4, 8): "2.3", (8, 8): "2.1",
}  # fmt: skip


def small(bits: tuple[float, ...] = (2, 4, 8)) -> Problem:
    return Problem.declare(
        [
            Group("conv", size=9, sensitivity=0.5, macs=900, length=9, bits=bits),  # which reads the picture
            Group("fc", size=40, sensitivity=0.1, macs=1000, length=10, reads="x", bits=bits),
            Group("x", size=80, sensitivity=0.3, kind="activation", bits=bits),
        ]
    )


@pytest.mark.parametrize("bits", SPEED)
def test_mpic_takes_the_cycles_of_its_table(bits: tuple[int, int]) -> None:
    weight, activation = bits
    expected = 900 / Fraction(SPEED[weight, 8]) + 1000 / Fraction(SPEED[bits])
    assert cost_at(small(), [weight, weight, activation], "mpic-cycles") == expected


def test_what_mpic_lacks_runs_at_the_next_wider_precision() -> None:
    assert cost_at(small(), [1, 3, 5], "mpic-cycles") == cost_at(small(), [2, 4, 8], "mpic-cycles")
    with pytest.raises(ProblemError, match=r"costs.mpic-cycles: the processor has at most 8 bits, got 16"):
        solve(small((4, 16)), bound=1.0, minimize="mpic-cycles")


def test_the_mpic_cost_keeps_the_rules_of_costs() -> None:
    check_cost(MpicCycles(), small())


def test_cycles_have_prefixes() -> None:
    assert format_quantity(Fraction(270_828_739), "cycle") == "270.8 Mcycles"
    assert parse_quantity("250Mcycles", "cycle") == 250_000_000


def test_the_least_cycles_of_mobilenet_are_proved_within_two_megabytes() -> None:
    problem = mobilenet_v1(granularity="layer", bits=(2, 4, 8)).revise(budgets={"storage": "2MiB"})
    answer = solve(problem, bound=0.5, minimize="mpic-cycles")
    assert answer.status.value == "optimal"
    assert answer.exact_cost == cost_at(problem, answer.bits, "mpic-cycles")
    assert answer.exact_cost < cost_at(problem, uniform_bits(problem, 4, 8), "mpic-cycles")
    assert int(np.dot(problem.sizes[problem.weights()], answer.bits[problem.weights()])) <= 2 * 2**23
