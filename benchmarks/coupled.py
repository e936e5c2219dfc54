"""Costs that couple and budgets that compete: this project against linearised HiGHS, in one run.

Every time of this project is that of a whole ``solve``, checking included, with the problem already built. HiGHS gets
the tightest linear form of the products (solvers/_linear_model.py), rows scaled by their limits, a gap of 0, and is
timed without building the model. It looks at its time limit between long steps, so where it may take long it runs in a
process that is ended at the limit; a time-out counts as its limit. MobileNetV1's sizes, operations and graph are the
network's; its sensitivities come from the stated generator (problems/mobilenet.py), a seed each.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
from _figures import Figures, median_seconds
from _needs import skips
from scipy import sparse

from impq_opt import Problem, Status, problems, solve
from impq_opt.insight.cost_at import cost_at
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation
from impq_opt.problems.mobilenet import mobilenet_v1
from impq_opt.solvers._linear_model import LinearModel, build_model

if TYPE_CHECKING:
    import highspy

SEEDS = range(10)


@dataclass(frozen=True)
class Peer:
    """What HiGHS did: seconds, its best objective, and the gap that it reports; inf for what it never said."""

    seconds: float
    objective: float = math.inf
    gap: float = math.inf


def highs(problem: Problem, limit: float, report: Callable[[object], None] = lambda found: None) -> Peer:
    """Run HiGHS in this process; ``report`` gets None when it starts, and what it has found on the way."""
    solver = loaded(build_model(make_instance(problem)), limit)

    def incumbent(event: highspy.HighsCallbackEvent) -> None:
        found = event.data_out
        report(Peer(found.running_time, found.mip_primal_bound, found.mip_gap))

    solver.cbMipImprovingSolution.subscribe(incumbent)
    solver.cbMipLogging.subscribe(incumbent)
    report(None)
    started = time.perf_counter()
    solver.run()
    seconds = time.perf_counter() - started
    info = solver.getInfo()
    return Peer(seconds, info.objective_function_value, info.mip_gap)


def loaded(model: LinearModel, limit: float) -> highspy.Highs:
    import highspy

    solver = highspy.Highs()
    for name, value in (("output_flag", False), ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0), ("time_limit", limit)):
        solver.setOptionValue(name, value)
    rows = sparse.csc_matrix(sparse.vstack([model.equal, sparse.csr_matrix(model.rows)]))
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = rows.shape
    program.col_cost_ = model.objective
    program.col_lower_, program.col_upper_ = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    program.integrality_ = [kinds[int(flag)] for flag in model.integrality]
    program.row_lower_ = np.concatenate([model.equal_rights, np.full(len(model.rights), -highspy.kHighsInf)])
    program.row_upper_ = np.concatenate([model.equal_rights, model.rights])
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_, program.a_matrix_.index_ = rows.indptr, rows.indices
    program.a_matrix_.value_ = rows.data
    solver.passModel(program)
    return solver


def highs_apart(problem: Problem, limit: float) -> Peer:
    """Run HiGHS in a process of its own that is ended at the limit."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there, problem, limit), daemon=True)
    process.start()
    there.close()
    try:
        here.recv()  # it starts now
        last, deadline = Peer(limit), time.perf_counter() + limit
        while here.poll(max(deadline - time.perf_counter(), 0.0)):
            found, done = here.recv()
            if done:
                return replace(found, seconds=min(found.seconds, limit))
            last = found
        return replace(last, seconds=limit)
    finally:
        process.kill()
        process.join()


def _report(into: Connection, problem: Problem, limit: float) -> None:
    found = highs(problem, limit, lambda one: into.send((one, False)))
    into.send((found, True))


def proved(problem: Problem, minimize: str | None = None) -> Allocation:
    found = solve(problem, minimize=minimize)
    if found.status is not Status.OPTIMAL:
        raise SystemExit(f"not proved: {found}")
    return found


