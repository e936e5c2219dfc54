"""Wrong "optimal" answers of MILP solvers, counted by exact arithmetic: why this project checks every answer itself.

Damages are small numbers, and a bound of 1e-6 lies inside a MILP solver's feasibility tolerance. Given the row as it
is, the peers call answers optimal that overshoot the bound many times; given the row divided by its bound they did not
in this benchmark. Both are shown. CP-SAT takes whole numbers: damages are rounded to millionths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from _figures import Figures
from _needs import skips
from _peers import NEEDS, Outcome, cbc, cp_sat, highs

from impq_opt import Problem, Status, solve
from impq_opt.problems.families import explicit, generate

BOUNDS = (1.0, 1e-2, 1e-4, 1e-6, 1e-8)
LIMIT = 20.0

Peer = Callable[[np.ndarray, np.ndarray, float], Outcome]


def instance(seed: int, bound: float) -> Problem:
    """Return 53 layers whose sensitivities are scaled so that ``bound`` asks for about four bits."""
    problem = generate("layer", 53, seed)
    damage = replace(problem.damage, sensitivity=problem.damage.sensitivity * (bound / 0.01))  # type: ignore[union-attr]
    return explicit(replace(problem, damage=damage, bound=bound))


def count(peer: Peer, problems: list[Problem]) -> tuple[int, int, float]:
    """Return how many answers were called optimal, how many of them break the bound, and the worst excess."""
    optimal = broken = 0
    worst = 0.0
    for problem in problems:
        cost, damage = problem.costs[0].values, problem.damage.values  # type: ignore[attr-defined,union-attr]
        bound = float(problem.bound)  # type: ignore[arg-type]
        found = peer(cost, damage, bound)
        if not found.optimal:
            continue
        optimal += 1
        _, times = found.check(cost, damage, bound)
        broken += times > 1
        worst = max(worst, times - 1)
    return optimal, broken, worst


def ours(cost: np.ndarray, damage: np.ndarray, bound: float) -> Outcome:
    found = solve(Problem.from_tables(cost, damage), bound=bound)
    return Outcome(found.seconds, found.status is Status.OPTIMAL, found.choice)


# What is asked, and the modules that it takes.
PEERS: dict[str, tuple[Peer, tuple[str, ...]]] = {
    "HiGHS": (lambda c, d, p: highs(c, d, p, LIMIT, scaled=False), (NEEDS[highs],)),
    "CBC": (lambda c, d, p: cbc(c, d, p, LIMIT, scaled=False), (NEEDS[cbc],)),
    "CP-SAT, millionths": (lambda c, d, p: cp_sat(c, d, p, LIMIT, steps=p * 1e6), (NEEDS[cp_sat],)),
    "HiGHS, scaled": (lambda c, d, p: highs(c, d, p, LIMIT), (NEEDS[highs],)),
    "CBC, scaled": (lambda c, d, p: cbc(c, d, p, LIMIT), (NEEDS[cbc],)),
    "this project": (ours, ()),
}


def smallest_cases() -> None:
    """Print the smallest cases known."""
    levels = np.array([2, 4, 8])
    cases = [
        ("HiGHS", [9216, 432], [2.1531e-5, 1.64e-7]),
        ("CBC", [1152, 2304, 1152], [8.63e-7, 1.5814e-5, 1.113e-6]),
    ]
    for name, sizes, sensitivity in cases:
        peer, modules = PEERS[name]
        if skips(f"{name}: smallest case", *modules):
            continue
        cost = np.array(sizes)[:, None] * levels
        damage = np.array(sensitivity)[:, None] * 4.0**-levels
        said, truth = peer(cost, damage, 1e-6), ours(cost, damage, 1e-6)
        assert truth.choice is not None
        answer = None if said.choice is None else levels[said.choice].tolist()
        _, times = said.check(cost, damage, 1e-6)
        print(f"  {name}: N = {sizes}, E = {sensitivity}, bits 2, 4, 8, bound 1e-6: says {answer},")
        print(f"    {times:.3g} times the bound; the optimum is {levels[truth.choice].tolist()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="three instances a bound instead of ten")
    options = parser.parse_args()
    figures = Figures()
    seeds = range(3 if options.quick else 10)
    for bound in BOUNDS:
        problems = [instance(seed, bound) for seed in seeds]
        for name, (peer, modules) in PEERS.items():
            if skips(f"bound {bound:g}, {name}", *modules):
                continue
            optimal, broken, worst = count(peer, problems)
            target = 0 if name == "this project" else None
            figures.add(f"bound {bound:g}, {name}", broken, target, f"infeasible of {optimal}")
            if broken:
                print(f"    the worst is {worst:.2g} times the bound above it")
    smallest_cases()
    return figures.finish(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
