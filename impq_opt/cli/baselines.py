"""``impq-opt baselines``: all methods of a table, trained from one float network on equal terms."""

from __future__ import annotations

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import RECIPES
from impq_opt.cli._common import WHOLE, JsonFlag
from impq_opt.cli._goals import Many
from impq_opt.cli._methods_table import print_methods
from impq_opt.cli._network import need_torch
from impq_opt.cli._processes import first_process
from impq_opt.cli._rounds_options import ExperimentOptions, RunningOptions, assigned
from impq_opt.cli._screen import print_json
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import OptionError

if TYPE_CHECKING:
    from impq_opt.baselines import Row
    from impq_opt.rounds import Report, Settings
    from impq_opt.rounds.recipes import Recipe

__all__ = ["baselines"]


def baselines(
    recipe: Annotated[str, RECIPES, Parameter(help="A shipped recipe with a table of methods, or a TOML file.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder of the runs; those in it go on.")],
    methods: Annotated[str | None, Parameter(help="Rows of the recipe, with commas; all unless given.")] = None,
    seeds: Annotated[int, WHOLE, Parameter(help="How many.")] = 1,
    set_: Annotated[
        list[str] | None,
        Many,
        Parameter(name="--set", help="KEY=VALUE, a hyper-parameter of all rows, such as start_epochs=2."),
    ] = None,
    experiment: ExperimentOptions = ExperimentOptions(),  # noqa: B008 - frozen
    running: RunningOptions = RunningOptions(),  # noqa: B008
    json: JsonFlag = False,
) -> int:
    """Train all methods of a table from one float network: same start, epochs, order of data and validation split.

    What has ended is not repeated and what was stopped goes on, so a table can be made in pieces, with --methods and
    --minutes. Test data are read once a run. The folder gets methods.json; the published rows stand beside. Under
    `torchrun --nproc-per-node N -m impq_opt baselines ...` the processes share each batch.
    """
    need_torch("impq-opt baselines")
    running.check()
    if seeds < 1:
        raise OptionError("must be at least 1", where="--seeds", value=seeds)
    plan = experiment.plan(None, recipe)
    rows = plan.but(table=plan.table | assigned(set_)).rows(tuple(methods.split(",")) if methods else ())
    if not rows:
        raise OptionError("has no table of methods", where="recipe", value=recipe)
    with running.begun() as report:
        told = _run(plan, rows, seeds, output, experiment, running.device, report)
    if told is None:
        return running.stopped()
    if first_process():
        document = {"title": plan.title, "rows": [row.to_dict() for row in told]}
        atomic_write(output / "methods.json", json_module.dumps(document, indent=1).encode())
        if json:
            print_json(document)
        else:
            print_methods(plan.title, told)
    return 0


def _run(
    plan: Recipe,
    rows: dict[str, Settings],
    seeds: int,
    output: Path,
    experiment: ExperimentOptions,
    device: str,
    report: Report,
) -> list[Row] | None:
    """Return the table, or None where time ran out."""
    from impq_opt.baselines import run_folder, run_methods, table
    from impq_opt.rounds import PausedError, accuracy
    from impq_opt.rounds.recipes import pretrained, splits_of

    splits = splits_of(plan, root=experiment.root)
    plan = plan.sized(splits)
    try:
        start = pretrained(plan, output, weights=experiment.weights, root=experiment.root, device=device, report=report)
        runs = run_methods(start, splits, rows, range(seeds), output, report=report)
    except PausedError:
        return None
    test = splits.fitted(start).test
    assert test is not None
    return table(
        start, runs, rows, partial(run_folder, output),
        test=test, validation=splits.validation, in_float=accuracy(start, test), published=plan.published,
    )  # fmt: skip
