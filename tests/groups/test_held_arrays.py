"""Arrays kept are arrays held: nobody writes to them, masks and infinities mean "not allowed", labels are honoured."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known, table_cost_of, table_of

import impq_opt
from impq_opt import Candidates, DamageTable, Group, GroupNames, PowerLaw, Problem, allocate, files, frontier, solve
from impq_opt.costs import TableCost
from impq_opt.errors import InputError, ProblemError
from impq_opt.groups.held import held
from impq_opt.insight.explain import explain, overview

# -- nothing kept can be written to ------------------------------------------------------------------------------


def everything(value: Any, where: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield every array, mapping and list that can be reached from ``value`` through public attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray | list | dict | Mapping | set):
        yield where, value
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from everything(one, f"{where}[{key!r}]", seen)
    elif isinstance(value, tuple | list):
        for place, one in enumerate(value[:20]):
            yield from everything(one, f"{where}[{place}]", seen)
    elif is_dataclass(value) and type(value).__module__.startswith("impq_opt") and not where.endswith("instance"):
        names = {one.name for one in fields(value)}
        names |= {n for n in dir(type(value)) if isinstance(vars_of(type(value)).get(n), property | cached)}
        for name in sorted(n for n in names if not n.startswith("_")):
            try:
                one = getattr(value, name)
            except (impq_opt.ImpqError, NotImplementedError):
                continue
            yield from everything(one, f"{where}.{name}", seen)


cached = type(vars(Problem)["digest"])


def vars_of(kind: type) -> dict[str, Any]:
    return {name: one for base in reversed(kind.__mro__) for name, one in vars(base).items()}


def assert_held(value: Any, where: str) -> int:
    count = 0
    for place, one in everything(value, where, set()):
        count += 1
        if isinstance(one, np.ndarray):
            assert not one.flags.writeable, place
            with pytest.raises(ValueError, match="read-only"):
                one[...] = 0
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                one.flags.writeable = True
        elif isinstance(one, Mapping):
            with pytest.raises(TypeError):
                one["x"] = 1  # type: ignore[index]
            for change in ("update", "pop", "clear", "setdefault", "popitem", "__ior__", "__delitem__"):
                with pytest.raises((TypeError, AttributeError)):
                    getattr(one, change)({"x": 1})
        else:
            raise AssertionError(f"{place} is a {type(one).__name__}")
    return count


def rich() -> Problem:
    """Return a problem with every array that a problem may have."""
    rng = np.random.default_rng(4)
    count = 6
    return Problem(
        names=GroupNames(("a", "b"), ((2, 2), (2,))),
        candidates=Candidates([[2, 4, 8], [4, 8]], np.arange(count) % 2, [["x", "y", "z"], ["y", "z"]]),  # type: ignore[arg-type]
        damage=DamageTable(rng.random((count, 3)), rng.random((count, 3))),
        sizes=rng.integers(1, 99, count),
        kinds=np.array([0, 0, 0, 0, 1, 1]),
        ranges=rng.random(count),
        macs=np.array([9, 9, 9, 9, 0, 0]),
        reads=np.array([4, 4, 5, -1, -1, -1]),
        also_reads=np.array([[0, 5, 3]]),
        lengths=np.array([3, 3, 3, 3, 0, 0]),
        steps=np.array([[-1, -1]] * 4 + [[0, 1]] * 2),
        costs=[TableCost.from_array(rng.integers(1, 9, (count, 3)))],  # type: ignore[arg-type]
        objective={"storage": 1, "cost": 2},
        bound=9.0,
        budgets={"activation-memory": 10**6},  # type: ignore[dict-item]
        pins={np.int64(3): np.int64(1)},  # type: ignore[dict-item]
        ties=[[0, 2]],  # type: ignore[arg-type]
        provenance={"list": [1, {"array": np.arange(3)}]},
    )


def test_nothing_in_a_problem_can_be_written_to() -> None:
    assert assert_held(rich(), "problem") > 20
    law = Problem.from_sensitivities([3, 4], [1.0, 2.0], stderr=[0.1, 0.1])
    assert assert_held(law, "problem") >= 6


def test_nothing_in_an_answer_can_be_written_to() -> None:
    problem = rich()
    found = solve(problem)
    assert found.choice is not None and found.certificate is not None
    assert assert_held(found, "found") > 20
    assert assert_held(solve(problem, bound=1e-9), "infeasible") > 20
    assert assert_held(explain(problem, found, "a[0,0]"), "explanation") == 0
    assert assert_held(overview(problem, found), "overview") == 0
    assert assert_held(impq_opt.verify(problem, found), "verification") == 0
    with pytest.raises(ValueError, match="read-only"):
        found.bits[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        found.choice[0] = 1
    hull = frontier(Problem.from_tables([[1, 2, 5], [1, 2, 6]], [[0.9, 0.3, 0.1], [0.8, 0.2, 0.0]]))
    for array in (hull.cost, hull.damage, hull.price, hull.order):
        assert not array.flags.writeable


def test_what_was_loaded_is_held_too(tmp_path: Path) -> None:
    problem = rich()
    files.save_problem(problem, tmp_path / "p.toml")
    loaded = files.load_problem(tmp_path / "p.toml")
    assert assert_held(loaded, "loaded") > 15
    found = solve(problem)
    files.save_allocation(found, tmp_path / "a.json")
    assert assert_held(files.load_allocation(tmp_path / "a.json", loaded), "loaded answer") > 15


GIVEN = {
    "sizes": lambda a: Problem.from_sensitivities(a.astype(np.int64), np.ones(4)),
    "sensitivities": lambda a: Problem.from_sensitivities([1, 2, 3, 4], a),
    "stderr": lambda a: Problem.from_sensitivities([1, 2, 3, 4], [1, 1, 1, 1], stderr=a),
    "power law": lambda a: Problem(
        names=GroupNames.numbered(4), candidates=Candidates(((2, 4),)), damage=PowerLaw(a), sizes=np.ones(4, np.int64)
    ),
    "damage": lambda a: Problem.from_tables(np.ones((4, 4)), np.tile(a, (4, 1))),
    "cost": lambda a: Problem.from_tables(np.tile(a, (4, 1)), np.ones((4, 4))),
    "set_of": lambda a: Problem(
        names=GroupNames.numbered(4),
        candidates=Candidates(((2.0,), (4.0,)), (a % 2).astype(np.int64)),
        damage=PowerLaw(np.ones(4)),
        sizes=np.ones(4, np.int64),
    ),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("through", ["array", "view", "locked and unlocked"])
def test_what_the_caller_writes_later_changes_no_problem(name: Any, through: str) -> None:
    own = np.array([4.0, 3.0, 2.0, 1.0])
    given = own[:] if through == "view" else own
    if through == "locked and unlocked":
        own.flags.writeable = False
    problem = GIVEN[name](given)
    digest, again = problem.digest, GIVEN[name](np.array([4.0, 3.0, 2.0, 1.0])).digest
    assert digest == again
    own.flags.writeable = True
    own[:] = [1.0, 2.0, 3.0, 7.0]
    assert replace(problem).digest == digest
    assert GIVEN[name](own).digest != digest or name == "stderr"


def test_tables_given_whole_are_copied_and_stay_the_callers() -> None:
    cost, damage = np.ones((3, 2), dtype=np.int64), np.ones((3, 2))
    problem = Problem.from_tables(cost, damage)
    digest = problem.digest
    cost[:], damage[:] = 5, 0.5
    assert cost.flags.writeable and damage.flags.writeable
    assert replace(problem).digest == digest
    assert table_of(problem).values.max() == 1


def test_what_is_held_is_shared_and_not_copied_again() -> None:
    problem = rich()
    changed = problem.revise(bound=3.0)
    assert table_of(changed).values is table_of(problem).values
    array = held(np.arange(5.0))
    assert held(array) is array and held(array[1:]).base is not None
    assert np.shares_memory(held(array[1:]), array)


def test_the_callers_mappings_stay_the_callers() -> None:
    objective, nested = {"storage": 1}, {"list": [1]}
    problem = replace(rich(), objective=objective, provenance={"nested": nested})
    digest = problem.digest
    objective["storage"] = 3
    nested["list"].append(2)
    assert replace(problem).digest == digest
    assert problem.provenance["nested"]["list"] == (1,)


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_other_processes_hold_what_they_get(again: Any) -> None:
    found = solve(rich())
    other = again(found)
    assert_held(other, "other")
    assert other.problem.digest == found.problem.digest
    np.testing.assert_array_equal(other.choice, found.choice)
    assert other.certificate == found.certificate and other.exact_cost == found.exact_cost
    assert again(rich()).digest == rich().digest


def test_the_sign_of_a_zero_changes_neither_digest_nor_file(tmp_path: Path) -> None:
    def made(zero: float) -> list[Problem]:
        law = Problem.from_sensitivities([1, 2], [zero, 1], bits=[zero, 2], ranges=[zero, 1], stderr=[zero, 1])
        table = Problem.from_tables([[zero, 1.5]] * 300, [[zero, 1]] * 300, bits=[zero, 1])
        groups = [Group("a", 3, zero, bits=(zero, 4), range=zero, stderr=zero), Group("b", 3, damage=[zero], bits=[1])]
        return [law, table, Problem.declare(groups), law.revise(bits=[zero])]

    for place, (plus, minus) in enumerate(zip(made(0.0), made(-0.0), strict=True)):
        assert plus.digest == minus.digest
        for name, problem in (("plus", plus), ("minus", minus)):
            (tmp_path / name / str(place)).mkdir(parents=True)
            files.save_problem(problem, tmp_path / name / str(place) / "p.toml")
        for file in (tmp_path / "plus" / str(place)).iterdir():
            assert file.read_bytes() == (tmp_path / "minus" / str(place) / file.name).read_bytes(), file


# -- not allowed -------------------------------------------------------------------------------------------------


def best(cost: Any, damage: Any, allowed: Any, bound: float) -> Fraction | None:
    """Return the least cost of columns that are allowed, by trying them all."""
    rows = [np.flatnonzero(row).tolist() for row in allowed]
    found = [
        sum((Fraction(cost[g][k]) for g, k in enumerate(choice)), Fraction(0))
        for choice in itertools.product(*rows)
        if sum(Fraction(float(damage[g][k])) for g, k in enumerate(choice)) <= Fraction(bound)
    ]
    return min(found, default=None)


def drawn(seed: int) -> tuple[Any, Any, Any, float]:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    cost, damage = rng.integers(1, 30, shape), np.round(rng.random(shape), 2)
    allowed = rng.random(shape) < 0.6
    allowed[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = True
    return cost, damage, allowed, float(damage.sum() / shape[1] * rng.uniform(0.3, 1.2)) + 1e-3


def ways(cost: Any, damage: Any, allowed: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the ways in which a caller can say the same."""
    hidden = np.where(allowed, damage, 0.0)  # tempting, were it read
    yield np.ma.masked_array(np.where(allowed, cost, 0), ~allowed), hidden
    yield np.where(allowed, cost, 0), np.ma.masked_array(hidden, ~allowed)
    yield [np.ma.masked_array(row, ~may) for row, may in zip(cost, allowed, strict=True)], hidden
    yield np.where(allowed, cost, 0), np.where(allowed, damage, np.inf)
    yield np.where(allowed, cost.astype(float), np.inf), hidden
    first = np.arange(cost.size).reshape(cost.shape) % 2 == 0
    yield np.ma.masked_array(cost, ~allowed & first), np.where(allowed | first, hidden, np.inf)


