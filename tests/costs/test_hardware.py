"""Costs on processors against the figures that their papers print."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from impq_opt import Group, Problem, solve
from impq_opt.costs import BitFusionCycles, CostTerm, MpicCycles, format_quantity, parse_quantity
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


# Cycles of a fusion unit by (weight, activation) bits: 16 at once of 2 by 2 bits, 4 of 4 by 4, one of 8 by 8; wider
# ones pass through in halves.
FUSED = {
    (2, 2): "1/16", (4, 2): "1/8", (8, 2): "1/4", (16, 2): "1/2",
    (2, 4): "1/8", (4, 4): "1/4", (8, 4): "1/2", (16, 4): "1",
    (2, 8): "1/4", (4, 8): "1/2", (8, 8): "1", (16, 8): "2",
    (2, 16): "1/2", (4, 16): "1", (8, 16): "2", (16, 16): "4",
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


@pytest.mark.parametrize("bits", FUSED)
def test_a_fusion_unit_takes_as_many_turns_as_its_bricks_need(bits: tuple[int, int]) -> None:
    weight, activation = bits
    expected = 900 * Fraction(FUSED[weight, 8]) + 1000 * Fraction(FUSED[bits])
    assert cost_at(small((2, 4, 8, 16)), [weight, weight, activation], "bit-fusion-cycles") == expected


def test_what_a_fusion_unit_lacks_runs_at_the_next_wider_precision() -> None:
    problem = small((1, 3, 5, 9, 16))
    expected = 900 * Fraction(FUSED[4, 8]) + 1000 * Fraction(FUSED[16, 8])
    assert cost_at(problem, [3, 9, 5], "bit-fusion-cycles") == expected
    with pytest.raises(ProblemError, match=r"costs.bit-fusion-cycles: the processor has at most 16 bits, got 17"):
        solve(small((4, 17)), bound=1.0, minimize="bit-fusion-cycles")


@pytest.mark.parametrize("term", [MpicCycles(), BitFusionCycles()], ids=lambda term: term.name)
def test_costs_of_processors_keep_the_rules_of_costs(term: CostTerm) -> None:
    check_cost(term, small())


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
