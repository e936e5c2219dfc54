"""Optima that one quantum, one bit or one tie decides, of problems too large to try everything: by dynamic programs.

Damages are whole numbers times a power of two (and a trace of a far smaller one), so a table over sums of whole numbers
finds the truth, whatever a strategy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pytest
from known import known, table_of

from impq_opt import Group, Problem, Status, solve, verify
from impq_opt.costs import LookupCost, TableCost
from impq_opt.instance import Instance
from impq_opt.instance.question import make_instance
from impq_opt.solvers import native
from impq_opt.solvers.exact.strategy import Exact
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.lagrange import hull as _hull

TRACE = Fraction(1, 2**70)


def least(rows: Sequence[Sequence[tuple[int, tuple[int, ...]]]], most: tuple[int, ...]) -> int | None:
    """Return the least sum of costs whose sums of needs are at most ``most``; rows are lists of (cost, needs)."""
    lowest = [tuple(min(n[i] for _, n in row) for i in range(len(most))) for row in rows]
    rest = [tuple(sum(row[i] for row in lowest[g:]) for i in range(len(most))) for g in range(len(rows) + 1)]
    states: dict[tuple[int, ...], int] = {(0,) * len(most): 0}
    for g, row in enumerate(rows):
        grown: dict[tuple[int, ...], int] = {}
        for used, spent in states.items():
            for cost, needs in row:
                now = tuple(a + b for a, b in zip(used, needs, strict=True))
                if any(a + r > m for a, r, m in zip(now, rest[g + 1], most, strict=True)):
                    continue
                if spent + cost < grown.get(now, 1 << 200):
                    grown[now] = spent + cost
        states = grown
    return min(states.values(), default=None)


def row_of(rng: Random, kind: str, width: int) -> tuple[list[int], list[int]]:
    """Return costs and damages of one group."""
    if kind == "any":
        return [rng.randrange(40) for _ in range(width)], [rng.randrange(12) for _ in range(width)]
    if kind == "falling":
        return sorted(rng.sample(range(60), width)), sorted((rng.randrange(25) for _ in range(width)), reverse=True)
    if kind == "one ratio":
        steps = sorted(rng.sample(range(20), width))
        return [3 * s + 1 for s in steps], [20 - s for s in steps]
    if kind == "lattice":
        return sorted(7 * rng.randrange(9) - 11 for _ in range(width)), [rng.randrange(12) for _ in range(width)]
    if kind == "equal costs":
        return [rng.choice([2, 5, 5, 9]) for _ in range(width)], [rng.randrange(9) for _ in range(width)]
    gain = rng.randrange(1, 30)  # "knapsack"
    return [0, gain + 3] + [gain + 3] * (width - 2), [gain, 0] + [gain // 2] * (width - 2)


KINDS = ("any", "falling", "one ratio", "lattice", "equal costs", "knapsack")


@pytest.mark.parametrize("width", [2, 3, 8, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_one_limit(kind: str, width: int) -> None:
    for seed in range(6):
        rng = Random(seed)
        groups = rng.randrange(9, 20)
        rows = [row_of(rng, kind, width) for _ in range(groups)]
        cost, damage = np.array([c for c, _ in rows]), np.array([d for _, d in rows])
        unit = 2.0 ** rng.choice([0, -30, -1000])
        places = np.arange(groups), [rng.randrange(width) for _ in range(groups)]
        most = int(damage[places].sum()) // rng.choice([1, 1, 2])
        problem = Problem.from_tables(cost, damage * unit)
        truth = least([[(c, (d,)) for c, d in zip(*r, strict=True)] for r in rows], (most,))
        found = solve(problem, bound=Fraction(most or Fraction(1, 2)) * Fraction(unit))
        assert (found.exact_cost, found.status is Status.INFEASIBLE) == (truth, truth is None), seed
        spent = int(cost[places].sum())
        best = least([[(d, (c,)) for c, d in zip(*r, strict=True)] for r in rows], (spent,))
        dual = solve(problem, budget=Fraction(spent))
        assert dual.status is Status.OPTIMAL, seed
        assert dual.exact_damage == known(best) * Fraction(unit), seed


@pytest.mark.parametrize("kind", KINDS)
def test_one_limit_with_candidates_of_every_number(kind: str) -> None:
    for seed in range(10):
        rng = Random(seed)
        groups = rng.randrange(9, 18)
        rows = [row_of(rng, kind, 6) for _ in range(groups)]
        bits = [tuple(range(1, 1 + rng.randrange(1, 7))) for _ in range(groups)]
        cost, damage = np.array([c for c, _ in rows]), np.array([d for _, d in rows]) * 1.0
        # What lies past a group's candidates is cheaper and better than all of them.
        for g, own in enumerate(bits):
            cost[g, len(own) :], damage[g, len(own) :] = -1000, 0.0
        chosen = [rng.randrange(len(own)) for own in bits]
        most = int(damage[np.arange(groups), chosen].sum()) or 1
        problem = Problem.from_tables(cost, damage, bits=bits)
        kept = [[(c, (d,)) for c, d in list(zip(*r, strict=True))[: len(b)]] for r, b in zip(rows, bits, strict=True)]
        found, truth = solve(problem, bound=most), least(kept, (most,))
        assert found.status is Status.OPTIMAL, seed
        assert found.exact_cost == truth, seed


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("kind", ["any", "falling", "equal costs", "knapsack"])
def test_two_limits(kind: str, trace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a trace, sums of damages do not fit 64 bits, and a bound is attained to the last of them."""
    monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)  # every limit is priced
    for seed in range(6):
        rng = Random(seed)
        groups = rng.randrange(8, 12)
        rows = []
        for _ in range(groups):
            cost, damage = row_of(rng, kind, 3)
            used, traces = [rng.randrange(5) for _ in range(3)], [rng.randrange(3) if trace else 0 for _ in range(3)]
            # A trace beside a whole number would be rounded off: it stands alone.
            damage = [0 if t else min(d, 6) for d, t in zip(damage, traces, strict=True)]
            rows.append([(c, (u, d, t)) for c, u, d, t in zip(cost, used, damage, traces, strict=True)])
        chosen = [rng.choice(row)[1] for row in rows]
        most = tuple(sum(needs[i] for needs in chosen) for i in range(3))
        table = [[float(Fraction(n[1]) + n[2] * TRACE) for _, n in row] for row in rows]
        problem = Problem.from_tables(
            [[c for c, _ in row] for row in rows],
            table,
            costs=(TableCost.from_array([[n[0] for _, n in row] for row in rows], name="used"),),
        )
        if most[0] == 0 or most[1] + most[2] == 0:
            continue
        # Whole numbers and traces are two limits in one: less of the first pays for any of the second.
        truths = [least(rows, most), least(rows, (most[0], most[1] - 1, 10**6))]
        truth = min(value for value in truths if value is not None)
        found = solve(problem.revise(budgets={"used": most[0]}), bound=Fraction(most[1]) + most[2] * TRACE)
        # With traces a gap may stay open: that is no lie, but a bound above the truth would be one.
        assert found.status is Status.OPTIMAL or (trace and found.status is Status.FEASIBLE), seed
        assert found.exact_lower_bound <= truth <= known(found.exact_cost), seed
        assert found.exact_cost == truth or found.status is Status.FEASIBLE, seed


