"""The most memory that activations take at any step of the execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from impq_opt.arrays import ACTIVATION
from impq_opt.costs.terms import CostTerm
from impq_opt.errors import ProblemError

if TYPE_CHECKING:
    from impq_opt.problem import Problem

__all__ = ["PeakActivationMemory", "lifetimes"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PeakActivationMemory(CostTerm):
    """The largest sum of N B over the activation groups in memory together, one sample."""

    name: str = "peak-activation-memory"
    unit: str = "bit"
    source: str = "largest sum of N B over the activations alive at one step of the execution, one sample"

    def slope(self, problem: Problem) -> IntArray:
        raise NotImplementedError("a peak is the largest of several rows")

    def peaks(self, problem: Problem) -> tuple[tuple[str, IntArray], ...]:
        groups, steps = lifetimes(problem)
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
                slope = np.zeros(len(problem), dtype=np.int64)
                inside = np.array(sorted(members), dtype=np.int64)
                slope[inside] = problem.sizes[inside]
                rows.append((f"{self.name}[{step}]", slope))
        return tuple(rows)


def lifetimes(problem: Problem) -> tuple[IntArray, IntArray]:
    """Return the activation groups (n,) and the first and last step (n, 2) at which each is in memory.

    Where the problem does not say (:attr:`Problem.steps`), layers run in the order of their groups, and a tensor
    is made by the layer before the first that reads it and kept until the last.
    """
    kinds = problem.kinds
    groups = np.empty(0, dtype=np.int64) if kinds is None else np.flatnonzero(kinds == ACTIVATION)
    if len(groups) == 0:
        raise ProblemError(
            "the problem has no activation groups", where="costs.peak-activation-memory", hint="declare their kind"
        )
    if problem.steps is not None:
        return groups, problem.steps[groups]
    return groups, _from_order(problem, groups)


def _from_order(problem: Problem, groups: IntArray) -> IntArray:
    weights = np.flatnonzero(problem.weights())
    layers = np.array(problem.names.layers, dtype=object)[problem.names.label_of[weights]]
    order = {layer: place + 1 for place, layer in enumerate(dict.fromkeys(layers.tolist()))}
    step = np.zeros(len(problem), dtype=np.int64)
    step[weights] = [order[layer] for layer in layers.tolist()]
    first = np.full(len(problem), np.iinfo(np.int64).max)
    last = np.full(len(problem), -1)
    if problem.reads is not None:
        readers = weights[problem.reads[weights] >= 0]
        np.minimum.at(first, problem.reads[readers], step[readers] - 1)
        np.maximum.at(last, problem.reads[readers], step[readers])
    if problem.also_reads is not None:
        reader, read = problem.also_reads[:, 0], problem.also_reads[:, 1]
        np.minimum.at(first, read, step[reader] - 1)
        np.maximum.at(last, read, step[reader])
    unread = groups[last[groups] < 0]
    if len(unread):
        raise ProblemError(
            "no weight group reads it, so when it is in memory is not known",
            where=f"costs.peak-activation-memory: {problem.names[int(unread[0])]}",
            hint="declare steps",
        )
    return np.stack([first[groups], last[groups]], axis=1)
