"""Proving optima: this project against memory speed, sorting, and the peers' solvers, all in one run.

Every time is that of a whole ``solve``, checking included, with the problem already built. Peers are timed without
building their model, get rows scaled by the bound, and are asked for a gap of 0; a time-out counts as its limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _figures import Figures, median_seconds
from _needs import skips
from _peers import NEEDS, Outcome, apart, cbc, cp_sat, highs

from impq_opt import Problem, Status, frontier, solve
from impq_opt.files import save_problem
from impq_opt.problem.allocation import Allocation
from impq_opt.problems.families import explicit, generate
from impq_opt.solvers import native

TEN_THOUSAND = ("channel", "free", "ties", "non-convex", "twelve-decades")
FOUR_PASSES = ("kernel", "channel", "block")
MILLION = (*FOUR_PASSES, "non-convex", "random", "free", "twelve-decades")


def proved(problem: Problem) -> Allocation:
    found = solve(problem)
    if found.status is not Status.OPTIMAL:
        raise SystemExit(f"not proved: {found}")
    return found


def tables(problem: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    cost, damage = problem.costs[0].values, problem.damage.values  # type: ignore[attr-defined,union-attr]
    return cost, damage, float(problem.bound)  # type: ignore[arg-type]


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most that ``work`` allocates on top of what there is, as tracemalloc sees it."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def small(figures: Figures, quick: bool) -> None:
    problem = explicit(generate("layer", 53, 1))
    ours = median_seconds(lambda: proved(problem), 50)
    figures.add("53 layers, warm call", ours * 1e3, 1.0, "ms")
    if not skips("53 layers, HiGHS / this", NEEDS[highs]):
        peer = median_seconds(lambda: highs(*tables(problem), 60.0), 5)
        figures.add("53 layers, HiGHS / this", peer / ours, 50, "times", least=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.toml"
        save_problem(generate("layer", 53, 1), path)
        command = [sys.executable, "-m", "impq_opt", "solve", str(path)]
        cold = median_seconds(lambda: subprocess.run(command, check=True, capture_output=True), 3 if quick else 5)
    figures.add("impq-opt solve, cold from the shell", cold, 0.5, "s")


def against_peer(
    figures: Figures,
    name: str,
    peer: Callable[..., Outcome],
    problem: Problem,
    ours: float,
    target: float,
    limit: float,
) -> None:
    if skips(f"{name} / this", NEEDS[peer]):
        return
    cost, damage, bound = tables(problem)
    found = apart(peer, cost, damage, bound, limit)
    value, times = found.check(cost, damage, bound)
    best = proved(problem).objective
    said = "says optimal" if found.optimal else f"stopped at {limit:g} s"
    print(
        f"    {name}: {said} after {found.seconds:.3g} s, cost {value} against {best}, damage {times:.9g} of the bound"
    )
    figures.add(f"{name} / this", found.seconds / ours, target, "times", least=True)


def ten_thousand(figures: Figures, quick: bool) -> None:
    seconds = {}
    for name in TEN_THOUSAND:
        problem = explicit(generate(name, 10_000, 1))
        seconds[name] = median_seconds(lambda problem=problem: proved(problem))
        figures.add(f"10k {name}", seconds[name] * 1e3, None, "ms")
    worst = max(seconds.values()) / statistics.median(seconds.values())
    figures.add("10k, worst family / median family", worst, 20, "times")
    problem = explicit(generate("channel", 10_000, 1))
    against_peer(figures, "10k channel, HiGHS", highs, problem, seconds["channel"], 1000, 20 if quick else 60)
    if not quick:
        against_peer(figures, "10k channel, CBC", cbc, problem, seconds["channel"], 5000, 60)
        against_peer(figures, "10k channel, CP-SAT", cp_sat, problem, seconds["channel"], 5000, 60)


def hundred_thousand(figures: Figures) -> None:
    for name in ("channel", "free"):
        problem = explicit(generate(name, 100_000, 1))
        ours = median_seconds(lambda problem=problem: proved(problem))
        figures.add(f"100k {name}", ours * 1e3, None, "ms")
        if name == "channel":
            against_peer(figures, "100k channel, HiGHS", highs, problem, ours, 5000, 150)


def million(figures: Figures, name: str) -> None:
    problem = explicit(generate(name, 1_000_000, 1))
    cost, damage, _ = tables(problem)
    ours, summing = [], []
    proved(problem)
    for _ in range(7):  # by turns: the machine may be shared
        summing.append(median_seconds(lambda: (cost.sum(), damage.sum()), 1))
        ours.append(median_seconds(lambda: proved(problem), 1))
    solving, passing = statistics.median(ours), statistics.median(summing)
    sorting = median_seconds(lambda: np.sort(damage, axis=None), 3)
    figures.add(f"1M {name}", solving * 1e3, None, "ms")
    figures.add(f"1M {name}, summing passes", solving / passing, 4 if name in FOUR_PASSES else 12, "passes")
    figures.add(f"1M {name}, against np.sort", solving / sorting, 1.0, "times np.sort")
    extra = peak_bytes(lambda: proved(problem)) / (cost.nbytes + damage.nbytes)
    figures.add(f"1M {name}, extra memory", extra, 0.5, "times the tables")


def structured(figures: Figures) -> None:
    one, ten = generate("free", 1_000_000, 1), generate("free", 10_000_000, 1)
    small_time, large_time = median_seconds(lambda: proved(one)), median_seconds(lambda: proved(ten), 3)
    figures.add("structured 1M", small_time * 1e3, None, "ms")
    figures.add("structured 10M", large_time * 1e3, None, "ms")
    figures.add("structured 10M / 1M", large_time / small_time, 10, "times")
    vectors = ten.sizes.nbytes + ten.damage.sensitivity.nbytes  # type: ignore[union-attr]
    figures.add("structured 10M, extra memory", peak_bytes(lambda: proved(ten)) / vectors, 1.0, "times the vectors")


def sweeping(figures: Figures, quick: bool) -> None:
    problem = explicit(generate("channel", 10_000, 1))
    single = median_seconds(lambda: proved(problem))
    figures.add("10k frontier", median_seconds(lambda: frontier(problem)) / single, 5, "exact solves")
    hull = frontier(problem)
    bounds = np.geomspace(hull.damage[0] * 0.9, hull.damage[-1] * 1.1, 100).tolist()
    figures.add("10k, 100 exact bounds", median_seconds(lambda: hull.solve(bounds), 1) / single, 20, "exact solves")
    if not quick:
        problem = explicit(generate("channel", 1_000_000, 1))
        single = median_seconds(lambda: proved(problem))
        figures.add("1M frontier", median_seconds(lambda: frontier(problem), 3) / single, 20, "exact solves")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="the smaller cases only, within a minute")
    options = parser.parse_args()
    threads = native.thread_count(1 << 30)
    print(f"compiled kernel: {'yes' if native.kernel is not None else 'no (NumPy)'}, {threads} threads")
    figures = Figures()
    small(figures, options.quick)
    ten_thousand(figures, options.quick)
    sweeping(figures, options.quick)
    for name in ("kernel",) if options.quick else MILLION:
        million(figures, name)
    if not options.quick:
        structured(figures)
        hundred_thousand(figures)
    return figures.finish(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
