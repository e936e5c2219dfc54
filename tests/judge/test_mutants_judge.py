"""Bounds and verdicts to the last unit: at, just below and just above what is allowed, what is pinned counted in."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from known import known

from impq_opt import Enumeration, Group, Problem, Status, solve, verify
from impq_opt.costs import LookupCost, TableCost
from impq_opt.instance.question import make_instance
from impq_opt.proof.bound import dual_bound, examine
from impq_opt.proof.check import assess

ULP = Fraction(1, 2**1074)
PRICES = (0.0, 5e-324, 1e-300, 1e-9, 0.3, 1.0, 7.0, 1e9, 1e300)


def choices(instance: Any) -> Iterator[np.ndarray]:
    for choice in itertools.product(*map(range, instance.widths.tolist())):
        yield np.array(choice, dtype=np.int64)


def lagrangian(instance: Any, multipliers: dict[str, float]) -> Fraction:
    """Return the least of objective plus prices times what is above the limits, term by term in fractions."""
    values = []
    for choice in choices(instance):
        cost, damage = instance.cost_of(choice), instance.damage_of(choice)
        if instance.objective.whole:
            value = cost + Fraction(multipliers.get("bound", 0.0)) * (damage - (instance.bound or 0))
        else:
            value = damage + Fraction(multipliers.get("budget", 0.0)) * (cost - instance.limit)
        for budget in instance.budgets:
            used = instance.value_of(budget, choice) - budget.limit
            value += Fraction(multipliers.get(budget.name, 0.0)) * used
        values.append(value)
    return min(values)


def tabled(signs: tuple[int, ...] = (1, -1)) -> Problem:
    rng = np.random.default_rng(5)
    cost = rng.integers(1, 60, (5, 3)) * rng.choice(signs, (5, 3))
    used = rng.integers(1, 60, (5, 3)) * rng.choice(signs, (5, 3))
    problem = Problem.from_tables(cost, rng.random((5, 3)), costs=(TableCost.from_array(used, name="used"),))
    return problem.revise(budgets={"used": 20}, pins={"group[0]": 1, "group[3]": 2})


@pytest.mark.parametrize("signs", [(1,), (-1,), (1, -1)])
@pytest.mark.parametrize("goal", [{"bound": 2.0}, {"budget": 30}])
@pytest.mark.parametrize("second", PRICES[:-1])
def test_the_bound_of_multipliers_is_theirs_and_no_more(
    signs: Any, goal: Any, second: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)  # limits on few groups would be kept, not priced
    instance = make_instance(tabled(signs), **goal)
    for first in PRICES[:-1]:
        multipliers = {"bound" if "bound" in goal else "budget": first, "used": second}
        below, exact = dual_bound(instance, multipliers), lagrangian(instance, multipliers)
        assert below <= exact
        assert exact - below <= 2.0**-40 * (1 + first + second) * 300


def pairs(lowest: int) -> Problem:
    groups = [
        Group("x", size=3, sensitivity=0.5, kind="activation", bits=(2, 4)),
        Group("y", size=3, sensitivity=0.5, kind="activation", bits=(2, 4)),
        Group("v", size=4, sensitivity=0.9, reads="x", bits=(2, 4)),
        Group("w", size=4, sensitivity=0.7, reads="x", bits=(2, 4)),
        Group("z", size=4, sensitivity=0.6, reads="y", bits=(2, 4)),
    ]
    layout = Problem.declare(groups)
    rng = np.random.default_rng(3)
    table = {
        name: {(Fraction(w), Fraction(a)): Fraction(int(rng.integers(lowest, 20))) for w in (2, 4) for a in (2, 4)}
        for name in ("v", "w", "z")
    }
    return Problem.declare(groups, costs=(LookupCost.from_table(table, layout),), minimize="latency")


@pytest.mark.parametrize("lowest", [0, -20])
@pytest.mark.parametrize("price", PRICES[:-1])
def test_the_bound_of_pairs_is_theirs_and_no_more(lowest: int, price: Any) -> None:
    instance = make_instance(pairs(lowest), bound=0.1)
    below, exact = dual_bound(instance, {"bound": price}), lagrangian(instance, {"bound": price})
    assert below <= exact
    assert exact - below <= 2.0**-40 * (1 + price) * 300


def test_bounds_hold_to_the_last_bit_where_every_product_rounds() -> None:
    """Without taking off what may have been rounded up, one of these bounds would be above the Lagrangian."""
    rng = np.random.default_rng(11)
    for _ in range(60):
        damage = rng.random((6, 1)) / 3
        problem = Problem.from_tables(rng.integers(0, 9, (6, 1)) * 0 + 1, damage)
        twice = problem.revise(minimize="cost")
        for one, goal in ((problem, {"bound": 1.0}), (twice, {"budget": 6})):
            instance = make_instance(one, **goal)
            price = float(rng.random())
            name = "bound" if "bound" in goal else "budget"
            assert dual_bound(instance, {name: price}) <= lagrangian(instance, {name: price})
            _, dual = examine(instance, np.zeros(6, dtype=np.int64), {name: price})
            assert dual <= lagrangian(instance, {name: price})


def test_priced_pairs_are_rounded_down_to_the_last_bit() -> None:
    rng = np.random.default_rng(12)
    for _ in range(60):
        x, w = rng.random(2).tolist()
        groups = [
            Group("x", size=1, damage=(x, x), kind="activation", bits=(2, 4)),
            Group("w", size=1, damage=(w, w), macs=1, reads="x", bits=(2, 4)),
        ]
        instance = make_instance(Problem.declare(groups, minimize="bit-operations"), bound=1.0)
        price = float(rng.random())
        assert dual_bound(instance, {"bound": price}) <= lagrangian(instance, {"bound": price})


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_limits_are_kept_to_the_last_unit(step: int) -> None:
    problem = Problem.from_tables(
        [[3, 5], [4, 9]], [[0.25, 0.1], [0.5, 1e-300]], costs=(TableCost.from_array([[1, 2], [3, 4]], name="used"),)
    ).revise(budgets={"used": 5 + step})
    choice = np.array([1, 0])  # 9 at damage 0.6, using 5
    damage = Fraction(0.1) + Fraction(0.5)
    bounded = make_instance(problem, bound=damage + step * ULP)
    assert assess(bounded, choice).broken == (("bound", "used") if step < 0 else ())
    plain = make_instance(dataclasses.replace(problem, budgets={}), bound=damage + step * ULP)
    assert known(examine(plain, choice, {"bound": 1.0})[0]).broken == (("bound",) if step < 0 else ())
    budgeted = make_instance(dataclasses.replace(problem, budgets={}), budget=9 + step)
    assert assess(budgeted, choice).broken == (("budget",) if step < 0 else ())
    assert known(examine(budgeted, choice, {"budget": 1.0})[0]).broken == (("budget",) if step < 0 else ())


@pytest.mark.parametrize("width", [2, 8, 9, 20])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 40])
def test_a_choice_outside_its_group_is_none_whatever_the_others(width: int, rows: int) -> None:
    from impq_opt.errors import SolverError

    rng = np.random.default_rng(width)
    instance = make_instance(
        Problem.from_tables(rng.integers(1, 9, (rows, width)), rng.random((rows, width))), bound=9.0
    )
    least = np.zeros(rows, dtype=np.int64)
    assert examine(instance, least, {"bound": 1.0})[0] is not None
    for group in {0, rows // 2, rows - 1}:
        for column in (width, -1, width + 1, 2**62):
            choice = least.copy()
            choice[group] = column
            with pytest.raises(SolverError):
                examine(instance, choice, {"bound": 1.0})


@pytest.mark.parametrize("width", [2, 8, 9, 20])
def test_recounted_bounds_are_those_of_the_tables(width: int) -> None:
    rng = np.random.default_rng(width)
    cost, damage = rng.integers(-50, 50, (5, width)), rng.random((5, width)) * 10.0 ** rng.integers(-9, 3, (5, width))
    instance = make_instance(Problem.from_tables(cost, damage), bound=3.0)
    for price in PRICES[:-1]:
        exact = (
            sum(
                min(int(c) + Fraction(price) * Fraction(float(d)) for c, d in zip(cost[g], damage[g], strict=True))
                for g in range(5)
            )
            - Fraction(price) * 3
        )
        _, dual = examine(instance, np.zeros(5, dtype=np.int64), {"bound": price})
        assert dual <= exact
        assert exact - dual <= 2.0**-40 * (300 + 10**4 * price)


def peaks() -> Problem:
    groups = [
        Group("x", size=3, sensitivity=1.0, kind="activation", bits=(2, 4, 8), steps=(0, 1)),
        Group("y", size=5, sensitivity=2.0, kind="activation", bits=(2, 4, 8), steps=(1, 2)),
        Group("w", size=4, sensitivity=1.0, bits=(2, 4, 8)),
    ]
    return Problem.declare(groups, minimize="peak-activation-memory")


@pytest.mark.parametrize("most", [1 << 15, 0])
def test_multipliers_rule_out_no_peak_that_can_be_reached(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "impq_opt.instance.local._LARGEST", most
    )  # at 0, steps get prices: none here, which proves nothing
    for bound in (0.2, 0.05, 0.01, Fraction(1, 2**16) * 4):
        instance = make_instance(peaks(), bound=bound)
        truth = solve(peaks(), bound=bound, solver="exhaustive")
        assert truth.status is Status.OPTIMAL
        for price in PRICES:
            assert dual_bound(instance, {"bound": price}) <= known(truth.exact_cost) / instance.quantum
        found = solve(peaks(), bound=bound)  # whose bound is a whole number as it is
        assert (found.status, found.exact_lower_bound) == (Status.OPTIMAL, truth.exact_cost)
    # Where a peak is reached with equality, the Lagrangian there is zero, not positive.
    least = 2 * 3 + 2 * 5
    assert dual_bound(make_instance(peaks(), bound=4.0 / 16), {"bound": 1.0}) <= least


@pytest.mark.parametrize("solver", ["exact", "exhaustive"])
def test_what_can_just_be_met_is_met_and_a_unit_less_is_diagnosed(solver: str) -> None:
    problem = Problem.from_sensitivities([3, 5], [0.5, 0.25], bits=(2, 4, 8))
    least = (Fraction(0.5) + Fraction(0.25)) / 2**16
    assert solve(problem, bound=least, solver=solver).status is Status.OPTIMAL
    assert solve(problem, bound=least - ULP, solver=solver).status is Status.INFEASIBLE
    assert solve(problem, budget=16, solver=solver).status is Status.OPTIMAL
    assert solve(problem, budget=Fraction(15999, 1000), solver=solver).status is Status.INFEASIBLE
    limited = problem.revise(budgets={"representational": 16})
    assert solve(limited, bound=1.0, solver=solver).status is Status.OPTIMAL
    assert solve(limited.revise(budgets={"representational": 15}), bound=1.0, solver=solver).status is Status.INFEASIBLE


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1.0, -5e-324])
def test_multipliers_are_finite_and_not_negative(value: float) -> None:
    from impq_opt.errors import SolverError

    instance = make_instance(tabled(), bound=2.0)
    for name in ("bound", "used"):
        with pytest.raises(SolverError):
            dual_bound(instance, {"bound": 1.0} | {name: value})


def test_a_file_is_proved_only_where_all_of_it_is() -> None:
    problem = Problem.from_sensitivities([10, 20, 30], [1.0, 0.5, 0.1])
    found = solve(problem, bound=0.1)
    assert verify(problem, found).proved
    lie = dataclasses.replace(found, exact_cost=known(found.exact_cost) + 1)
    assert not verify(problem, lie).proved
    assert not verify(problem, lie).ok


def test_the_enumeration_is_complete_to_the_last_quantum() -> None:
    """A second answer lies one quantum under the claimed optimum, and keeps its limit with equality."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cost, damage = rng.integers(0, 7, (4, 3)), rng.integers(0, 5, (4, 3)).astype(float)
        problem = Problem.from_tables(cost, damage)
        bound = float(damage[np.arange(4), rng.integers(0, 3, 4)].sum()) or 1.0
        truth = solve(problem, bound=bound, solver="exhaustive")
        if truth.status is not Status.OPTIMAL:
            continue
        for found in (c for c in choices(make_instance(problem, bound=bound))):
            spent = Fraction(float(damage[np.arange(4), found].sum()))
            price = int(cost[np.arange(4), found].sum())
            if price == known(truth.exact_cost) + 1 and spent <= bound:
                lie = dataclasses.replace(
                    truth,
                    choice=found,
                    exact_cost=Fraction(price),
                    exact_damage=spent,
                    exact_lower_bound=Fraction(price),
                )
                assert not verify(problem, lie).proved, seed
                break


