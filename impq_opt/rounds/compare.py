"""Strategies side by side: one start, the same epochs, the same data order, several seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from impq_opt.errors import OptionError
from impq_opt.rounds.comparison import Runs
from impq_opt.rounds.loop import Measure, Splits, rounds
from impq_opt.rounds.record import Record
from impq_opt.rounds.settings import Settings
from impq_opt.rounds.watch import Report

__all__ = ["compare"]


def compare(
    networks: Callable[[int], nn.Module],
    data: Splits,
    strategies: Mapping[str, Settings],
    seeds: Sequence[int],
    folder: str | Path,
    *,
    measurer: Callable[[Settings], Measure],
    report: Report | None = None,
) -> Runs:
    """Run every strategy with every seed; return the records of each run, by strategy.

    A finished run is not repeated, and one that was stopped goes on, so the comparison can be made in pieces.

    Parameters
    ----------
    networks : callable
        Seed to the trained float network that this seed's runs all start from.
    strategies : mapping
        Settings by name. Whatever decides how round 0 is trained must agree, and so must the epochs.
    seeds : sequence of int
    folder : path
        Gets ``seed-S/start`` and ``seed-S/NAME``.
    measurer : callable
        Makes the measurement of a strategy, such as :func:`impq_opt.rounds.measuring.measurer`.

    Raises
    ------
    OptionError
        The strategies do not start alike, or train for different epochs.
    """
    report = report or Report()
    starts = {str(settings.start().seeded(0).as_dict()) for settings in strategies.values()}
    if len(starts) > 1:
        raise OptionError("strategies must start alike", where="compare", hint="give them one start and one training")
    epochs = {(settings.plan.rounds, settings.plan.epochs) for settings in strategies.values()}
    if len(epochs) > 1:
        raise OptionError("strategies must train for the same epochs", where="compare", value=sorted(epochs))
    measures = {name: measurer(settings) for name, settings in strategies.items()}
    runs: dict[str, list[list[Record]]] = {name: [] for name in strategies}
    for seed in seeds:
        network, place = networks(seed), Path(folder) / f"seed-{seed}"
        start = next(iter(strategies.values())).start().seeded(seed)
        quiet = dataclasses.replace(data, test=None)
        rounds(network, quiet, start, place / "start", measure=measurer(start), report=_prefixed(report, "start"))
        for name, settings in strategies.items():
            runs[name].append(
                rounds(
                    network,
                    data,
                    settings.seeded(seed),
                    place / name,
                    measure=measures[name],
                    start=place / "start",
                    report=_prefixed(report, f"seed {seed} {name}"),
                )
            )
    return runs


def _prefixed(report: Report, prefix: str) -> Report:
    return dataclasses.replace(report, show=lambda line: report.show(f"{prefix}: {line}"))
