"""The table of methods: what each comes to in size, cost and accuracy, and the published row beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from torch import nn

from impq_opt.quantize import WeightSize, quantize, weight_size
from impq_opt.rounds import Settings
from impq_opt.rounds.comparison import Estimate, Runs, estimate, mean_costs
from impq_opt.rounds.folder import Folder
from impq_opt.rounds.recipes import Published
from impq_opt.rounds.record import Cost, Record
from impq_opt.training.samples import Samples

__all__ = ["Row", "table"]


@dataclass(frozen=True)
class Row:
    """A row of the table: means over seeds.

    Parameters
    ----------
    name, method : str
        Of the row, and how its weights are rounded.
    epochs : int
    weight_bits : Estimate
        Mean bits of a weight: log2 of its levels, with scales and codebooks, and weights in float at 32 (B_w,eff).
    activation_bits : Estimate, optional
        Mean bits of an element of an activation; 32 in float (B_a,eff).
    storage : Estimate
        Bits of all weights as they are packed.
    costs : mapping of str to Cost
        Means of the costs of :class:`impq_opt.rounds.record.Record`, each by one formula for all rows.
    validation, test : Estimate
        Shares labelled right. With one seed the standard error is that of so many samples, sqrt(p (1 - p) / n).
    float_test : float, optional
        Of the float network that all start from.
    seeds : int
    published : Published, optional
    """

    name: str
    method: str
    epochs: int
    weight_bits: Estimate
    activation_bits: Estimate | None
    storage: Estimate
    costs: Mapping[str, Cost]
    validation: Estimate
    test: Estimate
    float_test: float | None
    seeds: int
    published: Published | None = None

    @property
    def change(self) -> float | None:
        """Test accuracy less that of the float network."""
        return None if self.float_test is None else self.test.mean - self.float_test

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))  # of NaN null
        return plain | {"change": self.change}


def table(
    network: nn.Module,
    runs: Runs,
    rows: Mapping[str, Settings],
    folder_of: Callable[[int, str], Path],
    *,
    test: Samples,
    validation: Samples,
    in_float: float | None = None,
    published: Sequence[Published] = (),
) -> list[Row]:
    """Return the rows of runs that have ended.

    Parameters
    ----------
    network : nn.Module
        In float, that all started from.
    runs : mapping
        Records by row, run by run.
    rows : mapping
        Settings by name.
    folder_of : callable
        Seed and row to the folder of the run, as :func:`impq_opt.baselines.run_folder` has it.
    test, validation : Samples
        That the records tell of.
    in_float : float, optional
        Test accuracy of ``network``.
    published : sequence of Published
        That name the rows that they stand beside.
    """
    told = []
    for name, trials in runs.items():
        last = [run[-1] for run in trials]
        sizes = [_size(network, rows[name], folder_of(record.seed, name), record) for record in last]
        told.append(
            Row(
                name=name,
                method=rows[name].quantizing.method or "as measured",
                epochs=last[0].total_epochs,
                weight_bits=Estimate.of([size.effective for size in sizes]),
                activation_bits=estimate([record.effective_bits.activations for record in last]),
                storage=Estimate.of([size.packed * size.elements for size in sizes]),
                costs=mean_costs(last),
                validation=_accuracy([record.accuracy.validation for record in last], len(validation)),
                test=_accuracy([record.accuracy.test or 0.0 for record in last], len(test)),
                float_test=in_float,
                seeds=len(last),
                published=next((line for line in published if line.row == name), None),
            )
        )
    return told


def _size(network: nn.Module, settings: Settings, folder: Path, record: Record) -> WeightSize:
    """Return what the weights of a run take; a function of its precisions, not of what was learned."""
    problem = Folder(folder).problem(record.round)
    weights = problem.weights()
    alone = problem.revise(weights_only=True)
    bits = np.array(record.bits)[weights]
    return weight_size(quantize(network, alone, bits, scheme=settings.quantizing.method or None))


def _accuracy(shares: Sequence[float], samples: int) -> Estimate:
    estimate = Estimate.of(shares)
    if len(shares) > 1:
        return estimate
    p = estimate.mean
    return dataclasses.replace(estimate, stderr=math.sqrt(p * (1 - p) / samples))
