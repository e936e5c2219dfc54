"""What the quantizers do to weights and activations, as mean squared rounding errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from impq_opt.measure.survey import Survey
from impq_opt.quantize import ActivationQuantizer, WeightQuantizer
from impq_opt.tracing.nodes import Layout
from impq_opt.tracing.sites import ActivationSite, WeightSite

__all__ = ["activation_errors", "activation_quantizer", "kernel_errors", "rounded_weight"]


def rounded_weight(survey: Survey, site: WeightSite, bits: float) -> Tensor:
    """Return all weights of a site at one precision, by the quantizer of the IMPQ paper."""
    weight = survey.network.weight_tensor(site)
    quantizer = WeightQuantizer(weight.shape, [bits], [weight.numel()]).to(weight.device)
    with torch.no_grad():
        rounded: Tensor = quantizer(weight)
    return rounded


def kernel_errors(survey: Survey, site: WeightSite) -> Tensor:
    """Return the mean squared rounding error (out, K), float64, of every output kernel at every candidate."""
    weight = survey.network.weight_tensor(site)
    errors = [(rounded_weight(survey, site, b) - weight).double().flatten(1).square().mean(1) for b in survey.bits]
    return torch.stack(errors, dim=1)


def activation_quantizer(survey: Survey, site: ActivationSite, bits: float) -> ActivationQuantizer:
    """Return the quantizer of an activation at one precision."""
    over = survey.ranges[site.name]
    return ActivationQuantizer(bits, over.span, site.name, signed=over.signed)


def activation_errors(
    survey: Survey, x: Tensor, weights: Tensor, keep: Callable[[str, Tensor], Tensor] | None = None
) -> tuple[Tensor, dict[str, list[float]]]:
    """Return logits, and the mean squared rounding error of every activation at every candidate.

    Parameters
    ----------
    weights : Tensor (n,)
        Of the samples; errors are the weighted means over samples, divided by the sum of the weights.
    keep : callable (name, tensor) -> Tensor, optional
        Sees every activation, and returns what goes on in its place.
    """
    share = (weights / weights.sum()).to(x.device)
    sites = {site.node: site for site in survey.network.activations}
    errors: dict[str, list[float]] = {}

    def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        site, layout = sites[node], survey.network.layouts[node]
        with torch.no_grad():
            errors[site.name] = [
                float(_per_sample(layout, activation_quantizer(survey, site, b)(out) - out, len(x)) @ share)
                for b in survey.bits
            ]
        return keep(site.name, out) if keep else out

    return survey.network.run(x, visit, watch=frozenset(sites)), errors


def _per_sample(layout: Layout, error: Tensor, samples: int) -> Tensor:
    """Return the mean square (n,) of each sample's part."""
    return layout.by_sample(error, samples).flatten(1).double().square().mean(1)
