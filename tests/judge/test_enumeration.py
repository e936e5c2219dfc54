"""What the judge's enumeration may leave out, and when it stops."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impq_opt import problems
from impq_opt.instance.question import make_instance
from impq_opt.judge import enumeration, recount
from impq_opt.judge.enumeration import State, _undominated
from impq_opt.judge.recount import Outcome, prove_bound

# The dual bound of the answer to LEAST is a per cent below its cost, and three sums are open beside the peak.
LEAST = Fraction(312941795328, 2093)  # cycles
MULTIPLIERS = {"bound": 150007823150751.0, "storage": 1247845.279530102}


def question() -> Any:
    problem = problems.load("mobilenet-v1-synthetic-microcontroller")
    return make_instance(problem, minimize="mpic-cycles", bound=0.3)


@given(st.integers(1, 5), st.data())
def test_only_what_another_state_beats_is_left_out(lines: int, data: st.DataObject) -> None:
    small = st.tuples(*[st.integers(-3, 3)] * lines)
    states = [State((), opened, 0, None) for opened in data.draw(st.lists(small, min_size=1, max_size=40))]
    kept = [state.open for state in _undominated(states)]
    best = {a.open for a in states if not any(b.open != a.open and _no_worse(b.open, a.open) for b in states)}
    assert sorted(kept) == sorted(best)


def _no_worse(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def test_of_many_states_none_is_lost_where_not_all_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enumeration, "_COMPARED", 2)
    states = [State((), (i, -i, j, -j - (j == 3)), 0, None) for i in range(6) for j in range(4)]
    beaten = [State((), (i, 9, j, 9), 0, None) for i in range(6) for j in range(4)]
    kept = {state.open for state in _undominated([*states, *beaten])}
    assert {state.open for state in states} <= kept
    assert len(kept) < len(states) + len(beaten)


def test_an_answer_with_three_open_sums_is_proved() -> None:
    instance = question()
    found = prove_bound(instance, MULTIPLIERS, LEAST / instance.objective.quantum, states=50_000)
    assert found.outcome is Outcome.PROVED


def test_bounds_count_as_the_states_that_take_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(enumeration.Bound):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self.effort)

    monkeypatch.setattr(recount, "Bound", Counted)
    monkeypatch.setattr(recount, "_TRIED", 1)  # case after case
    instance = question()
    found = prove_bound(instance, MULTIPLIERS, LEAST / instance.objective.quantum, states=5_000)
    assert found.outcome is Outcome.OPEN
    assert 50 < len(made) < 500
