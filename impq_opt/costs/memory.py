"""The most memory that activations take at any step of the execution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impq_opt.costs.terms import CostTerm
from impq_opt.errors import ProblemError
from impq_opt.groups.arrays import ACTIVATION
from impq_opt.groups.layout import Layout
from impq_opt.types import IntArray

__all__ = ["PeakActivationMemory", "lifetimes"]


@dataclass(frozen=True)
class PeakActivationMemory(CostTerm):
    """The largest sum of N B over the activation groups in memory together, one sample."""

    name: str = "peak-activation-memory"
    unit: str = "bit"
    source: str = "largest sum of N B over the activations alive at one step of the execution, one sample"

    def slope(self, layout: Layout) -> IntArray:
        raise NotImplementedError("a peak is the largest of several rows")

    def peaks(self, layout: Layout) -> tuple[tuple[str, IntArray], ...]:
        groups, steps = lifetimes(layout)
        alive = {
            step: frozenset(groups[(steps[:, 0] <= step) & (step <= steps[:, 1])].tolist())
            for step in sorted(set(steps.reshape(-1).tolist()))
        }
        rows = []
        seen: set[frozenset[int]] = set()
        for step, members in alive.items():
            # A step whose tensors are all alive at another step is never the peak alone.
            if members and members not in seen and not any(members < other for other in alive.values()):
                seen.add(members)
                slope = np.zeros(len(layout), dtype=np.int64)
                inside = np.array(sorted(members), dtype=np.int64)
                slope[inside] = layout.sizes[inside]
                rows.append((f"{self.name}[{step}]", slope))
        return tuple(rows)


def lifetimes(layout: Layout, cost: str = "peak-activation-memory") -> tuple[IntArray, IntArray]:
    """Return the activation groups (n,) and the first and last step (n, 2) at which each is in memory.

    Where the problem does not say (:attr:`Layout.steps`), layers run in the order of their groups, and a tensor
    is made by the layer before the first that reads it and kept until the last.

    Raises
    ------
    ProblemError
        Where activations do not say when they are in memory.
    """
    kinds = layout.kinds
    groups = np.empty(0, dtype=np.int64) if kinds is None else np.flatnonzero(kinds == ACTIVATION)
    if len(groups) == 0:
        raise ProblemError("the problem has no activation groups", where=f"costs.{cost}", hint="declare their kind")
    if layout.steps is not None:
        return groups, layout.steps[groups]
    return groups, _from_order(layout, groups, cost)


def _from_order(layout: Layout, groups: IntArray, cost: str) -> IntArray:
    weights = np.flatnonzero(layout.weights())
    layers = np.array(layout.names.layers, dtype=object)[layout.names.label_of[weights]]
    order = {layer: place + 1 for place, layer in enumerate(dict.fromkeys(layers.tolist()))}
    step = np.zeros(len(layout), dtype=np.int64)
    step[weights] = [order[layer] for layer in layers.tolist()]
    first = np.full(len(layout), np.iinfo(np.int64).max)
    last = np.full(len(layout), -1)
    if layout.reads is not None:
        readers = weights[layout.reads[weights] >= 0]
        np.minimum.at(first, layout.reads[readers], step[readers] - 1)
        np.maximum.at(last, layout.reads[readers], step[readers])
    if layout.also_reads is not None:
        reader, read = layout.also_reads[:, 0], layout.also_reads[:, 1]
        np.minimum.at(first, read, step[reader] - 1)
        np.maximum.at(last, read, step[reader])
    unread = groups[last[groups] < 0]
    if len(unread):
        raise ProblemError(
            "no weight group reads it, so when it is in memory is not known",
            where=f"costs.{cost}: {layout.names[int(unread[0])]}",
            hint="declare steps",
        )
    return np.stack([first[groups], last[groups]], axis=1)
