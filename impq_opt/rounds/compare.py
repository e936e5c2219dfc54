"""Strategies side by side: one start, the same epochs, the same data order, several seeds."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from impq_opt.documents.writing import atomic_write
from impq_opt.errors import MissingPackageError, OptionError
from impq_opt.rounds.loop import Measure, Report, Splits, rounds
from impq_opt.rounds.settings import Hyper, Schedule
from impq_opt.text import figure_text

__all__ = ["Estimate", "advantage", "against_end", "compare", "plot", "reached", "start_hyper", "trails"]

Records = list[dict[str, Any]]

# What decides how groups are cut and measured, which strategies may differ in: the start is uniform whatever they are.
_MEASURING = ("granularity", "metric", "estimator", "measure_samples", "concede", "measure_at")


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


def start_hyper(hyper: Hyper) -> Hyper:
    """Return what the training of round 0 alone depends on, so that all strategies share it."""
    plain = Schedule("fixed", hyper.start_bits, hyper.start_bits)  # never used: there is no round 1
    return dataclasses.replace(
        hyper,
        strategy="uniform",
        options={},
        minimize="storage",
        rounds=0,
        epochs=0,
        budget=plain,
        bound=None,
        monotone=False,
        take=((1, 1),),
        take_activations=((1, 1),),
        target_bits=None,
        target_cost=None,
        floor=None,
        **{name: getattr(Hyper, name) for name in _MEASURING},
    )


def compare(
    networks: Callable[[int], nn.Module],
    data: Splits,
    hypers: Mapping[str, Hyper],
    seeds: Sequence[int],
    folder: str | Path,
    *,
    measurer: Callable[[Hyper], Measure],
    report: Report | None = None,
) -> dict[str, list[Records]]:
    """Run every strategy with every seed; return the records of each run, by strategy.

    A finished run is not repeated, and one that was stopped goes on, so the comparison can be made in pieces.

    Parameters
    ----------
    networks : callable
        Seed to the trained float network that this seed's runs all start from.
    hypers : mapping
        By name. Whatever decides how round 0 is trained must agree, and so must the epochs.
    seeds : sequence of int
    folder : path
        Gets ``seed-S/start`` and ``seed-S/NAME``.
    measurer : callable
        Makes the measurement of a strategy, such as :func:`impq_opt.rounds.measuring.measurer`.
    """
    report = report or Report()
    starts = {str(start_hyper(dataclasses.replace(h, seed=0)).as_dict()) for h in hypers.values()}
    if len(starts) > 1:
        raise OptionError("strategies must start alike", where="compare", hint="give them one start and one training")
    epochs = {(h.rounds, h.epochs) for h in hypers.values()}
    if len(epochs) > 1:
        raise OptionError("strategies must train for the same epochs", where="compare", value=sorted(epochs))
    measures = {name: measurer(hyper) for name, hyper in hypers.items()}
    found: dict[str, list[Records]] = {name: [] for name in hypers}
    for seed in seeds:
        network, place = networks(seed), Path(folder) / f"seed-{seed}"
        some = start_hyper(dataclasses.replace(next(iter(hypers.values())), seed=seed))
        quiet = dataclasses.replace(data, test=None)
        rounds(network, quiet, some, place / "start", measure=measurer(some), report=_prefixed(report, "start"))
        for name, hyper in hypers.items():
            found[name].append(
                rounds(
                    network,
                    data,
                    dataclasses.replace(hyper, seed=seed),
                    place / name,
                    measure=measures[name],
                    start=place / "start",
                    report=_prefixed(report, f"seed {seed} {name}"),
                )
            )
    return found


def trails(found: Mapping[str, list[Records]]) -> list[dict[str, Any]]:
    """Return one row per strategy and round: means over seeds of bits, costs, damage and accuracies."""
    rows = []
    for name, runs in found.items():
        for number in range(min(map(len, runs))):
            some = [run[number] for run in runs]
            row: dict[str, Any] = {"strategy": name, "round": number, "epochs": some[0]["total_epochs"]}
            row["bits"] = Estimate.of([r["effective_bits"]["weights"] for r in some])
            activations = [r["effective_bits"]["activations"] for r in some]
            row["activation_bits"] = None if None in activations else Estimate.of(activations)
            row["costs"] = {
                cost: one | {"value": float(np.mean([r["costs"][cost]["value"] for r in some]))}
                for cost, one in some[0]["costs"].items()
            }
            row["damage"] = Estimate.of([r["damage"] for r in some])
            for split in ("train", "validation", "test"):
                values = [r["accuracy"][split] for r in some]
                row[split] = None if None in values else Estimate.of(values)
            rows.append(row)
    return rows


def reached(found: Mapping[str, list[Records]], reference: str) -> dict[str, dict[str, Any]]:
    """Return what each strategy needs to be as good as ``reference`` ends, on validation data, seed by seed.

    The goal of a seed is the final validation accuracy of the reference's run, less the standard error of its mean over
    seeds. Asked are the fewest effective bits of a round that reaches it, and the fewest epochs after which a round has
    both that accuracy and no more bits than the reference's run ends with. Seeds that never do
    are counted, not averaged.
    """
    last = [run[-1] for run in found[reference]]
    slack = Estimate.of([r["accuracy"]["validation"] for r in last]).stderr
    slack = 0.0 if math.isnan(slack) else slack
    answer: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        fewest, epochs = [], []
        for run, end in zip(runs, last, strict=True):
            good = [r for r in run if r["accuracy"]["validation"] >= end["accuracy"]["validation"] - slack]
            fewest += [min(_weight_bits(r) for r in good)] if good else []
            small = [r["total_epochs"] for r in good if _weight_bits(r) <= _weight_bits(end)]
            epochs += [min(small)] if small else []
        answer[name] = {
            "bits": Estimate.of(fewest) if fewest else None,
            "epochs": Estimate.of(epochs) if epochs else None,
            "seeds": len(runs),
            "seeds_that_reach_it": len(fewest),
            "seeds_that_reach_it_as_small": len(epochs),
        }
    return answer


def advantage(
    found: Mapping[str, list[Records]], reference: str, split: str = "validation"
) -> dict[str, list[dict[str, Any]]]:
    """Return how much more accurate each strategy is than ``reference`` at equal effective bits, paired by seed.

    Asked at the bits of each of the reference's rounds, run by run; the other run's accuracy is interpolated linearly
    between its rounds, the last at equal bits, and left out beyond them. The common start is none of them: a run that
    falls from it to its budget at once is compared by :func:`against_end`.

    Returns
    -------
    dict of str to list of dict
        By strategy: round of the reference, its mean bits, and the mean difference in accuracy with its standard error.
    """
    answer: dict[str, list[dict[str, Any]]] = {}
    for name, runs in found.items():
        if name == reference:
            continue
        rows = []
        for number in range(1, min(map(len, found[reference]))):
            differences, bits = [], []
            for run, other in zip(found[reference], runs, strict=True):
                at = _weight_bits(run[number])
                points = sorted({_weight_bits(r): r["accuracy"][split] for r in other[1:]}.items())
                if points and points[0][0] <= at <= points[-1][0] and None not in [a for _, a in points]:
                    value = np.interp(at, [b for b, _ in points], [a for _, a in points])
                    differences.append(float(value) - run[number]["accuracy"][split])
                    bits.append(at)
            if differences:
                rows.append({"round": number, "bits": Estimate.of(bits), "difference": Estimate.of(differences)})
        answer[name] = rows
    return answer


def against_end(found: Mapping[str, list[Records]], reference: str) -> dict[str, list[dict[str, Any]]]:
    """Return how every round of every strategy compares with the last of ``reference``, paired by seed.

    Returns
    -------
    dict of str to list of dict
        By strategy, the reference included, one row a round from 1 on: epochs so far, and the mean differences in
        effective weight bits and in accuracy (test: None where it was not read), each with its standard error.
    """
    last = [run[-1] for run in found[reference]]
    answer: dict[str, list[dict[str, Any]]] = {}
    for name, runs in found.items():
        answer[name] = []
        for number in range(1, min(map(len, runs))):
            pairs = [(run[number], end) for run, end in zip(runs, last, strict=True)]
            row: dict[str, Any] = {"round": number, "epochs": pairs[0][0]["total_epochs"]}
            row["bits"] = Estimate.of([_weight_bits(one) - _weight_bits(end) for one, end in pairs])
            for split in ("validation", "test"):
                values = [(one["accuracy"].get(split), end["accuracy"].get(split)) for one, end in pairs]
                some = [a - b for a, b in values if a is not None and b is not None]
                row[split] = Estimate.of(some) if len(some) == len(values) else None
            answer[name].append(row)
    return answer


def _weight_bits(record: dict[str, Any]) -> float:
    return float(record["effective_bits"]["weights"])


def plot(found: Mapping[str, list[Records]], path: str | Path, split: str = "validation") -> None:
    """Draw accuracy against effective weight bits and against epochs; bars are standard errors over seeds."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingPackageError("matplotlib", "a plot", "'impq-opt[report]'") from None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = [row for row in trails(found) if row[split] is not None]
    for name in found:
        own = [row for row in rows if row["strategy"] == name]
        heights = [100 * row[split].mean for row in own]
        label = figure_text(name)
        bars = [0 if math.isnan(row[split].stderr) else 100 * row[split].stderr for row in own]
        left.errorbar([row["bits"].mean for row in own], heights, bars, marker="o", ms=3, capsize=2, label=label)
        right.errorbar([row["epochs"] for row in own], heights, bars, marker="o", ms=3, capsize=2, label=label)
    left.set_xlabel("effective weight bits")
    left.invert_xaxis()
    left.set_ylabel(f"{split} accuracy [%]")
    right.set_xlabel("epochs of quantized training")
    left.legend(frameon=False)
    data, kind = io.BytesIO(), Path(path).suffix[1:]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rounds"}):  # small, and equal for equal figures
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    atomic_write(Path(path), data.getvalue())


def _prefixed(report: Report, prefix: str) -> Report:
    return dataclasses.replace(report, show=lambda line: report.show(f"{prefix}: {line}"))