def test_three_limits_attained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)
    for seed in range(10):
        rng = Random(seed)
        rows = [[(rng.randrange(30), tuple(rng.randrange(4) for _ in range(3))) for _ in range(3)] for _ in range(9)]
        chosen = [rng.choice(row)[1] for row in rows]
        most = tuple(max(1, sum(needs[i] for needs in chosen)) for i in range(3))
        used = [TableCost.from_array([[n[i] for _, n in row] for row in rows], name=f"u{i}") for i in (1, 2)]
        problem = Problem.from_tables(
            [[c for c, _ in row] for row in rows], [[float(n[0]) for _, n in row] for row in rows], costs=tuple(used)
        ).revise(budgets={"u1": most[1], "u2": most[2]})
        found = solve(problem, bound=most[0])
        assert found.status is Status.OPTIMAL, seed
        assert found.exact_cost == least(rows, most), seed


def hull(cost: list[int], damage: list[float]) -> list[int]:
    """Return the columns of the lower convex hull, the cheapest first, the farthest of those on one line."""
    at = min(range(len(cost)), key=lambda k: (cost[k], damage[k], k))
    columns = [at]
    while True:
        better = [k for k in range(len(cost)) if cost[k] > cost[at] and damage[k] < damage[at]]
        if not better:
            return columns
        ratio = {k: (Fraction(damage[at]) - Fraction(damage[k])) / (cost[k] - cost[at]) for k in better}
        at = max(better, key=lambda k: (ratio[k], -Fraction(damage[k]), -cost[k], -k))
        columns.append(at)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 9, 12])
