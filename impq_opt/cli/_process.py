"""Running a strategy in a process of its own, so that a time limit holds whatever native code does.

HiGHS and CBC look at their limits between steps, and a step on a large model takes minutes. A process can be ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from impq_opt.cli._streams import debugging, silenced
from impq_opt.errors import ImpqError, SolverError
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.solvers import TABLE

__all__ = ["solve_apart"]

# Loaded once, by the server that the processes are forked from.
_PRELOAD = ["__main__", *dict.fromkeys(path.partition(":")[0] for path in TABLE.values())]


def solve_apart(problem: Problem, solver: str, *, time_limit: float, **keywords: Any) -> Allocation:
    """Return what :func:`impq_opt.solve` returns; end the strategy where it runs well over its limit.

    Raises
    ------
    ImpqError
        What the strategy raised; SolverError where its process ended without an answer, or had to be ended.
    """
    context = _context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(there, problem, solver, {"time_limit": time_limit, **keywords}), daemon=True
    )
    try:
        process.start()
    except (EOFError, OSError) as error:
        raise SolverError(f"its process cannot be started: {getattr(error, 'strerror', None) or 'it ended'}") from None
    finally:
        there.close()
    # Reading and checking the answer takes time too; a strategy that minds its limit is never ended here.
    patience = time_limit + max(5.0, time_limit / 2)
    started = time.perf_counter()
    try:
        if not here.poll(patience):
            raise SolverError(
                f"was ended: it ran {time.perf_counter() - started:.0f} s, over its limit of {time_limit:g} s"
            )
        answer = here.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise SolverError(f"its process ended without an answer (exit status {process.exitcode})") from None
    finally:
        _end(process)
        here.close()
    if isinstance(answer, Exception):
        raise answer
    return replace(answer, problem=problem)


def _context() -> Any:
    """Return how processes are started; those that load and run strategies hear of no Ctrl-C and print nothing."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # by itself, because it lets Ctrl-C through when it has started
    # What is blocked here, and where stderr goes, holds there too, and in all that it starts. A process that is left
    # in the middle of its start by Ctrl-C would print a traceback.
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with contextlib.nullcontext() if debugging() else silenced(2):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
    return context


def _end(process: Any) -> None:
    """End the process and those that it started: PuLP runs CBC as a program."""
    if hasattr(os, "killpg"):
        # It leads a group of its own, unless it was ended before it could.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _follow() -> None:
    """End this process, and those that it started, when the one that asked ends, however that does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _work(answer: Connection, problem: Problem, solver: str, keywords: dict[str, Any]) -> None:
    """Solve, and send the allocation without its problem, or the error; stdout is not for native code."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_follow, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from impq_opt.solve import solve

    try:
        outcome: Any = replace(solve(problem, solver=solver, **keywords), problem=None)  # type: ignore[arg-type]
    except ImpqError as error:
        outcome = type(error).__new__(type(error))
        outcome.__dict__.update(error.__dict__)
        outcome.args = error.args
    except MemoryError:
        outcome = SolverError("there is not enough memory")
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        answer.send(outcome)
