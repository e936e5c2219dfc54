"""Running all rows of a table: one start, the same epochs, the same order of data, several seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from impq_opt.errors import OptionError
from impq_opt.rounds import Report, Settings, Splits, rounds
from impq_opt.rounds.comparison import Runs
from impq_opt.rounds.measuring import measurer, surveyor
from impq_opt.rounds.record import Record

__all__ = ["run_folder", "run_methods"]


def run_folder(folder: str | Path, seed: int, name: str) -> Path:
    """Return the folder of the run of one row with one seed."""
    return Path(folder) / f"seed-{seed}" / name


def run_methods(
    network: nn.Module,
    data: Splits,
    rows: Mapping[str, Settings],
    seeds: Sequence[int],
    folder: str | Path,
    *,
    report: Report | None = None,
) -> Runs:
    """Train every row with every seed from ``network``; return the records of each run, by row.

    A run that has ended is not repeated and one that was stopped goes on, so a table can be made in pieces; seed by
    seed, so that whole tables come first. Test data are read once a run, after its last epoch.

    Parameters
    ----------
    network : nn.Module
        Trained, in float; left as it is.
    data : Splits
    rows : mapping
        Settings by name, as :meth:`impq_opt.rounds.recipes.Recipe.rows` gives them.
    seeds : sequence of int
    folder : path
        Gets ``seed-S/NAME``.
    report : Report, optional

    Raises
    ------
    OptionError
        Rows that train for different epochs, or in batches of different sizes.
    PausedError
        The report's deadline has passed.
    """
    report = report or Report()
    _check_equal(rows)
    # What cannot be is told before training; rows of one precision have nothing to choose.
    measures = {name: (measurer if row.plan.rounds else surveyor)(row) for name, row in rows.items()}
    runs: dict[str, list[list[Record]]] = {name: [] for name in rows}
    for seed in seeds:
        for name, settings in rows.items():
            told = dataclasses.replace(report, show=_prefixed(report, f"seed {seed} {name}"))
            where = run_folder(folder, seed, name)
            runs[name].append(rounds(network, data, settings.seeded(seed), where, measure=measures[name], report=told))
    return runs


def _check_equal(rows: Mapping[str, Settings]) -> None:
    """Raise OptionError unless all rows see the same batches: as many epochs, and of one size."""
    for what, asked in (
        ("epochs", {name: row.plan.epochs_before(row.plan.rounds + 1) for name, row in rows.items()}),
        ("batch", {name: row.training.batch for name, row in rows.items()}),
        ("augment", {name: row.training.augment for name, row in rows.items()}),
    ):
        if len(set(asked.values())) > 1:
            raise OptionError("rows must train on the same batches", where=f"methods: {what}", value=asked)


def _prefixed(report: Report, prefix: str) -> Callable[[str], None]:
    return lambda line: report.show(f"{prefix}: {line}")