@pytest.mark.parametrize("solver", ["exact", "exhaustive", "milp", "greedy", "lagrangian"])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_not_allowed_is_never_chosen_and_choices_are_the_callers_columns(seed: int, solver: str) -> None:
    cost, damage, allowed, bound = drawn(seed)
    least = best(cost, damage, allowed, bound)
    answers = set()
    for given in ways(cost, damage, allowed):
        found = allocate(*given, bound, solver=solver)
        if found.choice is None:
            assert least is None or solver not in ("exact", "exhaustive")
            continue
        rows = np.arange(len(cost))
        assert allowed[rows, found.choice].all()
        assert found.exact_cost == int(cost[rows, found.choice].sum())
        assert found.damage == pytest.approx(damage[rows, found.choice].sum())
        assert found.bits.tolist() == found.choice.tolist()
        assert impq_opt.verify(found.problem, found).proved or solver in ("greedy", "lagrangian")
        assert least is not None and found.exact_cost >= least
        assert found.exact_lower_bound <= least
        if solver in ("exact", "exhaustive", "milp"):
            assert found.exact_cost == least
        answers.add(tuple(found.choice.tolist()))
    assert len(answers) <= 1


@pytest.mark.parametrize("seed", range(30))
def test_pins_ties_budgets_and_coupled_costs_keep_to_what_is_allowed(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    count, width = 5, 3
    damage = np.round(rng.random((count, width)), 2)
    allowed = rng.random((count, width)) < 0.7
    allowed[:, rng.integers(0, width)] = True
    damage[~allowed] = np.inf
    bits = [2.0, 4.0, 8.0]
    sets = Candidates((tuple(bits), (4.0, 2.0, 8.0)), rng.integers(0, 2, count)) if seed % 2 else Candidates((bits,))  # type: ignore[arg-type]
    problem = Problem(
        names=GroupNames.numbered(count),
        candidates=sets,
        damage=DamageTable(damage),
        sizes=rng.integers(1, 20, count),
        kinds=np.array([0, 0, 0, 1, 1]),
        macs=np.array([5, 7, 3, 0, 0]),
        reads=np.array([3, 4, 3, -1, -1]),
        objective={"bit-operations": 1} if seed % 3 else {"storage": 1},
        bound=float(np.where(allowed, damage, 0).max(axis=1).sum() * rng.uniform(0.4, 1)),
        budgets={"representational": Fraction(int(rng.integers(150, 500)))} if seed % 5 == 0 else {},
    )
    column = int(np.flatnonzero(allowed[2])[0])
    pins, ties = ({2: column} if seed % 4 == 0 else {}), (((0, 1),) if seed % 4 < 2 else ())
    try:
        problem = replace(problem, pins=pins, ties=ties)
    except ProblemError as error:
        assert "no candidate in common" in str(error)
        return

    def value(choice: tuple[int, ...], name: str) -> Fraction:
        taken = [Fraction(problem.candidates.of(g)[k]) for g, k in enumerate(choice)]
        if name == "bit-operations":
            macs, reads = known(problem.macs), known(problem.reads)
            return sum((int(macs[g]) * taken[g] * taken[int(reads[g])] for g in range(3)), Fraction(0))
        inside = range(3) if name == "storage" else range(5)
        return sum((int(problem.sizes[g]) * taken[g] for g in inside), Fraction(0))

    assert problem.bound is not None
    bound = Fraction(problem.bound)
    feasible = [
        choice
        for choice in itertools.product(*(np.flatnonzero(row).tolist() for row in allowed))
        if sum(Fraction(float(damage[g, k])) for g, k in enumerate(choice)) <= bound
        and all(choice[g] == k for g, k in pins.items())
        and all(problem.candidates.of(a)[choice[a]] == problem.candidates.of(b)[choice[b]] for a, b in ties)
        and all(value(choice, name) <= limit for name, limit in problem.budgets.items())
    ]
    (name,) = problem.objective
    found = solve(problem)
    if not feasible:
        assert found.status is impq_opt.Status.INFEASIBLE
        return
    assert found.status is impq_opt.Status.OPTIMAL
    assert tuple(known(found.choice).tolist()) in feasible
    assert (
        found.exact_cost == min(value(choice, name) for choice in feasible) == value(tuple(known(found.choice)), name)
    )
    assert impq_opt.verify(problem, found).proved


@pytest.mark.parametrize("seed", range(24))
def test_several_limits_and_shared_activations_keep_to_what_is_allowed(seed: int) -> None:
    rng = np.random.default_rng(2000 + seed)
    count, bits = 8, np.array([2, 4, 8])
    damage = rng.integers(0, 64, (count, 3)) / 64
    allowed = rng.random((count, 3)) < 0.65
    allowed[np.arange(count), rng.integers(0, 3, count)] = True
    damage[~allowed] = np.inf
    limited = rng.integers(-9, 30, (count, 3))
    macs, reads = rng.integers(1, 9, count), np.array([6, 6, 7, 7, 7, 6, -1, -1])
    macs[6:] = 0
    problem = Problem(
        names=GroupNames.numbered(count),
        candidates=Candidates((tuple(bits.tolist()),)),
        damage=DamageTable(damage),
        sizes=rng.integers(1, 20, count),
        kinds=np.array([0] * 6 + [1] * 2),
        macs=macs,
        reads=reads,
        costs=(TableCost.from_array(limited, name="limited"),),
        objective=[{"bit-operations": 1}, {"storage": 1}, {"representational": 1}][seed % 3],
    )
    every = np.array(list(itertools.product(*(np.flatnonzero(row).tolist() for row in allowed))))
    taken, rows = bits[every], np.arange(count)
    costs = {
        "bit-operations": sum(macs[g] * taken[:, g] * taken[:, reads[g]] for g in range(6)),
        "storage": taken[:, :6] @ problem.sizes[:6],
        "representational": taken @ problem.sizes,
        "limited": limited[rows, every].sum(axis=1),
    }
    total = damage[rows, every].sum(axis=1)
    bound = float(np.quantile(total, rng.uniform(0.1, 0.8))) + 1 / 128
    most = int(np.quantile(costs["limited"], rng.uniform(0.2, 0.8)))
    inside = (total <= bound) & ((costs["limited"] <= most) if most > 0 else True)
    problem = problem.revise(bound=bound, budgets={"limited": most} if most > 0 else None)
    found = solve(problem)
    if not inside.any():
        assert found.status is impq_opt.Status.INFEASIBLE
        return
    (name,) = problem.objective
    assert found.status is impq_opt.Status.OPTIMAL and found.exact_cost == costs[name][inside].min()
    (place,) = np.flatnonzero((every == found.choice).all(axis=1))
    assert inside[place] and costs[name][place] == found.exact_cost and found.exact_damage == Fraction(total[place])
    warm = solve(problem, warm_start=found)
    assert warm.exact_cost == found.exact_cost


@pytest.mark.parametrize("seed", range(8))
def test_groups_that_are_joined_or_settled_keep_their_own_columns(seed: int) -> None:
    from impq_opt.instance.join import components, join
    from impq_opt.instance.question import make_instance
    from impq_opt.instance.settle import settle

    rng = np.random.default_rng(3000 + seed)
    count = 8
    allowed = rng.random((2 * count, 3)) < 0.6
    allowed[np.arange(2 * count), rng.integers(0, 3, 2 * count)] = True
    damage = np.where(allowed, rng.integers(0, 64, (2 * count, 3)) / 64, np.inf)
    problem = Problem(
        names=GroupNames.numbered(2 * count),
        candidates=Candidates(((2, 4, 8),)),
        damage=DamageTable(damage),
        sizes=np.ones(2 * count, np.int64),
        kinds=np.repeat([0, 1], count),
        macs=np.concatenate([rng.integers(1, 9, count), np.zeros(count, np.int64)]),
        reads=np.concatenate([np.arange(count, 2 * count), np.full(count, -1)]),
        objective={"bit-operations": 1},
    )
    plain = make_instance(problem, bound=100.0)
    settled = settle(plain, np.arange(3), np.zeros(3, np.int64))
    for instance in (join(plain, components(plain)), settled, join(settled, components(settled))):
        rows = np.arange(instance.size)
        for _ in range(20):
            choice = rng.integers(0, instance.widths)
            lifted = instance.lift(choice)
            assert allowed[np.arange(2 * count), lifted].all()
            pairs = 0 if instance.pairs is None else int(instance.pairs.at(choice).sum())
            assert instance.cost_of(choice) == int(instance.tables[0][rows, choice].sum()) + instance.base_cost + pairs
            assert instance.damage_of(choice) == Fraction(instance.tables[1][rows, choice].sum()) + instance.base_damage
            np.testing.assert_array_equal(instance.reduce(lifted), choice)


def test_the_dual_question_keeps_to_what_is_allowed() -> None:
    found = solve(Problem.from_tables([[1, 2, 3], [1, 2, 3]], [[0.1, 0.2, np.inf], [np.inf, 0.2, 0.1]]), budget=5)
    assert known(found.choice).tolist() == [0, 2] and found.damage == pytest.approx(0.2)
    found = solve(Problem.from_tables([[1, 2, 3], [1, 2, 3]], [[np.inf, 0.2, np.inf], [np.inf, 0.2, 0.1]]), budget=3)
    assert found.status is impq_opt.Status.INFEASIBLE


def test_tables_with_masks_go_through_files_answers_and_exports(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    for count in (4, 300):
        allowed = rng.random((count, 3)) < 0.6
        allowed[:, 1] = True
        cost = np.ma.masked_array(rng.integers(1, 9, (count, 3)), ~allowed)
        problem = Problem.from_tables(cost, rng.random((count, 3)).round(2), bits=[2, 4, 8])
        files.save_problem(problem, tmp_path / "p.toml")
        loaded = files.load_problem(tmp_path / "p.toml")
        assert loaded.digest == problem.digest
        np.testing.assert_array_equal(loaded.allowed, allowed)
        found = solve(problem, bound=count * 0.5)
        files.save_allocation(found, tmp_path / "a.json")
        again = files.load_allocation(tmp_path / "a.json", loaded)
        np.testing.assert_array_equal(again.choice, found.choice)
        assert impq_opt.verify(loaded, again).proved
        view = explain(problem, found, problem.names[0])
        assert [one.label for one in view.candidates] == [
            label for label, may in zip(("2", "4", "8"), allowed[0], strict=True) if may
        ]
        from impq_opt.exchange.tabular import Csv

        back = Csv().problem(Csv(candidates=True).config(found) | {})
        np.testing.assert_array_equal(back.allowed, allowed)
        other = solve(back, bound=count * 0.5)
        assert (other.exact_cost, known(other.choice).tolist()) == (found.exact_cost, known(found.choice).tolist())


def test_standard_errors_reports_and_other_answers_keep_to_what_is_allowed() -> None:
    from impq_opt.insight.stability import stability
    from impq_opt.problem.uncertainty import upper_limit
    from impq_opt.report.layers import layers_of

    allowed = np.array([[True, False, True], [False, True, True]])
    values = np.where(allowed, [[0.4, 0.3, 0.2], [0.5, 0.3, 0.1]], np.inf)
    errors = np.where(allowed, values / 10, np.nan)
    problem = replace(
        Problem.from_tables([[1, 2, 3], [1, 2, 3]], values, bits=[2, 4, 8]), damage=DamageTable(values, errors)
    )
    raised = upper_limit(problem, 0.95)
    np.testing.assert_array_equal(raised.allowed, allowed)
    found = solve(raised, bound=0.8)
    assert known(found.choice).tolist() == [0, 2] and found.status is impq_opt.Status.OPTIMAL
    assert 0 <= stability(problem, found, resamples=20).feasible <= 1
    assert [one.sensitivity for one in layers_of(solve(problem, bound=0.8))] == [0.4 + 0.3]
    again = solve(problem.revise(bits=[2, 4]), bound=0.8)
    assert known(again.choice).tolist() == [0, 1] and again.bits.tolist() == [2, 4]
    with pytest.raises(InputError, match="none of the group's candidates"):
        problem.revise(bits=[4])
    points = frontier(problem)
    assert all(allowed[[0, 1], points.choice(place)].all() for place in range(len(points)))


def test_a_choice_that_is_not_allowed_is_not_proved() -> None:
    problem = Problem.from_tables([[1, 2], [1, 2]], [[np.inf, 0.2], [0.3, 0.2]])
    found = solve(problem, bound=1)
    forged = replace(found, choice=np.array([0, 0]), exact_cost=Fraction(2), exact_lower_bound=Fraction(2))
    assert not impq_opt.verify(problem, forged).proved


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nan damage": (lambda: allocate([[1, 2]], [[0.1, np.nan]], 1), r"groups\[0\].damage\[1\] .*nan"),
    "nan beside inf": (lambda: allocate([[1, 2, 3]], [[0.1, np.inf, np.nan]], 1), r"groups\[0\].damage\[2\] .*nan"),
    "-inf damage": (lambda: allocate([[1, 2]], [[0.1, -np.inf]], 1), r"groups\[0\].damage\[1\] .*-inf"),
    "nan cost": (lambda: allocate([[1, np.nan]], [[0.1, 0.2]], 1), r"costs.cost\[0, 1\].*nan"),
    "nan cost beside inf": (lambda: allocate([[np.inf, np.nan]], [[0.1, 0.2]], 1), r"costs.cost\[0, 1\].*nan"),
    "-inf cost": (lambda: allocate([[1, -np.inf]], [[0.1, 0.2]], 1), r"costs.cost\[0, 1\].*-inf"),
    "nan where the cost is infinite": (lambda: allocate([[1, np.inf]], [[0.1, np.nan]], 1), r"damage\[1\] .*nan"),
    "nothing allowed": (
        lambda: allocate([[1.0, 2.0], [np.inf, 2.0]], [[0.1, 1], [0.1, np.inf]], 1),
        r"groups\[1\].damage .*none of the group's candidates",
    ),
    "all masked": (
        lambda: allocate(np.ma.masked_array(np.ones((2, 2)), mask=True), np.ones((2, 2)), 1),
        r"none of the group's candidates",
    ),
    "pin": (
        lambda: Problem.from_tables([[1, 2]], [[np.inf, 1]], bits=[2, 4]).revise(pins={"group[0]": 2}),
        r"pinned to a candidate that is not allowed",
    ),
    "tie": (
        lambda: Problem.from_tables([[1, 2]] * 2, [[np.inf, 1], [1, np.inf]], ties=((0, 1),)),
        r"no candidate in common",
    ),
    "masked sizes": (
        lambda: Problem.from_sensitivities(np.ma.masked_array([1, 2], [False, True]), [1, 1]),
        r"sizes\[1\]: is masked",
    ),
    "masked sensitivities": (
        lambda: Problem.from_sensitivities([1, 2], np.ma.masked_array([1.0, 2], [True, False])),
        r"sensitivity\[0\]: is masked",
    ),
    "masked stderr": (
        lambda: Problem.from_sensitivities([1, 2], [1, 1], stderr=np.ma.masked_array([1.0, 2], [True, False])),
        r"stderr\[0\]: is masked",
    ),
    "masked kinds": (
        lambda: Problem.from_sensitivities([1, 2], [1, 1], kinds=np.ma.masked_array([0, 1], [True, False])),
        r"kinds: is masked",
    ),
    "masked macs": (
        lambda: Problem.from_sensitivities([1, 2], [1, 1], macs=np.ma.masked_array([0, 1], [True, False])),
        r"macs\[0\]: is masked",
    ),
    "masked cost term": (
        lambda: TableCost.from_array(np.ma.masked_array([[1, 2]], [[True, False]])),
        r"costs.cost\[0, 0\]: is masked",
    ),
    "masked damage table": (
        lambda: DamageTable(np.ma.masked_array([[1.0, 2]], [[True, False]])),
        r"damage\[0, 0\]: is masked",
    ),
    "strings": (lambda: DamageTable([["1", "2"]]), r"damage: must be an array of numbers"),  # type: ignore[arg-type]
    "too exact": (lambda: DamageTable([[2**53 + 1, 1]]), r"damage: holds whole numbers that float64 cannot"),  # type: ignore[arg-type]
    "size beyond int64": (lambda: Problem.from_sensitivities([10**30], [1]), r"sizes: is too large for 64 bits"),
    "size beyond float64": (lambda: Problem.from_sensitivities([1e300], [1]), r"sizes: is too large for 64 bits"),
    "unsigned size": (
        lambda: Problem.from_sensitivities(np.array([2**64 - 1], np.uint64), [1]),
        r"too large for 64 bits",
    ),
    "bits 1e308": (lambda: Problem.from_sensitivities([1], [1], bits=[1e308]), r"bits must be finite numbers"),
    "huge bits": (lambda: Problem.from_sensitivities([1], [1], bits=[10**400]), r"bits\[0\]"),
    "huge bound": (lambda: Problem.from_sensitivities([1], [1], bound=10**4000), r"bound: must be a number of at most"),
    "huge weight": (lambda: Problem.from_sensitivities([1], [1], objective={"storage": 10**5000}), r"minimize.storage"),
    "kinds": (lambda: Problem.from_sensitivities([1], [1], kinds=[300]), r"kinds: is too large for 8 bits"),
    "pins": (lambda: Problem.from_sensitivities([1], [1], pins={0: 1.5}), r"pins: must be a mapping"),
    "shape": (lambda: GroupNames(("a",), ((-1, -1),)), r"names.shapes: must be whole numbers"),
    "many": (lambda: GroupNames(("a",), ((2**40, 2**40),)), r"names.shapes: stand for too many"),
    "surrogate": (lambda: GroupNames.explicit(["\ud800"]), r"groups\[0\].name: must be text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_sentence(case: Any) -> None:
    build, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as told:
        build()
    assert "\n" not in str(told.value) and len(str(told.value)) < 300


# -- labels ------------------------------------------------------------------------------------------------------


class Frame:
    """What a table of another library looks like from outside: rows and columns by label."""

    def __init__(self, values: Any, index: Any = None, columns: Any = None) -> None:
        self.values = np.asarray(values)
        self.index = list(range(len(self.values))) if index is None else list(index)
        if self.values.ndim == 2:
            self.columns = list(range(self.values.shape[1])) if columns is None else list(columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self) -> int:
        return len(self.values)

    def reordered(self, rows: Any, columns: Any = None) -> Frame:
        if self.values.ndim == 1:
            return Frame(self.values[rows], [self.index[k] for k in rows])
        picked = self.values[np.ix_(rows, columns)]
        return Frame(picked, [self.index[k] for k in rows], [self.columns[k] for k in columns])


class Real:
    """The same out of pandas, where it is installed."""

    def __new__(cls, values: Any, index: Any = None, columns: Any = None) -> Any:
        pandas = pytest.importorskip("pandas")
        if np.ndim(values) == 1:
            return pandas.Series(values, index=index)
        return pandas.DataFrame(values, index=index, columns=columns)


def reordered(table: Any, rows: Any, columns: Any = None) -> Any:
    if isinstance(table, Frame):
        return table.reordered(rows, columns)
    return table.iloc[rows] if columns is None else table.iloc[rows, columns]


KINDS = pytest.mark.parametrize("kind", [Frame, Real])
COST, DAMAGE = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]])


