"""Damages that interact: what share is proved, in what time, and HiGHS on the linearised products beside it.

Shifts of the logits are drawn like measured ones: they halve with each bit, and lie partly in a direction that all
groups share. Factors have more directions than there are candidates, as pictures times classes give, or few, as a
sketch has; pairs are the same products, each off by a third. Each question is asked both ways: least cost under a
bound, least damage under a budget. Times are those of the processor, of a whole solve. HiGHS gets a variable for each
pair of candidates of two groups, tied to both by sums (RLT), and counts as its limit where it is not done.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from _figures import Figures
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from impq_opt import Allocation, Factors, Pairs, Problem, Status, solve
from impq_opt.costs import TableCost
from impq_opt.groups.interactions import Interactions

BITS = np.arange(1, 9)


@dataclass(frozen=True)
class Drawn:
    """A problem, and the question in both directions."""

    problem: Problem
    questions: tuple[dict[str, Any], ...]


def drawn(seed: int, count: int, directions: int, *, by_pairs: bool = False) -> Drawn:
    """Return a problem of so many groups with 1 to 8 bits."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=directions), rng.normal(size=(count, 1, directions))
    shifts = 0.4 * common + 0.6 * own + 0.7 * rng.normal(size=(count, len(BITS), directions))
    shifts *= 10 ** rng.uniform(-1, 0.5, (count, 1, 1)) * np.exp2(-BITS)[:, None]
    cost = rng.integers(400, 40_000, count)[:, None] * BITS
    interactions: Interactions = Factors(shifts)
    if by_pairs:
        left, right = np.triu_indices(count, 1)
        tables = 2 * np.einsum("par,pbr->pab", shifts[left], shifts[right])
        interactions = Pairs(np.stack([left, right], axis=1), tables * (1 + 0.3 * rng.normal(size=tables.shape)))
    problem = Problem.from_tables(cost, np.square(shifts).sum(axis=2), bits=BITS.tolist(), interactions=interactions)
    bound = problem.total_damage(np.full(count, 2))
    return Drawn(problem, ({"bound": bound}, {"budget": int(cost[:, 2].sum())}))


def asked(case: Drawn, limit: float) -> list[tuple[Allocation, float]]:
    """Return the answers to the questions, and the processor's seconds that each took."""
    answers = []
    for question in case.questions:
        started = time.process_time()
        answer = solve(case.problem, time_limit=limit, **question)
        answers.append((answer, time.process_time() - started))
    return answers


def linearized(problem: Problem, bound: float, limit: float) -> float:
    """Return the processor's seconds that HiGHS takes for the least cost, at least ``limit`` where it is not done."""
    table, factors = problem.costs[0], problem.interactions
    assert isinstance(table, TableCost) and isinstance(factors, Factors)
    count, width = table.values.shape
    left, right = np.triu_indices(count, 1)
    together = 2 * np.einsum("par,pbr->pab", factors.values[left], factors.values[right])
    single, square = count * width, width * width
    pair, a, b = np.meshgrid(np.arange(len(left)), np.arange(width), np.arange(width), indexing="ij")
    product = single + np.arange(len(left) * square)
    first, second = (pair * width + a).ravel(), (pair * width + b).ravel()
    one_hot = sparse.csr_matrix((np.ones(single), (np.repeat(np.arange(count), width), np.arange(single))))
    parts = [sparse.hstack([one_hot, sparse.csr_matrix((count, len(product)))])]
    for row, end in ((first, left), (second, right)):
        ends = (np.repeat(end, width) * width + np.tile(np.arange(width), len(end))).astype(np.int64)
        lines = len(end) * width
        sums = sparse.csr_matrix((np.ones(len(row)), (row, product)), shape=(lines, single + len(product)))
        taken = sparse.csr_matrix((np.ones(lines), (np.arange(lines), ends)), shape=sums.shape)
        parts.append(sums - taken)
    equal = sparse.csr_matrix(sparse.vstack(parts))
    sides = np.concatenate([np.ones(count), np.zeros(equal.shape[0] - count)])
    damages = np.concatenate([np.asarray(problem.damage.at(slice(None), BITS.tolist())).ravel(), together.ravel()])
    objective = np.concatenate([table.values.ravel().astype(np.float64), np.zeros(len(product))])
    started = time.process_time()
    found = milp(
        objective,
        integrality=(np.arange(len(objective)) < single).astype(int),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(equal, sides, sides), LinearConstraint(damages[None] / bound, -np.inf, 1)],
        options={"mip_rel_gap": 0, "time_limit": limit},
    )
    seconds = time.process_time() - started
    return seconds if found.status == 0 else max(seconds, limit)


def measured(
    figures: Figures, name: str, cases: list[Drawn], limit: float, target: float | None, share: float | None
) -> list[tuple[Allocation, float]]:
    """Add the share that is proved, the median time and the widest gap."""
    answers = [answer for case in cases for answer in asked(case, limit)]
    proved = sum(answer.status is Status.OPTIMAL for answer, _ in answers) / len(answers)
    figures.add(f"{name}: proved", 100 * proved, share, "% of answers", least=True)
    figures.add(f"{name}: median time", statistics.median(s for _, s in answers), target, "s")
    figures.add(f"{name}: slowest", max(s for _, s in answers), None, "s")
    figures.add(f"{name}: widest gap", 100 * max(answer.gap for answer, _ in answers), None, "%")
    return answers


def main() -> int:
    """Print the figures; exit status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer problems, within a minute")
    options = parser.parse_args()
    seeds = range(2) if options.quick else range(6)
    figures = Figures()
    solve(drawn(0, 5, 8).problem, budget=10**6)  # what is loaded once
    layers = [drawn(seed, 20, 200) for seed in seeds]
    answers = measured(figures, "20 layers, 200 directions", layers, 10, 1, 100)
    measured(figures, "20 layers, 32 directions", [drawn(seed, 20, 32) for seed in seeds], 10, 1, 100)
    pairs = [drawn(seed, 20, 200, by_pairs=True) for seed in seeds]
    measured(figures, "20 layers, pairs off by a third", pairs, 10, 1, 100)
    if not options.quick:
        limit = 60.0
        ours = [seconds for _, seconds in answers[::2]]
        theirs = [linearized(case.problem, float(case.questions[0]["bound"]), limit) for case in layers[:3]]
        ratio = statistics.median(s / o for s, o in zip(theirs, ours, strict=False))
        figures.add("20 layers, least cost: HiGHS (RLT)", statistics.median(theirs), None, "s")
        figures.add("20 layers, least cost: HiGHS takes", ratio, None, "times as long")
        deep = range(3)
        measured(figures, "60 layers, 500 directions", [drawn(seed, 60, 500) for seed in deep], 30, 10, 100)
        measured(figures, "60 layers, 64 directions", [drawn(seed, 60, 64) for seed in deep], 30, 10, 100)
    many = [drawn(seed, 1000, 16) for seed in (seeds if options.quick else range(2))][:1]
    measured(figures, "1,000 groups, 16 directions", many, 20, None, None)
    return figures.finish(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