def kernels(figures: Figures, limit: float) -> None:
    seconds = []
    for seed in SEEDS:
        problem = mobilenet_v1(seed=seed)
        seconds.append(median_seconds(lambda one=problem: proved(one), 5))  # type: ignore[misc]
    figures.add("kernel-wise MobileNetV1, seeds proved optimal", len(seconds), len(SEEDS), "of 10", least=True)
    figures.add("kernel-wise, median of the seeds", statistics.median(seconds) * 1e3, None, "ms")
    figures.add("kernel-wise, slowest seed", max(seconds) * 1e3, None, "ms")
    if skips("kernel-wise, HiGHS", "highspy"):
        return
    peer = highs_apart(mobilenet_v1(seed=0), limit)
    best = proved(mobilenet_v1(seed=0)).objective
    figures.add("kernel-wise, HiGHS", peer.seconds, None, f"s (limit {limit:g} s)")
    figures.add("kernel-wise, gap that HiGHS reports at the end", peer.gap, None, "(inf: found no answer)")
    figures.add("kernel-wise, HiGHS's answer above the optimum", peer.objective / best - 1, None, "")
    # A shorter limit than the stated minute cannot show the ratio.
    target = 1000 if limit >= 60 else None
    figures.add("kernel-wise, HiGHS / this, slowest seed", peer.seconds / max(seconds), target, "times", least=True)


def layers(figures: Figures) -> None:
    every = [mobilenet_v1(granularity="layer", seed=seed) for seed in SEEDS]
    # HiGHS after all of these: what is timed beside its runs takes longer.
    ours = [median_seconds(lambda one=one: proved(one), 200) for one in every]  # type: ignore[misc]
    figures.add("layer-wise MobileNetV1, median of 10 seeds", statistics.median(ours) * 1e3, None, "ms")
    if skips("layer-wise, HiGHS / this", "highspy"):
        return
    peers = [statistics.median(highs(one, 60.0).seconds for _ in range(5)) for one in every]
    ratios = [peer / seconds for peer, seconds in zip(peers, ours, strict=True)]
    figures.add("layer-wise, HiGHS / this, median of 10 seeds", statistics.median(ratios), 100, "times", least=True)
    figures.add("layer-wise, HiGHS / this, worst seed", min(ratios), None, "times")


def two_budgets(problem: Problem) -> Problem:
    """Return the problem with a storage budget halfway between what least operations and least storage take."""
    operations, storage = solve(problem), solve(problem, minimize="storage")
    used = cost_at(problem, operations.bits, "storage")
    least = storage.exact_cost
    assert least is not None
    return problem.revise(budgets={"storage": Fraction(int(used + least), 2)})


def budgets(figures: Figures) -> None:
    gaps, seconds = [], []
    for seed in SEEDS:
        problem = two_budgets(mobilenet_v1(seed=seed))
        started = time.perf_counter()
        found = solve(problem, time_limit=2.0)
        seconds.append(time.perf_counter() - started)
        gaps.append(found.gap)
    figures.add("two budgets, 11,944 weight groups, worst gap of 10 seeds", max(gaps), 1e-6, "")
    figures.add("two budgets, 11,944 weight groups, median time", statistics.median(seconds), None, "s")
    figures.add("two budgets, 11,944 weight groups, longest time", max(seconds), 2.2, "s (limit 2 s)")
    names = [name for name in problems.names() if len(problems.load(name)) < 200]
    done = 0
    for name in names:
        problem = problems.load(name)
        problem = problem.revise(minimize="bit-operations", bound=problem.bound or 0.01)
        started = time.perf_counter()
        found = solve(two_budgets(problem), time_limit=60.0)
        figures.add(f"two budgets, {name}", time.perf_counter() - started, None, f"s, {found.status.value}")
        done += found.status is Status.OPTIMAL
    figures.add("two budgets, layer-wise gallery problems proved", done, len(names), f"of {len(names)}", least=True)


def peaks(figures: Figures) -> None:
    for granularity in ("layer", "kernel"):
        problem = mobilenet_v1(granularity=granularity)
        seconds = median_seconds(lambda one=problem: proved(one, minimize="peak-activation-memory"), 3)  # type: ignore[misc]
        figures.add(f"least peak, MobileNetV1 by {granularity}, proved", seconds, None, "s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="a limit of 15 s for HiGHS instead of 60 s")
    arguments = parser.parse_args()
    figures = Figures()
    layers(figures)
    kernels(figures, 15.0 if arguments.quick else 60.0)
    budgets(figures)
    peaks(figures)
    return figures.finish(arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
