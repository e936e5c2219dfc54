"""What an allocation does, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.groups.damage import PowerLaw
from impq_opt.instance.cost_row import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["Layer", "LayerIndex", "alike", "layers_of", "sensitivity_name"]


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
    formats : tuple of str
        What its groups take, by name, each once; empty where candidates are bits alone.
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
    formats: tuple[str, ...] = ()


class LayerIndex:
    """Which layer each group belongs to: groups of one layer name and one kind, in the order of the network.

    Weights stand as the problem has them. An activation stands before the first layer that reads it, or, where none
    does, with the activation that follows it.
    """

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
        order = np.argsort(_depths(problem, of_label[names.label_of], [weight for _, weight in keys]), kind="stable")
        place_of = np.empty_like(order)
        place_of[order] = np.arange(len(order))
        declared = list(keys)
        self.of_group: IntArray = place_of[of_label][names.label_of]
        self.keys = [(declared[k][0], KIND_NAMES[0 if declared[k][1] else 1]) for k in order]

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


def _depths(problem: Problem, of_group: IntArray, is_weight: list[bool]) -> FloatArray:
    """Return the depth (L,) of each layer: weights count on, an activation is half a step before who reads it first."""
    weight = np.array(is_weight)
    depth = np.where(weight, np.cumsum(weight, dtype=np.float64), np.inf)
    for readers, tensors in _reads(problem):
        np.minimum.at(depth, of_group[tensors], depth[of_group[readers]] - 0.5)
    if np.isinf(depth[~weight]).all():
        return np.arange(len(depth), dtype=np.float64)  # nothing tells who reads whom
    following = np.inf
    for place in range(len(depth) - 1, -1, -1):
        if not weight[place]:
            depth[place] = following = min(depth[place], following) if np.isinf(depth[place]) else depth[place]
    return depth


def _reads(problem: Problem) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield weight groups with the activation groups that they read."""
    if problem.reads is not None:
        readers = np.flatnonzero(problem.reads >= 0)
        yield readers, problem.reads[readers]
    if problem.also_reads is not None:
        yield problem.also_reads[:, 0], problem.also_reads[:, 1]


def alike(layers: Sequence[Layer]) -> dict[str, float]:
    """Return the kinds of which all of several layers get the same bits, with those bits."""
    bits = {kind: [layer for layer in layers if layer.kind == kind] for kind in KIND_NAMES}
    return {
        kind: some[0].bits
        for kind, some in bits.items()
        if len(some) > 1 and len({level for layer in some for level in layer.shares}) == 1
    }


def layers_of(allocation: Allocation) -> list[Layer]:
    """Return what ``allocation`` gives each layer."""
    problem, index = allocation.problem, LayerIndex(allocation.problem)
    choice = np.asarray(allocation.choice)
    bits = problem.candidates.bits(choice)
    alone = problem.damage.chosen(problem.candidates, choice)
    damage = _shares(index, alone + problem.interaction_shares(choice))
    row = cost_row(problem, allocation.cost_weights)
    cost = _shares(index, row.by_group(problem.candidates, choice, choice).astype(np.float64))
    sensitivity = index.sum(_sensitivities(problem))
    groups, mean = np.bincount(index.of_group), index.mean_bits(choice)
    held = np.zeros((2, len(problem)))
    held[0, list(problem.pins)] = 1
    held[1, list(problem.kept)] = 1
    pins, kept = index.sum(held[0] - held[1]), index.sum(held[1])
    levels = np.unique(bits)
    formats: list[dict[str, None]] = [{} for _ in index.keys]
    if problem.candidates.formats:
        for group, (layer, column) in enumerate(zip(index.of_group.tolist(), choice.tolist(), strict=True)):
            formats[layer][problem.candidates.label(group, column)] = None
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
            cost=float(cost[k]),
            damage=float(damage[k]),
            pinned=int(pins[k]),
            kept=int(kept[k]),
            formats=tuple(formats[k]),
        )
        for k, (name, kind) in enumerate(index.keys)
    ]


def _shares(index: LayerIndex, values: FloatArray) -> FloatArray:
    """Return the share (L,) of each layer in the sum of ``values`` (G,), which float64 need not hold; 0 of nothing."""
    by_layer = index.sum(values / (values.max() or 1.0))
    return by_layer / (by_layer.sum() or 1.0)


def _sensitivities(problem: Problem) -> FloatArray:
    if isinstance(problem.damage, PowerLaw):
        return problem.damage.sensitivity
    valid = np.arange(problem.damage.values.shape[1]) < problem.candidates.counts(len(problem))[:, None]
    valid &= problem.damage.values < np.inf  # others are not allowed
    return np.where(valid, problem.damage.values, -np.inf).max(axis=1)


def sensitivity_name(problem: Problem) -> str:
    """Return what :attr:`Layer.sensitivity` is."""
    return "sensitivity E" if isinstance(problem.damage, PowerLaw) else "damage at the coarsest precision"