@pytest.mark.parametrize("compiled", [True, False])
def test_hulls_are_those_of_fractions(width: int, whole: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "kernel", None)
    elif native.kernel is None:
        pytest.skip("no compiled parts")
    rng = np.random.default_rng(width)
    for spread in (3, 6, 40):
        cost = rng.integers(0, spread, (300, width))
        damage = rng.integers(0, spread, (300, width))
        if not whole:
            damage = damage.astype(np.float64)
        steps = _hull.hull_edges(cost, damage)
        for group in range(300):
            mine = steps.group == group
            columns = [int(steps.start[group]), *steps.to[mine].tolist()]
            wanted = hull(cost[group].tolist(), damage[group].tolist())
            points = [(int(cost[group, k]), float(damage[group, k])) for k in columns]
            assert points == [(int(cost[group, k]), float(damage[group, k])) for k in wanted]
            assert (np.diff(steps.ratio[mine]) <= 0).all()
            assert steps.cost[mine].tolist() == np.diff([c for c, _ in points]).tolist()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("width", [6, 12])
def test_steps_do_not_overtake_where_ratios_round(width: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "kernel", None)
    elif native.kernel is None:
        pytest.skip("no compiled parts")
    rng = np.random.default_rng(0)
    # Points on one line but for the rounding of each: ratios of later steps may round to more than those before.
    cost = np.sort(rng.choice(10**6, (2000, width)), axis=1)
    damage = (2 * 10**6 - cost) / 3e6
    steps = _hull.hull_edges(cost, damage)
    same = np.diff(steps.group) == 0
    assert (np.diff(steps.ratio)[same] <= 0).all()
    # And where the damage of the next step is read off a number with more places than the one before.
    cost = np.sort(rng.integers(0, 60, (20000, 4)), axis=1)
    top = rng.random((20000, 1)) + 0.5
    damage = np.abs(top - top / (cost[:, -1:] + 1) * (cost - cost[:, :1]))
    damage *= 1 + rng.integers(-2, 3, damage.shape) * 2.0**-53
    steps = _hull.hull_edges(cost, damage)
    same = np.diff(steps.group) == 0
    assert (np.diff(steps.ratio)[same] <= 0).all()


@pytest.mark.parametrize("alone", [False, True])
def test_a_tie_whose_sum_is_rounded_down_is_decided_exactly(alone: bool) -> None:
    """Two tied groups' damages add up to more than their rounded sum, and the bound lies between the two."""
    small = 2.0**-60
    groups = [
        Group("x", size=1, damage=(1.0, 0.0), kind="activation", bits=(2, 4)),
        Group("a", size=2, damage=(small, 0.0), reads="x", macs=2, bits=(2, 4)),
        Group("b", size=2, damage=(1.0, 0.5), reads="x", macs=2, bits=(2, 4)),
    ]
    problem = Problem.declare(groups, minimize="bit-operations", ties=[("a", "b")])
    strategy = Exact(tuning=ON_ITS_OWN) if alone else Exact()
    for bound in (Fraction(2), Fraction(2) + Fraction(small) / 2, Fraction(2) + Fraction(small)):
        found = solve(problem, bound=bound, solver=strategy)
        truth = solve(problem, bound=bound, solver="exhaustive")
        assert (found.status, found.exact_cost) == (truth.status, truth.exact_cost)
        assert verify(problem, found).ok


