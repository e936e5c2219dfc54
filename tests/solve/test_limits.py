"""Numbers at, just below and just above every limit: the truth, or a sentence; never an "optimal" that is not."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import QUICK

from impq_opt import Group, Problem, Status, frontier, solve, verify
from impq_opt.costs import LookupCost, TableCost
from impq_opt.errors import ProblemError, UnsupportedError
from impq_opt.exactness import limits, native
from impq_opt.exactness.sums import nearest_float, reported_as_low, sum_rows_down
from impq_opt.files import load_allocation, save_allocation
from impq_opt.groups.candidates import Candidates
from impq_opt.insight.explain import explain
from impq_opt.instance import Block, Row
from impq_opt.instance.contract import Control
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problems.families import generate
from impq_opt.solvers import make_solver
from impq_opt.solvers import native as solver_native
from impq_opt.solvers.exact.scan import everything, gather, scan
from impq_opt.solvers.exact.strategy import Exact
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.exact.whole import beyond_floats, solve_whole
from impq_opt.solvers.lagrange.scaled import _scaled
from impq_opt.solvers.native.cores import within
from impq_opt.solvers.native.passes import PROHIBITIVE

ROOT = Path(__file__).parents[2]
TOTAL = limits.LARGEST_TOTAL
HUGE = float(np.finfo(np.float64).max)


@pytest.fixture(params=["compiled", "numpy"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        for module, names in ((solver_native, ("kernel", "core", "stars")), (native, ("library",))):
            for name in names:
                monkeypatch.setattr(module, name, None)
    return str(request.param)


# -- one place -------------------------------------------------------------------------------------------------------


def test_every_compiled_part_was_built_with_these_limits() -> None:
    parts = [solver_native.kernel, solver_native.core, solver_native.stars, native.library]
    for part in parts:
        if part is not None:
            assert limits.shared() == part.LIMITS


def test_no_c_source_says_a_limit_of_its_own() -> None:
    for file in (*ROOT.glob("impq_opt/*.[ch]"), *ROOT.glob("solvers/*.[ch]")):
        assert not re.search(rf"#define ({'|'.join(limits.shared())})\b", file.read_text()), file


def test_limits_leave_room_in_64_bits() -> None:
    span = 2 * (TOTAL - 1)  # of a group, and of sums over groups
    assert span < limits.PROHIBITIVE and span < limits.UNLIMITED
    assert (TOTAL - 1) + limits.PROHIBITIVE < 1 << 63  # a padded cost
    assert span + limits.PROHIBITIVE < 1 << 63  # its difference
    assert span + limits.UNLIMITED < 1 << 63  # needs less the room
    assert (1 << limits.CORE_BITS) + limits.UNLIMITED < 1 << 63
    assert limits.MOST_STATES * limits.MOST_COLUMNS < 1 << 31
    assert limits.MOST_TERMS << 32 < 1 << 63
    assert int(HUGE) << 31 <= limits.ABOVE_ALL_DAMAGE


# -- against brute force ---------------------------------------------------------------------------------------------

Every = list[tuple[tuple[int, ...], Fraction]]


def assignments(rows: list[list[list[int]]], damage: list[list[float]], widths: list[int], keeps: Any = None) -> Every:
    """Return every row's cost and the damage of every assignment, exactly."""
    found = []
    for choice in itertools.product(*map(range, widths)):
        if keeps is None or keeps(choice):
            costs = tuple(sum(row[g][k] for g, k in enumerate(choice)) for row in rows)
            found.append((costs, sum((Fraction(damage[g][k]) for g, k in enumerate(choice)), Fraction(0))))
    return found


def judge(found: Allocation, every: Every, bound: Fraction | None, most: dict[int, int]) -> None:
    """Check what an answer says of itself; ``most`` limits rows by their number."""
    fits = [e for e in every if (bound is None or e[1] <= bound) and all(e[0][r] <= m for r, m in most.items())]
    by_cost = found.minimizes == "cost"
    best = min((e[0][0] if by_cost else e[1] for e in fits), default=None)
    if found.status is Status.INFEASIBLE:
        assert best is None
    if found.choice is not None:
        assert best is not None
        assert found.exact_objective is not None and found.exact_objective >= best
        assert found.exact_lower_bound <= best
        assert found.status in (Status.OPTIMAL, Status.FEASIBLE)
    if found.status is Status.OPTIMAL:
        assert best is not None and found.exact_objective is not None
        assert found.exact_objective == best if by_cost else reported_as_low(found.exact_objective, Fraction(best))
    repr(found)


