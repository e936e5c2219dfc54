"""A time limit and Ctrl-C end every strategy soon, with the best answer so far and what is known of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known

from impq_opt import Allocation, Group, Problem, Status, frontier, solve
from impq_opt.costs import TableCost
from impq_opt.files import save_problem
from impq_opt.instance.contract import Control, ExpiredError, listening
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Stop
from impq_opt.problems.families import generate
from impq_opt.solve import answer, answer_prepared, solve_in_passing
from impq_opt.solvers import make_solver, native
from impq_opt.solvers._best import Incumbent
from impq_opt.solvers.exact import budgets as _budgets
from impq_opt.solvers.exact.core import search
from impq_opt.solvers.exact.states import BETWEEN, LimitedCore
from impq_opt.solvers.exact.swaps import swap
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.native.program import Core

# Seconds that a strategy is given, and in which it must have ended, however busy the machine.
LIMIT, SOON = 0.3, 5.0

pytestmark = pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals here")


def alike(groups: int, limits: int, seed: int = 0) -> tuple[Problem, dict[str, Any]]:
    """Return an instance whose limits are nearly the objective over again: minutes of search, and more."""
    random = np.random.default_rng(seed)
    cost = np.sort(random.integers(1, 10**6, (groups, 8)), axis=1)
    damage = (2 * 10**6 - cost) / 1e6 + random.integers(0, 3, cost.shape) * 1e-7
    tables = [cost + random.integers(0, 1000, cost.shape) for _ in range(limits)]
    problem = Problem.from_tables(cost, damage)
    costs = tuple(TableCost.from_array(table, name=f"c{i}", unit="u") for i, table in enumerate(tables))
    budgets = {f"c{i}": Fraction(101, 100) * int(table[:, 4].sum()) for i, table in enumerate(tables)}
    problem = replace(problem, costs=(*problem.costs, *costs)).revise(budgets=budgets)
    return problem, {"bound": float(damage[:, 4].sum())}


def coupled(layers: int = 30, kernels: int = 300, limits: int = 3) -> tuple[Problem, dict[str, Any]]:
    """Return kernels that read activations, with limits on tables."""
    random = np.random.default_rng(0)
    total = layers * (kernels + 1)
    reads = np.array([-1] * layers + [layer for layer in range(layers) for _ in range(kernels)])
    sizes = random.integers(9, 600, total)
    tables = [np.sort(random.integers(1, 100, (total, 8)), axis=1) for _ in range(limits)]
    problem = Problem.from_sensitivities(
        sizes,
        10.0 ** random.uniform(-4, 0, total),
        bits=range(1, 9),
        kinds=["activation"] * layers + ["weight"] * (layers * kernels),
        macs=np.where(reads >= 0, sizes * 100, 0),
        reads=reads,
        costs=tuple(TableCost.from_array(table, name=f"c{i}", unit="u") for i, table in enumerate(tables)),
    )
    budgets = {f"c{i}": int(table[:, 4].sum()) for i, table in enumerate(tables)}
    bound = float(problem.damage.at(slice(None), problem.candidates.sets[0])[:, 3].sum())
    return problem.revise(minimize="bit-operations", budgets=budgets), {"bound": bound}


def peaks(layers: int = 60) -> tuple[Problem, dict[str, Any]]:
    """Return a chain of layers whose peak of activation memory is minimised under limits that couple groups."""
    random = np.random.default_rng(0)
    groups = [
        Group(f"a{i}", int(random.integers(100, 999)), 0.1, bits=range(1, 9), kind="activation", steps=(i, i + 2))
        for i in range(layers)
    ]
    groups += [
        Group(f"w{i}", 3 * int(random.integers(9, 999)), 0.1, bits=range(1, 9), reads=f"a{i}", macs=3000, length=3)
        for i in range(layers)
    ]
    budgets = {"adders": 99_000 * layers, "bit-operations": 60_000 * layers}
    return Problem.declare(groups, minimize="peak-activation-memory", budgets=budgets), {"bound": 0.05 * layers}


def none_together(limits: int = 40) -> tuple[Problem, dict[str, Any]]:
    """Return limits that can each be met and not together."""
    problem, goal = alike(40, limits)
    return problem.revise(budgets={name: most * Fraction(98, 100) for name, most in problem.budgets.items()}), goal


HARD: dict[str, Callable[[], tuple[Problem, dict[str, Any]]]] = {
    "one limit": lambda: (generate("correlated-1e6", 3000, 8), {}),
    "two limits": lambda: alike(30, 1),
    "four limits": lambda: alike(100, 3),
    "twenty limits": lambda: alike(500, 20),
    "a hundred limits": lambda: alike(200, 100),
    "coupled": coupled,
    "peaks": peaks,
    "infeasible": none_together,
}


@pytest.fixture(params=HARD, scope="module")
def hard(request: pytest.FixtureRequest) -> tuple[Problem, dict[str, Any]]:
    return HARD[request.param]()


def is_honest(found: Allocation, reason: Stop) -> None:
    """Check that an answer that was cut short says so, and no more than is known."""
    assert found.stop in (reason, Stop.COMPLETED, Stop.STATE_LIMIT)
    if found.choice is not None:
        assert found.exact_lower_bound <= known(found.exact_objective)
        assert (found.status is Status.OPTIMAL) == (found.gap == 0)
    else:
        assert found.status in (Status.UNKNOWN, Status.INFEASIBLE)


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """Send this process a Ctrl-C after so many seconds."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def test_a_time_limit_holds(hard: tuple[Problem, dict[str, Any]]) -> None:
    problem, goal = hard
    started = time.monotonic()
    found = solve(problem, time_limit=LIMIT, **goal)
    assert time.monotonic() - started < SOON
    is_honest(found, Stop.TIME_LIMIT)