@pytest.mark.parametrize("alone", [False, True])
def test_a_cluster_whose_sum_is_rounded_down_is_decided_exactly(alone: bool) -> None:
    small = 2.0**-60
    groups = [
        Group("x", size=1, damage=(1.0, 0.25), kind="activation", bits=(2, 4)),
        Group("a", size=2, damage=(small, 0.0), reads="x", macs=2, bits=(2, 4)),
        Group("y", size=1, damage=(1.0, 0.25), kind="activation", bits=(2, 4)),
        Group("b", size=2, damage=(small, 0.0), reads="y", macs=2, bits=(2, 4)),
    ]
    problem = Problem.declare(groups, minimize="bit-operations")
    strategy = Exact(tuning=ON_ITS_OWN) if alone else Exact()
    for bound in (2 + i * Fraction(small) / 2 for i in range(-1, 6)):
        found = solve(problem, bound=bound, solver=strategy)
        truth = solve(problem, bound=bound, solver="exhaustive")
        assert (found.status, found.exact_cost) == (truth.status, truth.exact_cost)


def star(rng: Random, activations: int, weights: int) -> Problem:
    widths = (2, 3, 4, 6)
    groups = [
        Group(
            f"x{i}", size=1, damage=[4.0 * rng.randrange(9) / (k + 1) for k in range(4)], kind="activation", bits=widths
        )
        for i in range(activations)
    ]
    for i in range(weights):
        reads, also = rng.sample(range(activations), 2)
        damage = sorted((float(rng.randrange(40)) for _ in widths), reverse=True)
        more = [(f"x{also}", rng.randrange(1, 9))] if rng.random() < 0.5 else []
        groups.append(
            Group(
                f"w{i}",
                size=3,
                damage=damage,
                macs=rng.randrange(1, 30),
                reads=f"x{reads}",
                also_reads=more,
                bits=widths,
            )
        )
    return Problem.declare(groups, minimize="bit-operations")


