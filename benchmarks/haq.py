"""HAQ's agent beside the exact program: one network, both budgets of a microcontroller, one objective, in one run.

The damage of what each finds, over seeds, and the seconds of a processor that it takes, torch loaded. "Drawn" is the
agent that never leaves its warm-up: as many random allocations, brought within the budgets by the same walk. With
``--folder`` each seed's answer is kept there, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from _needs import need

need("torch")

import torch
from _figures import Figures

from impq_opt import Problem, Status, problems, solve

NAME, BUDGET = "mobilenet-v1-synthetic-microcontroller", "2MiB"


def answered(problem: Problem, folder: Path | None, seed: int, **options: Any) -> dict[str, float]:
    """Return damage and seconds of the agent's answer; kept ones are not looked for again."""
    kept = None if folder is None else folder / f"{'-'.join(map(str, options.values()))}-seed-{seed}.json"
    if kept is not None and kept.exists():
        found: dict[str, float] = json.loads(kept.read_text())
        return found
    began = time.process_time()
    answer = solve(problem, budget=BUDGET, solver="haq", seed=seed, **options)
    found = {"damage": answer.damage, "seconds": time.process_time() - began}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    return found


def compared(figures: Figures, seeds: int, episodes: int, folder: Path | None) -> None:
    """Add what the exact program, the agent and drawing alone find."""
    problem = problems.load(NAME)
    solve(problem, budget=BUDGET)
    began = time.process_time()
    exact = solve(problem, budget=BUDGET)
    seconds = time.process_time() - began
    assert exact.status is Status.OPTIMAL
    figures.add("exact: damage", exact.damage, None, "")
    figures.add("exact: seconds", seconds, None, "s")
    for name, options in (
        ("agent", {"episodes": episodes}),
        ("drawn", {"episodes": episodes, "warm_up": episodes}),
    ):
        found = [answered(problem, folder, seed, **options) for seed in range(seeds)]
        damages = [one["damage"] for one in found]
        figures.add(f"{name}: damage, mean of {seeds}", statistics.mean(damages), None, "")
        if seeds > 1:
            figures.add(f"{name}: damage, standard error", statistics.stdev(damages) / seeds**0.5, None, "")
        figures.add(f"{name}: least damage by the exact one", min(damages) / exact.damage, 1, "times", least=True)
        figures.add(f"{name}: seconds, mean", statistics.mean(one["seconds"] for one in found), None, "s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, 25 episodes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = Figures()
    seeds, episodes = (1, 25) if given.quick else (given.seeds, given.episodes)
    compared(figures, seeds, episodes, given.folder)
    return figures.finish(given.json)


if __name__ == "__main__":
    raise SystemExit(main())
