"""Every strategy but the slow ones on every case, and the suite itself against liars."""

from __future__ import annotations

import pytest
from quick import QUICK

from impq_opt.solvers import make_solver
from impq_opt.testing import CASES, Case, check_strategy, random_case

OPTIONS: dict[str, list[dict[str, object]]] = {
    "iterative": [{"variant": "paper"}, {"variant": "authors-code"}],
    "ilp": [{"backend": "cbc"}, {"backend": "highs"}],
}
STRATEGIES = [
    pytest.param((name, options), marks=pytest.mark.peer("highspy") if "highs" in options.values() else ())
    for name in QUICK
    for options in OPTIONS.get(name, [{}])
]
SLOW = {"ilp"}  # starts a process for each solve


def _id(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join([value[0], *map(str, value[1].values())])
    return str(value)


@pytest.mark.parametrize("case", CASES, ids=_id)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=_id)
def test_every_strategy_on_every_case(strategy: tuple[str, dict[str, object]], case: Case) -> None:
    name, options = strategy
    check_strategy(make_solver(name, **options), case)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=_id)
def test_every_strategy_on_random_cases(strategy: tuple[str, dict[str, object]]) -> None:
    name, options = strategy
    for seed in range(8 if name in SLOW else 120):
        check_strategy(make_solver(name, **options), random_case(seed))


@pytest.mark.parametrize("seed", range(4))
def test_exact_is_exhaustive_on_many_random_cases(seed: int) -> None:
    strategy = make_solver("exact")
    for number in range(1000 + seed, 2200, 4):
        check_strategy(strategy, random_case(number))


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("highs-wrong", "cbc-wrong")], ids=_id)
def test_known_wrong_answers_of_peers(case: Case) -> None:
    expected = {"highs-wrong": [4, 2], "cbc-wrong": [2, 4, 2]}
    assert case.optimum.bits.tolist() == expected[case.name]
