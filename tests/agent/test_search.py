"""HAQ's search, as a strategy of its own, of `solve` and of rounds: what it finds, that it learns, and goes on."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from agent_world import network
from known import known

from impq_opt import Problem, Status, Stop, solve
from impq_opt.errors import MissingPackageError, OptionError, UnsupportedError
from impq_opt.solvers import make_solver
from impq_opt.testing import CASES, check_strategy, random_case

torch = pytest.importorskip("torch")

from impq_opt.agent import Found, Settings, Units, explore, reward, search  # noqa: E402
from impq_opt.instance.question import make_instance  # noqa: E402

FEW = Settings(episodes=5, warm_up=3)


def chain(count: int = 4, **fields: Any) -> Problem:
    """Return layers of equal size of which each has ten times the sensitivity of the one before."""
    return Problem.from_sensitivities([10] * count, 10.0 ** np.arange(count), bits=range(2, 9), **fields)


def harm(problem: Problem) -> Any:
    """Return minus the logarithm of the damage of columns (G,), which rises with all that is good for them."""
    return lambda columns: -10 * float(np.log10(problem.damage.chosen(problem.candidates, columns).sum()))


def test_the_reward_of_the_float_policy_is_zero() -> None:
    for accuracy in (0.0, 71.9, 92.1):
        assert reward(accuracy, accuracy) == 0
    assert reward(70.9, 71.9) == pytest.approx(-0.1)
    found = search(chain(), lambda columns: 71.9, of_float=71.9, budget=200, settings=FEW)
    assert (found.rewards == 0).all() and found.reward == 0
    # Where nothing is said of the float network the most bits stand for it.
    most = [tuple(int(c) for c in columns) for columns in seen(chain(), budget=320)]
    assert most[0] == (6, 6, 6, 6)


def seen(problem: Problem, **keywords: Any) -> list[Any]:
    """Return the columns that are evaluated, in their order."""
    asked: list[Any] = []

    def evaluate(columns: Any) -> float:
        asked.append(columns.copy())
        return float(columns.sum())

    search(problem, evaluate, settings=FEW, **keywords)
    return asked


def test_only_what_is_within_all_budgets_is_evaluated_and_nothing_twice() -> None:
    problem = chain(names=["a", "b", "c", "d"], budgets={"representational": 250}, pins={0: 3}, ties=((1, 2),))
    asked = seen(problem, budget=180, of_float=0.0)
    assert asked
    assert len({tuple(columns.tolist()) for columns in asked}) == len(asked)
    for columns in asked:
        bits = problem.candidates.bits(columns)
        assert 10 * bits.sum() <= 180
        assert columns[0] == 3 and columns[1] == columns[2]


def test_the_same_seed_gives_the_same_search_and_another_seed_another() -> None:
    problem = chain()
    state = torch.random.get_rng_state()

    def run(seed: int) -> Found:
        return search(problem, harm(problem), budget=160, settings=Settings(episodes=12, warm_up=4), seed=seed)

    one, again, other = run(1), run(1), run(2)
    assert one.rewards.tolist() == again.rewards.tolist() != other.rewards.tolist()
    assert known(one.choice).tolist() == known(again.choice).tolist()
    assert torch.equal(state, torch.random.get_rng_state())
    best = int(one.rewards.argmax())
    assert one.reward == one.rewards[best]
    assert 0.1 * harm(problem)(one.choice) == pytest.approx(one.reward + 0.1 * harm(problem)(np.full(4, 6)))


def test_it_learns() -> None:
    """After the warm-up it proposes better precisions than those drawn in it."""
    problem = chain(3)
    settings = Settings(episodes=100, decay=0.97, hidden=128, actor_rate=3e-4)
    found = search(problem, harm(problem), budget=150, settings=settings)
    drawn, late = found.rewards[:20], found.rewards[-20:]
    assert late.mean() > drawn.mean() + 2 * drawn.std() / np.sqrt(20)
    assert found.reward >= drawn.max()


def test_budgets_out_of_reach_are_told_before_anything_is_tried() -> None:
    def evaluate(columns: Any) -> float:
        raise AssertionError("was tried")

    with pytest.raises(OptionError, match="is broken at the least bits of every group"):
        search(chain(), evaluate, budget=79)
    with pytest.raises(OptionError, match="needs a bound or a budget"):
        search(chain(bound=0.1), evaluate)
    with pytest.raises(OptionError, match="episodes: must be at least 1, got 0"):
        Settings(episodes=0)


def test_without_torch_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("impq_opt.agent.ddpg", "impq_opt.agent.episodes"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match="HAQ's agent needs the package 'torch': pip install 'impq-opt"):
        solve(chain(), budget=160, solver="haq")


def test_where_all_is_pinned_there_is_nothing_to_search() -> None:
    found = search(chain(2, pins={0: 1, 1: 2}), lambda columns: 1.0, budget=200)
    assert known(found.choice).tolist() == [1, 2] and found.evaluated == 0


# -- as a strategy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "infeasible"][::2], ids=str)
def test_the_strategy_keeps_the_rules(case: Any) -> None:
    check_strategy(make_solver("haq", episodes=4, warm_up=3), case)


def test_the_strategy_keeps_the_rules_on_random_cases() -> None:
    for seed in range(16):
        check_strategy(make_solver("haq", episodes=3, warm_up=2), random_case(seed))


def test_it_is_beside_the_exact_answer_at_several_budgets_and_proves_nothing() -> None:
    problem = chain(names=["a", "b", "c", "d"], budgets={"representational": 200})
    exact = solve(problem, budget=180)
    found = solve(problem, budget=180, solver="haq", episodes=30, seed=3)
    assert found.status is Status.FEASIBLE and found.exact_lower_bound == -float("inf")
    assert known(found.exact_damage) >= known(exact.exact_damage)
    assert known(found.cost) <= 180 and Fraction(10) * int(found.bits.sum()) <= 200
    assert solve(problem, budget=180, solver="haq", episodes=30, seed=3) == found
    warm = solve(problem, budget=180, solver="haq", episodes=1, warm_start=exact)
    assert warm.exact_damage == exact.exact_damage


def test_an_interrupt_and_a_deadline_leave_the_best_so_far() -> None:
    problem = chain(6)
    found = solve(problem, budget=200, solver="haq", time_limit=0.5)
    assert found.stop is Stop.TIME_LIMIT
    assert found.choice is None or known(found.cost) <= 200
    instance = make_instance(problem, budget=200)
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 30:
            raise KeyboardInterrupt

    tried: list[Any] = []

    def evaluate(choice: Any) -> float:
        tried.append(choice)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        explore(Units(instance), evaluate, check=check)
    assert tried


def test_damages_around_the_largest_float_are_no_trouble() -> None:
    huge = 1.7e308
    problem = Problem.from_tables([[1, 2], [1, 3], [2, 2]], [[huge, 1.0], [huge, 0.0], [0.0, 5e-324]])
    for question in ({"budget": 5}, {"budget": 7}, {"bound": huge}):
        with suppress(UnsupportedError):
            found = solve(problem, solver="haq", episodes=4, warm_up=2, **question)
            assert found.choice is None or found.status is Status.FEASIBLE


def test_the_least_peak_and_coupled_costs_are_searched_too() -> None:
    for term in ("peak-activation-memory", "bit-operations", "mpic-cycles"):
        problem = network()
        found = solve(problem, minimize=term, bound=2.0, solver="haq", episodes=6, warm_up=3)
        best = solve(problem, minimize=term, bound=2.0)
        assert known(found.exact_cost) >= known(best.exact_cost) and known(found.damage) <= 2


# -- as a policy -----------------------------------------------------------------------------------------------------


def test_the_policy_searches_once_for_each_budget_and_asks_the_same_trials_again() -> None:
    from impq_opt.rounds import Turn
    from impq_opt.rounds.policies import make_policy

    problem = chain(names=["a", "b", "c", "d"])
    options = {"budget": "fixed:4", "episodes": 6, "warm_up_episodes": 4}
    asked: list[Any] = []

    def trial(columns: Any, epochs: int = 1) -> float:
        asked.append((columns.tolist(), epochs))
        return 1 / (1 + float(problem.damage.chosen(problem.candidates, columns).sum()))

    def turn(number: int, memory: Any) -> Turn:
        return Turn(problem, np.full(4, 6), number, 3, seed=5, memory=memory, trial=trial)

    first = make_policy("haq", options).choose(turn(1, {}))
    assert asked[0] == ([6, 6, 6, 6], 1)  # stands for the float network
    assert 10 * problem.candidates.bits(first.columns).sum() <= 4 * 40
    trials = list(asked)
    asked.clear()
    again = make_policy("haq", options).choose(turn(1, {}))
    assert asked == trials and np.array_equal(again.columns, first.columns) and again.memory == first.memory
    asked.clear()
    later = make_policy("haq", options).choose(dataclasses.replace(turn(2, first.memory), columns=first.columns))
    assert not asked and np.array_equal(later.columns, first.columns) and later.memory == first.memory
    falling = make_policy("haq", options | {"budget": "linear:4:3", "trial_epochs": 2})
    falling.choose(dataclasses.replace(turn(2, first.memory), columns=first.columns))
    assert asked and {epochs for _, epochs in asked} == {2}
    within = make_policy("haq", {"budgets": {"storage": "15B"}, "episodes": 3}).choose(turn(1, {}))
    assert 10 * problem.candidates.bits(within.columns).sum() <= 120
    with pytest.raises(OptionError, match="'haq' needs a schedule of budgets, or budgets"):
        make_policy("haq", {})
    with pytest.raises(OptionError, match=r"rounds.episodes: must be at least 1, got 0"):
        make_policy("haq", {"budget": "fixed:4", "episodes": 0})


class KilledError(Exception):
    """As a kill: nothing is tidied up."""


def test_a_search_that_is_killed_in_the_middle_of_its_trials_goes_on_to_the_same_answer() -> None:
    """Rounds keep what trials gave and ask the policy anew, as here."""
    from impq_opt.rounds import Turn
    from impq_opt.rounds.policies import make_policy

    problem, policy = chain(), make_policy("haq", {"budget": "fixed:4", "episodes": 8, "warm_up_episodes": 3})

    def ask(kept: list[Any], most: int) -> Any:
        """Return the choice; ``kept`` are earlier trials, to which new ones are added, until there are ``most``."""
        asked = 0

        def trial(columns: Any, epochs: int = 1) -> float:
            nonlocal asked
            if asked == len(kept):
                if asked == most:
                    raise KilledError
                kept.append((columns.tolist(), 1 / (1 + float(np.log1p(columns) @ [1, 2, 3, 4]))))
            asked += 1
            assert kept[asked - 1][0] == columns.tolist()  # what was tried is asked for again
            return kept[asked - 1][1]

        return policy.choose(Turn(problem, np.full(4, 6), seed=1, trial=trial))

    whole: list[Any] = []
    expected = ask(whole, 100)
    assert len(whole) > 5
    kept: list[Any] = []
    for most in (1, 4, 5):
        with pytest.raises(KilledError):
            ask(kept, most)
    found = ask(kept, 100)
    assert kept == whole and found.columns.tolist() == expected.columns.tolist() and found.memory == expected.memory


def test_no_budget_is_made_up_for_it_as_for_strategies_of_solve() -> None:
    from impq_opt.cli._rounds_options import SettingsOptions
    from impq_opt.rounds.recipes import Recipe

    recipe = Recipe(title="", network="resnet8", data="digits", hyper={}, strategies={})
    assert SettingsOptions().settings(recipe, "exact").as_dict()["budget"] is not None
    with pytest.raises(OptionError, match="'haq' needs a schedule of budgets, or budgets"):
        SettingsOptions().settings(recipe, "haq")
    options = SettingsOptions(set_=['budgets={"storage": "100KiB"}', "episodes=9"])
    told = options.settings(recipe, "haq").as_dict()
    assert (told["budget"], told["budgets"], told["episodes"]) == (None, {"storage": "100KiB"}, 9)
