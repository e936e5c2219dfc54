"""The attacks in short: what ``benchmarks/attack.py`` does for an hour, with seeds that stay."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import claims, draws, forgeries, instances, lies
from attacks import mutations as files
from attacks.core import load
from hypothesis import given, settings
from hypothesis import strategies as st

from impq_opt import Allocation
from impq_opt.exactness.sums import ceil_float, exact_int_sum, exact_sum, floor_float, sum_rows_down

kept = settings(max_examples=150, deadline=None, derandomize=True)


def attacked(kind: str, seeds: range) -> None:
    faults = [fault for seed in seeds for fault in load(kind)(seed).faults]
    assert not faults, "\n\n".join(str(fault) for fault in faults[:5])


@pytest.mark.parametrize("start", range(0, 240, 60))
def test_instances(start: int) -> None:
    attacked("instances", range(start, start + 60))


@pytest.mark.parametrize("kind", ["instances", "numbers"])
def test_compiled_and_numpy_say_the_same(kind: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *filter(None, sys.path)])}
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-m", "attacks", kind, "1000", "40"]
    said = [
        subprocess.run(command, env=environment | pure, capture_output=True, text=True, cwd=folder, check=False)
        for pure in ({}, {"IMPQ_OPT_PURE": "1"})
    ]
    for one in said:
        assert one.returncode == 0, one.stdout + one.stderr
    assert said[0].stdout == said[1].stdout


@cache
def saved(seed: int) -> lies.Saved | None:
    return forgeries.solved(seed)


@pytest.mark.parametrize("name", lies.FORGERIES)
def test_forgeries(name: str) -> None:
    fits = 0
    for seed in range(80):
        answer = saved(seed)
        if answer is None or fits == 4:
            continue
        tried, fault = forgeries.forged(answer, name, seed)
        assert fault is None, str(fault)
        fits += tried
    assert fits, "no answer could be forged in this way"


@pytest.mark.parametrize("name", lies.TRUE)
def test_true_files_stay_proved(name: str) -> None:
    for seed in range(20):
        answer = saved(seed)
        if answer is not None:
            fault = forgeries.kept(answer, name, seed)
            assert fault is None, str(fault)


LIES = [{"choice": lie} for lie in claims.LIES["choice"]]
LIES += [{"choice": "feasible", part: lie} for part, said in claims.LIES.items() if part != "choice" for lie in said]
LIES += [{"choice": lie, "lower_bound": "its own value", "enumeration": "claimed"} for lie in ("any", "feasible")]
LIES += [{"choice": "none", "lower_bound": "infinite", "enumeration": "claimed"}]
LIES += [{"whole": lie} for lie in claims.WHOLE]


@pytest.mark.parametrize("parts", LIES, ids=lambda parts: ", ".join(f"{part} {lie}" for part, lie in parts.items()))
def test_claims(parts: dict[str, str]) -> None:
    for seed in (0, 2, 3, 12, 38, 145):
        what = claims.told(draws.question(seed), parts, seed, Counter())
        assert not what, f"{what}\n{draws.question(seed).program()}\n{draws.question(seed).goal()}"


@pytest.mark.parametrize("seed", [2, 3, 12, 38, 145])
def test_what_was_checked_stays(seed: int) -> None:
    what = claims.moved(draws.question(seed), seed)
    assert not what, f"{what}\n{draws.question(seed).program()}\n{draws.question(seed).goal()}"


def test_many_claims() -> None:
    attacked("claims", range(30))


@pytest.mark.parametrize("start", range(0, 100, 50))
def test_files(start: int) -> None:
    attacked("files", range(start, start + 50))


@pytest.mark.parametrize("name", files.KINDS)
def test_what_is_saved_is_loaded_before_it_is_damaged(name: str) -> None:
    assert files.whole(name) == ""


def test_numbers() -> None:
    attacked("numbers", range(150))


finite = st.floats(allow_nan=False, allow_infinity=False)


@kept
@given(values=st.lists(finite, max_size=300))
def test_sums_of_floats_are_exact(values: list[float]) -> None:
    assert exact_sum(np.array(values)) == sum(map(Fraction, values), Fraction(0))


@kept
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300))
def test_sums_of_integers_are_exact(values: list[int]) -> None:
    assert exact_int_sum(np.array(values, dtype=np.int64)) == sum(values)


@kept
@given(rows=st.lists(st.lists(st.floats(0, 1e307), min_size=2, max_size=2), min_size=1, max_size=9))
def test_rows_are_summed_down(rows: list[list[float]]) -> None:
    for column, total in enumerate(sum_rows_down(np.array(rows)).tolist()):
        exact = sum((Fraction(row[column]) for row in rows), Fraction(0))
        assert Fraction(total) <= exact
        assert exact - Fraction(total) <= len(rows) * (exact / 2**52 + Fraction(1, 2**1074))


@kept
@given(start=finite, part=st.fractions(-1, 1, max_denominator=10**40), places=st.integers(0, 1100))
def test_roundings_are_to_the_nearest_on_their_side(start: float, part: Fraction, places: int) -> None:
    value = Fraction(start) + part / 2**places
    down, up = floor_float(value), ceil_float(value)
    assert down == -np.inf or Fraction(down) <= value
    assert up == np.inf or Fraction(up) >= value
    if np.isfinite([down, up]).all():
        assert up in (down, math.nextafter(down, math.inf))


def test_the_truth_is_that_of_a_problem_done_by_hand() -> None:
    """One of three may take 2 bits, so that x does: 10 x 2 x 4 + 20 x 2 x 4."""
    from attacks.questions import Part, Question

    parts = (
        Part("x", (2, 4), size=5, sensitivity=1.0, kind="activation", steps=(0, 1)),
        Part("a", (2, 4), size=10, sensitivity=1.0, macs=10, length=5, reads="x"),
        Part("b", (2, 4), size=10, sensitivity=1.0, macs=20, length=10, reads="x"),
    )
    asked = Question(parts, objective={"bit-operations": 1}, bound=0.125)
    assert asked.truth == 240
    assert not list(instances.answer_faults(asked, _solved(asked), asked.truth, complete=True))


def _solved(asked: Any) -> Allocation:
    from impq_opt import solve

    return solve(asked.problem, **asked.asked)
