"""Runs of several strategies and seeds: means, and each held against the paper's heuristic."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from impq_opt.documents.writing import atomic_write
from impq_opt.errors import MissingPackageError
from impq_opt.rounds.record import Cost, Record, plain_record
from impq_opt.text import figure_text

__all__ = [
    "Advantage", "AgainstEnd", "Comparison", "Estimate", "Mean", "Reached", "Runs", "advantage", "against_end",
    "estimate", "mean_costs", "plot", "reached", "summary", "trails",
]  # fmt: skip

# Records of every run of a strategy, one run a seed.
Runs = Mapping[str, list[list[Record]]]

_REFERENCES = ("iterative", "slides", "authors-code")


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and its standard error; the error of a single seed is not known."""

    mean: float
    stderr: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Summarise one value per seed."""
        count = len(values)
        error = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
        return cls(float(np.mean(values)), error, count)

    def __str__(self) -> str:
        return f"{self.mean:.4g}" if math.isnan(self.stderr) else f"{self.mean:.4g} +- {self.stderr:.2g}"


@dataclass(frozen=True)
class Mean:
    """One round of a strategy, over seeds.

    Parameters
    ----------
    strategy : str
    round, epochs : int
    bits, damage : Estimate
        Effective weight bits, and the damage as measured.
    activation_bits, train, validation, test : Estimate, optional
        Where every run has one.
    costs : dict of str to Cost
        Means.
    """

    strategy: str
    round: int
    epochs: int
    bits: Estimate
    activation_bits: Estimate | None
    costs: dict[str, Cost]
    damage: Estimate
    train: Estimate | None
    validation: Estimate | None
    test: Estimate | None


@dataclass(frozen=True)
class Reached:
    """What a strategy needs to be as good as the reference ends; seeds that never are so are counted apart."""

    bits: Estimate | None
    epochs: Estimate | None
    seeds: int
    seeds_that_reach_it: int
    seeds_that_reach_it_as_small: int


@dataclass(frozen=True)
class Advantage:
    """How much more accurate a strategy is at the mean bits of one round of the reference."""

    round: int
    bits: Estimate
    difference: Estimate


@dataclass(frozen=True)
class AgainstEnd:
    """One round of a strategy less the last of the reference: effective weight bits and accuracies."""

    round: int
    epochs: int
    bits: Estimate
    validation: Estimate | None
    test: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """All that is told of some runs.

    Parameters
    ----------
    title : str
    runs : mapping
        Records by strategy, run by run.
    trails : list of Mean
    reference : str
        The paper's heuristic among several strategies, which the others are held against; empty where there is none.
    reached : dict of str to Reached
    advantage : dict of str to list of Advantage
    against_end : dict of str to list of AgainstEnd
        By strategy; empty without a reference.
    """

    title: str
    runs: Runs
    trails: list[Mean]
    reference: str = ""
    reached: dict[str, Reached] = field(default_factory=dict)
    advantage: dict[str, list[Advantage]] = field(default_factory=dict)
    against_end: dict[str, list[AgainstEnd]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return what ``comparison.json`` and ``--json`` say: plain values, null for the error of a single seed."""
        against: dict[str, Any] = {"reference": self.reference} if self.reference else {}
        return {
            "title": self.title,
            "trails": _plain(self.trails),
            "reached": against | _plain(self.reached),
            "advantage": against | _plain(self.advantage),
            "against_end": against | _plain(self.against_end),
            "runs": {name: [[plain_record(r) for r in run] for run in trials] for name, trials in self.runs.items()},
        }


def summary(title: str, runs: Runs) -> Comparison:
    """Return all comparisons of some runs, with the paper's heuristic as the reference where it is one of several."""
    rows = trails(runs)
    several = len(runs) > 1 or any(len(trials) > 1 for trials in runs.values())
    reference = next((name for name in _REFERENCES if name in runs), "") if several else ""
    if not reference:
        return Comparison(title, runs, rows)
    ways = reached(runs, reference), advantage(runs, reference), against_end(runs, reference)
    return Comparison(title, runs, rows, reference, *ways)


def trails(runs: Runs) -> list[Mean]:
    """Return one row per strategy and round: means over seeds of bits, costs, damage and accuracies."""
    rows = []
    for name, trials in runs.items():
        for number in range(min(map(len, trials))):
            records = [run[number] for run in trials]
            row = Mean(
                strategy=name,
                round=number,
                epochs=records[0].total_epochs,
                bits=Estimate.of([_weight_bits(r) for r in records]),
                activation_bits=estimate([r.effective_bits.activations for r in records]),
                costs=mean_costs(records),
                damage=Estimate.of([r.damage for r in records]),
                train=estimate([r.accuracy.train for r in records]),
                validation=estimate([r.accuracy.validation for r in records]),
                test=estimate([r.accuracy.test for r in records]),
            )
            rows.append(row)
    return rows


