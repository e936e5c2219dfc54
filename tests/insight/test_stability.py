"""Standard errors on the way to an allocation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import law_of, table_of

from impq_opt import Problem, solve
from impq_opt.cli import run
from impq_opt.errors import OptionError, ProblemError
from impq_opt.files import load_allocation, save_problem
from impq_opt.groups.damage import PowerLaw
from impq_opt.insight.stability import stability
from impq_opt.problem.uncertainty import upper_limit


def measured(relative: Any, groups: int = 30, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 2, groups))
    return Problem.from_sensitivities(rng.integers(10, 1000, groups), values, stderr=relative * values)


def test_the_upper_limit_is_that_of_a_normal_variable() -> None:
    problem = measured(0.1)
    measured_values = law_of(problem).sensitivity
    np.testing.assert_allclose(law_of(upper_limit(problem, 0.95)).sensitivity, measured_values * (1 + 1.6448536 * 0.1))
    np.testing.assert_array_equal(law_of(upper_limit(problem, 0.5)).sensitivity, measured_values)
    table = Problem.from_tables(np.ones((2, 2)), [[4.0, 1.0], [3.0, 0.0]])
    table = replace(table, damage=replace(table.damage, stderr=np.array([[1.0, np.nan], [0.0, 0.0]])))
    np.testing.assert_allclose(table_of(upper_limit(table, 0.95)).values, [[4 + 1.6448536, 1.0], [3.0, 0.0]])


def test_without_errors_an_optimum_is_stable_and_an_upper_limit_needs_them() -> None:
    problem = measured(0.0)
    held = stability(problem, solve(problem, bound=0.5), resamples=5, tolerance=0.02)
    assert (held.feasible, held.near) == (1.0, 1.0)
    bare = replace(problem, damage=PowerLaw(law_of(problem).sensitivity))
    for call in (lambda: upper_limit(bare, 0.9), lambda: stability(bare, solve(bare, bound=0.5))):
        with pytest.raises(ProblemError, match="no standard errors"):
            call()


def test_confidence_buys_feasibility_with_bits() -> None:
    problem = measured(0.15)
    plain, careful = solve(problem, bound=0.5), solve(upper_limit(problem, 0.95), bound=0.5)
    loose, tight = (stability(problem, found, resamples=300) for found in (plain, careful))
    assert loose.feasible < 0.75 < tight.feasible
    assert tight.feasible >= 0.95
    assert careful.cost > plain.cost
    assert loose.near <= loose.feasible
    again = stability(problem, plain, resamples=300)
    assert again == loose
    assert 0 < loose.stderr < 0.03


def test_draws_have_the_measured_mean_and_error() -> None:
    """The share of feasible draws of one group is that of its gamma distribution."""
    from scipy.stats import gamma

    problem = Problem.from_sensitivities([10], [1.0], stderr=[0.5], bits=(1,))
    found = solve(problem, bound=0.3)
    held = stability(problem, found, resamples=2000)
    assert held.feasible == pytest.approx(gamma.cdf(0.3 * 4, 4, scale=0.25), abs=4 * held.stderr)


def test_the_command_solves_against_limits_and_says_how_stable_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = measured(0.15)
    path, out = tmp_path / "p.toml", tmp_path / "a.json"
    save_problem(problem, path)
    command = ["solve", str(path), "--bound", "0.5", "--confidence", "0.95", "--stability", "50", "-o", str(out)]
    assert run([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["stability"]["feasible"] > 0.9
    assert said["bits"]
    assert load_allocation(out, problem).problem.digest == upper_limit(problem, 0.95).digest
    assert run(["verify", str(path), str(out)]) == 0
    capsys.readouterr()
    assert run(command) == 0
    assert "keep the bound" in capsys.readouterr().out
    assert run(["solve", str(path), "--bound", "0.5", "--confidence", "1.5"]) == 2
    assert "confidence" in capsys.readouterr().err


def test_bad_numbers_are_told() -> None:
    problem = measured(0.1)
    with pytest.raises(OptionError, match="confidence"):
        upper_limit(problem, 0.2)
    with pytest.raises(OptionError, match="resamples"):
        stability(problem, solve(problem, bound=0.5), resamples=0)
