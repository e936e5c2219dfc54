"""Policies: each rule against the rule written out, what all keep, and policies that do not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known
from rounds_world import comparable, hyper, measure, small, splits

from impq_opt import GroupNames, Problem, solve
from impq_opt.errors import OptionError
from impq_opt.rounds import Choice, PausedError, Policy, Report, Schedule, Settings, Turn, rounds
from impq_opt.rounds.checkpoint import load_state
from impq_opt.rounds.policies import TABLE, make_policy, policy_names
from impq_opt.rounds.policies.authors_code import AuthorsCode
from impq_opt.rounds.policies.by_solver import BySolver
from impq_opt.rounds.policies.slides import Slides
from impq_opt.rounds.precisions import columns_of, decision_of, fix_activations, not_above
from impq_opt.testing import POLICY_CASES, ConformanceError, check_policy


def table(seed: int = 0, weights: int = 30, activations: int = 6, ties: Any = ()) -> Problem:
    rng = np.random.default_rng(seed)
    total = weights + activations
    return Problem.from_sensitivities(
        rng.integers(1, 50, total),
        rng.lognormal(0, 2, total),
        names=GroupNames(("w", "a"), ((weights,), (activations,))),
        kinds=[0] * weights + [1] * activations,
        ranges=rng.uniform(0.5, 3, total),
        ties=ties,
    )


def fallen(policy: Any, problem: Any, bits: Any, number: int = 1, magnitudes: Any = None) -> Any:
    """Return the precisions (G,) that the policy chooses from ``bits`` (G,); candidates are 1 to 8."""
    values = np.ones(len(problem)) if magnitudes is None else magnitudes
    turn = Turn(problem, columns_of(problem, bits), number, rounds=10, magnitudes=values)
    return policy.choose(turn).columns + 1


@pytest.mark.parametrize("seed", range(5))
def test_the_slides_heuristic_takes_one_bit_off_the_n_least_damaging_groups(seed: int) -> None:
    problem = table(seed)
    now = np.random.default_rng(seed + 100).integers(1, 9, 36)
    for number, count in ((1, 5), (2, 5), (3, 2), (9, 2)):
        after = fallen(Slides(take=((1, 5), (3, 2))), problem, now, number)
        damage = problem.damage.sensitivity * 4.0**-now
        able = sorted((g for g in range(36) if now[g] > 1), key=lambda g: damage[g])
        expected = now.copy()
        expected[able[:count]] -= 1
        assert after.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_authors_code_takes_every_group_up_to_the_threshold_kind_by_kind(seed: int) -> None:
    problem = table(seed)
    rng = np.random.default_rng(seed + 100)
    now, magnitudes = rng.integers(1, 9, 36), rng.uniform(0.01, 1, 36)
    after = fallen(AuthorsCode(take=((1, 4),), take_activations=((1, 2),)), problem, now, magnitudes=magnitudes)
    raw = problem.damage.sensitivity / known(problem.ranges) ** 2
    metric = (
        np.where(problem.weights(), raw / problem.sizes * magnitudes, known(raw) * known(problem.ranges)) * 2.0**-now
    )
    expected = now.copy()
    for kind, count in ((problem.weights(), 4), (~problem.weights(), 2)):
        able = [g for g in np.flatnonzero(kind) if now[g] > 1]
        if able:
            threshold = sorted(metric[able])[min(count, len(able) - 1)]
            for group in able:
                expected[group] -= metric[group] <= threshold
    assert after.tolist() == expected.tolist()


def test_the_authors_code_takes_weights_in_one_run_and_activations_in_another() -> None:
    problem, now = table(), np.full(36, 4)
    weights = problem.weights()
    reduced = fallen(AuthorsCode(take=((1, 9),)), problem, now)
    assert ((reduced < now) <= weights).all()
    assert (reduced < now).sum() == 10  # N + 1
    further = fallen(AuthorsCode(take=(), take_activations=((1, 2),)), problem, reduced)
    assert (further == reduced)[weights].all()
    assert (further < reduced).sum() == 3
    with pytest.raises(OptionError, match=r"rounds.take: must be \(from round, N\)"):
        AuthorsCode(take=())


def test_the_heuristic_moves_tied_groups_together_and_leaves_pins() -> None:
    problem = dataclasses.replace(table(ties=((0, 1, 2), (30, 31))), pins={5: 3})
    now = np.full(36, 4)
    after = fallen(Slides(take=((1, 0.5),)), problem, now)
    assert after[5] == 4
    assert len(set(after[[0, 1, 2]])) == 1
    assert len(set(after[[30, 31]])) == 1
    assert (after < now).sum() >= 17


@pytest.mark.parametrize("policy", [Slides(), AuthorsCode()], ids=str)
def test_at_one_bit_nothing_falls_and_the_policy_is_done(policy: Any) -> None:
    columns = np.zeros(36, dtype=np.int64)
    choice = policy.choose(Turn(table(), columns))
    assert np.array_equal(choice.columns, columns)
    assert choice.done == "nothing left to take"


def test_bits_come_off_ascending_candidates_alone() -> None:
    problem = Problem.from_sensitivities([3, 4], [1.0, 2.0], bits=(8, 4, 2))
    with pytest.raises(OptionError, match="must ascend where bits come off"):
        Slides().choose(Turn(problem, np.array([1, 1])))


def test_a_solver_gives_what_solve_gives_within_the_rounds_budget() -> None:
    problem, now = table(), np.array([4] * 30 + [8] * 6)
    pinned = fix_activations(problem, 8)
    policy = BySolver(budget=Schedule("geometric", 4, 2))
    choice = policy.choose(Turn(pinned, columns_of(problem, now), 3, 4))
    room = math.floor(4 * 0.5 ** (2 / 3) * problem.sizes[problem.weights()].sum())
    told = decision_of(pinned, choice.columns)
    assert told.damage == solve(problem.revise(pins={"a": 8}), budget=room).damage
    assert told.cost <= room
    assert known(choice.answer).status.value == "optimal"
    assert set(told.bits[30:]) == {8}


def test_a_bound_schedule_minimises_cost_within_the_bound() -> None:
    problem = fix_activations(table(), 8)
    choice = BySolver(bound=Schedule("geometric", 0.1, 10)).choose(Turn(problem, np.full(36, 3), 2, 3))
    assert float(known(known(choice.answer).bound)) == pytest.approx(1.0)
    told = decision_of(problem, choice.columns)
    assert told.damage <= float(known(known(choice.answer).bound))
    assert told.cost == solve(problem, bound=float(known(known(choice.answer).bound))).cost


def test_monotone_bits_never_rise() -> None:
    problem, now = table(), np.random.default_rng(1).integers(1, 9, 36)
    limited = not_above(problem, now - 1)
    assert all(max(limited.candidates.of(g)) == now[g] for g in range(36))
    budget = Schedule("fixed", 4, 4)
    assert (fallen(BySolver(budget=budget, monotone=True), problem, now) <= now).all()
    assert (fallen(BySolver(budget=budget), problem, now) > now).any()


def test_monotone_rounds_keep_a_budget_that_stays() -> None:
    problem = fix_activations(table(), 8)
    policy = BySolver(budget=Schedule("fixed", 1.6, 1.6), monotone=True)
    first = policy.choose(Turn(problem, columns_of(problem, [4] * 30 + [8] * 6), 1, 2))
    again = policy.choose(Turn(problem, first.columns, 2, 2))
    assert known(again.answer).budgets == known(first.answer).budgets
    assert known(again.answer).cost == known(first.answer).cost


def test_an_impossible_budget_is_told() -> None:
    with pytest.raises(OptionError, match="round 1: no allocation"):
        BySolver(budget=Schedule("fixed", 0.5, 0.5)).choose(Turn(table(), np.full(36, 3)))


# -- what all keep ------------------------------------------------------------------------------------------------

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "slides": [{}, {"take": [[1, 5], [3, 0.3]]}],
    "authors-code": [
        {},
        {"take": [[1, 2]], "take_activations": [[1, 1], [2, 0.5]]},
        {"take": [], "take_activations": [[1, 1], [2, 3]]},
    ],
    "by-solver": [
        {"budget": "geometric:4:2"},
        {"budget": "fixed:2.5", "monotone": True},
        {"solver": "uniform", "budget": "linear:5:3"},
        {"solver": "greedy", "budget": "geometric:5:3", "minimize": "representational"},
    ],
    "haq": [{"budget": "fixed:4", "episodes": 3, "warm_up_episodes": 2}],
}


@pytest.mark.parametrize("case", POLICY_CASES, ids=str)
@pytest.mark.parametrize("name", policy_names())
def test_every_policy_keeps_the_rules(name: Any, case: Any) -> None:
    for options in OPTIONS.get(name, [{}]):
        check_policy(make_policy(name, options), case)


def test_every_policy_is_tried_with_options() -> None:
    assert OPTIONS.keys() == TABLE.keys()


@dataclasses.dataclass(frozen=True)
class Base(Policy):
    name = "planted"

    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns)


class Beyond(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns - 1)  # below the first one in the end


class Short(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns[1:])


class Fractions(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns * 1.0)


class BreaksPins(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(np.zeros_like(turn.columns))


class BreaksTies(Base):
    def choose(self, turn: Any) -> Any:
        free = np.ones(len(turn.columns), dtype=bool)
        free[[0, *turn.problem.pins]] = False
        return Choice(np.where(free, np.maximum(turn.columns - 1, 0), turn.columns))


class Rises(Base):
    falls = True

    def choose(self, turn: Any) -> Any:
        columns = least(turn)
        free = [group for group in range(len(columns)) if group not in turn.problem.pins]
        columns[free[-1]] = turn.number % 2
        return Choice(columns)


def least(turn: Any) -> Any:
    columns = np.zeros_like(turn.columns)
    columns[list(turn.problem.pins)] = list(turn.problem.pins.values())
    return columns


class Draws(Base):
    def choose(self, turn: Any) -> Any:
        drawn = np.where(np.random.default_rng().random() < 0.5, turn.columns, least(turn))
        return Choice(drawn.astype(np.int64))


COUNTED: list[Any] = []


class Counts(Base):
    """Keeps something between calls, outside of its memory."""

    def choose(self, turn: Any) -> Any:
        COUNTED.append(turn.number)
        return Choice(least(turn) if len(COUNTED) % 5 == 0 else turn.columns)


class Writes(Base):
    def choose(self, turn: Any) -> Any:
        turn.columns[:] = least(turn)
        return Choice(turn.columns.copy())


class RemembersArrays(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns, memory={"before": turn.columns})


class RemembersTuples(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns, memory={"before": (1, 2)})


class NeverDone(Base):
    def choose(self, turn: Any) -> Any:
        return Choice(turn.columns if turn.number % 2 else least(turn), done="enough")


class TriesByChance(Base):
    def choose(self, turn: Any) -> Any:
        for _ in range(int(np.random.default_rng().integers(1, 1000))):
            turn.trial(turn.columns)
        return Choice(turn.columns)


class Refuses(Base):
    def choose(self, turn: Any) -> Choice:
        raise OptionError("not today", where="planted")


@dataclasses.dataclass(frozen=True)
class OddOptions(Base):
    kept: object = dataclasses.field(default_factory=lambda: np.ones(2))


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (Beyond(), "every group gets one of its candidates"),
        (Short(), "one whole number for each group"),
        (Fractions(), "one whole number for each group"),
        (BreaksPins(), "the pin of .* is broken"),
        (BreaksTies(), "the tie .* is broken"),
        (Rises(), "precisions only fall, and one rose"),
        (Draws(), "the same turns give the same choices"),
        (Counts(), "the same turns give the same choices"),
        (Writes(), "changes nothing of what it is told"),
        (RemembersArrays(), "plain values"),
        (RemembersTuples(), "plain values"),
        (NeverDone(), "it was done .*, and chose others again"),
        (TriesByChance(), "the same turns give the same choices"),
        (Refuses(), "it refused"),
        (OddOptions(), "its options"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Policy) else "",
)
def test_a_bad_policy_is_found_out(policy: Any, rule: str) -> None:
    with pytest.raises(ConformanceError, match=rule):
        for case in POLICY_CASES:
            check_policy(policy, case, rounds=9)


def test_the_base_of_the_bad_policies_is_a_good_one() -> None:
    for case in POLICY_CASES:
        check_policy(Base(), case)


# -- a policy from elsewhere --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tries(Policy):
    """Try each layer at one bit less, and take the one that hurts least; remember what was tried."""

    name = "tries"
    pace: Schedule | None = None

    @property
    def falls(self) -> bool:
        return True

    def choose(self, turn: Any) -> Any:
        layers = [range(6), range(6, 14), range(14, 18)]
        gains = []
        for layer in layers:
            columns = turn.columns.copy()
            columns[list(layer)] -= 1
            gains.append(turn.trial(columns))
        columns = turn.columns.copy()
        columns[list(layers[int(np.argmax(gains))])] -= 1
        return Choice(columns, memory={"tried": [*turn.memory.get("tried", []), gains]})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that brings a policy."""
    entries = [EntryPoint("tries", f"{__name__}:Tries", "impq_opt.policies")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in entries if e.group == group])


