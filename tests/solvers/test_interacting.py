"""Damages that interact: what exact proves is what brute force finds, and no bound lies above it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from impq_opt import Factors, Pairs, Problem, Status, solve
from impq_opt.costs import TableCost
from impq_opt.errors import UnsupportedError
from impq_opt.instance.convex import convex_form
from impq_opt.instance.question import make_instance
from impq_opt.solvers.exact import interacting
from impq_opt.types import FloatArray, IntArray


def drawn(seed: int, count: int, width: int, *, by_pairs: bool) -> Problem:
    """Return a problem whose damages are anything: whole numbers with many ties, tiny, indefinite."""
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([1.0, 1e-9, 1e6]))
    factors = rng.normal(size=(count, width, int(rng.integers(1, 4)))) * np.sqrt(scale)
    if seed % 3 == 0:
        factors = rng.integers(-2, 3, factors.shape).astype(float)
    damage = np.square(factors).sum(axis=2) * float(rng.choice([0.3, 1.0, 2.0]))
    interactions: Any = Factors(factors)
    if by_pairs:
        ends = [(i, j) for i in range(count) for j in range(i) if rng.random() < 0.7] or [(1, 0)]
        interactions = Pairs(np.array(ends), rng.normal(size=(len(ends), width, width)) * scale)
    names = [f"g{g}" for g in range(count)]
    return Problem.from_tables(rng.integers(0, 30, (count, width)), damage, names=names, interactions=interactions)


def brute(problem: Problem, question: dict[str, Any]) -> Fraction | None:
    """Return the least objective over all choices that keep pins, ties and limits; None where there is none."""
    values = []
    table = problem.costs[0]
    assert isinstance(table, TableCost)
    for columns in itertools.product(*(range(len(problem.candidates.of(g))) for g in range(len(problem)))):
        choice = np.array(columns)
        kept = all(choice[g] == k for g, k in problem.pins.items())
        kept &= all(len({columns[g] for g in tie}) == 1 for tie in problem.ties)
        sizes = int((problem.sizes * problem.candidates.bits(choice)).sum())
        kept &= sizes <= problem.budgets.get("storage", sizes)
        cost = Fraction(int(table.values[np.arange(len(choice)), choice].sum()))
        damage = problem.total_damage(choice)
        if kept and "bound" in question and damage <= question["bound"]:
            values.append(cost)
        elif kept and "budget" in question and cost <= question["budget"]:
            values.append(damage)
    return min(values, default=None)


@pytest.mark.parametrize("small", [0, 12], ids=["searched", "enumerated"])
@pytest.mark.parametrize("seed", range(16))
def test_optima_are_those_of_brute_force(seed: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interacting, "_SMALL", small)
    rng = np.random.default_rng(seed)
    problem = drawn(seed, int(rng.integers(2, 5)), int(rng.integers(1, 4)), by_pairs=bool(seed % 2))
    if len(problem) > 2 and seed % 4 < 2:
        problem = problem.revise(ties=[("g0", "g1")])
    if len(problem) > 2 and seed % 5 == 0:
        problem = problem.revise(pins={"g2": 0})
    if seed % 4 == 3:
        problem = problem.revise(budgets={"storage": len(problem)})
    some = rng.integers(0, problem.candidates.width, len(problem))
    for tie in problem.ties:
        some[list(tie)] = some[tie[0]]
    damage = problem.total_damage(some)
    table = problem.costs[0]
    assert isinstance(table, TableCost)
    cost = int(table.values[np.arange(len(some)), some].sum())
    questions: list[dict[str, Any]] = [{"bound": max(damage, Fraction(1, 10**12))}, {"budget": max(cost, 1)}]
    questions.append({"bound": max(damage / 7, Fraction(1, 10**12))})
    for question in questions:
        truth = brute(problem, question)
        answer = solve(problem, **question)
        assert answer.status is (Status.INFEASIBLE if truth is None else Status.OPTIMAL)
        assert answer.exact_objective == truth
        if truth is not None and answer.certificate is not None:
            assert answer.certificate.dual_bound <= truth
        other = solve(problem, solver="exhaustive", **question)
        assert (other.status, other.exact_objective) == (answer.status, truth)


def measured_like(seed: int, count: int, width: int, rank: int) -> tuple[IntArray, FloatArray]:
    """Return costs (G, K) and shifts (G, K, r) like measured ones: halved by each bit, partly in one direction."""
    rng = np.random.default_rng(seed)
    bits = np.arange(1, width + 1)
    common, own = rng.normal(size=rank), rng.normal(size=(count, 1, rank))
    shifts = 0.4 * common + 0.6 * own + 0.7 * rng.normal(size=(count, width, rank))
    sizes = 10 ** rng.uniform(-1, 0.5, count)
    return rng.integers(400, 40_000, count)[:, None] * bits, shifts * sizes[:, None, None] * np.exp2(-bits)[:, None]


def linearized(cost: IntArray, damage: FloatArray, together: FloatArray, bound: float) -> float:
    """Return the least cost under a bound by HiGHS, with a variable for each pair of candidates of two groups."""
    count, width = cost.shape
    ends = [(i, j) for i in range(count) for j in range(i + 1, count)]
    single, square = count * width, width * width
    total = single + len(ends) * square
    rows = sparse.lil_matrix((count + 2 * width * len(ends), total))
    right = np.zeros(rows.shape[0])
    for group in range(count):
        rows[group, group * width : (group + 1) * width] = 1
        right[group] = 1
    line = count
    for place, (i, j) in enumerate(ends):
        first = single + place * square
        for k in range(width):
            rows[line, first + k * width : first + (k + 1) * width] = 1
            rows[line, i * width + k] = -1
            rows[line + 1, first + k : first + square : width] = 1
            rows[line + 1, j * width + k] = -1
            line += 2
    weights = np.concatenate([damage.ravel(), *(together[i, j].ravel() for i, j in ends)]) / bound
    objective = np.concatenate([cost.ravel(), np.zeros(total - single)])
    integer = (np.arange(total) < single).astype(int)
    limits = [LinearConstraint(sparse.csr_matrix(rows), right, right), LinearConstraint(weights[None], -np.inf, 1)]
    found = milp(objective, integrality=integer, bounds=Bounds(0, 1), constraints=limits, options={"mip_rel_gap": 0})
    assert found.status == 0
    return float(found.fun)


@pytest.mark.parametrize("by_pairs", [False, True], ids=["factors", "pairs"])
def test_a_linearized_program_finds_the_same(by_pairs: bool) -> None:
    cost, shifts = measured_like(3, 7, 4, 6)
    damage = np.square(shifts).sum(axis=2)
    together = 2 * np.einsum("iar,jbr->ijab", shifts, shifts)
    ends = np.array([(i, j) for i in range(7) for j in range(i + 1, 7)])
    if by_pairs:
        together = together * (1 + 0.5 * np.random.default_rng(1).normal(size=together.shape))
    interactions: Any = Pairs(ends, together[ends[:, 0], ends[:, 1]]) if by_pairs else Factors(shifts)
    problem = Problem.from_tables(cost, damage, interactions=interactions)
    bound = float(problem.total_damage(np.ones(7, dtype=np.int64))) * 1.001
    answer = solve(problem, bound=bound)
    assert answer.status is Status.OPTIMAL
    assert answer.objective == pytest.approx(linearized(cost, damage, together, bound))


@pytest.mark.parametrize("seed", range(2))
def test_layers_are_proved_both_ways(seed: int) -> None:
    cost, shifts = measured_like(seed, 14, 6, 8)
    problem = Problem.from_tables(cost, np.square(shifts).sum(axis=2), interactions=Factors(shifts))
    bound = problem.total_damage(np.full(14, 2))
    answer = solve(problem, bound=bound)
    assert answer.status is Status.OPTIMAL
    assert answer.certificate is not None and answer.certificate.tangent is not None
    assert 0.7 * answer.cost < answer.certificate.dual_bound <= answer.cost
    back = solve(problem, budget=answer.exact_cost)
    assert back.status is Status.OPTIMAL
    assert back.exact_damage is not None and answer.exact_damage is not None
    assert back.exact_damage <= answer.exact_damage <= bound
    again = solve(problem, bound=bound)
    assert again.choice is not None and answer.choice is not None
    assert again.choice.tolist() == answer.choice.tolist()


@pytest.mark.parametrize("by_pairs", [False, True], ids=["factors", "pairs"])
@pytest.mark.parametrize("seed", range(3))
def test_the_convex_form_is_the_damage(seed: int, by_pairs: bool) -> None:
    problem = drawn(seed, 5, 3, by_pairs=by_pairs).revise(pins={"g3": 1}, ties=[("g0", "g4")])
    instance = make_instance(problem, bound=1.0)
    form = convex_form(instance)
    for columns in itertools.product(range(3), repeat=instance.size):
        choice = np.array(columns)
        groups = np.arange(instance.size)
        total = form.factors[groups, choice].sum(axis=0)
        value = form.base + form.linear[groups, choice].sum() + total @ total
        assert abs(value - float(instance.damage_of(choice))) <= form.slack


def test_a_search_that_is_cut_short_keeps_its_bound() -> None:
    cost, shifts = measured_like(5, 12, 6, 24)
    problem = Problem.from_tables(cost, np.square(shifts).sum(axis=2), interactions=Factors(shifts))
    budget = int(cost[:, 2].sum())
    least = solve(problem, budget=budget).exact_damage
    assert least is not None
    for states in (1, 40):
        part = solve(problem, budget=budget, states=states)
        assert part.exact_lower_bound <= least
        assert part.exact_objective is None or part.exact_objective >= least
    late = solve(problem, budget=budget, time_limit=1e-9)
    assert late.status in (Status.UNKNOWN, Status.FEASIBLE)


def test_many_groups_get_an_answer_and_a_bound() -> None:
    cost, shifts = measured_like(6, 400, 4, 4)
    problem = Problem.from_tables(cost, np.square(shifts).sum(axis=2), interactions=Factors(shifts / 10))
    answer = solve(problem, bound=problem.total_damage(np.ones(400, dtype=np.int64)), states=50)
    assert answer.choice is not None
    assert answer.gap < 0.01


def test_costs_that_couple_groups_beside_them_are_refused() -> None:
    fields: dict[str, Any] = {
        "kinds": ["activation", "weight"],
        "reads": np.array([-1, 0]),
        "macs": np.array([0, 10]),
        "interactions": Factors(np.ones((2, 2, 1))),
    }
    problem = Problem.from_sensitivities([3, 5], [1.0, 1.0], bits=(2, 4), **fields)
    question: dict[str, Any] = {"bound": 1, "minimize": "bit-operations"}
    with pytest.raises(UnsupportedError, match="damages that interact are not solved beside costs that couple"):
        solve(problem, **question)
    small = replace(problem, interactions=Factors(np.full((2, 2, 1), 0.01)))
    assert solve(small, solver="exhaustive", **question).status is Status.OPTIMAL
