"""Which metric to allocate by: each one's allocation at the same storage, on a really quantized network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from impq_opt.data.dataset import Dataset
from impq_opt.measure.api import measure_each
from impq_opt.measure.replicates import Sampling
from impq_opt.solve import solve_in_passing
from impq_opt.types import FloatArray
from impq_opt.validate.reality import Reality, Validation

__all__ = ["Entry", "contest"]

_ACTIVATION_BITS = 8.0


@dataclass(frozen=True)
class Entry:
    """One metric at one budget: its name and unit, effective weight bits, and what the quantized network does."""

    metric: str
    unit: str
    effective_bits: float
    reality: Reality


def contest(
    network: nn.Module,
    data: Dataset,
    held_out: Dataset,
    metrics: Sequence[str],
    budgets: Sequence[float],
    *,
    groups: str = "layer",
    samples: int = 1024,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Entry]:
    """Measure by each metric, give each the same storage, round without retraining, and look at all of them together.

    Activations have 8 bits, so that weights alone make the difference. As a yardstick ``uniform`` comes first at each
    budget that is a whole number of bits.

    Parameters
    ----------
    network : nn.Module
    data, held_out : Dataset
        To measure on, and to look at the quantized network.
    metrics : sequence of str
    budgets : sequence of float
        Average bits per weight.
    tell : callable, optional
        Told each thing that seems wrong with the data, a sentence.
    progress : callable, optional
        Told the part of the work, how much of it is done, and of how much.
    """
    sampling = Sampling(samples=samples, concede=0.01, seed=seed)
    problems = measure_each(
        network, data, metrics, sampling=sampling, tell=tell, groups=groups, residual="accumulate", bits=range(1, 9),
        progress=None if progress is None else lambda name, done, total: progress(f"measuring by {name}", done, total),
    )  # fmt: skip
    first = next(iter(problems.values()))
    validation = Validation(network, first, held_out)
    if tell is not None:
        for note in validation.notes:
            tell(note)
    weights = first.weights()
    total = int(first.sizes[weights].sum())
    rows: list[tuple[str, FloatArray]] = []
    for budget in budgets:
        chosen = {"uniform": np.full(len(first), budget)} if budget == int(budget) else {}
        for name, problem in problems.items():
            answer = solve_in_passing(problem, budget=int(budget * total), time_limit=60.0)
            if answer.choice is not None:
                chosen[name] = np.array(answer.bits, dtype=np.float64)
        for name, bits in chosen.items():
            bits[~weights] = _ACTIVATION_BITS
            rows.append((name, bits))
    units = {name: problem.damage_unit for name, problem in problems.items()}
    return [
        Entry(name, units.get(name, ""), float(np.average(bits[weights], weights=first.sizes[weights])), reality)
        for (name, bits), reality in zip(rows, validation.hold_all([bits for _, bits in rows], progress), strict=True)
    ]