@pytest.mark.usefixtures("elsewhere")
def test_a_policy_from_elsewhere_tries_precisions_and_goes_on_in_the_middle_of_them(tmp_path: Path) -> None:
    assert policy_names() == (*TABLE, "tries")
    values = hyper(strategy="slides", rounds=2, start_epochs=1).as_dict() | {"strategy": "tries", "pace": "linear:3:2"}
    settings = Settings.from_dict(values)
    assert settings.policy == Tries(Schedule("linear", 3, 2))
    whole = rounds(small(), splits(), settings, tmp_path / "whole", measure=measure)
    assert set(whole[0].bits[:18]) == {4}
    for before, after in itertools.pairwise(whole):
        fell = np.array(before.bits) - np.array(after.bits)
        assert fell.sum() in (6, 8, 4)  # one of the layers
    lines: list[str] = []
    for _ in range(200):
        try:
            report = Report(deadline=0.0, show=lines.append)
            parts = rounds(small(), splits(), settings, tmp_path / "parts", measure=measure, report=report)
            break
        except PausedError:
            pass
    assert comparable(parts) == comparable(whole)
    tried = [line for line in lines if "trial" in line]
    assert sorted(tried) == [f"round {number}/2: trial {k}" for number in (1, 2) for k in (1, 2, 3)]  # none twice
    state = known(load_state(tmp_path / "parts"))[0]
    assert [len(gains) for gains in state.memory["tried"]] == [3, 3]