@KINDS
@pytest.mark.parametrize("seed", range(6))
def test_tables_with_labels_are_put_in_one_order(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    cost, damage = rng.integers(1, 30, shape), np.round(rng.random(shape), 2)
    names, bits = [f"g{k}" for k in range(shape[0])], [2 * k + 2 for k in range(shape[1])]
    plain = Problem.from_tables(cost, damage, names=names, bits=bits)
    rows, columns = rng.permutation(shape[0]), rng.permutation(shape[1])
    one = kind(cost, names, bits)
    other = reordered(kind(damage, names, bits), rows, columns)
    assert Problem.from_tables(one, other).digest == plain.digest
    assert Problem.from_tables(reordered(one, rows, columns), damage, names=names, bits=bits).digest == plain.digest
    assert Problem.from_tables(cost, other, names=names, bits=bits).digest == plain.digest
    sizes = rng.integers(1, 9, shape[0])
    sized = Problem.from_tables(one, other, sizes=reordered(kind(sizes, names), rows[::-1]))
    assert sized.digest == Problem.from_tables(cost, damage, names=names, bits=bits, sizes=sizes).digest
    bound = float(damage.mean(axis=1).sum()) + 0.01
    assert allocate(one, other, bound).bits.tolist() == solve(plain, bound=bound).bits.tolist()
    turned = allocate(other, one, bound) if (damage > 0).all() else None  # choices are those of the first table
    if turned is not None and turned.choice is not None:
        assert list(turned.problem.names) == [names[k] for k in rows]
        assert turned.problem.candidates.sets == (tuple(float(bits[k]) for k in columns),)


@KINDS
def test_vectors_with_labels_are_put_in_one_order(kind: Any) -> None:
    names = ["a", "b", "c"]
    plain = Problem.from_sensitivities(
        [1, 2, 3],
        [0.1, 0.2, 0.3],
        names=names,
        stderr=[1, 2, 3],
        macs=[7, 8, 9],
        kinds=["weight", "activation", "weight"],
    )
    turned = Problem.from_sensitivities(
        kind([1, 2, 3], names),
        kind([0.3, 0.1, 0.2], ["c", "a", "b"]),
        stderr=kind([2.0, 1.0, 3.0], ["b", "a", "c"]),
        macs=kind([9, 8, 7], ["c", "b", "a"]),
        kinds=kind(["activation", "weight", "weight"], ["b", "a", "c"]),
    )
    assert turned.digest == plain.digest
    assert known(turned.damage.stderr).tolist() == [1, 2, 3]
    assert Problem.from_sensitivities(
        kind([3, 1, 2], ["c", "a", "b"]), [0.1, 0.2, 0.3], names=names
    ).sizes.tolist() == [1, 2, 3]


@KINDS
def test_labels_that_only_count_are_no_names_and_words_are_formats(kind: Any) -> None:
    assert Problem.from_tables(kind(COST), kind(DAMAGE)).digest == Problem.from_tables(COST, DAMAGE).digest
    back = reordered(kind(DAMAGE), [1, 0], [2, 1, 0])
    assert Problem.from_tables(kind(COST), back).digest == Problem.from_tables(COST, DAMAGE).digest
    worded = Problem.from_tables(kind(COST, None, ["int2", "nf4", "fp8"]), kind(DAMAGE, None, ["int2", "nf4", "fp8"]))
    assert worded.candidates.formats == (("int2", "nf4", "fp8"),)
    levels = Problem.from_tables(kind(COST, ["x", "y"]), kind(DAMAGE, ["x", "y"]), names=["y", "x"])
    assert list(levels.names) == ["y", "x"] and table_cost_of(levels).values.tolist() == [[4, 5, 6], [1, 2, 3]]
    named = Problem.from_tables(kind(COST), kind(DAMAGE), names=["p", "q"], bits=[2, 4, 8])
    assert named.digest == Problem.from_tables(COST, DAMAGE, names=["p", "q"], bits=[2, 4, 8]).digest
    pairs = Problem.from_tables(kind(COST, [("l", 0), ("l", 1)]) if kind is Frame else COST, DAMAGE)
    assert kind is Real or list(pairs.names) == ["l.0", "l.1"]


@KINDS
def test_infinities_in_tables_with_labels_are_not_allowed_either(kind: Any) -> None:
    found = allocate(
        kind([[1.0, 2.0], [np.inf, 2.0]], ["a", "b"], [2, 4]), kind([[0.1, 0.2], [0.1, 0.2]], ["b", "a"], [4, 2]), 1
    )
    assert known(found.choice).tolist() == [0, 1] and known(found.problem.allowed).tolist() == [
        [True, True],
        [False, True],
    ]


MISMATCHED: dict[str, Callable[[Any], Any]] = {
    "rows": lambda kind: Problem.from_tables(kind(COST, ["a", "b"]), kind(DAMAGE, ["a", "c"])),
    "columns": lambda kind: Problem.from_tables(kind(COST, None, [2, 4, 8]), kind(DAMAGE, None, [2, 4, 6])),
    "more rows": lambda kind: Problem.from_tables(kind(COST, ["a", "b"]), kind(DAMAGE[:1], ["a"])),
    "counted": lambda kind: Problem.from_tables(kind(COST, ["a", "b"]), kind(DAMAGE)),
    "twice": lambda kind: Problem.from_tables(kind(COST, ["a", "a"]), kind(DAMAGE, ["a", "a"])),
    "names": lambda kind: Problem.from_tables(kind(COST, ["a", "b"]), DAMAGE, names=["a", "c"]),
    "bits": lambda kind: Problem.from_tables(kind(COST, None, [2, 4, 8]), DAMAGE, bits=[2, 4, 6]),
    "ragged bits": lambda kind: Problem.from_tables(kind(COST, None, [2, 4, 8]), DAMAGE, bits=[[2], [2, 4]]),
    "sizes": lambda kind: Problem.from_tables(kind(COST, ["a", "b"]), DAMAGE, sizes=kind([1, 2], ["a", "c"])),
    "sensitivities": lambda kind: Problem.from_sensitivities(kind([1, 2], ["a", "b"]), kind([1.0, 2], ["a", "c"])),
    "elsewhere": lambda kind: DamageTable(kind(DAMAGE, ["a", "b"])),
    "cost term": lambda kind: TableCost.from_array(kind(COST, ["a", "b"])),
    "field": lambda kind: replace(rich(), macs=kind([1] * 6, list("abcdef"))),
    "words": lambda kind: Problem.from_tables(kind([["x", "y"]], ["a"]), [[0.1, 0.2]]),
    "nan": lambda kind: Problem.from_tables(kind([[1, np.nan]], ["a"]), [[0.1, 0.2]]),
}


@KINDS
@pytest.mark.parametrize("case", MISMATCHED)
def test_labels_that_do_not_match_are_one_sentence(case: Any, kind: Any) -> None:
    with pytest.raises(InputError) as told:
        MISMATCHED[case](kind)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300


def test_tables_of_several_types_of_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({2: [1, 2], 4: [1.5, 2.5]}, index=["a", "b"])
    assert table_cost_of(Problem.from_tables(table, table)).quantum == Fraction(1, 10)
    nullable = pandas.DataFrame({2: [1, 2], 4: [3, 4]}, dtype="Int64")
    assert table_cost_of(Problem.from_tables(nullable, DAMAGE[:, :2])).values.tolist() == [[1, 3], [2, 4]]
    with pytest.raises(InputError, match="must hold real numbers"):
        Problem.from_tables(nullable.mask(nullable == 4), DAMAGE[:, :2])
    levels = pandas.MultiIndex.from_tuples([("l", 0), ("l", 1)])
    assert list(Problem.from_tables(pandas.DataFrame(COST, index=levels), DAMAGE).names) == ["l.0", "l.1"]