def test_branching_finds_what_looking_at_every_activation_finds() -> None:
    """Per choice of all activations the rest is a table of whole numbers: a dynamic program each."""
    import itertools

    for seed in range(6):
        rng = Random(seed)
        problem = star(rng, 2 + seed % 2, 5)
        widths, places = (2, 3, 4, 6), {name: i for i, name in enumerate(problem.names)}
        acts = [name for name in problem.names if name.startswith("x")]
        damage = (table_of(problem).values * 3).round().astype(int)  # thirds: 4 i / 3 becomes 4 i
        exact = np.array(damage / 3)
        problem = Problem.declare(
            [
                Group(
                    name,
                    size=int(problem.sizes[g]),
                    damage=exact[g].tolist(),
                    kind="activation" if name in acts else "weight",
                    bits=widths,
                    macs=int(known(problem.macs)[g]),
                    reads="" if name in acts else problem.names[int(known(problem.reads)[g])],
                    also_reads=[
                        (problem.names[int(a)], int(m))
                        for w, a, m in (problem.also_reads if problem.also_reads is not None else [])
                        if w == g
                    ],
                )
                for name, g in places.items()
            ],
            minimize="bit-operations",
        )
        most = int(damage.sum()) // 8
        truth = None
        for choice in itertools.product(range(4), repeat=len(acts)):
            used = sum(damage[places[a], k] for a, k in zip(acts, choice, strict=True))
            bits = dict(zip([places[a] for a in acts], (widths[k] for k in choice), strict=True))
            rows = []
            for name, g in places.items():
                if name in acts:
                    continue
                rate = int(known(problem.macs)[g]) * bits[int(known(problem.reads)[g])]
                further: Any = problem.also_reads if problem.also_reads is not None else []
                rate += sum(int(m) * bits[int(a)] for w, a, m in further if w == g)
                rows.append([(rate * w, (int(damage[g, k]),)) for k, w in enumerate(widths)])
            value = least(rows, (most - int(used),)) if used <= most else None
            truth = value if truth is None or (value is not None and value < truth) else truth
        # Thirds are no float64s: half a third more than the whole sum covers their rounding, and no other sum.
        found = solve(problem, bound=Fraction(2 * most + 1, 6))
        assert found.exact_cost == truth, seed
        assert found.status in (Status.OPTIMAL, Status.INFEASIBLE), seed


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("step", [1, 6])
def test_a_core_is_searched_to_the_last_unit(compiled: bool, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gains from anywhere, on a lattice or not; needs of a few units, so that one of them decides."""
    from impq_opt.instance.contract import Control
    from impq_opt.solvers.exact.core import search
    from impq_opt.solvers.native.program import Core

    if not compiled:
        monkeypatch.setattr(native, "core", None)
    elif native.core is None:
        pytest.skip("no compiled parts")
    for seed in range(150):
        rng = np.random.default_rng(seed)
        groups, width = int(rng.integers(2, 7)), int(rng.integers(2, 5))
        gain = step * rng.integers(0, 8, (groups, width)) + rng.integers(-20, 20, (groups, 1))
        need = rng.integers(-2, 5, (groups, width))
        every = np.indices((width,) * groups).reshape(groups, -1)
        gains = sum(gain[g, every[g]] for g in range(groups))
        needs = sum(need[g, every[g]] for g in range(groups))
        room = int(needs[rng.integers(len(needs))]) - int(rng.integers(0, 2))
        fits = gains[needs <= room]
        for above in (-1, 0, 1, 50):
            target = int(fits.min()) + above if len(fits) else 10**6
            found = search(Core(gain, need, room, target), 10**6, Control(), Tuning())
            truth = int(fits.min()) if len(fits) and fits.min() <= target else None
            assert found.gain == truth, (seed, above)
            if truth is not None:
                places = np.arange(groups), found.columns
                assert gain[places].sum() == truth
                assert need[places].sum() <= room


@pytest.mark.parametrize("width", [1, 2, 5, 8, 9, 12])
def test_a_scan_settles_what_one_candidate_is_best_for_at_both_ends(width: int) -> None:
    from impq_opt.instance import Block
    from impq_opt.solvers.exact.scan import scan

    rng = np.random.default_rng(width)
    cost, damage = rng.integers(0, 40, (400, width)), rng.integers(0, 40, (400, width)).astype(np.float64)
    widths = rng.integers(1, width + 1, 400)
    for low, high, threshold in ((0.25, 4.0, 3.25), (0.5, 0.5, 0.125), (0.125, 8.0, 0.0625), (1.0, 2.0, 20.5)):
        for own in (None, widths):
            found = scan([Block(slice(None), cost, damage, own)], 400, low, high, threshold)
            for row in range(400):
                most = width if own is None else int(own[row])
                values = [(cost[row, :most] + price * damage[row, :most]).tolist() for price in (low, high)]
                kept = [k for k in range(most) if any(v[k] <= min(v) + threshold for v in values)]
                assert (row in found.pool.places) == (len(kept) > 1), (row, kept)
                assert values[0][found.columns[row]] == min(values[0])
            for place, row in enumerate(found.pool.places.tolist()):
                most = width if own is None else int(own[row])
                assert found.pool.cost[place, :most].tolist() == cost[row, :most].tolist()
                assert (found.pool.cost[place, most:] > 1 << 40).all()


# -- what small instances do not reach: they are enumerated before any price is looked for


ON_ITS_OWN = Tuning(enumerated=0, last_resort=0)


def held_to(problem: Problem, goals: dict[str, Any], tuning: Tuning = ON_ITS_OWN) -> bool:
    """Hold an answer of the search to the truth; return whether it was proved the best."""
    truth = solve(problem, solver="exhaustive", **goals)
    found = solve(problem, solver=Exact(tuning=tuning), **goals)
    if truth.choice is None:
        assert found.choice is None
        return found.status is Status.INFEASIBLE
    assert found.exact_lower_bound <= known(truth.exact_objective)
    assert found.status in (Status.OPTIMAL, Status.FEASIBLE)
    assert known(found.exact_objective) >= known(truth.exact_objective)
    if found.status is Status.OPTIMAL:
        assert float(known(found.exact_objective)) == float(known(truth.exact_objective))
    return found.status is Status.OPTIMAL


@pytest.mark.parametrize("limits", [1, 2, 3])
@pytest.mark.parametrize("direction", ["cost", "damage"])
@pytest.mark.parametrize("large", [0, 10**6, 10**12, None])
def test_several_limits_are_searched_to_the_last_unit(
    limits: int, direction: str, large: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs that differ by units on top of large ones, whole damages, limits that an assignment meets exactly."""
    monkeypatch.setattr("impq_opt.instance.local._LARGEST", 0)  # limits on few groups would be branched on
    closed = 0
    for seed in range(17):
        rng = np.random.default_rng([seed, limits])
        size = 6
        cost = rng.integers(0, 10**6, (size, 3)) if large is None else large + rng.integers(0, 9, (size, 3))
        damage = rng.integers(1, 9, (size, 3)).astype(float)
        tables = [rng.integers(0, 9, (size, 3)) for _ in range(limits)]
        names = [f"used{i}" for i in range(limits)]
        at = np.arange(size), rng.integers(0, 3, size)
        problem = Problem.from_tables(
            cost, damage, costs=[TableCost.from_array(table, name=n) for table, n in zip(tables, names, strict=True)]
        ).revise(budgets={n: int(table[at].sum()) or 1 for table, n in zip(tables, names, strict=True)})
        goals = {"bound": float(damage[at].sum())} if direction == "cost" else {"budget": int(cost[at].sum())}
        closed += held_to(problem, goals)
    assert closed >= (16 if direction == "cost" else 8)


@pytest.mark.parametrize("goal", [{"bound": 6.0}, {"bound": 14.0}, {"bound": 20.0}])
@pytest.mark.parametrize("joined", [512, 1])
def test_branching_is_to_the_last_quantum(joined: int, goal: dict[str, float]) -> None:
    """Tables of pairs in small whole numbers, some below zero."""
    for seed in range(25):
        problem, _ = looked_up(seed)
        assert held_to(problem, goal, replace(ON_ITS_OWN, joined=joined))


@pytest.mark.parametrize("nodes", [0, 1, 2, 4, 8])
def test_what_a_stopped_branching_proves_is_true(nodes: int) -> None:
    from impq_opt.instance.contract import Control
    from impq_opt.solvers.exact.coupled import solve_coupled

    below = 0
    for seed in range(25):
        problem, instance = looked_up(seed, weights=6)
        truth = solve(problem, bound=14.0)
        if truth.choice is None:
            continue
        assert truth.status is Status.OPTIMAL
        # No cluster becomes a group.
        claim = solve_coupled(instance, Control(), Exact()._run_limited, joined=1, nodes=nodes)
        assert claim.lower_bound <= known(truth.exact_cost) / instance.quantum
        below += claim.lower_bound < known(truth.exact_cost) / instance.quantum
    assert below or nodes > 1


def looked_up(seed: int, weights: int = 5) -> tuple[Problem, Instance]:
    rng = Random(seed)
    bits = (2, 3, 4)
    groups = [
        Group(f"x{i}", size=1, damage=[float(rng.randrange(6)) for _ in bits], kind="activation", bits=bits)
        for i in range(4)
    ]
    for i in range(weights):
        one, other = rng.sample(range(4), 2)
        damage = [float(rng.randrange(9)) for _ in bits]
        more = [(f"x{other}", 1)] if rng.random() < 0.7 else []
        groups.append(Group(f"w{i}", 3, damage=damage, macs=1, reads=f"x{one}", also_reads=more, bits=bits))
    times = {
        f"w{i}": {(Fraction(b), Fraction(a)): Fraction(rng.randint(-3, 9)) for b in bits for a in bits}
        for i in range(weights)
    }
    terms = [LookupCost.from_table(times, Problem.declare(groups))]
    problem = Problem.declare(groups, costs=terms, minimize="latency")
    return problem, make_instance(problem, bound=14.0)


def test_a_state_that_needs_a_unit_less_is_kept() -> None:
    from impq_opt.solvers.exact.states import States, undominated

    none = np.zeros(3, dtype=np.int64)
    for used, kept in (([5, 4, 3], [0, 1, 2]), ([5, 5, 4], [0, 2]), ([4, 5, 4], [0])):
        states = States(np.arange(3), np.array(used)[:, None], none, none, np.zeros(3))
        assert undominated(states).tolist() == kept