def test_an_answer_a_quantum_above_its_bound_is_not_optimal() -> None:
    """At a price of nothing the bound is the least cost, 1, exactly: an answer of 2 leaves a gap, one of 1 none."""
    from impq_opt.instance import Instance
    from impq_opt.instance.contract import Claim, Control, Solver

    @dataclasses.dataclass(frozen=True)
    class Priced(Solver):
        name: ClassVar[str] = "priced"
        summary: ClassVar[str] = "takes one column, at a price of nothing"
        column: int = 0

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(np.array([self.column]), multipliers={"bound": 0.0})

    problem = Problem.from_tables([[1, 2, 3]], [[0.5, 0.25, 0.125]])
    wanted = [Status.OPTIMAL, Status.FEASIBLE, Status.FEASIBLE]
    for column, status in enumerate(wanted):
        found = solve(problem, bound=1.0, solver=Priced(column))
        assert (found.status, found.exact_lower_bound, known(found.certificate).dual_bound) == (status, 1, 1)


def test_a_bound_on_damage_is_rounded_down() -> None:
    from impq_opt.instance import Instance
    from impq_opt.instance.contract import Claim, Control, Solver

    @dataclasses.dataclass(frozen=True)
    class Priced(Solver):
        name: ClassVar[str] = "priced"
        summary: ClassVar[str] = "takes the first of all, at a price"
        supports: ClassVar[frozenset[str]] = frozenset({"damage"})
        price: float = 0.0

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(np.zeros(instance.size, dtype=np.int64), multipliers={"budget": self.price})

    inexact = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        problem = Problem.from_tables(rng.integers(1, 9, (5, 3)), rng.random((5, 3)))
        price = float(rng.random() / 99)
        exact = dual_bound(make_instance(problem, budget=40), {"budget": price})
        found = solve(problem, budget=40, solver=Priced(price))
        assert found.exact_lower_bound <= exact
        inexact += float(exact) > exact  # to the nearest would be too high
    assert inexact > 5


