"""Groups whose damage nobody knows keep their most bits, and no sum with them in it is called proved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known

import impq_opt
from impq_opt import (
    Candidates,
    DamageTable,
    Group,
    GroupNames,
    ImpqError,
    Problem,
    Status,
    Verdict,
    files,
    solve,
    verify,
)
from impq_opt.costs import TableCost
from impq_opt.judge import standalone
from impq_opt.problem.unmeasured import few

GOLDEN = Path(__file__).parents[1] / "golden"


def probe(**goals: Any) -> Problem:
    """Return a frozen backbone of two layers, of which nothing is known, and a measured head."""
    groups = [
        Group("a", size=144, sensitivity=0.0, measured=False),
        Group("b", size=4608, sensitivity=0.0, measured=False),
        Group("fc", size=5120, sensitivity=0.3),
    ]
    return Problem.declare(groups, **{"bound": 0.01} | goals)


def verdicts(problem: Any, answer: Any) -> dict[Any, Any]:
    return {check.name: check.verdict for check in verify(problem, answer).checks}


def test_they_keep_their_most_bits_and_the_total_is_not_called_proved() -> None:
    problem = probe()
    answer = solve(problem)
    assert answer.bits.tolist()[:2] == [8, 8] and answer.status is Status.OPTIMAL
    found = verdicts(problem, answer)
    assert found["damage"] is found["limits"] is Verdict.CLAIMED
    assert found["status"] is found["cost"] is Verdict.PROVED
    assert not verify(problem, answer).proved and verify(problem, answer).ok


def test_let_go_they_go_where_the_numbers_say_and_nobody_calls_it_proved() -> None:
    problem = probe().revise(free_unmeasured=True)
    answer = solve(problem)
    assert answer.bits.tolist()[:2] == [1, 1]
    assert verdicts(problem, answer)["damage"] is Verdict.CLAIMED
    assert solve(problem.revise(free_unmeasured=False)).bits.tolist()[:2] == [8, 8]


def test_a_pin_lets_one_go() -> None:
    answer = solve(probe(pins={"a": 3}))
    assert answer.bits.tolist()[:2] == [3, 8]
    assert [answer.problem.names[g] for g in answer.unknown] == ["a", "b"]


def test_at_16_bits_they_are_as_good_as_they_were() -> None:
    groups = [
        Group("a", 144, damage=[0.0, 0.0], bits=(4, 16), measured=False),
        Group("fc", 9, damage=[1, 0], bits=(4, 16)),
    ]
    problem = Problem.declare(groups, bound=2)
    answer = solve(problem)
    assert answer.bits.tolist() == [16, 4] and not len(answer.unknown)
    assert verify(problem, answer).proved


@pytest.mark.parametrize("pinned", [None, 2, 4])
def test_ties_decide_what_the_most_bits_are(pinned: int | None) -> None:
    groups = [
        Group("q", 10, sensitivity=0.0, bits=(2, 4, 8), measured=False),
        Group("k", 10, sensitivity=1.0, bits=(2, 4)),
        Group("v", 10, sensitivity=0.0, bits=(2, 4, 6), measured=False),
    ]
    pins = {} if pinned is None else {"k": pinned}
    problem = Problem.declare(groups, bound=9, ties=[["q", "k"]], pins=pins)
    assert solve(problem).bits.tolist() == [pinned or 4, pinned or 4, 6]
    assert solve(problem.revise(ties=[["k", "v"]])).bits.tolist() == [pinned or 4] * 3


def test_what_is_not_allowed_is_not_the_most() -> None:
    table = DamageTable(np.array([[0.0, 0.0, np.inf], [1.0, 0.5, 0.0]]))
    problem = Problem(
        names=GroupNames.explicit(["a", "b"]), candidates=Candidates(((2, 4, 8),)), damage=table,
        sizes=np.array([3, 4]), unmeasured=np.array([True, False]), bound=2,
    )  # fmt: skip
    assert solve(problem).bits.tolist() == [4, 2]


def test_where_candidates_are_only_numbered_the_dearest_is_kept() -> None:
    problem = Problem.from_tables([[5, 9, 1], [1, 2, 3]], [[0, 0, 0], [3, 1, 0]], unmeasured=[1, 0], bound=9)
    assert known(solve(problem).choice).tolist() == [1, 0]


def test_fewer_candidates_move_the_most_and_keep_what_was_asked() -> None:
    assert solve(probe().revise(bits=[2, 4])).bits.tolist()[:2] == [4, 4]
    assert solve(probe(pins={"a": 2}).revise(bits=[2, 4])).bits.tolist()[:2] == [2, 4]
    freed = probe().revise(pins={"a": 8}, free_unmeasured=True)
    assert solve(freed.revise(bits=[1, 8])).bits.tolist()[:2] == [8, 1]


@given(
    unmeasured=st.lists(st.booleans(), min_size=5, max_size=5),
    pins=st.dictionaries(st.sampled_from("abcde"), st.sampled_from([2, 4, 8]), max_size=2),
    tie=st.sets(st.sampled_from("abcde"), max_size=3),
    free=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_pins_of_its_own_follow_from_the_rest_in_any_order(
    unmeasured: Any, pins: Any, tie: Any, free: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tied = [sorted(tie)] if len(tie) > 1 else []
    names = list("abcde")
    plain = Problem.from_sensitivities(
        [3, 5, 7, 9, 11], [0.5, 0, 0.2, 0, 0.9], bits=[2, 4, 8], names=names, unmeasured=unmeasured, bound=1e9
    )
    try:
        problem = plain.revise(pins=pins, ties=tied, free_unmeasured=free)
    except ImpqError:  # a tie with two pins
        return
    assert problem.digest == plain.revise(free_unmeasured=free).revise(ties=tied).revise(pins=pins).digest
    assert problem.revise().digest == problem.digest
    wanted = {}
    for group, name in enumerate(names):
        partners = [one for one in names if one == name or ({one, name} <= set(tie) and tied)]
        asked = {pins[one] for one in partners if one in pins}
        kept = any(unmeasured[names.index(one)] for one in partners) and not free
        wanted[group] = asked.pop() if asked else 8 if kept else 2
    assert solve(problem).bits.tolist() == list(wanted.values())
    path = tmp_path_factory.mktemp("unmeasured") / "p.toml"
    files.save_problem(problem, path)
    assert files.load_problem(path).digest == problem.digest


def test_why_nothing_is_feasible_is_told_of_pins_that_the_problem_makes() -> None:
    problem = Problem.declare(
        [Group("a", 100, sensitivity=0.0, measured=False), Group("b", 10, sensitivity=1.0)], bound=1
    )
    answer = solve(problem.revise(budgets={"storage": 500}))
    assert answer.status is Status.INFEASIBLE
    assert ("pins", "a") in known(answer.diagnosis).conflict
    assert verify(answer.problem, answer).proved


def test_a_revision_in_an_answer_may_let_them_go_and_is_not_called_proved(tmp_path: Path) -> None:
    base = probe()
    revision = files.Revision(free_unmeasured=True)
    answer = solve(revision.apply(base))
    files.save_problem(base, tmp_path / "p.toml")
    files.save_allocation(answer, tmp_path / "a.json", base=base, revision=revision)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["unknown"] == ["a", "b"]
    read = files.load_allocation(tmp_path / "a.json", files.load_problem(tmp_path / "p.toml"))
    found = verify(read.problem, read)
    assert found.ok and not found.proved
    document["unknown"] = ["a"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    read = files.load_allocation(tmp_path / "a.json", base)
    assert not verify(read.problem, read).ok


@pytest.mark.parametrize("many", [False, True])
def test_the_checker_of_one_page_does_not_call_it_proved(many: bool, tmp_path: Path) -> None:
    names = GroupNames(("a", "fc"), ((2,), ()))
    problem = probe() if not many else Problem.from_sensitivities(
        [3, 4, 5], [0, 0, 1], names=names, unmeasured=[1, 1, 0], bound=0.1
    )  # fmt: skip
    files.save_problem(problem, tmp_path / "p.toml")
    files.save_allocation(solve(problem), tmp_path / "a.json")
    command = [sys.executable, "-I", str(standalone.__file__), str(tmp_path / "p.toml"), str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "WRONG" not in done.stdout, done.stdout + done.stderr
    assert "CLAIMED the damage" in done.stdout


def test_known_zeros_are_numbers_like_others() -> None:
    problem = Problem.from_sensitivities([100, 10], [0.0, 1.0], unmeasured=[False, False], bound=0.1)
    assert problem.unmeasured is None
    answer = solve(problem)
    assert answer.bits[0] == 1 and verify(problem, answer).proved
    assert problem.digest == Problem.from_sensitivities([100, 10], [0.0, 1.0], bound=0.1).digest
    assert problem.digest != Problem.from_sensitivities([100, 10], [0.0, 1.0], unmeasured=[1, 0], bound=0.1).digest


@pytest.mark.parametrize("given", [[True], [[True, False]], [2, 0], ["x", "y"]])
def test_a_mask_that_is_none_is_one_sentence(given: Any) -> None:
    with pytest.raises(ImpqError, match="unmeasured"):
        Problem.from_sensitivities([100, 10], [0.0, 1.0], unmeasured=given)


@pytest.mark.parametrize(
    "strategy", ["exact", "lagrangian", "greedy", "uniform", "noise-equalization", "milp", "ilp", "exhaustive"]
)
def test_every_strategy_keeps_them(strategy: str) -> None:
    answer = solve(probe(), solver=strategy)
    assert answer.bits.tolist()[:2] == [8, 8]


def test_golden_files_with_unmeasured_groups(tmp_path: Path) -> None:
    """They are never written again; see tests/files/test_files.py."""
    for name in ("unmeasured", "unmeasured-by-array"):
        problem = files.load_problem(GOLDEN / f"problem-1-{name}.toml")
        assert known(problem.unmeasured).tolist() == [True, True, False, False][: len(problem)]
        answer = files.load_allocation(GOLDEN / f"allocation-1-{name}.json", problem)
        assert answer.stated["unknown"] == (problem.names[0], problem.names[1])
        assert verify(problem, answer).ok
        path = tmp_path / f"problem-1-{name}.toml"
        files.save_problem(problem, path)
        for file in tmp_path.iterdir():
            assert file.read_bytes() == (GOLDEN / file.name).read_bytes()
    assert impq_opt.solve(problem).bits.tolist()[:2] == [8, 8]


def test_tables_by_column_are_kept_too() -> None:
    cost = TableCost.from_array(np.array([[4, 16], [4, 16]]), name="bits", unit="bit")
    groups = [
        Group("visual", 1, damage=[0.0, 0.0], bits=(4, 8), measured=False),
        Group("mlp", 1, damage=[0.3, 0.0], bits=(4, 8)),
    ]
    problem = Problem.declare(groups, costs=(cost,), minimize="bits", bound=1)
    assert solve(problem).bits.tolist() == [8, 4]


def test_names_are_few_and_whole_layers_are_called_by_their_own() -> None:
    names = GroupNames(("conv", "fc", "head"), ((12,), (3,), ()))
    assert few(names, np.arange(16)) == "conv (12 groups), fc (3 groups), head"
    assert few(names, np.array([0, 2, 12, 13, 14, 15])) == "conv[0], conv[2], fc (3 groups), head"
    assert few(names, np.arange(1, 12)) == "conv[1], conv[2], conv[3], conv[4], conv[5] and 6 more"


def test_labels_of_tables_put_the_mask_in_order() -> None:
    pandas = pytest.importorskip("pandas")
    sizes, values = (pandas.Series(row, index=list("abc")) for row in ([1, 2, 3], [0.0, 1.0, 2.0]))
    mask = pandas.Series([False, False, True], index=list("cba"))
    problem = Problem.from_sensitivities(sizes, values, unmeasured=mask)
    assert known(problem.unmeasured).tolist() == [True, False, False]
