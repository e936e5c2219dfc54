"""HAWQ-V2: the mean Hessian trace times the squared rounding error (Dong et al. 2020, arXiv:1911.03852)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from impq_opt.data.decisions import by_decision
from impq_opt.groups.damage import DamageTable
from impq_opt.measure.metrics.measured_error import error_law
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import activation_errors, rounded_weight
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["Hawq"]


class Hawq:
    """``trace(H_g) / n_g * |W - Q_b(W)|^2`` with Hutchinson's estimate of the trace; activations likewise, per sample.

    Every chunk draws signs of its own. A trace that comes out negative counts as zero: HAWQ assumes a minimum.
    """

    unit = "rise of the loss, second order"
    labels = True
    margins = False

    def columns(self, survey: Survey) -> int:
        return len(survey.bits) + 1

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        assert part.labels is not None
        network = survey.network
        held = {site.name: network.weight_tensor(site).detach().clone().requires_grad_() for site in network.weights}
        tensors = {node: held[site.name] for site in network.weights for node in network.weight_node(site)}
        seen: dict[str, Tensor] = {}

        def keep(name: str, out: Tensor) -> Tensor:
            seen[name] = out if out.requires_grad else out.detach().requires_grad_()  # before the first weights
            return seen[name]

        logits, errors = _run(survey, part, keep, tensors)
        labels, weights = by_decision(part.labels.cpu(), part.weights, network.decisions)
        assert labels is not None
        losses = functional.cross_entropy(logits.float(), labels.to(logits.device), reduction="none")
        loss = losses @ weights.to(losses)
        inputs = [*held.values(), *seen.values()]
        slopes = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
        pairs = [(i, g) for i, g in zip(inputs, slopes, strict=True) if g is not None and g.requires_grad]
        signs = [_signs(i, part.generator) for i, _ in pairs]
        turned = torch.autograd.grad([g for _, g in pairs], [i for i, _ in pairs], signs, allow_unused=True)
        traces = {
            id(i): (s * t).detach().double() for (i, _), s, t in zip(pairs, signs, turned, strict=True) if t is not None
        }
        rows = []
        for site in network.weights:
            trace = traces.get(id(held[site.name]), torch.zeros(site.shape, dtype=torch.float64)).flatten(1)
            total = survey.grouping.sum(site, trace if survey.grouping.fine else trace.sum(1))
            rows.append(
                torch.cat([torch.zeros(len(total), len(survey.bits), dtype=torch.float64), total.cpu()[:, None]], 1)
            )
        for node in network.activations:
            own = traces.get(id(seen[node.name]))
            rows.append(torch.tensor([[*errors[node.name], 0.0 if own is None else float(own.sum())]]).double())
        return torch.cat(rows).numpy()

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        mean, stderr = mean.copy(), stderr.copy()
        place = 0
        for site in survey.network.weights:
            weight = survey.network.weight_tensor(site)
            for column, bits in enumerate(survey.bits):
                square = (rounded_weight(survey, site, bits) - weight).double().square().flatten(1)
                total = survey.grouping.sum(site, square if survey.grouping.fine else square.sum(1)).cpu().numpy()
                rows = slice(place, place + len(total))
                per_weight = total / survey.sizes[rows]
                stderr[rows, column] = per_weight * stderr[rows, -1]
                mean[rows, column] = per_weight * mean[rows, -1]
            place = rows.stop
        return error_law(survey, mean, stderr)


def _run(
    survey: Survey, part: Chunk, keep: Callable[[str, Tensor], Tensor], tensors: dict[str, Tensor]
) -> tuple[Tensor, dict[str, list[float]]]:
    """Run on weights that require gradients."""
    network = survey.network
    before = network.tensors
    network.tensors = before | tensors
    try:
        return activation_errors(survey, part.x, part.weights, keep)
    finally:
        network.tensors = before


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8) * 2 - 1
    return signs.to(like.device, like.dtype)
