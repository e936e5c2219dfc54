"""Two costs against each other: every point is exact, and none is beaten."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from graphs import brute_force, graph
from known import known

from impq_opt import Status, solve
from impq_opt.cli import run
from impq_opt.errors import OptionError
from impq_opt.insight.tradeoff import tradeoff


@pytest.mark.parametrize("shape", ["chain", "residual", "shared"])
def test_points_are_exact_and_undominated(shape: str) -> None:
    problem = graph(shape, seed=3)
    found = tradeoff(problem, "storage", bounds=[0.02, 0.1], points=4)
    assert found
    for point in found:
        assert point.allocation.status is Status.OPTIMAL
        limits = {} if point.budget is None else {"storage": point.budget}
        assert point.first == brute_force(problem, float(known(point.bound)), limits)
    for bound in {point.bound for point in found}:
        level = [point for point in found if point.bound == bound]
        assert [p.second for p in level] == sorted(p.second for p in level)
        assert [p.first for p in level] == sorted((p.first for p in level), reverse=True)
        least = solve(problem, bound=bound, minimize="storage", solver="exhaustive").exact_cost
        assert level[0].second == least


def test_one_cost_is_no_tradeoff() -> None:
    with pytest.raises(OptionError, match="two different costs"):
        tradeoff(graph("chain"), "bit-operations", bounds=[0.1])
    with pytest.raises(OptionError, match="at least 2"):
        tradeoff(graph("chain"), "storage", bounds=[0.1], points=1)


def test_frontier_of_two_costs_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["frontier", "mobilenet-v1-synthetic", "--against", "storage", "--bound", "0.01", "--bits", "2,4,8"]
    assert run([*arguments, "--points", "3", "--json", "-o", str(tmp_path / "points.csv")]) == 0
    records = json.loads(capsys.readouterr().out)
    assert all(record["status"] == "optimal" for record in records)
    rows = list(csv.reader((tmp_path / "points.csv").read_text().splitlines()))
    assert rows[0] == ["bound", "bit-operations", "storage", "status"]
    assert [int(row[1]) for row in rows[1:]] == [record["bit-operations"] for record in records]
