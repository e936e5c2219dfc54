"""What a report says, gathered before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from impq_opt.errors import AllocationError
from impq_opt.exactness.sums import nearest_float
from impq_opt.problem.allocation import Allocation
from impq_opt.report.curve import Curve, Strategy
from impq_opt.report.figures import (
    Figure,
    Series,
    bits_figure,
    depth_figure,
    mismatch_figure,
    size_figure,
    spread_figure,
)
from impq_opt.report.layers import Layer, layers_of, sensitivity_name

__all__ = ["Measured", "Report", "Strategy"]


@dataclass(frozen=True)
class Measured:
    """A measured mismatch beside the bound: how often the quantized network decides otherwise than the float one.

    Parameters
    ----------
    low, high : float
        Confidence interval of the mismatch.
    gaussian : float, optional
        The Gaussian estimate of the mismatch.
    accuracy, float_accuracy : float, optional
        Of the quantized network and of the float network on the same data.
    samples : int, optional
    """

    label: str
    bound: float
    mismatch: float
    low: float
    high: float
    gaussian: float | None = None
    accuracy: float | None = None
    float_accuracy: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class Report:
    """All that the page and the pictures show.

    Parameters
    ----------
    title : str
    allocation : Allocation
        With an answer.
    curve : Curve, optional
        The frontier.
    strategies : sequence of Strategy
    measured : sequence of Measured
    rounds : sequence of mapping
        Records of a run, as ``log.jsonl`` has them.
    origin : mapping
        Facts for the provenance.
    unasked : mapping of str to str
        Strategies that were not asked, each with the reason.
    packed_bytes : int, optional
        Size of the file that holds the packed network.
    """

    title: str
    allocation: Allocation
    curve: Curve | None = None
    strategies: Sequence[Strategy] = ()
    measured: Sequence[Measured] = ()
    rounds: Sequence[Mapping[str, Any]] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    unasked: Mapping[str, str] = field(default_factory=dict)
    packed_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.allocation.choice is None:
            raise AllocationError(
                f"there is nothing to report: the status is {self.allocation.status.value}",
                hint=str(self.allocation.diagnosis or ""),
            )

    @property
    def held(self) -> Measured | None:
        """What was measured of this very allocation: its bound is this damage, to the last bit."""
        return next((row for row in self.measured if row.bound == self.allocation.damage), None)

    @cached_property
    def layers(self) -> list[Layer]:
        """What each layer gets."""
        return layers_of(self.allocation)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures by key, in the order of the page."""
        what = sensitivity_name(self.allocation.problem)
        figures = [bits_figure(self.layers), spread_figure(self.layers), depth_figure(self.layers, what)]
        figures.append(size_figure(self.layers, what))
        if self.curve is not None:
            figures.append(self.curve.figure(self.allocation, self.strategies))
        if self.measured:
            figures.append(mismatch_figure([(m.label, m.bound, m.gaussian, m.mismatch) for m in self.measured]))
        if self.rounds:
            figures.append(_rounds_figure(self.rounds))
        return {figure.key: figure for figure in figures if figure is not None and figure.series}


def _rounds_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    runs: dict[str, list[Mapping[str, Any]]] = {}
    seeds = {record.get("seed", 0) for record in records}
    for record in records:
        seed = f", seed {record.get('seed', 0)}" if len(seeds) > 1 else ""
        runs.setdefault(f"{record.get('strategy', 'run')}{seed}", []).append(record)
    series = []
    for name, run in runs.items():
        for part in ("validation",) if len(runs) > 1 else ("validation", "test"):
            rows = [(r, _accuracy(r, part)) for r in run if (r.get("effective_bits") or {}).get("weights")]
            shown = [
                (float(r["effective_bits"]["weights"]), 100 * a, f"round {r['round']}")
                for r, a in rows
                if a is not None
            ]
            if shown:
                bits, accuracy, labels = zip(*shown, strict=True)
                series.append(Series(f"{name}: {part}", bits, accuracy, "line", labels))
    return Figure(
        "accuracy-by-bits",
        "Accuracy against bits, round by round",
        "Each point is a round of allocation and retraining; bits fall from right to left.",
        "effective bits of the weights",
        "accuracy [%]",
        series,
    )


def _accuracy(record: Mapping[str, Any], part: str) -> float | None:
    value = (record.get("accuracy") or {}).get(part)
    return None if value is None else nearest_float(value)
