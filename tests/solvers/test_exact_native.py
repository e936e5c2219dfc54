"""Beyond what compiled code may be given NumPy answers, and says the same: many rows, many columns, any layout."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from known import known

from impq_opt import Problem, Status, frontier, solve
from impq_opt.exactness import native as sums
from impq_opt.exactness.limits import MOST_COLUMNS
from impq_opt.exactness.sums import dyadic
from impq_opt.instance import Block, RankOne
from impq_opt.instance.contract import Control
from impq_opt.instance.question import make_instance
from impq_opt.proof.bound import examine
from impq_opt.solvers import native
from impq_opt.solvers.native import Limits, cores, hulls, leaves, passes, program

compiled = pytest.mark.skipif(
    None in (native.kernel, native.core, native.stars, sums.library),
    reason="the extensions are not built, or not wanted",
)
# Of an array of 200 rows and 5 columns: no limit, its rows, its columns, and one less of each.
HELD = [Limits(), Limits(rows=200), Limits(columns=5)]
BEYOND = [Limits(rows=199), Limits(columns=4)]


def drawn(seed: int, rows: int = 200, columns: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 1000, (rows, columns)), 10.0 ** rng.uniform(-9, 3, (rows, columns))


class Watched:
    """A compiled module that notes which of its functions are called."""

    def __init__(self, module: object) -> None:
        self.module, self.called = module, list[str]()

    def __getattr__(self, name: str) -> object:
        self.called.append(name)
        return getattr(self.module, name)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return what tells which compiled functions were called since it was last asked."""
    watched = []
    for owner, name in ((native, "kernel"), (native, "core"), (native, "stars"), (sums, "library")):
        watched.append(Watched(getattr(owner, name)))
        monkeypatch.setattr(owner, name, watched[-1])

    def tell() -> list[str]:
        names = [name for one in watched for name in one.called]
        for one in watched:
            one.called.clear()
        return names

    return tell


def same(one: Any, other: Any) -> None:
    """Check that two results are the same, to the bit."""
    if isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    elif isinstance(one, passes.Pool):
        same((one.places, one.cost, one.damage), (other.places, other.cost, other.damage))
    elif isinstance(one, tuple):
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert one == other


def asked(limits: Limits, seed: int) -> dict[str, Any]:
    """Return what each function that knows limits says of some arrays, by the name of its kernel."""
    rng = np.random.default_rng(seed)
    cost, damage = drawn(seed)
    block, widths = Block(slice(None), cost, damage), rng.integers(1, 6, 200)
    lines = Block(slice(None), RankOne(cost[:, 0], np.arange(5)), RankOne(damage[:, 0], 4.0 ** -np.arange(5.0)))
    ragged = Block(slice(None), cost, damage, widths)
    pool = passes.Pool(np.arange(200), cost, damage)
    chosen, rows = rng.integers(0, 5, 200), np.flatnonzero(rng.random(200) < 0.5)
    base = chosen[rows]
    kept = rng.random((len(rows), 5)) < 0.7
    part, own = pool.take(rows), kept.copy()
    core_cost, core_damage = rng.integers(0, 100, (2, 200, 5))
    core = program.Core(core_cost, core_damage, 5000, 1 << 61)
    levels = rng.integers(1, 9, (200, 5))
    return {
        "scan": [passes.scan_block(one, 1.0, 3.0, 10.0, limits) for one in (block, lines, ragged)],
        "gather": [passes.gather_rows(one, rows, limits) for one in (block, lines, ragged)],
        "seconds": passes.second_choices(pool, 2.0, chosen.astype(np.uint16), limits),
        "relative": (cores.relative(part.cost, part.damage, own, base, 1.0, limits), own),
        "exchange": cores.exchange(pool, rows, base, rng.integers(0, 5, len(rows)), kept, limits),
        "search": vars(program.run(core, 2000, Control(), 100, limits=limits)),
        "exact_sum": dyadic(*sums.dyadic_sum(damage[:, 0], limits.rows)),
        "messages": sums.least_on_lines(damage, damage[:, 0], levels, levels[::-1], limits.columns),
    }