@pytest.mark.parametrize(
    "parts",
    [
        {"lower_bound": math.nan},
        {"lower_bound": np.float64(math.nan)},
        {"lower_bound": 1, "enumeration": Enumeration(-1, 5)},
        {"lower_bound": 1, "enumeration": Enumeration(5, -1)},
        {"lower_bound": 1, "enumeration": Enumeration(5, 1 << 63)},
    ],
)
def test_claims_that_are_no_numbers_are_none(parts: Any) -> None:
    from impq_opt.errors import SolverError
    from impq_opt.instance.claims import checked
    from impq_opt.instance.contract import Claim

    with pytest.raises(SolverError):
        checked(Claim(**parts), "one")


@pytest.mark.parametrize(
    "bound", [np.int64(2**62), np.float64(0.5), np.uint64(2**63), np.float32(0.1), 3, Fraction(1, 3)]
)
def test_claimed_bounds_are_plain_numbers(bound: Any) -> None:
    from impq_opt.instance.claims import checked
    from impq_opt.instance.contract import Claim

    found = checked(Claim(lower_bound=bound), "one").lower_bound
    assert type(found) in (int, float, Fraction)
    assert found == bound


@pytest.mark.parametrize(("states", "status"), [(100_000, Status.OPTIMAL), (1, Status.FEASIBLE)])
def test_an_enumeration_of_others_counts_where_it_is_repeated(
    states: int, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    from impq_opt.instance import Instance
    from impq_opt.instance.contract import Claim, Control, Solver

    monkeypatch.setattr("impq_opt.proof.status._REPEATED", states)
    problem = Problem.from_tables([[1, 9], [2, 8], [3, 7], [4, 6]], [[0.5, 0.1], [0.4, 0.1], [0.3, 0.1], [0.2, 0.1]])
    truth = solve(problem, bound=0.7, solver="exhaustive")

    @dataclasses.dataclass(frozen=True)
    class Stranger(Solver):
        name: ClassVar[str] = "stranger"
        summary: ClassVar[str] = "knows the answer"

        def run(self, instance: Instance, control: Control) -> Claim:
            return Claim(truth.choice, int(known(truth.exact_cost)), enumeration=Enumeration(4, 16))

    assert solve(problem, bound=0.7, solver=Stranger()).status is status