def test_an_interrupt_ends_the_search(hard: tuple[Problem, dict[str, Any]]) -> None:
    problem, goal = hard
    started = time.monotonic()
    # What comes too late, after an answer that was quick, is for nobody.
    with listening(), listening_as_usual(), interrupted(LIMIT):
        found = solve(problem, **goal)
    assert time.monotonic() - started < SOON
    is_honest(found, Stop.INTERRUPTED)


@contextmanager
def listening_as_usual() -> Iterator[None]:
    """Put Python's own handler in place for a while."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["greedy", "iterative", "uniform", "noise-equalization", "lagrangian"])
def test_other_strategies_mind_the_time(name: str) -> None:
    problem = generate("random", 100_000, 0)
    started = time.monotonic()
    found = solve(problem, solver=name, time_limit=0.01)
    assert time.monotonic() - started < SOON
    is_honest(found, Stop.TIME_LIMIT)


@pytest.mark.parametrize("name", ["uniform", "noise-equalization", "iterative", "exhaustive"])
def test_a_strategy_out_of_time_says_so(name: str) -> None:
    instance = make_instance(generate("random", 5, 0))
    claim = make_solver(name).run(instance, Control(deadline=0.0))
    assert claim.stop is Stop.TIME_LIMIT


def test_interrupting_keeps_the_incumbent() -> None:
    problem, goal = alike(30, 1)
    # The time that the answer is known after, whatever the machine: half the states.
    seen = threading.Event()

    def interrupt_when_seen() -> None:
        if seen.wait(60):
            os.kill(os.getpid(), signal.SIGINT)

    offer = Incumbent.offer

    def told(self: Incumbent, choice: np.ndarray) -> bool:
        if offer(self, choice):
            seen.set()
            return True
        return False

    watcher = threading.Thread(target=interrupt_when_seen)
    watcher.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Incumbent, "offer", told)
        found = solve(problem, **goal)
    watcher.join()
    assert found.stop is Stop.INTERRUPTED
    assert found.status in (Status.FEASIBLE, Status.OPTIMAL)
    assert 0 <= found.gap < 0.1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_states_are_looked_at_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once time is over, no further stretch of states is begun, nor another match of changes."""
    problem, goal = alike(30, 1)
    control = Control()
    prune, calls = LimitedCore._prune, []

    def last(self, states: Any, step: Any) -> Any:  # type: ignore[no-untyped-def]
        calls.append(len(states))
        control.interrupt[0] = 1
        return prune(self, states, step)

    monkeypatch.setattr(LimitedCore, "_prune", last)
    monkeypatch.setattr(_budgets, "swap", lambda *_: pytest.fail("goes on"))
    claim = make_solver("exact").run(make_instance(problem, **goal), control)
    assert claim.stop is Stop.TIME_LIMIT
    assert len(calls) == 1
    assert calls[0] <= BETWEEN


