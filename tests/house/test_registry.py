"""One look-up for strategies, formats and metrics: a literal table, then entry points; near matches; options."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest

from impq_opt import Problem, solve, verify
from impq_opt.errors import OptionError
from impq_opt.problems import load
from impq_opt.registry import Registry, look_up
from impq_opt.solvers import TABLE, make_solver, solver_class, solver_names


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that brings a strategy, and one with a shipped strategy's name."""
    found = [
        EntryPoint("their-greedy", "impq_opt.solvers.greedy:Greedy", "impq_opt.solvers"),
        EntryPoint("exact", "nowhere:Nothing", "impq_opt.solvers"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in found if e.group == group])


@pytest.mark.usefixtures("elsewhere")
def test_entry_points_come_after_the_table_and_cannot_take_its_names() -> None:
    assert solver_names() == (*TABLE, "their-greedy")
    assert solver_class("exact").__module__ == "impq_opt.solvers.exact.strategy"
    assert solve(load(), bound=0.1, solver="their-greedy").solver == "greedy"


@pytest.mark.usefixtures("elsewhere")
def test_names_of_other_packages_are_near_matches_too() -> None:
    with pytest.raises(OptionError, match=r"solver: unknown solver, got 'their-gredy' \(did you mean 'their-greedy'"):
        make_solver("their-gredy")


def test_unknown_options_are_named_with_near_matches() -> None:
    with pytest.raises(OptionError, match=r"unknown option of solver 'exact', got 'state' \(did you mean 'states'\?\)"):
        make_solver("exact", state=1)
    with pytest.raises(OptionError, match=r"unknown option of solver 'milp', got 'state' \(it has none\)"):
        make_solver("milp", state=1)


def test_a_metric_needs_no_dataclass() -> None:
    pytest.importorskip("torch")
    from impq_opt.measure.metrics import METRICS, load_metric

    assert all(load_metric(name).unit for name in METRICS)
    with pytest.raises(OptionError, match=r"metric: unknown metric, got 'impqq' \(did you mean 'impq'"):
        load_metric("impqq")


def test_an_empty_table_has_no_hint() -> None:
    with pytest.raises(OptionError, match=r"^thing: unknown thing, got 'a'$"):
        Registry("thing", {}, "impq_opt.nothing").find("a")
    with pytest.raises(OptionError, match=r"^here: unknown thing, got 'a'$"):
        look_up({}, "a", "thing", "here")


def test_costs_of_other_packages_are_looked_for_only_where_a_name_is_not_built_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking takes longer than solving what is small."""

    def looked(group: str) -> list[EntryPoint]:
        raise AssertionError(f"looked for {group}")

    monkeypatch.setattr("importlib.metadata.entry_points", looked)
    problem = Problem.from_sensitivities([9216, 432], [2e-5, 1e-7], bits=[2, 4, 8])
    assert verify(problem, solve(problem, bound=1e-6)).proved
    with pytest.raises(AssertionError, match="looked for"):
        problem.cost("energy")


def test_help_names_what_there_is_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    from impq_opt.cli import run
    from impq_opt.measure import ESTIMATORS, METRICS
    from impq_opt.quantize.methods import METHODS

    run(["measure", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not [name for name in (*METRICS, *ESTIMATORS, *METHODS) if not re.search(rf"\b{re.escape(name)}\b", text)]
