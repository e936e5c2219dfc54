"""``impq-opt rounds``: allocation alternated with retraining, one strategy or several side by side."""

from __future__ import annotations

import json as json_module
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import NETWORKS
from impq_opt.cli._common import JsonFlag, refuse, say
from impq_opt.cli._network import NETWORK_HELP, need_torch
from impq_opt.cli._processes import first_process
from impq_opt.cli._rounds_options import (
    ChoosingOptions,
    ExperimentOptions,
    RecipeOption,
    RunningOptions,
    SettingsOptions,
)
from impq_opt.cli._rounds_table import print_comparison
from impq_opt.cli._screen import print_json
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import MissingPackageError

if TYPE_CHECKING:
    from torch import nn

    from impq_opt.rounds import Report, Settings
    from impq_opt.rounds.comparison import Comparison, Runs
    from impq_opt.rounds.recipes import Recipe

__all__ = ["rounds"]


def rounds(
    network: Annotated[str | None, NETWORKS, Parameter(help=NETWORK_HELP)] = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder of the run; a run in it goes on.")],
    recipe: RecipeOption = None,
    experiment: ExperimentOptions = ExperimentOptions(),  # noqa: B008 - frozen
    choosing: ChoosingOptions = ChoosingOptions(),  # noqa: B008
    changes: SettingsOptions = SettingsOptions(),  # noqa: B008
    running: RunningOptions = RunningOptions(),  # noqa: B008
    json: JsonFlag = False,
) -> int:
    """Measure, allocate, fine-tune, and again; killed at any instant, the same command goes on to the same result.

    The folder gets a log (log.jsonl), a checkpoint, and for each round its problem and its weights in their allocated
    bits. --compare runs several strategies from one start with the same epochs and data order, and adds a table and a
    plot. Under `torchrun --nproc-per-node N -m impq_opt rounds ...` the processes share each batch.
    """
    need_torch("impq-opt rounds")
    running.check()
    plan = experiment.plan(network, recipe)
    strategies = {name: changes.settings(plan, name) for name in choosing.names(plan)}
    seeds = (choosing.seeds or 1) if choosing.compare or len(strategies) > 1 else None
    with running.begun() as report:
        runs = _run(plan, strategies, seeds, output, experiment, choosing.start, running.device, report)
    if runs is None:
        return running.stopped()
    if first_process():
        _tell(plan, runs, output, json)
    return 0


def _run(
    plan: Recipe,
    strategies: dict[str, Settings],
    seeds: int | None,
    output: Path,
    experiment: ExperimentOptions,
    began: Path | None,
    device: str,
    report: Report,
) -> Runs | None:
    """Return the records by strategy and seed, or None where time ran out."""
    from impq_opt.rounds import PausedError
    from impq_opt.rounds import rounds as run_rounds
    from impq_opt.rounds.compare import compare
    from impq_opt.rounds.measuring import measurer
    from impq_opt.rounds.recipes import pretrained, splits_of

    splits = splits_of(plan, root=experiment.root)
    plan = plan.sized(splits)

    @cache
    def network() -> nn.Module:
        weights, root = experiment.weights, experiment.root
        return pretrained(plan, output, weights=weights, root=root, device=device, report=report)

    try:
        if seeds is not None:
            refuse("--start", began, "goes with one strategy: a comparison has a start of its own")
            return compare(
                lambda seed: network(), splits, strategies, range(seeds), output, measurer=measurer, report=report
            )
        name, settings = next(iter(strategies.items()))
        measure = measurer(settings)  # what it cannot be is told before anything is trained
        told = run_rounds(network(), splits, settings, output, measure=measure, start=began, report=report)
        return {name: [told]}
    except PausedError:
        return None


def _tell(plan: Recipe, runs: Runs, output: Path, json: bool) -> None:
    """Print the table, and keep it and the plot in the folder."""
    from impq_opt.rounds.comparison import summary

    told = summary(plan.title, runs)
    if len(runs) > 1 or any(len(trials) > 1 for trials in runs.values()):
        _keep(told, output)
    if json:
        print_json(told.document())
    else:
        print_comparison(told, plan.published)


def _keep(told: Comparison, output: Path) -> None:
    from impq_opt.rounds.comparison import plot

    atomic_write(output / "comparison.json", json_module.dumps(told.document()).encode())
    try:
        plot(told.runs, output / "comparison.svg")
    except MissingPackageError as error:
        say(f"no plot: {error}")
