"""The compiled code and NumPy give the same answers bit for bit, on any number of threads."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from known import known

from impq_opt import Problem, frontier, solve
from impq_opt.exactness import native
from impq_opt.exactness.sums import exact_sum
from impq_opt.instance import Block, RankOne
from impq_opt.instance.contract import Control
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problems.families import FAMILIES, explicit, generate
from impq_opt.proof.bound import examine
from impq_opt.proof.pricing import _least_on_lines
from impq_opt.solvers import native as solver_native
from impq_opt.solvers.exact.core import search
from impq_opt.solvers.exact.model import Model
from impq_opt.solvers.exact.price import Known, find_price, narrow
from impq_opt.solvers.exact.scan import common_divisor, scan
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.native.cores import closest, within
from impq_opt.solvers.native.hulls import Steps, descending, hull_edges, hull_steps, sums_along
from impq_opt.solvers.native.passes import PROHIBITIVE, Pool, Scan, second_choices
from impq_opt.solvers.native.program import Core

compiled = pytest.mark.skipif(
    None in (solver_native.kernel, solver_native.core, native.library),
    reason="the extensions are not built, or not wanted",
)


def pure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(solver_native, "kernel", None)
    patch.setattr(solver_native, "core", None)
    patch.setattr(native, "library", None)


def same(one: Allocation, other: Allocation) -> None:
    assert one.status is other.status
    assert np.array_equal(np.array(one.choice), np.array(other.choice))
    assert one.exact_lower_bound == other.exact_lower_bound
    assert one.certificate == other.certificate
    assert one.statistics == other.statistics


@compiled
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("correlated-1e6", "subset-sum")])
def test_answers_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for groups, seed in ((53, 0), (700, 1), (20_000, 2)):
        if FAMILIES[name].hard and groups > 1000:
            continue
        problem = generate(name, groups, seed)
        problem = explicit(problem) if seed == 2 else problem
        found = solve(problem)
        budget = found.exact_cost * Fraction(101, 100) if found.exact_cost is not None else None
        dual = None if FAMILIES[name].hard or groups > 1000 else solve(problem, budget=budget)
        with monkeypatch.context() as patch:
            patch.setattr(native, "thread_count", lambda rows: 1)
            patch.setattr(solver_native, "thread_count", lambda rows: 1)
            same(found, solve(problem))
        with monkeypatch.context() as patch:
            pure(patch)
            same(found, solve(problem))
            if dual is not None:
                same(dual, solve(problem, budget=budget))


def blocks(rng: np.random.Generator, size: int, width: int) -> list[Block]:
    """Return blocks of every form over the same groups."""
    cost, damage = rng.integers(-1000, 1000, (size, width)), 10.0 ** rng.uniform(-300, 3, (size, width))
    damage[rng.random((size, width)) < 0.1] = 0.0
    left, right = rng.integers(1, 1000, size), np.sort(rng.integers(0, 20, width))
    falling = np.asarray(4.0**-right, dtype=np.float64)
    return [
        Block(slice(None), cost, damage),
        Block(slice(None), cost, damage, rng.integers(1, width + 1, size)),
        Block(slice(None), cost // 500, np.round(damage)),
        Block(rng.permutation(size), RankOne(left, right), RankOne(rng.random(size), falling)),
    ]


@compiled
@pytest.mark.parametrize("width", [1, 2, 5, 8, 9, 20])
def test_a_pass_is_the_same(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(width)
    for block in blocks(rng, 40_000, width):
        for low, high, threshold in ((0.0, 0.0, 0.0), (1.0, 3.0, 10.0), (1e-3, 1e3, 0.0), (1e280, 1e280, 1e6)):
            found = scan([block], 40_000, low, high, threshold)
            chosen = rng.integers(0, width, len(found.pool)).astype(np.uint16)
            values = second_choices(found.pool, low, chosen)
            with monkeypatch.context() as patch:
                pure(patch)
                slow = scan([block], 40_000, low, high, threshold)
                slow_values = second_choices(found.pool, low, chosen)
            same_scan(found, slow)
            assert all(np.array_equal(a, b) for a, b in zip(values[:3], slow_values[:3], strict=True))
            assert values[3] == slow_values[3]


@compiled
def test_divisors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for factor in (1, 2, 3, 64, 576, 2**40, 3**20, 0):
        for width in (1, 2, 8):
            tables = [rng.integers(-1000, 1000, (30_000, width)) * factor + 7]
            samples = [
                Block(slice(None), t, t.astype(float), w)
                for t in tables
                for w in (None, rng.integers(1, width + 1, 30_000))
            ]
            samples.append(
                Block(
                    slice(None),
                    RankOne(tables[0][:, 0] - 7, np.arange(1, 9) * 5),
                    RankOne(rng.random(30_000), rng.random(8)),
                )
            )
            found = [common_divisor([block]) for block in samples]
            with monkeypatch.context() as patch:
                pure(patch)
                assert [common_divisor([block]) for block in samples] == found
            if width == 8:
                assert found == [factor, factor, 5 * factor]


def same_scan(one: Scan, other: Scan) -> None:
    assert (one.settled, one.at_low, one.at_high) == (other.settled, other.at_low, other.at_high)
    assert np.array_equal(one.columns, other.columns)
    assert np.array_equal(one.pool.places, other.pool.places)


@compiled
@pytest.mark.parametrize("whole", [False, True])
def test_hulls_and_their_order_are_the_same(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    for width in (1, 2, 8):
        cost, damage = rng.integers(0, 50, (3000, width)), 10.0 ** rng.uniform(-12, 0, (3000, width))
        table = (damage * 2.0**60).astype(np.int64) if whole else damage
        steps = hull_steps(cost, table)
        with monkeypatch.context() as patch:
            pure(patch)
            slow = hull_steps(cost, table)
            edges = hull_edges(cost, table)
        for name in ("start", "group", "to", "cost", "damage", "ratio"):
            assert np.array_equal(getattr(steps, name), getattr(slow, name)), name
        inside = edges.group[1:] == edges.group[:-1]
        assert (edges.ratio[1:] <= edges.ratio[:-1])[inside].all()


@compiled
def test_orders_of_many_keys_and_sums_along_them_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    count = 100_000
    near = 1.0 + rng.integers(0, 1 << 20, count) * 2.0**-52  # their upper halves are equal
    samples = [
        10.0 ** rng.uniform(-300, 300, count),
        rng.integers(0, 50, count).astype(float),
        near,
        np.where(rng.random(count) < 1e-3, near, rng.random(count)),
        np.sort(rng.random(count)),
        *(10.0 ** rng.uniform(-300, 300, n) for n in (0, 1, 2, 127, 128, 2047, 2048)),
        *(rng.integers(0, 3, n).astype(float) for n in (127, 128, 2047)),
        *(near[:n] for n in (127, 128, 2047)),
    ]
    for keys in samples:
        order = descending(keys)
        steps = Steps(order, order, order, rng.integers(1, 1 << 40, len(keys)), rng.random(len(keys)), keys)
        found = sums_along(steps, order, 7, 0.25, 1e-3)
        with monkeypatch.context() as patch:
            pure(patch)
            assert np.array_equal(descending(keys), order)
            assert all(
                np.array_equal(a, b) for a, b in zip(sums_along(steps, order, 7, 0.25, 1e-3), found, strict=True)
            )


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_orders_do_not_depend_on_threads(threads: int) -> None:
    rng = np.random.default_rng(threads)
    for count in (128, 1000, 2048, 5001, 60_000):
        near = 1.0 + rng.integers(0, 1 << 20, count) * 2.0**-52
        swapped = np.sort(near)[::-1].copy()
        for part in range(1, threads):  # the only keys out of order stand where two stretches meet
            edge = count * part // threads
            swapped[[edge - 1, edge]] = swapped[[edge, edge - 1]]
        drawn: list[Any] = [
            swapped,
            rng.random(count),
            rng.integers(0, 3, count).astype(float),
            np.zeros(count),
            near,
            np.sort(near),
            np.where(rng.random(count) < 1e-2, near, rng.random(count)),
            np.sort(rng.integers(0, 3, count) + near),
        ]
        for keys in drawn:
            order, scratch = np.empty(count, dtype=np.int64), np.empty(2 * count, dtype=np.int64)
            known(solver_native.kernel).order(keys, order, count, scratch, threads)
            assert np.array_equal(order, np.argsort(-keys, kind="stable"))


@compiled
@pytest.mark.parametrize("width", [2, 3, 7, 8, 9])
def test_hulls_of_rows_that_are_almost_straight_are_the_same(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal slopes but for the last bits, bends of about a millionth, steps of very different length."""
    rng = np.random.default_rng(width)
    count = 4000
    bend = rng.choice([0.0, 2.0**-52, 2.0**-21, 2.0**-20, 2.0**-19, 0.5], (count, 1))
    length = rng.choice([1, 2, 3, 1 << 19, 1 << 21, 1 << 40], (count, width))
    slope = np.cumprod(np.full((count, width), 1.0) - bend, axis=1) * rng.choice(
        [1.0, 1 / 3, 1e-288, 1e250], (count, 1)
    )
    cost = np.cumsum(length, axis=1)
    damage = np.cumsum((slope * length)[:, ::-1], axis=1)[:, ::-1].copy()
    damage[rng.random(count) < 0.1, width - 1] = 0.0
    whole = np.floor(damage / damage.max(axis=1, keepdims=True) * 2.0**60).astype(np.int64)
    for table in (damage, whole):
        steps = hull_edges(cost, table)
        with monkeypatch.context() as patch:
            pure(patch)
            slow = hull_edges(cost, table)
        for name in ("start", "group", "to", "cost", "damage", "ratio"):
            assert np.array_equal(getattr(steps, name), getattr(slow, name)), name


