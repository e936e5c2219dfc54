"""No limit, one, and over a hundred, on costs of one and of two groups and on peaks: against looking at everything."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impq_opt import Group, Problem, Status, solve
from impq_opt.costs import TableCost
from impq_opt.errors import ProblemError
from impq_opt.groups.damage import DamageTable
from impq_opt.instance.contract import Control, clock
from impq_opt.instance.cost_row import budget_rows
from impq_opt.instance.question import make_instance
from impq_opt.solvers.exact import small
from impq_opt.solvers.exact.strategy import Exact
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.lagrange.dual import maximize_dual
from impq_opt.solvers.lagrange.oracle import Oracle

BUILT_IN = ("bit-operations", "adders", "storage", "activation-memory", "slides", "peak-activation-memory")
WIDTHS = (1, 2, 3, 4, 5, 6, 8)


def network(random: np.random.Generator, most: int = 5) -> Problem:
    """Return a few layers with few, often single, candidates each."""
    count = int(random.integers(1, most + 1))
    activations = int(random.integers(0, min(count, 3)))
    groups = []
    for g in range(count):
        kind: dict[str, Any] = {"kind": "activation", "steps": (g, g + 1)}
        if g >= activations:
            length = int(random.integers(1, 4))
            reads = int(random.integers(-1, activations)) if activations else -1
            kind = {"macs": length * int(random.integers(1, 20)), "length": length}
            kind |= {"reads": f"g{reads}"} if reads >= 0 else {}
        size = int(random.integers(1, 30)) * int(kind.get("length", 1))
        bits = sorted(random.choice(WIDTHS, size=int(random.integers(1, 5)), replace=False).tolist())
        groups.append(Group(f"g{g}", size, float(10 ** random.uniform(-3, 1)), bits=bits, **kind))
    return Problem.declare(groups)


def decades(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return damages over some decades or hundreds of them, zeros and equal ones among them."""
    span = random.choice([1, 4, 40, 400, 600]) / 2
    damage = 10.0 ** random.uniform(-span, span, shape)
    return np.where(random.random(shape) < 0.1, 0.0, np.round(damage, 1) if random.random() < 0.2 else damage)


def case(seed: int, limits: int) -> tuple[Problem, dict[str, Any]]:
    """Return a problem with so many table limits, and others at random, close around what some choice needs."""
    random = np.random.default_rng([seed, limits])
    problem = network(random)
    shape = len(problem), problem.candidates.width
    top = [2, 10, 10**6][random.integers(3)]
    tables = tuple(
        TableCost.from_array(random.integers(1, top, shape), name=f"c{i}", unit="u") for i in range(limits + 1)
    )
    problem = replace(problem, costs=tables)
    if random.random() < 0.5:
        problem = replace(problem, damage=DamageTable(decades(random, shape)))
    counts = problem.candidates.counts(len(problem))
    choice = random.integers(0, counts)
    if random.random() < 0.3:  # some pinned, or all
        pinned = random.permutation(len(problem))[: random.integers(1, len(problem) + 1)]
        problem = problem.revise(pins={f"g{g}": problem.candidates.of(int(g))[choice[g]] for g in pinned})
    shared = set(problem.candidates.of(0)) & set(problem.candidates.of(len(problem) - 1))
    if random.random() < 0.3 and len(problem) > 1 and shared and not problem.pins:
        choice[0], choice[-1] = (problem.candidates.of(g).index(min(shared)) for g in (0, len(problem) - 1))
        problem = problem.revise(ties=[("g0", f"g{len(problem) - 1}")])

    def needs(name: str) -> Fraction:
        return max(row.total(problem.candidates, choice) * row.quantum for _, row in budget_rows(problem, name))

    names = [name for name in BUILT_IN if random.random() < 0.3]
    minimize = str(random.choice(["c0", "storage", "bit-operations", "peak-activation-memory"]))
    budgets = {}
    for name in {*names, *(f"c{i}" for i in range(1, limits + 1))} - {minimize}:
        if usable(problem, name):
            factor = Fraction(random.choice([1, 1, 1.25, 2] if random.random() < 1 - 0.2 / (limits + 1) else [0.5]))
            budgets[name] = max(needs(name) * factor, Fraction(1))
    minimize = minimize if usable(problem, minimize) else "c0"
    damage = sum(map(Fraction, problem.damage.chosen(problem.candidates, choice).tolist()), Fraction(0))
    goal = {"bound": max(damage * random.choice([1, 1, 2]), Fraction(1, 10**300))}
    if random.random() < 0.5:
        goal = {"budget": max(needs(minimize) * random.choice([1, 1, 2]), Fraction(1))}
    return problem.revise(budgets=budgets), {"minimize": minimize, **goal}


def usable(problem: Problem, name: str) -> bool:
    try:
        budget_rows(problem, name)
    except ProblemError:  # no activations, or no multiply-accumulates
        return False
    return True


