"""Many bounds on one problem, tuning that is no option, and answers that are not copied."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known
from quick import QUICK

from impq_opt import Problem, Status, frontier, solve
from impq_opt.cli import run
from impq_opt.errors import OptionError, UnsupportedError
from impq_opt.groups.held import adopted
from impq_opt.instance import Instance
from impq_opt.instance.contract import Control
from impq_opt.instance.question import make_instance
from impq_opt.problems.families import explicit, generate
from impq_opt.solvers import make_solver
from impq_opt.solvers.exact.strategy import Exact
from impq_opt.solvers.exact.tuning import Tuning

FAMILIES = ("layer", "channel", "ties", "non-convex", "random", "denormal", "attained")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("groups", [40, 400])
def test_prepared_answers_are_those_of_each_bound_alone(name: str, groups: int) -> None:
    problem = explicit(generate(name, groups, 2))
    hull = frontier(problem)
    prepared = Exact().prepared(make_instance(problem, bound=1.0))
    for place in np.linspace(1, len(hull) - 1, 12).astype(int).tolist():
        bound = Fraction(float(hull.damage[place])) * Fraction(101, 100) or Fraction(1, 1 << 1074)
        instance = make_instance(problem, bound=bound)
        told = prepared.run(prepared.instance.with_bound(bound), Control())
        alone = Exact().run(instance, Control())
        assert told.enumeration is not None and alone.enumeration is not None
        assert told.choice is not None and alone.choice is not None
        assert instance.is_feasible(told.choice)
        assert instance.cost_of(told.choice) == instance.cost_of(alone.choice) == told.lower_bound
        (found,) = hull.solve([bound])
        assert (found.status, found.exact_cost) == (Status.OPTIMAL, told.lower_bound * instance.quantum)


def test_the_door_gives_the_same_answers_in_any_order() -> None:
    hull = frontier(generate("channel", 500, 4))
    bounds = np.geomspace(hull.damage[0], hull.damage[-1], 20).tolist()
    forth, back = hull.solve(bounds), hull.solve(bounds[::-1])[::-1]
    for one, other in zip(forth, back, strict=True):
        assert np.array_equal(np.array(one.choice), np.array(other.choice))
        assert one.certificate == other.certificate


def test_two_prepared_problems_do_not_share_anything() -> None:
    problems = [generate("random", 150, seed) for seed in (1, 2)]
    doors = [Exact().prepared(make_instance(problem)) for problem in problems]
    for problem, door in zip(problems, doors, strict=True):
        claim = door.run(door.instance, Control())
        assert claim.lower_bound == solve(problem).exact_cost
    assert solve(problems[0]).exact_cost == doors[0].run(doors[0].instance, Control()).lower_bound
    assert Exact() == Exact()


def test_no_bound_can_be_met_by_what_has_none() -> None:
    problem = generate("random", 30, 1)
    found = frontier(problem).solve([Fraction(1, 10**9)])[0]
    assert found.status is Status.INFEASIBLE
    assert found.diagnosis is not None


def test_a_problem_without_choices_has_its_one_answer() -> None:
    problem = Problem.from_tables([[1, 2], [3, 4]], [[1.0, 0.0], [1.0, 0.0]])
    problem = problem.revise(pins={problem.names[0]: 0, problem.names[1]: 1})
    hull = frontier(problem)
    assert [found.objective for found in hull.solve([1.0, 2.0])] == [5, 5]


@pytest.mark.parametrize("question", ["budget", "budgets", "pairs", "peak"])
def test_what_has_no_hull_is_not_prepared(question: str) -> None:
    plain = generate("layer", 20, 1)
    coupled = Problem.from_sensitivities(
        [4, 5], [1.0, 2.0], kinds=["activation", "weight"], macs=np.array([0, 5]), reads=np.array([-1, 0])
    )
    instance: Instance = {
        "budget": lambda: make_instance(plain, budget=10**6),
        "budgets": lambda: make_instance(plain.revise(budgets={"representational": 10**9}), bound=1.0),
        "pairs": lambda: make_instance(coupled, bound=1.0, minimize="bit-operations"),
        "peak": lambda: make_instance(coupled, bound=1.0, minimize="peak-activation-memory"),
    }[question]()
    with pytest.raises(UnsupportedError, match="under one bound"):
        Exact().prepared(instance)


def test_tuning_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="unknown option"):
        make_solver("exact", tuning=Tuning())
    assert run(["solvers", "exact", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["options"]) == ["states"]
    assert run(["solvers", "exact"]) == 0
    assert "uning" not in capsys.readouterr().out
    found = solve(generate("layer", 10, 1), solver=Exact(tuning=Tuning(first_core=2)))
    assert found.options == {"states": 5_000_000}


@pytest.mark.parametrize("text", ["tuning=1", "tuning={}", "tunin=1"])
def test_nor_on_the_command_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from impq_opt.files import save_problem

    save_problem(generate("layer", 10, 1), tmp_path / "problem.toml")
    assert run(["solve", str(tmp_path / "problem.toml"), "--option", text]) == 2
    said = capsys.readouterr().err
    assert "unknown option" in said
    assert "tuning'?" not in said


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Tuning)])
def test_no_number_of_the_tuning_decides_what_is_optimal(field: str) -> None:
    """Each one far from where it is: what is proved stays the same."""
    default = getattr(Tuning(), field)
    values = [not default] if isinstance(default, bool) else [type(default)(v) for v in (1, 2, 50)]
    if field == "close_share":
        values = [1e-4, 0.02, 0.1]
    if field == "growth":
        values = [2, 50]  # a core that does not grow would be looked at for ever
    if field in ("last_resort", "enumerated", "tiny", "deepest", "near_steps", "fill_groups", "fill_changes", "joined"):
        values.append(0)
    problems = [generate(name, 130, 3) for name in ("layer", "non-convex", "dominating", "correlated-1e3")]
    costs = [solve(problem).exact_cost for problem in problems]
    for value in values:
        strategy = Exact(tuning=dataclasses.replace(Tuning(all_kept=60, sorted_at_once=40), **{field: value}))
        for problem, cost in zip(problems, costs, strict=True):
            found = solve(problem, solver=strategy)
            assert found.exact_lower_bound <= known(cost) <= known(found.exact_cost), value
            assert found.status is Status.OPTIMAL or field in ("most_states", "doubtful"), value


@pytest.mark.parametrize("name", [name for name in QUICK if name not in ("milp", "ilp")])
def test_answers_that_are_adopted_are_nobody_elses(name: str) -> None:
    """The arrays of answers to one question do not share memory, and cannot be written to."""
    problem = generate("layer", 5, 1).revise(bound=0.05)
    instance = make_instance(problem)
    strategy = make_solver(name)
    found = [solve(problem, solver=strategy) for _ in range(2)]
    claims = [strategy.run(instance, Control()).choice for _ in range(2)]
    arrays = [answer.choice for answer in found if answer.choice is not None]
    arrays += [choice for choice in claims if choice is not None]
    for i, one in enumerate(arrays):
        for other in (*arrays[:i], *vars(instance).values(), *(t for b in instance.blocks for t in vars(b).values())):
            assert not isinstance(other, np.ndarray) or not np.shares_memory(one, other)
    for answer in found:
        if answer.choice is not None:
            with pytest.raises(ValueError, match="read-only"):
                answer.choice[0] = 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                answer.choice.flags.writeable = True


def test_only_what_can_be_let_go_of_is_adopted() -> None:
    mine = np.arange(5)
    assert np.shares_memory(adopted(mine), mine)
    others: list[Any] = [np.arange(10)[::2], np.arange(10)[:5], np.arange(5, dtype=np.int32), np.arange(5.0)]
    for other in others:
        assert not np.shares_memory(adopted(other), other)
        assert not adopted(other).flags.writeable