def reached(runs: Runs, reference: str) -> dict[str, Reached]:
    """Return what each strategy needs to be as good as ``reference`` ends, on validation data, seed by seed.

    The goal of a seed is the final validation accuracy of the reference's run, less the standard error of its mean over
    seeds. Asked are the fewest effective bits of a round that reaches it, and the fewest epochs after which a round has
    both that accuracy and no more bits than the reference's run ends with. Seeds that never do
    are counted, not averaged.
    """
    last = [run[-1] for run in runs[reference]]
    slack = Estimate.of([end.accuracy.validation for end in last]).stderr
    slack = 0.0 if math.isnan(slack) else slack
    answer = {}
    for name, trials in runs.items():
        fewest, epochs = [], []
        for run, end in zip(trials, last, strict=True):
            good = [r for r in run if r.accuracy.validation >= end.accuracy.validation - slack]
            fewest += [min(_weight_bits(r) for r in good)] if good else []
            small = [r.total_epochs for r in good if _weight_bits(r) <= _weight_bits(end)]
            epochs += [min(small)] if small else []
        answer[name] = Reached(
            bits=Estimate.of(fewest) if fewest else None,
            epochs=Estimate.of(epochs) if epochs else None,
            seeds=len(trials),
            seeds_that_reach_it=len(fewest),
            seeds_that_reach_it_as_small=len(epochs),
        )
    return answer


def advantage(runs: Runs, reference: str, split: str = "validation") -> dict[str, list[Advantage]]:
    """Return how much more accurate each strategy is than ``reference`` at equal effective bits, paired by seed.

    Asked at the bits of each of the reference's rounds, run by run; the other run's accuracy is interpolated linearly
    between its rounds, the last at equal bits, and left out beyond them. The common start is none of them: a run that
    falls from it to its budget at once is compared by :func:`against_end`.
    """
    answer = {}
    for name, trials in runs.items():
        if name == reference:
            continue
        rows = []
        for number in range(1, min(map(len, runs[reference]))):
            differences, bits = [], []
            for run, other in zip(runs[reference], trials, strict=True):
                at, own = _weight_bits(run[number]), getattr(run[number].accuracy, split)
                points = sorted({_weight_bits(r): getattr(r.accuracy, split) for r in other[1:]}.items())
                if points and points[0][0] <= at <= points[-1][0] and None not in [own, *(a for _, a in points)]:
                    value = np.interp(at, [b for b, _ in points], [a for _, a in points])
                    differences.append(float(value) - own)
                    bits.append(at)
            if differences:
                rows.append(Advantage(number, Estimate.of(bits), Estimate.of(differences)))
        answer[name] = rows
    return answer


def against_end(runs: Runs, reference: str) -> dict[str, list[AgainstEnd]]:
    """Return how every round of every strategy compares with the last of ``reference``, paired by seed.

    Returns
    -------
    dict of str to list of AgainstEnd
        By strategy, the reference included, one row a round from 1 on (test: None where it was not read).
    """
    last = [run[-1] for run in runs[reference]]
    answer = {}
    for name, trials in runs.items():
        rows = []
        for number in range(1, min(map(len, trials))):
            pairs = [(run[number], end) for run, end in zip(trials, last, strict=True)]
            tests = [
                None if r.accuracy.test is None or end.accuracy.test is None else r.accuracy.test - end.accuracy.test
                for r, end in pairs
            ]
            row = AgainstEnd(
                round=number,
                epochs=pairs[0][0].total_epochs,
                bits=Estimate.of([_weight_bits(r) - _weight_bits(end) for r, end in pairs]),
                validation=estimate([r.accuracy.validation - end.accuracy.validation for r, end in pairs]),
                test=estimate(tests),
            )
            rows.append(row)
        answer[name] = rows
    return answer


def _weight_bits(record: Record) -> float:
    bits = record.effective_bits.weights
    return math.nan if bits is None else bits


def mean_costs(records: Sequence[Record]) -> dict[str, Cost]:
    """Return the means of each cost that the first record has."""
    return {
        cost: Cost(value=float(np.mean([r.costs[cost].value for r in records])), unit=first.unit)
        for cost, first in records[0].costs.items()
    }


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Return the estimate where every seed has a value."""
    known = [value for value in values if value is not None]
    return Estimate.of(known) if len(known) == len(values) else None


def plot(runs: Runs, path: str | Path, split: str = "validation") -> None:
    """Draw accuracy against effective weight bits and against epochs; bars are standard errors over seeds.

    Raises
    ------
    MissingPackageError
        Where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingPackageError("matplotlib", "a plot", "'impq-opt[report]'") from None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = trails(runs)
    for name in runs:
        points = [
            (row, getattr(row, split)) for row in rows if row.strategy == name and getattr(row, split) is not None
        ]
        heights = [100 * value.mean for _, value in points]
        label = figure_text(name)
        bars = [0 if math.isnan(value.stderr) else 100 * value.stderr for _, value in points]
        left.errorbar([row.bits.mean for row, _ in points], heights, bars, marker="o", ms=3, capsize=2, label=label)
        right.errorbar([row.epochs for row, _ in points], heights, bars, marker="o", ms=3, capsize=2, label=label)
    left.set_xlabel("effective weight bits")
    left.invert_xaxis()
    left.set_ylabel(f"{split} accuracy [%]")
    right.set_xlabel("epochs of quantized training")
    left.legend(frameon=False)
    data, kind = io.BytesIO(), Path(path).suffix[1:]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rounds"}):  # small, and equal for equal figures
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    atomic_write(Path(path), data.getvalue())


def _plain(value: Any) -> Any:
    """Return dataclasses and records as dicts, NaN as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Cost):
        return {"value": value.value, "unit": value.unit}
    return None if isinstance(value, float) and math.isnan(value) else value