def ask(
    problem: Problem, every: Every, limit: Fraction | int, by_cost: bool, most: dict[int, int], **more: Any
) -> Allocation:
    """Ask for the least cost within a bound, or for the least damage within a budget, and judge the answer."""
    if by_cost:
        found = solve(problem, bound=Fraction(limit), **more)
        judge(found, every, Fraction(limit), most)
    else:
        found = solve(problem, budget=Fraction(limit), **more)
        judge(found, every, None, {**most, 0: int(limit)})
    return found


SPANS = [(1 << e) + d for e in (59, 60, 61) for d in (-1, 0, 1)] + [2 * TOTAL - 3, 2 * TOTAL - 2]


@pytest.mark.parametrize("span", SPANS)
def test_groups_that_span_a_power_of_two(span: int, path: str) -> None:
    """One dear candidate does no damage: it must stay a candidate."""
    for low in {-(span // 2), max(-(TOTAL - 1), -span), min(0, TOTAL - 1 - span), TOTAL - 1 - span}:
        high = low + span
        if max(abs(low), abs(high)) >= TOTAL:
            continue
        cost, damage = [[low, high, high]], [[1.0, 0.5, 0.0]]
        problem, every = Problem.from_tables(cost, damage), assignments([cost], damage, [3])
        for bound in (0.25, 0.5, 0.75, 1.0):
            assert ask(problem, every, Fraction(bound), True, {}).status is Status.OPTIMAL
        for budget in (low, low + 1, high - 1, high, high + 1):
            assert ask(problem, every, budget, False, {}).status is Status.OPTIMAL
        ask(problem, every, low - 1, False, {})


@pytest.mark.parametrize("groups", [2, 3, 7])
def test_gains_and_needs_that_nearly_fill_64_bits(groups: int, path: str) -> None:
    """Sums of differences over a core come to 2**62, and rooms beyond it are no limit."""
    most = (TOTAL - 1) // groups
    cost = [[-most, most, most - g] for g in range(groups)]
    damage = [[1.0, 0.0, 0.25 + g / 64] for g in range(groups)]
    problem, every = Problem.from_tables(cost, damage), assignments([cost], damage, [3] * groups)
    for _, total in every[:: max(1, len(every) // 40)]:
        if total > 0:
            assert ask(problem, every, total, True, {}).status is Status.OPTIMAL
    for (spent,), _ in every[:: max(1, len(every) // 40)]:
        for budget in (spent - 1, spent, spent + 1):
            ask(problem, every, budget, False, {})
    for budget in (2 * TOTAL - 1, 2 * TOTAL, 1 << 63, 10**40, -(10**40)):
        ask(problem, every, budget, False, {})


def test_a_step_off_the_hull_of_nearly_the_whole_range_is_a_step(path: str) -> None:
    """What the hull leaves of the budget is nearly 2**62, and one more candidate fits into it."""
    top = TOTAL - 1
    cost, damage = [[-top, top, top - 5]], [[1.0, 0.0, 0.875]]
    problem, every = Problem.from_tables(cost, damage), assignments([cost], damage, [3])
    for budget in (top - 6, top - 5, top - 1, top):
        assert ask(problem, every, budget, False, {}).status is Status.OPTIMAL


def numbers(kind: str, r: random.Random, most: int) -> int:
    if kind == "decades":
        return r.choice((1, -1)) * min(most, (1 << r.randrange(62)) + r.randrange(-2, 3))
    if kind == "extremes":
        return r.choice([-most, most, 0, 1, most - 1, 1 - most])
    edges = [-most, most, most - r.randrange(5), r.randrange(5) - most]
    return r.choice([*edges, 0, 1, -1, 3, r.randrange(-most, most + 1)])


def damages(kind: str, r: random.Random) -> float:
    if kind == "range":
        return r.choice([0.0, 5e-324, 1e-300, 1.0, 1e300, 1.7e308, HUGE, 2.0 ** r.randrange(-1074, 1024)])
    return r.choice([0.0, 0.25, 0.5, 1.0, r.random(), 1e-9, 2.0 ** -r.randrange(60)])


Draw = tuple[Problem, Every, dict[int, int], bool, Fraction | int]


def drawn(seed: int, family: str) -> Draw:
    """Return a problem, all its assignments, its limits by row, and a question that one of them just answers or not."""
    r = random.Random(f"{family} {seed}")
    groups, width = r.choice([(1, 3), (2, 3), (3, 3), (4, 2)])
    most, kind = (TOTAL - 1) // groups, r.choice(["extremes", "mixed", "decades"])
    damage = [[damages("range" if family == "damage" else "", r) for _ in range(width)] for _ in range(groups)]
    rows = [
        [[numbers(kind, r, most) for _ in range(width)] for _ in range(groups)]
        for _ in range(1 + r.randrange(1, 3) * (family == "budgets"))
    ]
    widths = [width, *(r.randrange(1, width + 1) if family == "ragged" else width for _ in range(groups - 1))]
    more = [TableCost.from_array(np.array(row, dtype=np.int64), name=f"row{i}") for i, row in enumerate(rows[1:], 1)]
    problem = Problem.from_tables(
        np.array(rows[0], dtype=np.int64),
        damage,
        costs=more,
        bits=[list(range(1, w + 1)) for w in widths] if family == "ragged" else None,
    )
    keeps = None
    if family == "ties" and groups > 1:
        problem, keeps = problem.revise(ties=[problem.names[:2]]), lambda choice: choice[0] == choice[1]
    if family == "pins":
        column = r.randrange(width)
        problem, keeps = problem.revise(pins={problem.names[0]: column}), lambda choice: choice[0] == column
    every = assignments(rows, damage, widths, keeps)
    held = {number: max(1, r.choice(every)[0][number] + r.choice([-1, 0, 0, 1])) for number in range(1, len(rows))}
    if held:
        problem = problem.revise(budgets={f"row{number}": Fraction(value) for number, value in held.items()})
    by_cost, (costs, total) = r.random() < 0.55, r.choice(every)
    if by_cost:
        tiny = Fraction(1, 1 << 1074)
        asides = [Fraction(0), Fraction(0), tiny, -tiny, Fraction(1, 1 << 60), Fraction(10**400)]
        limit: Fraction | int = max(total + r.choice(asides), tiny)
    else:
        limit = costs[0] + r.choice([0, 0, 1, -1, 10**30])
        limit = max(limit, 1) if held else limit
    return problem, every, held, by_cost, limit


@pytest.mark.parametrize("family", ["plain", "ragged", "ties", "pins", "damage"])
def test_many_draws_from_the_edge(family: str, path: str) -> None:
    for seed in range(320 if path == "compiled" else 80):
        problem, every, held, by_cost, limit = drawn(seed, family)
        found = ask(problem, every, limit, by_cost, held)
        assert found.status in (Status.OPTIMAL, Status.INFEASIBLE), seed
        if seed % 8 == 0:
            assert verify(problem, found).proved, seed


def test_draws_with_further_budgets(path: str) -> None:
    for seed in range(120):
        problem, every, held, by_cost, limit = drawn(seed, "budgets")
        ask(problem, every, limit, by_cost, held, time_limit=5)


@pytest.mark.parametrize("name", QUICK)
def test_no_strategy_lies_or_breaks_down_there(name: str) -> None:
    for seed in range(8 if name == "ilp" else 60):
        for family in ("plain", "ragged", "damage", "budgets"):
            problem, every, held, by_cost, limit = drawn(seed, family)
            with suppress(UnsupportedError):
                ask(problem, every, limit, by_cost, held, solver=name, time_limit=5)


def coupled(seed: int) -> tuple[Problem, Every]:
    """Return costs of pairs up to the limit, of both signs, and every assignment."""
    r = random.Random(seed)
    groups, width = 4, r.choice([2, 3])
    edges = [(0, 2), (1, 2), (1, 3)][: r.randrange(1, 4)]
    most, kind = (TOTAL - 1) // (groups + len(edges)), r.choice(["extremes", "mixed", "decades"])
    values = [[numbers(kind, r, most) for _ in range(width)] for _ in range(groups)]
    pairs = [[[numbers(kind, r, most) for _ in range(width)] for _ in range(width)] for _ in edges]
    damage = [[damages("", r) for _ in range(width)] for _ in range(groups)]
    left, right = (np.array(side, dtype=np.int64) for side in zip(*edges, strict=True))
    term = LookupCost(np.array(values), left, right, np.array(pairs), name="pairs", unit="", source="drawn")
    plain = np.zeros((groups, width), dtype=np.int64)
    problem = Problem.from_tables(plain, damage, costs=(term,), objective={"pairs": 1})
    found: list[tuple[tuple[int, ...], Fraction]] = []
    for choice in itertools.product(range(width), repeat=groups):
        cost = sum(values[g][k] for g, k in enumerate(choice))
        cost += sum(table[choice[a]][choice[b]] for (a, b), table in zip(edges, pairs, strict=True))
        found.append(((cost,), sum((Fraction(damage[g][k]) for g, k in enumerate(choice)), Fraction(0))))
    return problem, found


def test_costs_of_pairs_up_to_the_limit(path: str) -> None:
    for seed in range(150):
        problem, every = coupled(seed)
        (cost,), damage = random.Random(seed).choice(every)
        if seed % 2 and damage > 0:
            ask(problem, every, damage, True, {}, time_limit=5)
        else:
            ask(problem, every, cost, False, {}, time_limit=5)


# -- the sentinel ----------------------------------------------------------------------------------------------------


def test_what_stands_for_no_candidate_is_none_and_overflows_nowhere(path: str) -> None:
    top = TOTAL - 1
    ragged = Block(
        slice(None),
        np.array([[-top, top, 7], [top, 0, 0], [top, -top, top]]),
        np.array([[3.0, 1.0, 0.0], [1.0, 9.0, 9.0], [2.0, 1.0, 0.0]]),
        np.array([2, 1, 3]),
    )
    pool = everything([ragged], 3)
    kept = within(pool, np.arange(3), np.zeros(3), 0.0, math.inf)[1]
    assert kept.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert (pool.cost - pool.cost.min(axis=1)[:, None] >= 0).all()
    again = gather([ragged], 3, np.arange(3))
    assert np.array_equal(pool.cost, again.cost)
    found = scan([ragged], 3, 0.0, 1.0, math.inf)
    assert found.pool.places.tolist() == [0, 2] and np.array_equal(found.pool.cost, pool.cost[[0, 2]])
    # Beside a wider block the padded rows are padded further, and once only.
    wider = Block(np.array([3]), np.array([[0, 1, top, -top]]), np.zeros((1, 4)))
    narrow = Block(np.arange(3), ragged.cost, ragged.damage, ragged.widths)
    both = everything([narrow, wider], 4)
    excess = both.cost - both.cost.min(axis=1)[:, None]
    assert (excess >= 0).all()
    assert (excess < PROHIBITIVE).sum(axis=1).tolist() == [2, 1, 3, 4]


def test_many_groups_pass_through_the_scan_with_spans_at_the_limit(path: str) -> None:
    """Above 16,384 groups tables are passed over; all but a few groups have one cost, so that the truth is known."""
    groups = 16_500
    most = (TOTAL - 1) // groups
    cost = np.zeros((groups, 3), dtype=np.int64)
    cost[:, 1:] = most
    cost[:, 0] = -most
    damage = np.tile([1.0, 0.5, 0.0], (groups, 1))
    problem = Problem.from_tables(cost, damage)
    for dear in (1, 3, groups - 2):
        found = solve(problem, bound=float(groups - dear))
        assert (found.status, found.objective) == (Status.OPTIMAL, most * (2 * dear - groups))
        found = solve(problem, budget=Fraction(most * (2 * dear - groups)))
        assert (found.status, found.damage) == (Status.OPTIMAL, groups - dear)


@pytest.mark.parametrize("width", [63, 64, 65])
def test_widths_around_what_compiled_code_takes(width: int) -> None:
    r = np.random.default_rng(width)
    cost, damage = r.integers(-9, 9, (2, width)), r.integers(0, 9, (2, width)) / 4
    every = assignments([cost.tolist()], damage.tolist(), [width] * 2)
    problem = Problem.from_tables(cost, damage)
    for limit in (Fraction(1, 2), Fraction(2)):
        best = min((c[0] for c, d in every if d <= limit), default=None)
        found = solve(problem, bound=limit)
        assert found.exact_cost == best
        assert found.status is (Status.INFEASIBLE if best is None else Status.OPTIMAL)


@pytest.mark.parametrize("width", [limits.SHORT_COLUMNS - 1, limits.SHORT_COLUMNS, limits.SHORT_COLUMNS + 1])
def test_the_last_of_many_columns_is_told_from_the_first(width: int) -> None:
    cost = np.full((2, width), 10)
    damage = np.full((2, width), 1.0)
    cost[:, 0], damage[:, -1] = 1, 0.0
    found = solve(Problem.from_tables(cost, damage), bound=0.5)
    assert (found.status, found.choice.tolist()) == (Status.OPTIMAL, [width - 1, width - 1])  # type: ignore[union-attr]


def test_more_states_than_their_numbers_hold_are_not_kept(path: str) -> None:
    problem = generate("layer", 40, 1)
    assert solve(problem).status is Status.OPTIMAL
    found = solve(problem, solver=Exact(states=10**12, tuning=Tuning(most_states=1)))
    assert found.status is Status.FEASIBLE and found.stop.value == "state limit"


# -- at the door -----------------------------------------------------------------------------------------------------


def sizes(count: int, each: int, **more: Any) -> Problem:
    groups = [Group(f"g{i}", size=each, sensitivity=1.0, bits=(1, 2, 4), **more) for i in range(count)]
    return Problem.declare(groups)


@pytest.mark.parametrize("groups", [1, 2, 3, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_table_of_costs_up_to_the_limit(groups: int, sign: int) -> None:
    most = (TOTAL - 1) // groups
    damage = np.ones((groups, 2))
    for kind in (np.int64, object):
        Problem.from_tables(np.full((groups, 2), sign * most, dtype=kind), damage)
        with pytest.raises(ProblemError, match=rf"costs\.cost: costs are too large .*got {most + 1} .*{most} each"):
            Problem.from_tables(np.full((groups, 2), sign * (most + 1), dtype=kind), damage)
    for wild in (2**63 - 1, 2**64 - 1, 10**30, -(2**63), -(10**30)):
        with pytest.raises(ProblemError, match=r"costs\.cost: costs are too large"):
            Problem.from_tables([[wild, -1 if wild < 0 else 0]] * groups, damage)


def test_float_costs_of_any_size_are_scaled_below_the_limit() -> None:
    for power in (-1074, -1000, -500, 0, 10, 60, 61, 62, 63, 500, 1023):
        values = np.array([[1.0, 1.25, -1.0], [1 / 3, 0.0, 1.75]]) * 2.0**power
        term = TableCost.from_array(values)
        assert np.abs(term.values.astype(object)).max() * 2 < TOTAL
        assert term.rounding == 0  # they lie within 56 bits
        exact = [[Fraction(v) for v in row] for row in values.tolist()]
        for row, whole in zip(exact, term.values.tolist(), strict=True):
            for one, integer in zip(row, whole, strict=True):
                assert abs(integer * term.quantum - one) <= Fraction(term.rounding)


def test_whole_numbers_are_not_rounded_on_their_way_in() -> None:
    """NumPy reads lists of whole numbers beyond 64 bits, or beside others, as floats."""
    for wild in (2**63, 2**63 + 1, 2**64 - 1):
        for beside in (0, -1):
            with pytest.raises(ProblemError, match=rf"costs are too large .*got {wild}"):
                Problem.from_tables([[wild, beside]], [[1.0, 1.0]])
    with pytest.raises(ProblemError, match=rf"is no float64, .*got {2**53 + 1} "):
        Problem.from_tables([[2**53 + 1, 0.5]], [[1.0, 1.0]])
    assert solve(Problem.from_tables([[2**53, 0.5]], [[0.0, 1.0]]), bound=0.5).objective == 2**53


def test_rows_are_added_up_before_they_can_overflow() -> None:
    whole = limits.LARGEST_SIZES // 4  # times 4 bits
    assert solve(sizes(1, whole - 1), bound=1.0).status is Status.OPTIMAL
    for count, each in ((1, whole), (5, limits.LARGEST_SIZES // 16)):
        with pytest.raises(ProblemError, match="sizes are too large for exact 64-bit sums"):
            sizes(count, each)
    with pytest.raises(ProblemError, match="too large for exact 64-bit sums"):
        solve(sizes(1, whole - 1), bound=1.0, minimize={"storage": 64, "representational": 1})
    table = np.full((1, 2), TOTAL - 1)
    names = [f"c{i}" for i in range(16)]
    terms = [TableCost.from_array(table, name=name) for name in names]
    problem = Problem.from_tables(np.ones((1, 2), dtype=np.int64), [[1.0, 0.5]], costs=terms)
    for count in (2, 3, 4, 5, 8, 16):  # 8 of them are 2**64 less 8
        with pytest.raises(ProblemError, match="too large for exact 64-bit sums"):
            solve(problem, bound=1.0, minimize=dict.fromkeys(names[:count], 1))
    with pytest.raises(ProblemError, match="too large for exact 64-bit sums"):
        solve(problem, bound=1.0, minimize={"c0": 3, "cost": 7})
    assert solve(problem, bound=1.0, minimize={"c0": 3}).objective == 3 * (TOTAL - 1)


def test_peaks_pairs_precisions_and_operations_have_the_same_limit() -> None:
    def layer(size: int, macs: int) -> Problem:
        a = Group("a", size=size, sensitivity=1.0, bits=(2, 4), kind="activation", steps=(0, 1))
        return Problem.declare([a, Group("w", size=4, sensitivity=1.0, bits=(2, 4), reads="a", macs=macs, length=1)])

    def fractional(problem: Problem) -> Problem:  # parts of a millionth of a bit
        return replace(problem, candidates=Candidates(((2.000001, 4.0),)))

    peak = limits.LARGEST_SIZES // 4
    solve(layer(peak - 8, 8), bound=2.0, minimize="peak-activation-memory")
    with pytest.raises(ProblemError, match="too large for exact 64-bit sums"):
        layer(peak, 8)
    with pytest.raises(ProblemError, match="too large for exact 64-bit sums"):
        solve(fractional(layer(peak // 2, 8)), bound=2.0, minimize="peak-activation-memory")
    for name in ("bit-operations", "adders", "slides"):  # the last one counts 576 for an output
        most = limits.MOST_MACS // 16 if name == "slides" else limits.MOST_MACS - 1
        assert solve(layer(4, most), bound=2.0, minimize=name).status is Status.OPTIMAL
        for macs in (limits.MOST_MACS, 1 << 60, (1 << 63) - 1):
            with pytest.raises(ProblemError, match="too many multiply-accumulates"):
                solve(layer(4, macs), bound=2.0, minimize=name)
    fine = Problem.from_sensitivities([1], [1.0], bits=[1e-30, 2])
    with pytest.raises(ProblemError, match="bits: precisions need more than 64 bits"):
        solve(fine, bound=1.0)
    for huge in ([2.0**63], [1e30], np.array([2**64 - 1], dtype=np.uint64)):
        with pytest.raises(ProblemError, match="sizes: is too large for 64 bits"):
            Problem.from_sensitivities(huge, [1.0])


# -- damages whose sum float64 does not reach -----------------------------------------------------------------------


def beyond() -> Iterator[tuple[Problem, Every]]:
    for scale in (0.5, 0.5 + 2.0**-54, 0.75, 1.0):
        cost, damage = [[1, 2], [1, 3], [2, 2]], [[scale * HUGE, 1.0], [scale * HUGE, 0.0], [0.0, 5e-324]]
        yield Problem.from_tables(cost, damage), assignments([cost], damage, [2, 2, 2])


@pytest.mark.parametrize("name", QUICK)
def test_sums_of_damages_around_the_largest_float(name: str) -> None:
    for problem, every in beyond():
        totals = sorted({damage for _, damage in every if damage > 0})
        for total in totals:
            for bound in (total, total - Fraction(1, 1 << 1074), total + 1):
                if bound > 0:
                    ask(problem, every, bound, True, {}, solver=name)
        for budget in range(4, 8):
            with suppress(UnsupportedError):
                ask(problem, every, budget, False, {}, solver=name)


def test_what_float64_does_not_reach_is_told_as_inf_and_proved(tmp_path: Path, path: str) -> None:
    problem = Problem.from_tables([[1, 2], [1, 2]], [[1.7e308, 1.0], [1.7e308, 1.0]])
    exact = 2 * Fraction(1.7e308)
    for goal in ({"bound": 10**400}, {"bound": Fraction(10) ** 400}, {"bound": exact}, {"budget": 2}):
        found = solve(problem, **goal)
        assert found.status is Status.OPTIMAL and found.exact_damage == exact and found.damage == math.inf
        assert verify(problem, found).proved
        assert "inf" in repr(found) and found.gap == 0
        save_allocation(found, tmp_path / "a.json")
        stored = json.loads((tmp_path / "a.json").read_text())
        assert stored["damage"] is None and Fraction(stored["exact"]["damage"]) == exact
        back = load_allocation(tmp_path / "a.json", problem)
        assert back.exact_damage == exact and verify(problem, back).proved
        assert explain(problem, found, problem.names[0]).candidates
    just_below = solve(problem, bound=exact - 1)
    assert (just_below.status, just_below.objective, just_below.damage) == (Status.OPTIMAL, 3, 1.7e308)
    hull = frontier(problem)
    assert hull.damage[0] == math.inf and hull.damage[-1] == 2.0
    assert [a.objective for a in hull.solve([10**400, exact, 1.7e308, 2.0])] == [2, 2, 4, 4]


def test_least_damages_beyond_float64_are_told_apart() -> None:
    """Both sums are inf as reported; the smaller one is the answer all the same."""
    problem = Problem.from_tables([[1, 2], [1, 2]], [[HUGE, HUGE / 2 + 2.0**972], [HUGE, HUGE / 2]])
    for name in ("exact", "exhaustive"):
        found = solve(problem, budget=3, solver=name)
        assert found.status is Status.OPTIMAL and found.choice is not None and found.choice.tolist() == [0, 1]
    assert solve(problem, budget=3, solver="lagrangian").status is not Status.INFEASIBLE


def test_tied_damages_beyond_float64_are_rounded_down() -> None:
    rows = np.array([[HUGE, 1.0], [HUGE, 2.0], [1.0, 3.0]])
    assert sum_rows_down(rows).tolist() == [HUGE, 6.0]
    problem = Problem.from_tables([[1, 2]] * 3, rows.tolist()).revise(ties=[["group[0]", "group[1]"]])
    every = assignments([[[1, 2]] * 3], rows.tolist(), [2] * 3, lambda choice: choice[0] == choice[1])
    for bound in (2 * Fraction(HUGE) + 1, 2 * Fraction(HUGE) + 3, 2 * Fraction(HUGE), Fraction(4), Fraction(6)):
        ask(problem, every, bound, True, {})
    for budget in (3, 4, 5, 6):
        ask(problem, every, budget, False, {})


def test_least_damage_under_several_limits_in_whole_numbers() -> None:
    for seed in range(60):
        r = random.Random(seed)
        groups, width = r.choice([(3, 3), (5, 2), (6, 2)])
        rows = [[[r.randrange(9) for _ in range(width)] for _ in range(groups)] for _ in range(3)]
        damage = [[damages("range", r) for _ in range(width)] for _ in range(groups)]
        damage[0][0] = damage[1][0] = HUGE
        every = assignments(rows, damage, [width] * groups)
        spent = r.choice(every)[0]
        most = {i: max(1, spent[i] + r.randrange(-1, 2)) for i in range(3)}
        terms = [TableCost.from_array(np.array(row), name=f"row{i}") for i, row in enumerate(rows[1:], 1)]
        problem = Problem.from_tables(rows[0], damage, costs=terms)
        problem = problem.revise(budgets={f"row{i}": Fraction(most[i]) for i in (1, 2)})
        instance = make_instance(problem, budget=Fraction(most[0]))
        assert beyond_floats(instance)
        claim = solve_whole(instance, Control(), 10_000)
        fits = [d for c, d in every if all(c[i] <= m for i, m in most.items())]
        assert claim.lower_bound == min(fits, default=math.inf), seed
        if claim.choice is not None:
            assert solve_whole(instance, Control(), 0).enumeration is None
        if fits:
            ask(problem, every, most[0], False, {i: most[i] for i in (1, 2)})


def test_whole_numbers_keep_pairs() -> None:
    for seed in range(60):
        problem, every = coupled(seed)
        (cost,), _ = random.Random(seed).choice(every)
        claim = solve_whole(make_instance(problem, budget=Fraction(cost)), Control(), 10_000)
        assert claim.lower_bound == min(d for c, d in every if c[0] <= cost), seed


def test_nearest_floats_saturate() -> None:
    assert [nearest_float(Fraction(HUGE) * k) for k in (1, 2, -2)] == [HUGE, math.inf, -math.inf]
    assert nearest_float(10**400) == math.inf and nearest_float(-math.inf) == -math.inf
    assert reported_as_low(Fraction(1, 3), Fraction(0.3333333333333333))
    assert not reported_as_low(Fraction(10) ** 400, Fraction(10) ** 399)
    assert reported_as_low(Fraction(10) ** 399, Fraction(10) ** 400)


def test_a_bound_in_units_of_itself_rounds_no_damage_up() -> None:
    for shift in (-1074, -300, 0, 300, 1023):
        bound = Fraction(2) ** shift
        damage = np.array([[0.0, 5e-324, 7 * 5e-324, 1e-300, 1 / 3, 1e300, HUGE]])
        row, exponent = _scaled(Row("bound", damage, Fraction(0), bound, whole=False))
        for given, scaled in zip(damage[0].tolist(), row.table[0].tolist(), strict=True):
            assert Fraction(scaled) <= Fraction(given) / Fraction(2) ** exponent
    row, _ = _scaled(Row("bound", damage, Fraction(0), Fraction(10) ** 4000, whole=False))
    assert row.room < 1 << 64


@pytest.mark.parametrize("name", ["milp", "ilp"])
def test_an_entry_above_a_limit_may_be_made_up_for_by_a_negative_one(name: str) -> None:
    more = TableCost.from_array(np.array([[10, 0], [-5, 0], [-9, 0]]), name="row1")
    problem = Problem.from_tables([[0, 5], [0, 9], [3, 0]], [[1.0, 1.0]] * 3, costs=(more,))
    found = solve(problem.revise(budgets={"row1": 1}), bound=3.0, solver=name)
    assert found.choice is not None and found.exact_cost == 3
    found = solve(problem.revise(budgets={"row1": 1}, pins={problem.names[2]: 1}), bound=3.0, solver=name)
    assert found.choice is not None and found.exact_cost == 5


def test_the_least_peak_without_a_bound_is_within_reach_of_any_damage() -> None:
    a = Group("a", size=4, sensitivity=HUGE, bits=(0, 4), kind="activation", steps=(0, 1))
    w = Group("w", size=4, sensitivity=HUGE, bits=(0, 4), reads="a", macs=8, length=1)
    problem = Problem.declare([a, w]).revise(pins={"a": 0, "w": 0})
    free = Problem.declare([a, w])
    for one in (problem, free):
        instance = replace(make_instance(one, bound=10**400, minimize="peak-activation-memory"), bound=None)
        if instance.size:
            claim = make_solver("exact").run(instance, Control())
            assert claim.choice is not None and claim.lower_bound == instance.cost_of(claim.choice) == 0