SEARCHED = Exact(tuning=Tuning(enumerated=0))


def agree(problem: Problem, goal: dict[str, Any], strategy: str | Exact = "exact") -> Status:
    """Ask the exact strategy and look at everything; one has to say what the other says."""
    truth = solve(problem, solver="exhaustive", **goal)
    found = solve(problem, solver=strategy, **goal)
    assert found.status is truth.status, (found, truth)
    if truth.choice is not None:
        by_cost = found.minimizes == "cost"
        assert found.exact_cost == truth.exact_cost if by_cost else found.damage == truth.damage
    return found.status


@pytest.fixture(params=["enumerated", "searched"])
def way(request: pytest.FixtureRequest) -> Exact:
    """Enumerate what is small, as usual, or leave it to the searches, which have to say the same."""
    return SEARCHED if request.param == "searched" else Exact()


@pytest.mark.parametrize("limits", [0, 1, 2, 5, 46, 47, 48, 60, 130])
def test_any_number_of_limits(limits: int, way: Exact) -> None:
    seen = [agree(*case(seed, limits), way) for seed in range(12 if limits < 40 else 4)]
    assert Status.OPTIMAL in seen


def many(count: int, kernels: int = 10) -> Problem:
    """Return two activations that ``kernels`` read, with so many limits on tables and bit-operations to minimise."""
    random, sizes = np.random.default_rng(0), np.random.default_rng(1)
    total = kernels + 2
    shape = total, 8
    costs = tuple(
        TableCost.from_array(np.sort(random.integers(1, 100, shape), axis=1), name=f"c{i}", unit="u")
        for i in range(count)
    )
    problem = Problem.from_sensitivities(
        sizes.integers(10, 100, total),
        sizes.random(total),
        bits=range(1, 9),
        kinds=["weight"] * kernels + ["activation"] * 2,
        macs=np.array([100] * kernels + [0] * 2),
        reads=np.array([kernels] * (kernels // 2) + [kernels + 1] * (kernels - kernels // 2) + [-1] * 2),
        costs=costs,
    )
    return problem.revise(minimize="bit-operations", budgets={f"c{i}": 96 * total for i in range(count)})


@pytest.mark.parametrize("count", [2, 46, 47, 48, 110, 130])
def test_limits_beside_a_coupled_cost(count: int) -> None:
    found = solve(many(count), bound=0.05)
    assert found.status is Status.OPTIMAL
    loose = solve(many(0), bound=0.05)  # those limits are loose
    assert found.exact_cost == loose.exact_cost


_PRINTS = """
import sys
sys.path.insert(0, {folder!r})
from test_many_limits import many, solve
from impq_opt.solvers import native as _native
found = solve(many(60, 20), bound=0.05)
certificate = found.certificate
print(found.choice.tolist(), found.exact_lower_bound, sorted(certificate.multipliers.items()), found.statistics)
print(_native.stars is None, file=sys.stderr)
"""


def test_many_limits_compiled_and_not() -> None:
    folder = str(Path(__file__).parent)
    said = []
    for pure in ("", "1"):
        environment = {**os.environ, "IMPQ_OPT_PURE": pure}
        script = _PRINTS.format(folder=folder)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout)
        assert not pure or "True" in done.stderr
    assert said[0] == said[1]


@pytest.mark.parametrize("bits", [(6,), (2, 4)])
@pytest.mark.parametrize("budget", [64, 100])
def test_a_peak_beside_a_coupled_budget(bits: tuple[int, ...], budget: int, way: Exact) -> None:
    groups = [
        Group("act", size=2, sensitivity=1.0, bits=bits, kind="activation", steps=(0, 1)),
        Group("w", size=10, sensitivity=1.0, bits=bits, macs=10, reads="act", length=1),
    ]
    problem = Problem.declare(groups, minimize="peak-activation-memory", budgets={"adders": 5000})
    assert agree(problem, {"budget": budget}, way) is Status.OPTIMAL


@pytest.mark.parametrize("most", [5000, 300])
def test_a_peak_where_nothing_has_a_choice(most: int, way: Exact) -> None:
    groups = [Group(f"a{i}", 2, 1.0, bits=(6,), kind="activation", steps=(i, i + 1)) for i in range(3)]
    groups += [Group(f"w{i}", 10, 1.0, bits=(6,), macs=10, reads=f"a{i}", length=1) for i in range(3)]
    problem = Problem.declare(groups, minimize="peak-activation-memory", budgets={"adders": most})
    status = agree(problem, {"bound": 100}, way)
    assert status is (Status.OPTIMAL if most == 5000 else Status.INFEASIBLE)


def test_a_limit_of_less_than_a_quantum_cannot_be_kept(way: Exact) -> None:
    problem = Problem.from_sensitivities([10, 20], [1.0, 2.0], bits=(2, 4))
    problem = problem.revise(budgets={"storage": Fraction(1, 2), "representational": 1000})
    assert agree(problem, {"bound": 1, "minimize": "representational"}, way) is Status.INFEASIBLE


# -- what is small, over hundreds of decades --------------------------------------------------------------------------


def far_apart(seed: int, groups: int = 3, columns: int = 3, limits: int = 4) -> tuple[Problem, dict[str, Any]]:
    """Return groups with damages from 1e-300 to 1e300, some alike but for the last bit, and limits around a choice."""
    random = np.random.default_rng(seed)
    shape = groups, columns
    damage = 10.0 ** random.uniform(-300, 300, shape)
    damage[-1] = np.nextafter(damage[0], np.inf)
    costs = tuple(TableCost.from_array(random.integers(1, 1000, shape), name=f"c{i}", unit="u") for i in range(limits))
    problem = replace(
        Problem.from_tables(random.integers(1, 1000, shape), damage, bits=[range(1, columns + 1)] * groups)
    )
    problem = replace(problem, costs=(*problem.costs, *costs))
    choice, rows = random.integers(0, columns, groups), np.arange(groups)
    budgets = {cost.name: int(cost.values[rows, choice].sum()) for cost in costs}
    bound = sum(map(Fraction, damage[rows, choice].tolist()), Fraction(0))
    return problem.revise(budgets=budgets), {"bound": bound - (Fraction(1, 2**1074) if seed % 3 == 0 else 0)}


@pytest.mark.parametrize("seed", range(30))
def test_three_groups_over_six_hundred_decades(seed: int) -> None:
    problem, goal = far_apart(seed)
    status = agree(problem, goal)
    assert status is Status.OPTIMAL or seed % 3 == 0
    agree(problem, {"budget": 1500})


def test_what_is_small_is_decided_to_the_last_bit() -> None:
    tiny = 5e-324
    problem = Problem.from_tables([[1, 2], [1, 2]], [[1e300, 0.0], [tiny, 0.0]]).revise(budgets={"storage": 10**9})
    problem = replace(problem, sizes=np.array([1, 1]))
    exactly = Fraction(1e300) + Fraction(tiny)
    for bound, cost in (
        (exactly, 2),
        (exactly - Fraction(1, 2**1075), 3),
        (Fraction(tiny), 3),
        (Fraction(tiny) / 2, 4),
    ):
        found = solve(problem, bound=bound, minimize="cost")
        assert found.status is Status.OPTIMAL
        assert found.exact_cost == cost


@pytest.mark.parametrize("width", [2, 3])
def test_at_the_largest_number_that_is_enumerated_and_beyond(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, goal = far_apart(1, groups=5, columns=width)
    truth = solve(problem, solver="exhaustive", **goal)
    looked: list[Any] = []
    best = small._best

    def watched(*given: Any) -> Any:
        looked.append(best(*given)[1])
        return best(*given)

    monkeypatch.setattr(small, "_best", watched)
    for most in (width**5 - 1, width**5, width**5 + 1):
        looked.clear()
        found = solve(problem, solver=Exact(tuning=Tuning(enumerated=most, last_resort=0)), **goal)
        assert bool(looked) == (most >= width**5)
        assert found.status is not Status.OPTIMAL or found.exact_cost == truth.exact_cost


def test_what_64_bits_cannot_tell_apart_is_enumerated_after_all() -> None:
    for seed in range(6):
        agree(*far_apart(seed, groups=4, limits=2), SEARCHED)


def oracle_over_decades() -> Oracle:
    """Return the Lagrangian of damages from 1e-300 to 1e300, minimised under a limit on pairs."""
    problem = Problem.from_sensitivities(
        [10, 20, 30],
        [1.0, 1.0, 1.0],
        bits=(2, 4),
        kinds=["activation", "weight", "weight"],
        macs=np.array([0, 50, 70]),
        reads=np.array([-1, 0, 0]),
    )
    damage = np.array([[1e300, 1e-300], [3e200, 2.0], [1e-20, 0.0]])
    problem = replace(problem, damage=DamageTable(damage))
    return Oracle(make_instance(problem, budget=700, minimize="bit-operations"))


@pytest.mark.parametrize("start", [0.0, 1e-250, 1.0, 1e250])
def test_no_price_is_a_trap(start: float) -> None:
    control = Control(deadline=clock() + 5)
    found = maximize_dual(oracle_over_decades(), control, start=np.array([start]))
    assert len(found.points) < 1000
    assert not found.infeasible


def test_no_price_makes_the_lagrangian_infinite() -> None:
    oracle = oracle_over_decades()
    for price in (0.0, 1e100, 1e280, 1e308, np.inf):
        assert np.isfinite(oracle.evaluate(np.array([price])).value)
