"""The rise of the loss with one group quantized and all else in float, as measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from impq_opt.groups.damage import DamageTable
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import activation_quantizer, rounded_weight
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["LossDelta"]


class LossDelta:
    """Cross-entropy with group g at b bits minus that of the float network; falls count as zero.

    One forward pass per group and candidate: for layers, not for kernels by the thousand.
    """

    unit = "rise of the loss"
    labels = True
    margins = False

    def columns(self, survey: Survey) -> int:
        return len(survey.bits)

    @torch.no_grad()
    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        network = survey.network
        base = _loss(network.run(part.x), part)
        table = np.zeros((len(survey), len(survey.bits)))
        place = 0
        for site in network.weights:
            weight, groups = network.weight_tensor(site), survey.grouping.sizes(site)
            nodes = network.weight_node(site)
            for column, bits in enumerate(survey.bits):
                rounded, start = rounded_weight(survey, site, bits), 0
                for row, size in enumerate(groups.tolist(), place):
                    changed = weight.flatten().clone()
                    changed[start : start + size] = rounded.flatten()[start : start + size]
                    tensors = dict.fromkeys(nodes, changed.view_as(weight))
                    table[row, column] = _loss(network.run(part.x, tensors=tensors), part) - base
                    start += size
            place += len(groups)
        for row, node in enumerate(network.activations, place):
            for column, bits in enumerate(survey.bits):
                quantizer = activation_quantizer(survey, node, bits)

                def visit(name: str, out: Tensor, inputs: tuple[Any, ...], apply: Any = quantizer) -> Tensor:
                    return apply(out)

                table[row, column] = _loss(network.run(part.x, visit, watch=frozenset([node.node])), part) - base
        return table

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        return DamageTable(np.maximum(mean, 0), stderr)


def _loss(logits: Tensor, part: Chunk) -> float:
    assert part.labels is not None
    losses = functional.cross_entropy(logits.float(), part.labels, reduction="none")
    return float(losses.double() @ part.weights.to(losses.device))