@compiled
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limits", [*HELD, *BEYOND])
def test_beyond_a_limit_the_answer_is_the_same(limits: Limits, seed: int, called: Callable[[], list[str]]) -> None:
    truth = asked(Limits(), seed)
    called()
    for name, told in asked(limits, seed).items():
        expected = truth[name]
        pairs = zip(told, expected, strict=True) if isinstance(told, list) else [(told, expected)]
        for one, other in pairs:
            if isinstance(one, dict):
                assert repr(one) == repr(other)
            else:
                same(one, other)
    names = set(called())
    all_rows, all_columns = limits.rows >= 200, limits.columns >= 5
    assert {"scan", "gather", "seconds", "search"} <= names or not (all_rows and all_columns)
    assert ("scan" in names) == ("seconds" in names) == (all_rows and all_columns)
    assert ("exact_sum" in names) >= all_rows
    assert ("messages" in names) == all_columns


@compiled
def test_damages_of_two_choices_a_row_count_twice(called: Callable[[], list[str]]) -> None:
    cost, damage = drawn(1, rows=50)
    pool, rows, base = passes.Pool(np.arange(50), cost, damage), np.arange(50), np.zeros(50, dtype=np.int64)
    found = [cores.exchange(pool, rows, base, base + 1, None, Limits(rows=most)) for most in (99, 100)]
    same(*found)
    assert called().count("exchange") == 1


@compiled
def test_recounts_know_their_limits() -> None:
    cost, damage = drawn(2)
    choice, prices = np.zeros(200, dtype=np.int64), (True, 2.0, 1.0 - 2.0**-50, 1e300)
    for tables in ((cost, damage), (cost[:, 0].copy(), damage[:, 0].copy(), np.arange(5), np.arange(5.0))):
        assert sums.recount(tables, None, choice, prices) is not None
        assert sums.recount(tables, None, choice, prices, 200, 5) is not None
        assert sums.recount(tables, None, choice, prices, 199, 5) is None
        assert sums.recount(tables, None, choice, prices, 200, 4) is None
    assert sums.recount((np.asfortranarray(cost), damage), None, choice, prices) is None


@compiled
def test_leaves_know_their_limits() -> None:
    rng = np.random.default_rng(0)
    many = leaves.Leaves(
        *(rng.random((2, 5, 30)), rng.random((1, 30)), rng.random((5, 30)), rng.integers(0, 3, 30), rng.random((3, 5)))
    )
    allowed, taken = np.ones((3, 5), dtype=bool), np.array([0, 4, 2])
    for limits, held in ((Limits(columns=5), True), (Limits(columns=4), False)):
        assert (leaves.minima(many, [1.0, 2.0], [1.0], allowed, limits) is not None) is held
        assert (leaves.choices(many, [1.0, 2.0], [1.0], taken, limits) is not None) is held


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """Return arrays of the same numbers that lie otherwise in memory."""
    spread = np.zeros((array.shape[0], 2 * array.shape[1]), dtype=array.dtype)
    spread[:, ::2] = array
    return [np.asfortranarray(array), spread[:, ::2], array[::-1].copy()[::-1]]


