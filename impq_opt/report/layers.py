"""What an allocation does, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.groups.damage import PowerLaw
from impq_opt.instance.rows import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["Layer", "LayerIndex", "layers_of", "sensitivity_name"]


@dataclass(frozen=True)
class Layer:
    """One layer's weights, or one activation.

    Parameters
    ----------
    groups, size : int
        Groups and elements.
    bits : float
        Mean precision of its elements.
    shares : mapping of float to float
        Share of its elements at each precision.
    sensitivity : float
        Sum of its groups' sensitivities E, or of their damages at the coarsest candidate where damage is a table.
    cost, damage : float
        Shares of the total, 0 to 1.
    pinned, kept : int
        How many of its groups are pinned, and how many of no known damage are kept at their most bits.
    """

    name: str
    kind: str
    groups: int
    size: int
    bits: float
    shares: Mapping[float, float]
    sensitivity: float
    cost: float
    damage: float
    pinned: int
    kept: int


class LayerIndex:
    """Which layer each group belongs to: groups of one layer name and one kind, in the order of the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        names, weights = problem.names, problem.weights()
        keys: dict[tuple[str, bool], int] = {}
        of_label = np.array(
            [
                keys.setdefault((layer, bool(weights[names.offsets[place]])), len(keys))
                for place, layer in enumerate(names.layers)
            ]
        )
        self.of_group: IntArray = of_label[names.label_of]
        self.keys = [(name, KIND_NAMES[0 if weight else 1]) for name, weight in keys]

    @cached_property
    def sizes(self) -> FloatArray:
        """Elements (L,) of each layer."""
        return self.sum(self.problem.sizes.astype(np.float64))

    def sum(self, values: FloatArray) -> FloatArray:
        """Return the sums (L,) of values (G,) over each layer."""
        return np.bincount(self.of_group, weights=values, minlength=len(self.keys)).astype(np.float64, copy=False)

    def mean_bits(self, choice: IntArray) -> FloatArray:
        """Return the mean precision (L,) of each layer's elements."""
        return self.sum(self.problem.sizes * self.problem.candidates.bits(choice)) / self.sizes


def layers_of(allocation: Allocation) -> list[Layer]:
    """Return what ``allocation`` gives each layer."""
    problem, index = allocation.problem, LayerIndex(allocation.problem)
    choice = np.asarray(allocation.choice)
    bits = problem.candidates.bits(choice)
    damage = index.sum(problem.damage.chosen(problem.candidates, choice))
    row = cost_row(problem, allocation.cost_weights)
    cost = index.sum(row.by_group(problem.candidates, choice, choice).astype(np.float64))
    sensitivity = index.sum(_sensitivities(problem))
    groups, mean = np.bincount(index.of_group), index.mean_bits(choice)
    held = np.zeros((2, len(problem)))
    held[0, list(problem.pins)] = 1
    held[1, list(problem.kept)] = 1
    pins, kept = index.sum(held[0] - held[1]), index.sum(held[1])
    levels = np.unique(bits)
    shares = np.array([index.sum(problem.sizes * (bits == level)) for level in levels]) / index.sizes
    return [
        Layer(
            name=name,
            kind=kind,
            groups=int(groups[k]),
            size=int(index.sizes[k]),
            bits=float(mean[k]),
            shares={float(level): float(share) for level, share in zip(levels, shares[:, k], strict=True) if share},
            sensitivity=float(sensitivity[k]),
            cost=float(cost[k] / cost.sum()) if cost.sum() else 0.0,
            damage=float(damage[k] / damage.sum()) if damage.sum() else 0.0,
            pinned=int(pins[k]),
            kept=int(kept[k]),
        )
        for k, (name, kind) in enumerate(index.keys)
    ]


def _sensitivities(problem: Problem) -> FloatArray:
    if isinstance(problem.damage, PowerLaw):
        return problem.damage.sensitivity
    valid = np.arange(problem.damage.values.shape[1]) < problem.candidates.counts(len(problem))[:, None]
    valid &= problem.damage.values < np.inf  # others are not allowed
    return np.where(valid, problem.damage.values, -np.inf).max(axis=1)


def sensitivity_name(problem: Problem) -> str:
    """Return what :attr:`Layer.sensitivity` is."""
    return "sensitivity E" if isinstance(problem.damage, PowerLaw) else "damage at the coarsest precision"