def test_exchanging_looks_at_the_clock() -> None:
    rows = [np.arange(20.0).reshape(5, 4), np.arange(20.0)[::-1].reshape(5, 4).copy()]

    def check() -> None:
        raise ExpiredError

    with pytest.raises(ExpiredError):
        swap(rows, np.zeros((5, 4)), np.zeros(5, dtype=np.int64), lambda _: np.ones(1), bool, lambda: 9.0, check)


# -- how an interrupt is seen -----------------------------------------------------------------------------------------


def test_the_first_interrupt_is_a_flag_and_the_second_raises() -> None:
    with listening() as flag:
        control = Control(interrupt=flag)
        assert not control.expired()
        signal.raise_signal(signal.SIGINT)
        assert control.interrupted
        assert control.expired()
        with pytest.raises(ExpiredError):
            control.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_callers_own_handler_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with listening() as flag:
            signal.raise_signal(signal.SIGINT)
            assert not flag[0]
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_threads_solve_without_listening() -> None:
    found: list[Allocation] = []
    thread = threading.Thread(target=lambda: found.append(solve(generate("random", 50, 0))))
    thread.start()
    thread.join()
    assert found[0].status is Status.OPTIMAL


def test_an_interrupt_is_told_even_where_it_changed_nothing() -> None:
    problem = generate("random", 50, 0)
    instance = make_instance(problem)

    class Late(type(make_solver("greedy"))):  # type: ignore[misc]
        def run(self, instance: Any, control: Any) -> Any:
            claim = super().run(instance, control)
            control.interrupt[0] = 1
            return claim

    found = answer(instance, Late(), Control(), 0.0)
    assert found.choice is not None
    assert found.stop is Stop.INTERRUPTED


def test_longer_work_ends_with_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = solve(generate("random", 20, 0))
    monkeypatch.setattr(
        sys.modules[solve_in_passing.__module__], "solve", lambda *_, **__: replace(stopped, stop=Stop.INTERRUPTED)
    )
    with pytest.raises(KeyboardInterrupt):
        solve_in_passing(generate("random", 20, 0))


def test_a_sweep_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    hull = frontier(generate("random", 200, 0))
    bounds = np.quantile(hull.damage, [0.2, 0.4, 0.6, 0.8]).tolist()
    real, asked = answer_prepared, []

    def once(*given: Any) -> Any:
        found = real(*given)
        asked.append(found)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr("impq_opt.insight.frontier.answer_prepared", once)
    found = hull.solve(bounds)
    assert [one.status for one in found] == [Status.OPTIMAL] * 2 + [Status.UNKNOWN] * 2
    assert [one.stop for one in found] == [Stop.COMPLETED] * 2 + [Stop.INTERRUPTED] * 2


@pytest.mark.parametrize("compiled", [True, False])
def test_the_core_reads_the_flag(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "core", None)
    random = np.random.default_rng(0)
    gain = np.sort(random.integers(1, 10**9, (60, 8)), axis=1)
    need = 10**9 - gain + random.integers(0, 50, gain.shape)
    core = Core(gain, need, int(need[:, 4].sum()), int(gain.sum()))
    left = search(core, 50_000, Control(), Tuning())
    cut = search(core, 50_000, Control(interrupt=np.ones(1, dtype=np.uint8)), Tuning())
    assert left.stop is Stop.STATE_LIMIT
    assert cut.stop is Stop.TIME_LIMIT
    assert cut.states < left.states


# -- the command line -------------------------------------------------------------------------------------------------

# Tells when there is something to interrupt, and waits for that.
_COMMAND = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from impq_opt.cli import main
from impq_opt.solvers.exact import budgets as _budgets
def wait(self, *_):
    if self.best.choice is not None:
        print("searching", file=sys.stderr, flush=True)
        while not self.control.expired():
            time.sleep(0.01)
_budgets._Search._swap = wait
main()
"""


def test_the_command_line_prints_the_incumbent(tmp_path: Path) -> None:
    problem, goal = alike(30, 1)
    save_problem(problem.revise(bound=goal["bound"]), tmp_path / "p.toml")
    command = [sys.executable, "-c", _COMMAND, "solve", str(tmp_path / "p.toml")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    line = running.stderr.readline()
    assert "searching" in line, line + running.stderr.read()
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 1, error
    assert "stopped: interrupted" in out
    assert "Traceback" not in error