def test_no_layout_of_memory_changes_an_answer() -> None:
    cost, damage = drawn(3)
    whole = np.random.default_rng(3).integers(0, 99, (200, 5))
    rows, base = np.arange(0, 200, 3), np.zeros(67, dtype=np.int64)
    pool = passes.Pool(np.arange(200), cost, damage)
    kept = damage[rows] < 1.0
    chosen = np.arange(200).astype(np.uint16) % 5
    core = program.Core(whole, whole[::-1].copy(), 5000, 1 << 61)
    for one, other, third in zip(layouts(cost), layouts(damage), layouts(whole), strict=True):
        strided = passes.Pool(np.arange(200), one, other)
        same(
            passes.scan_block(Block(slice(None), one, other), 1.0, 3.0, 9.0),
            passes.scan_block(Block(slice(None), cost, damage), 1.0, 3.0, 9.0),
        )
        same(passes.second_choices(strided, 2.0, chosen), passes.second_choices(pool, 2.0, chosen))
        same(passes.row_divisor(one * 6), passes.row_divisor(cost * 6))
        first = passes.second_choices(pool, 2.0, chosen)[0]
        same(cores.within(strided, rows, first, 2.0, 50.0), cores.within(pool, rows, first, 2.0, 50.0))
        same(
            cores.relative(one[rows], other[rows], np.asfortranarray(kept), base, 1.0),
            cores.relative(cost[rows], damage[rows], kept.copy(), base, 1.0),
        )
        same(
            cores.exchange(strided, rows, base, base + 1, np.asfortranarray(kept)),
            cores.exchange(pool, rows, base, base + 1, kept),
        )
        steps = hulls.hull_steps(one, other), hulls.hull_steps(cost, damage)
        same(*(tuple(vars(found).values()) for found in steps))
        moved = program.Core(third, np.asfortranarray(core.need), core.room, core.target)
        assert repr(vars(program.run(moved, 500, Control(), 9))) == repr(vars(program.run(core, 500, Control(), 9)))
        same(
            sums.least_on_lines(other, other[:, 0], third, one), sums.least_on_lines(damage, damage[:, 0], whole, cost)
        )
        same(dyadic(*sums.dyadic_sum(other)), sum(map(Fraction, damage.ravel().tolist()), Fraction(0)))
    behind = np.repeat(damage[:, 0], 2)[::2]
    same(cores.closest(behind, 1.0, 7), cores.closest(damage[:, 0].copy(), 1.0, 7))
    keys = np.repeat(damage[:, 0], 2)[::2]
    same(hulls.descending(keys), hulls.descending(keys.copy()))


@pytest.mark.parametrize("columns", [MOST_COLUMNS - 1, MOST_COLUMNS, MOST_COLUMNS + 1, 3 * MOST_COLUMNS])
@pytest.mark.parametrize("form", ["tables", "vectors"])
def test_any_number_of_candidates_is_answered(columns: int, form: str) -> None:
    rng = np.random.default_rng(columns)
    if form == "tables":
        cost = np.sort(rng.integers(0, 10**6, (300, columns)), axis=1)
        damage = -np.sort(-rng.random((300, columns)), axis=1)
        problem = Problem.from_tables(cost, damage, bound=100.0)
    else:
        bits = (1 + np.arange(columns) / 64).tolist()
        problem = Problem.from_sensitivities(rng.integers(1, 99, 300), rng.random(300), bits=bits, bound=20.0)
    found = solve(problem)
    assert found.status is Status.OPTIMAL
    assert known(found.exact_damage) <= known(problem.bound)
    assert known(solve(problem, budget=found.exact_cost).exact_damage) <= known(found.exact_damage)
    told = frontier(problem).solve([known(problem.bound)])[0]
    assert (told.status, told.exact_cost) == (Status.OPTIMAL, found.exact_cost)


@pytest.mark.parametrize("columns", [MOST_COLUMNS, MOST_COLUMNS + 1])
def test_any_number_of_candidates_of_groups_that_share_costs_is_answered(columns: int) -> None:
    problem = Problem.from_sensitivities(
        [10, 20, 30, 40],
        [1.0, 2.0, 3.0, 0.5],
        bits=(1 + np.arange(columns) / 8).tolist(),
        kinds=["activation", "weight", "weight", "weight"],
        macs=np.array([0, 50, 70, 90]),
        reads=np.array([-1, 0, 0, 0]),
    )
    found = solve(problem, bound=0.1, minimize="bit-operations")
    assert found.choice is not None
    assert known(found.exact_damage) <= known(Fraction(0.1))
    assert found.exact_lower_bound > 0


def test_checks_do_not_ask_who_reads_the_tables() -> None:
    for columns in (5, MOST_COLUMNS + 1):
        cost, damage = drawn(columns, columns=columns)
        instance = make_instance(Problem.from_tables(cost + 1000, damage), bound=50.0)
        choice = damage.argmin(axis=1)
        assessment, dual = examine(instance, choice, {"bound": 3.0})
        assert assessment is not None
        assert assessment.cost == int((cost + 1000)[np.arange(200), choice].sum())
        rows = zip((cost + 1000).tolist(), damage.tolist(), strict=True)
        values = [min(c + 3 * Fraction(d) for c, d in zip(*row, strict=True)) for row in rows]
        truth = sum(values, Fraction(0)) - 150
        assert truth * (1 - Fraction(1, 1 << 40)) <= dual <= truth
