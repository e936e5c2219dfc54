"""Settings by what they are about, in one table for files; schedules by round."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from rounds_world import hyper

from impq_opt.errors import OptionError
from impq_opt.measure.metrics import METRICS
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.rounds import Hyper, Measuring, Plan, Policy, Quantizing, Schedule, Settings, Training, parse_schedule
from impq_opt.rounds.policies import make_policy
from impq_opt.rounds.policies.by_solver import BySolver
from impq_opt.rounds.policies.slides import Slides
from impq_opt.rounds.policy import Choice
from impq_opt.solvers.uniform import Uniform


def test_schedules_go_from_first_to_last() -> None:
    shape = parse_schedule("geometric:8:1")
    assert [shape.at(n, 4) for n in (1, 2, 3, 4, 5)] == pytest.approx([8, 4, 2, 1, 1])
    line = parse_schedule("linear:4:2:3")
    assert [line.at(n, 9) for n in (1, 2, 3, 4)] == pytest.approx([4, 3, 2, 2])
    assert parse_schedule("fixed:0.01").at(1, 5) == 0.01
    assert parse_schedule("geometric:4:2").at(1, 1) == 2


@pytest.mark.parametrize("text", ["geometric", "geometric:4", "cubic:4:2", "linear:4:x", "fixed:-1", "geometric:0:1"])
def test_a_bad_schedule_is_told(text: str) -> None:
    with pytest.raises(OptionError, match="schedule"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "training.batch: must be positive, got 0"),
        ({"start_bits": 9}, "rounds.start_bits: must be one of the candidates"),
        ({"activation_bits": 17}, "rounds.activation_bits: must be 0, from 1 to 16, or 32 for float"),
        ({"take": ((2, 4.0),)}, "rounds.take"),
        ({"take": ((1, 4.0), (3, 0.0))}, "rounds.take"),
        ({"strategy": "exact"}, "either a schedule of budgets or of bounds"),
        ({"strategy": "exact", "budget": "fixed:2", "bound": "fixed:1"}, "either a schedule of budgets or of bounds"),
        ({"strategy": "exact", "budget": "fixed:2", "options": {"x": 1}}, "unknown option of solver 'exact'"),
        ({"strategy": "exactly"}, "unknown strategy; did you mean 'exact'"),
        ({"strategy": "exact", "solver": "greedy", "budget": "fixed:2"}, "names another solver"),
        ({"rounds": -1}, "rounds.rounds: must not be negative"),
        ({"concede": 1.0}, "rounds.concede"),
        ({"augment": "mixup"}, "training.augment"),
        ({"method": "zerro"}, "unknown method, got 'zerro'"),
        ({"weight_range": {"over": "channel"}}, "over: .*got 'channel'"),
        ({"metric": "hawq"}, "rounds.metric: is not known at quantized weights; set measure_at = latent"),
        ({"metric": "impqq"}, "unknown metric, got 'impqq'"),
    ],
)
def test_bad_settings_are_told(changes: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Hyper(**({"strategy": "slides"} | changes))


def test_a_solver_that_cannot_keep_a_budget_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Uniform, "supports", frozenset())
    assert Hyper(strategy="uniform", bound="fixed:1")
    with pytest.raises(OptionError, match=r"rounds\.strategy: does not look for the least damage under a budget"):
        Hyper(strategy="uniform", budget="fixed:2")


def test_settings_survive_a_file() -> None:
    settings = hyper(strategy="exact", options={"states": 1000}, method="zero:over=tensor", decay=0.1)
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    policy: Any = Settings.from_dict({"strategy": "exact", "budget": "geometric:3:2"}).policy
    assert policy.budget == Schedule("geometric", 3, 2)
    with pytest.raises(OptionError, match=r"unknown hyper-parameter, got 'rounnds' \(did you mean 'rounds'"):
        Settings.from_dict({"strategy": "slides", "rounnds": 3})
    with pytest.raises(OptionError, match="must be a whole number, got 'three'"):
        Settings.from_dict({"strategy": "slides", "rounds": "three"})


def test_what_the_only_method_was_once_told_is_read() -> None:
    assert Hyper(strategy="slides", weight_range=MidRise(one_bit="mean")) == Hyper(
        strategy="slides", method="mid-rise:one_bit=mean"
    )
    assert Hyper(strategy="slides", weight_range={"over": "kernel"}) == Hyper(strategy="slides")


def test_one_table_goes_to_the_part_that_each_setting_is_about() -> None:
    settings = Hyper(
        strategy="slides", take=((1, 0.5),), rate=0.1, seed=4, metric="fit", bits=(2, 4, 8), rounds=9, floor=0.5
    )
    assert settings == Settings(
        policy=Slides(take=((1, 0.5),)),
        training=Training(rate=0.1, seed=4),
        measuring=Measuring(metric="fit"),
        quantizing=Quantizing(bits=(2, 4, 8)),
        plan=Plan(rounds=9, floor=0.5),
    )
    assert settings.seed == 4
    assert settings.seeded(5) == dataclasses.replace(settings, training=Training(rate=0.1, seed=5))


def test_one_table_serves_several_strategies() -> None:
    table = {"take": [[1, 0.5]], "monotone": True, "budget": "fixed:2", "rate": 0.1}
    assert Settings.from_dict(table | {"strategy": "slides"}).policy == Slides(take=((1, 0.5),))
    by_solver = Settings.from_dict(table | {"strategy": "exact"}).policy
    assert by_solver == BySolver(budget=Schedule("fixed", 2, 2), monotone=True)


def test_the_solver_iterative_can_be_had_beside_the_heuristic_of_that_name() -> None:
    heuristic = Settings.from_dict({"strategy": "iterative"})
    assert (heuristic.policy, heuristic.strategy) == (Slides(), "iterative")
    assert heuristic.identity() == Settings.from_dict({"strategy": "slides"}).identity()
    solver = Settings.from_dict({"strategy": "by-solver", "solver": "iterative", "bound": "fixed:1"})
    policy: Any = solver.policy
    assert policy.solver == "iterative"


def test_the_start_depends_on_training_and_quantizing_alone() -> None:
    one = hyper(strategy="exact", metric="fit", monotone=True, target_bits=2.0, granularity="layer", epochs=7)
    other = hyper(strategy="authors-code", take=((1, 3),), concede=0.1, epochs=7)
    assert one.start() == other.start()
    assert one.start() != hyper(rate=0.01).start()
    assert one.start() != hyper(start_epochs=1).start()
    assert one.start() != hyper(start_bits=5).start()
    assert one.start().plan.rounds == 0


def test_a_metric_says_itself_whether_rounds_can_measure_it_at_quantized_weights() -> None:
    accepted = set()
    for metric in METRICS:
        try:
            Measuring(metric=metric)
            accepted.add(metric)
        except OptionError:
            assert Measuring(metric=metric, measure_at="latent")
    assert accepted == {"impq", "sakr", "fit", "measured-error"}


def test_a_policy_may_not_take_the_name_of_a_setting() -> None:
    @dataclasses.dataclass(frozen=True)
    class Greedy(Policy):
        name = "greedy-for-names"
        rate: float = 0.5

        def choose(self, turn: Any) -> Choice:
            raise AssertionError

    with pytest.raises(OptionError, match=r"rounds\.rate: is an option of the policy, and a setting of rounds"):
        Settings(policy=Greedy())


def test_options_of_a_policy_are_checked() -> None:
    with pytest.raises(OptionError, match=r"unknown option of 'slides', got 'tak' \(did you mean 'take'"):
        make_policy("slides", {"tak": 1})
    with pytest.raises(OptionError, match="must be a list"):
        make_policy("slides", {"take": 1})
    with pytest.raises(OptionError, match=r"rounds\.budget: is not a schedule"):
        make_policy("exact", {"budget": "cubic:3"})
