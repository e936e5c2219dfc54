"""Costs that couple groups: every strategy that takes them, against looking at everything."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import SHAPES, brute_force, graph, slow_cost
from known import known

from impq_opt import Group, Problem, Status, problems, solve
from impq_opt.costs import LookupCost
from impq_opt.errors import InputError, ProblemError, UnsupportedError
from impq_opt.instance.question import make_instance
from impq_opt.judge.verify import verify
from impq_opt.problems.mobilenet import mobilenet_v1
from impq_opt.proof.bound import dual_bound

SOLVERS = ("exhaustive", "exact", "milp", "ilp")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cost", ["storage", "bit-operations", "adders", "slides"])
def test_costs_follow_their_formulas(shape: Any, cost: str) -> None:
    problem = graph(shape, bits=(2, 4.25, 8))
    instance = make_instance(problem, bound=1.0, minimize=cost)
    random = np.random.default_rng(1)
    for _ in range(5):
        choice = random.integers(0, instance.widths)
        bits = problem.candidates.bits(instance.lift(choice))
        assert instance.cost_of(choice) * instance.quantum == slow_cost(problem, bits.tolist(), cost)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pinned", [False, True])
def test_the_parts_of_an_instance_add_up_to_the_cost(shape: Any, pinned: bool) -> None:
    problem = graph(shape, seed=3)
    if pinned:
        problem = problem.revise(pins={"a1": 3, "w0": 2})
    instance = make_instance(problem.revise(budgets={"adders": 10**9}), bound=1.0)
    budget = instance.budgets[0]
    random = np.random.default_rng(2)
    for _ in range(5):
        choice = random.integers(0, instance.widths)
        rows = np.arange(instance.size)
        parts = instance.base_cost + int(instance.tables[0][rows, choice].sum())
        if instance.pairs is not None:
            parts += int(instance.pairs.at(choice).sum())
        assert parts == instance.cost_of(choice)
        bits = problem.candidates.bits(instance.lift(choice)).tolist()
        assert instance.value_of(budget, choice) * budget.quantum == slow_cost(problem, bits, "adders")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_least_bit_operations_are_found(shape: Any, solver: Any) -> None:
    problem = graph(shape)
    for bound in (0.02, 0.1):
        best = brute_force(problem, bound)
        found = solve(problem, bound=bound, solver=solver)
        assert found.exact_cost == best
        assert found.exact_lower_bound <= best
        assert solver != "exact" or found.status is Status.OPTIMAL


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("minimize", ["adders", "slides", "storage"])
def test_budgets_on_coupled_costs_hold(shape: Any, minimize: str) -> None:
    problem = graph(shape, seed=5)
    free = solve(problem, bound=0.05, minimize=minimize, solver="exhaustive")
    middle = solve(problem, bound=0.05, solver="exhaustive")
    bits = [float(b) for b in free.bits]
    limits = {
        "bit-operations": (slow_cost(problem, bits, "bit-operations") + known(middle.exact_cost)) / 2,
        "peak-activation-memory": slow_cost(problem, bits, "peak-activation-memory"),
    }
    best = brute_force(problem, 0.05, limits, minimize)
    for solver in SOLVERS:
        found = solve(problem.revise(budgets=limits), bound=0.05, minimize=minimize, solver=solver)
        assert found.exact_cost == best, solver
        assert solver != "exact" or found.status is Status.OPTIMAL


@pytest.mark.parametrize("shape", SHAPES)
def test_no_multiplier_proves_too_much(shape: Any) -> None:
    """Weak duality, with rounding: any prices >= 0 stay below every feasible objective."""
    problem = graph(shape, seed=7).revise(budgets={"storage": 500, "adders": 10**5, "peak-activation-memory": 600})
    random = np.random.default_rng(3)
    for goal in ({"bound": 0.05}, {"budget": 3000}):
        instance = make_instance(problem, **goal)
        main, *names = [row.name for row in instance.limits]
        best = _least(instance)
        for _ in range(20):
            prices = {main: float(10 ** random.uniform(-6, 6))} | {n: float(random.uniform(0, 3)) for n in names}
            below = dual_bound(instance, prices)
            assert best is None or below <= best


def _least(instance: Any) -> Any:
    best = None
    for number in range(int(np.prod(instance.widths))):
        choice = np.array(np.unravel_index(number, instance.widths))
        if instance.is_feasible(choice):
            value = instance.objective_of(choice)
            best = value if best is None else min(best, value)
    return best


def test_the_dual_bound_is_the_priced_minimum() -> None:
    """Not only below: at any prices it is the minimum over all choices, to the last quantum."""
    for shape in SHAPES:
        instance = make_instance(graph(shape, seed=11), bound=0.05)
        lam = 1e4
        every = (np.array(np.unravel_index(n, instance.widths)) for n in range(int(np.prod(instance.widths))))
        least = min(instance.cost_of(c) + Fraction(lam) * instance.damage_of(c) for c in every)
        found = dual_bound(instance, {"bound": lam}) + Fraction(lam) * Fraction(0.05)
        assert found <= least
        assert float(least - found) <= 1e-9 * float(least)


def test_least_damage_under_bit_operations() -> None:
    problem = graph("branch", seed=2)
    found = {solver: solve(problem, budget=2000, solver=solver) for solver in SOLVERS}
    assert len({answer.exact_damage for answer in found.values()}) == 1
    assert all(known(answer.exact_cost) <= 2000 for answer in found.values())


def test_an_unreachable_budget_on_bit_operations_is_infeasible_at_once() -> None:
    problem = graph("residual").revise(budgets={"bit-operations": 10})
    found = solve(problem, bound=0.1, minimize="storage", solver="milp")
    assert found.status is Status.INFEASIBLE
    assert "bit-operations" in str(found.diagnosis)


def test_a_solver_without_pairs_says_which_have_them() -> None:
    with pytest.raises(UnsupportedError, match=r"costs that couple groups; these do: .*exhaustive"):
        solve(graph("chain"), bound=0.1, solver="greedy")


def test_operations_need_declared_counts() -> None:
    plain = Problem.from_sensitivities([4, 5], [0.1, 0.2])
    with pytest.raises(ProblemError, match="no multiply-accumulates"):
        solve(plain, bound=0.1, minimize="bit-operations")
    short = Problem.declare([Group("w", 4, 0.1, macs=7, length=2)])
    with pytest.raises(ProblemError, match=r"w\.length.*got 2"):
        solve(short, bound=0.1, minimize="adders")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("budgeted", [False, True])
@pytest.mark.parametrize("priced", [False, True])
def test_the_least_peak_is_found(shape: Any, budgeted: bool, priced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if priced:  # steps with many groups have prices
        monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)
    problem, limits = graph(shape, seed=6), {}
    for bound in (0.02, 0.1):
        if budgeted:
            least = solve(problem, bound=bound, minimize="storage")
            limits = {"storage": known(least.exact_cost) * Fraction(11, 10)}
            problem = graph(shape, seed=6).revise(budgets=limits)
        best = brute_force(problem, bound, limits, "peak-activation-memory")
        for solver in ("exhaustive", "exact"):
            found = solve(problem, bound=bound, minimize="peak-activation-memory", solver=solver)
            assert found.exact_cost == best
            assert found.status is Status.OPTIMAL
            assert verify(problem, found).proved


def test_a_peak_is_proved_by_its_multipliers_alone() -> None:
    """On a network of many tensors too: one quantum less is out of reach, and a stranger can see it."""
    problem = mobilenet_v1(granularity="layer")
    found = solve(problem, minimize="peak-activation-memory")
    assert found.status is Status.OPTIMAL
    assert known(found.certificate).dual_bound == found.exact_cost
    assert verify(problem, found).proved
    looser = make_instance(problem, bound=found.damage * 3, minimize="peak-activation-memory")
    assert dual_bound(looser, known(found.certificate).multipliers) < found.exact_cost


def test_a_peak_budget_is_closed_and_proved_again() -> None:
    problem = problems.load("resnet20-fashion-mnist").revise(budgets={"peak-activation-memory": "20KiB"})
    found = solve(problem, bound=0.05, minimize="storage")
    assert found.status is Status.OPTIMAL
    assert verify(problem, found).proved


def test_groups_that_count_in_damage_alone_are_settled() -> None:
    """Thousands of kernels that no limit is on: the least damage below a peak leaves them no choice."""
    problem = mobilenet_v1()
    peak = solve(problem, minimize="peak-activation-memory")
    assert peak.status is Status.OPTIMAL
    found = solve(problem, budget=peak.exact_cost, minimize="peak-activation-memory")
    assert found.status is Status.OPTIMAL
    assert found.damage <= peak.damage
    assert verify(problem, found).proved


def test_the_least_damage_below_a_peak() -> None:
    problem = graph("residual", seed=6)
    peak = solve(problem, bound=0.05, minimize="peak-activation-memory").exact_cost
    found = {s: solve(problem, budget=peak, minimize="peak-activation-memory", solver=s) for s in SOLVERS}
    assert len({answer.exact_damage for answer in found.values()}) == 1
    assert all(known(answer.exact_cost) <= known(peak) for answer in found.values())
    beside = problem.revise(budgets={"peak-activation-memory": known(peak) + 50})
    assert solve(beside, budget=peak, minimize="peak-activation-memory").exact_damage == found["exact"].exact_damage


def test_a_peak_is_not_weighed() -> None:
    with pytest.raises(UnsupportedError, match=r"minimise it alone, or make it a budget beside others"):
        solve(graph("chain"), bound=0.1, minimize={"peak-activation-memory": 1, "storage": 1})
    with pytest.raises(UnsupportedError, match=r"'milp' does not handle the least of a peak; these do: exact, "):
        solve(graph("chain"), bound=0.1, minimize="peak-activation-memory", solver="milp")


def _csv(problem: Any, path: Any, leave_out: Any = None) -> Any:
    lines = ["layer,weight_bits,activation_bits,value"]
    layers = sorted({problem.names.layers[i] for i in np.flatnonzero(problem.weights())})
    for number, layer in enumerate(layers):
        for b_w in (2, 3, 5, 8):
            for b_a in (2, 3, 5, 8):
                if (layer, b_w, b_a) != leave_out:
                    lines.append(f"{layer},{b_w},{b_a},{0.001 * (number + 1) * b_w + 0.0005 * b_a * b_a:.4f}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("shape", ["chain", "residual", "branch", "input"])
def test_latency_tables_from_csv(shape: str, tmp_path: Path) -> None:
    problem = graph(shape, seed=13)
    term = LookupCost.from_csv(_csv(problem, tmp_path / "latency.csv"), problem)
    problem = Problem(**{**problem.__dict__, "costs": (term,), "objective": {"latency": 1}})
    found = {s: solve(problem, bound=0.05, solver=s) for s in SOLVERS}
    assert len({answer.exact_cost for answer in found.values()}) == 1
    answer = found["exhaustive"]
    layers = sorted({problem.names.layers[i] for i in np.flatnonzero(problem.weights())})
    expected = Fraction(0)
    for group in np.flatnonzero(problem.weights()):
        b_w = answer.bits[group]
        b_a = answer.bits[known(problem.reads)[group]] if known(problem.reads)[group] >= 0 else 8
        number = layers.index(problem.names.layers[group])
        expected += Fraction(f"{0.001 * (number + 1) * b_w + 0.0005 * b_a * b_a:.4f}")
    assert answer.exact_cost == expected
    assert answer.status is Status.OPTIMAL


def test_kernels_share_their_layers_latency(tmp_path: Path) -> None:
    problem = graph("chain", kernels=2, bits=(2, 5))
    term = LookupCost.from_csv(_csv(problem, tmp_path / "latency.csv"), problem)
    problem = Problem(**{**problem.__dict__, "costs": (term,), "objective": {"latency": 1}})
    uniform = solve(problem, bound=10.0, solver="exhaustive")
    assert set(uniform.bits.tolist()) == {2}
    assert uniform.exact_cost == Fraction("0.004") + Fraction("0.006")
    fewer = problem.revise(bits=[5])
    assert solve(fewer, bound=10.0, solver="exhaustive").exact_cost == Fraction("0.0175") + Fraction("0.0225")


def test_bad_tables_say_where(tmp_path: Path) -> None:
    problem = graph("chain")
    with pytest.raises(ProblemError, match=r"latency: w1: has no value at 3 weight bits and 5 activation bits"):
        LookupCost.from_csv(_csv(problem, tmp_path / "a.csv", ("w1", 3, 5)), problem)
    (tmp_path / "b.csv").write_text("layer,weight_bits,activation_bits,value\nw0,2,2,fast")
    with pytest.raises(InputError, match=r"row 2 \(w0\): value: must be a number, got 'fast'"):
        LookupCost.from_csv(tmp_path / "b.csv", problem)
    (tmp_path / "c.csv").write_text("layer,bits\nw0,2\n")
    with pytest.raises(InputError, match="has no column 'weight_bits'"):
        LookupCost.from_csv(tmp_path / "c.csv", problem)


def _tight_bound(problem: Any) -> Any:
    """Return a bound that takes more than the fewest bits: twice the least damage."""
    return 2 * solve(problem, budget=1e9, minimize="representational", solver="exhaustive").damage


def test_conflicting_budgets_are_named_and_no_others() -> None:
    """Bound and storage budget conflict; the other budget is innocent, and each alone is within reach."""
    problem = graph("branch", seed=4)
    bound = _tight_bound(problem)
    least = solve(problem, bound=bound, minimize="storage", solver="exhaustive").exact_cost
    tight = problem.revise(pins={"a1": 5}, budgets={"storage": known(least) - 1, "bit-operations": 10**6})
    found = solve(tight, bound=bound, minimize="adders")
    assert found.status is Status.INFEASIBLE
    assert found.diagnosis is not None
    assert found.diagnosis.limit == "damage"
    assert [text.split(" of ")[0] for text in found.diagnosis.held_by] == ["the budget storage"]
    # What it says is reachable is what is reachable.
    truth = solve(problem, budget=known(least) - 1, minimize="storage", solver="exhaustive")
    assert found.diagnosis.smallest == pytest.approx(truth.damage, rel=1e-12)


def test_pins_in_a_conflict_are_named() -> None:
    problem = graph("residual", seed=8)
    bound = _tight_bound(problem)
    least = solve(problem, bound=bound, minimize="bit-operations", solver="exhaustive")
    pinned = problem.revise(pins={"a1": 5, "w2": 5, "w1": 5}, budgets={"bit-operations": known(least.exact_cost)})
    found = solve(pinned, bound=bound, minimize="storage")
    assert found.status is Status.INFEASIBLE
    assert found.diagnosis is not None
    held = found.diagnosis.held_by
    assert held
    assert all(text.startswith(("the pins of", "the budget bit-operations", "the ties of")) for text in held)
    assert any(text.startswith("the pins of") for text in held)


def test_pins_that_hold_a_single_limit_are_named_and_no_others() -> None:
    problem = graph("residual", seed=8)
    pinned = problem.revise(pins={"w1": 5, "a1": 5})
    least = known(solve(problem, bound=100.0, minimize="storage").exact_cost)
    found = solve(pinned.revise(budgets={"storage": least}), bound=100.0, minimize="bit-operations")
    assert known(found.diagnosis).held_by == ("the pins of w1",)
    below = pinned.revise(budgets={"storage": least - 1})
    assert known(solve(below, bound=100.0, minimize="bit-operations").diagnosis).held_by == ()
    peak = known(solve(problem, bound=100.0, minimize="peak-activation-memory").exact_cost)
    found = solve(pinned.revise(budgets={"peak-activation-memory": peak}), bound=100.0, minimize="storage")
    assert known(found.diagnosis).held_by == ("the pins of a1",)


def test_clusters_of_one_shape_and_other_candidates_are_kept_apart() -> None:
    """Two tensors with two weights each, as many candidates everywhere, and not the same ones."""
    sets = {"a0": (2, 4.25), "u0": (2, 4.25), "v0": (2, 3), "a1": (2, 3), "u1": (2, 3), "v1": (2, 3)}
    for seed in range(40):
        random = np.random.default_rng(seed)
        groups = [
            Group(
                name,
                int(random.integers(9, 40)),
                float(10 ** random.uniform(-3, 0)),
                bits=bits,
                kind="activation" if name[0] == "a" else "weight",
                reads="" if name[0] == "a" else f"a{name[1]}",
                macs=0 if name[0] == "a" else int(random.integers(1, 20)),
            )
            for name, bits in sets.items()
        ]
        problem = Problem.declare(groups, minimize="bit-operations")
        least = solve(problem, bound=1e3).exact_cost
        for share in (Fraction(6, 5), Fraction(3, 2), Fraction(2)):
            found, truth = (
                solve(problem, budget=known(least) * share, solver=solver) for solver in ("exact", "exhaustive")
            )
            assert found.damage == truth.damage, (seed, share)