@compiled
@pytest.mark.parametrize("seed", range(60))
def test_the_closest_rows_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 300))
    values = rng.choice([-1.0, 0.0, 0.5, 1.0, 7.0, np.inf], count) if seed % 2 else rng.standard_normal(count)
    for limit in (-2.0, -1.0, 0.5, float(rng.random()), np.inf):
        for most in (1, 7, count // 2 + 1, count + 5):
            rows, within_limit = closest(values, limit, most)
            with monkeypatch.context() as patch:
                pure(patch)
                slow, slow_count = closest(values, limit, most)
            assert within_limit == slow_count == (values <= limit).sum()
            assert np.array_equal(rows, slow)
            assert len(rows) == min(most, within_limit)
            assert (np.diff(rows) > 0).all()
            others = np.setdiff1d(np.flatnonzero(values <= limit), rows)
            assert not len(others) or values[rows].max() <= values[others].min()


@compiled
@pytest.mark.parametrize("seed", range(60))
def test_cores_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damages of any size down to denormals, costs past a width, limits that keep all, some or no second choice."""
    rng = np.random.default_rng(seed)
    size, width = int(rng.integers(1, 90)), int(rng.integers(1, 12))
    lowest, spread = [(-3, 3), (-323, 600), (-323, 5), (290, 18), (-20, 12)][seed % 5]
    cost = rng.integers(-(1 << 40), 1 << 40, (size, width)) // 10 ** int(rng.integers(0, 12))
    damage = np.minimum(10.0 ** (lowest + spread * rng.random((size, width))), 1e306)
    damage[rng.random((size, width)) < 0.05] = 0.0
    cost[rng.random(size) < 0.1, -1] = PROHIBITIVE
    pool = Pool(np.arange(size), cost, damage)
    price = 0.0 if seed % 7 == 0 else float(np.median(np.ptp(cost, axis=1)) / max(np.median(damage), 1e-290))
    first, behind, _, _ = second_choices(pool, price, np.zeros(size, dtype=np.uint16))
    rows = np.flatnonzero(rng.random(size) < 0.7)
    limit = float(rng.choice([0.0, np.median(behind), np.inf]))
    model = Model(make_instance(Problem.from_tables([[0]], [[0.0]]), bound=1.0))
    base = rng.integers(0, width, len(rows))
    most = [None, int(rng.integers(0, 1 << 62)) << int(rng.integers(0, 1500))][seed % 2]

    def cores() -> tuple[list[np.ndarray], list[int]]:
        with np.errstate(over="ignore", invalid="ignore"):
            part, kept = within(pool, rows, first, price, limit)
        core = model.core(rows, part, base, kept, 12345 << 900, 3, most)
        return [part.cost, part.damage, kept, core.kept, core.core.gain, core.core.need], [
            *(core.core.room, core.core.target, core.core.doubt, core.coarser, core.offset)
        ]

    if len(rows) == 0:
        return
    arrays, numbers = cores()
    with monkeypatch.context() as patch:
        pure(patch)
        slow_arrays, slow_numbers = cores()
    assert numbers == slow_numbers
    assert all(np.array_equal(a, b) for a, b in zip(arrays, slow_arrays, strict=True))


@pytest.mark.parametrize("name", ["channel", "free", "non-convex", "ties"])
def test_known_steps_lead_to_the_price_that_sorting_finds(name: str) -> None:
    problem = explicit(generate(name, 2000, 3))
    hull = frontier(problem)
    walked = 0
    for place in range(50, len(hull) - 50, len(hull) // 40):
        instance = hull.instance.with_bound(Fraction(float(hull.damage[place]) * 1.0001))
        goal = Model(instance).goal
        hulls = hull._prepared.hulls
        assert hulls is not None
        known = Known(hulls, goal, Tuning())
        found, _ = narrow(instance.blocks, instance.size, goal, known, known.threshold())
        sorted_out = find_price(found.pool, goal.less(found.settled), Tuning())
        walk = known.priced(found)
        if walk is None:
            continue
        walked += 1
        used = found.settled.plus(found.pool.total(np.arange(len(found.pool)), walk.columns))
        assert used.damage <= goal.capacity
        assert used.cost == found.settled.plus(found.pool.total(np.arange(len(found.pool)), sorted_out.columns)).cost
        assert walk.price == pytest.approx(sorted_out.price, rel=1e-9)
    assert walked > 15


@compiled
@pytest.mark.parametrize("seed", range(40))
def test_searches_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 40)) if seed % 4 else 300, int(rng.integers(1, 9))
    gain, need = rng.integers(-100, 100, (2, count, width)) * 6
    room = int(need.min(axis=1).sum() + rng.integers(-50, 3000))
    core = Core(gain, need, room, 1 << 61, doubt=int(rng.integers(0, 30)))
    found = search(core, 10**6, Control(), Tuning())
    with monkeypatch.context() as patch:
        pure(patch)
        slow = search(core, 10**6, Control(), Tuning())
    assert (found.gain, found.states, found.stop) == (slow.gain, slow.states, slow.stop)
    assert np.array_equal(known(found.columns), known(slow.columns))
    assert [g for g, _ in found.doubtful] == [g for g, _ in slow.doubtful]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found.doubtful, slow.doubtful, strict=True))
    if found.columns is not None:
        rows = np.arange(count)
        assert gain[rows, found.columns].sum() == found.gain
        assert need[rows, found.columns].sum() <= room - core.doubt


@compiled
def test_sums_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    samples = [
        rng.standard_normal(100_000) * 10.0 ** rng.uniform(-300, 300, 100_000),
        np.full(50_000, 5e-324),
        -rng.random(300),
        np.array([1.7976931348623157e308, 5e-324, -1.7976931348623157e308]),
        np.array([2.0**52, -(2.0**-1074), 0.0, -0.0]),
        np.full(70_000, 1.7976931348623157e308),
        np.zeros(0),
        # A value so small that it is below all cuts of its block, and blocks that end in the middle of a vector.
        *(
            np.concatenate([rng.random(n) * 2.0 ** rng.uniform(-160, 0, n), [2.0**-200]])
            for n in (7, 8, 511, 512, 513, 2000)
        ),
        np.repeat([1.5, -1.25e-30], 300),
        np.full(2000, 0.1) * 2.0**905,
        np.full(2000, 0.1) * 2.0**-805,
    ]
    for values in samples:
        found = exact_sum(values)
        with monkeypatch.context() as patch:
            pure(patch)
            assert exact_sum(values) == found
        assert found == sum((Fraction(v) for v in values[:2000].tolist()), Fraction(0)) or values.size > 2000


@compiled
def test_messages_of_leaves_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    for count, width in ((1, 1), (50, 8), (3000, 5), (7, 64)):
        fixed, slope = 10.0 ** rng.uniform(-5, 5, (count, width)), 10.0 ** rng.uniform(-9, 9, count)
        own, other = rng.integers(0, 17, (2, count, width))
        found = _least_on_lines(fixed, slope, own, other)
        with monkeypatch.context() as patch:
            pure(patch)
            assert np.array_equal(_least_on_lines(fixed, slope, own, other), found)
        every = fixed[:, :, None] + (slope[:, None] * own)[:, :, None] * other[:, None, :]
        assert np.array_equal(every.min(axis=1), found)


@compiled
@pytest.mark.parametrize("direction", ["bound", "budget"])
def test_recounts_are_the_same(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    problems = [
        generate("free", 30_000, 5),
        explicit(generate("kernel", 30_000, 5)),
        Problem.from_tables(
            rng.integers(-50, 50, (999, 12)),
            rng.random((999, 12)),
            bits=[list(range(1, 2 + i % 12)) for i in range(999)],
        ),
    ]
    for problem in problems:
        question: dict[str, Any] = {direction: 10.0}
        instance = make_instance(problem, **question)
        choice = rng.integers(0, instance.widths)
        found = examine(instance, choice, {direction: 123.4})
        with monkeypatch.context() as patch:
            pure(patch)
            assert examine(instance, choice, {direction: 123.4}) == found
