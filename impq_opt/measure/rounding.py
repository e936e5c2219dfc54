"""What the quantizers do to weights and activations: squared rounding errors, and what they do to margins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure.estimators import Squares
from impq_opt.measure.shifts import rounded, whole_below
from impq_opt.measure.survey import Survey
from impq_opt.quantize import UniformActivation
from impq_opt.tracing.nodes import Layout
from impq_opt.tracing.sites import ActivationSite, WeightSite
from impq_opt.types import FloatArray

__all__ = [
    "activation_errors", "as_rounded", "error_columns", "rounded_activation", "rounded_weight"
]  # fmt: skip


def rounded_weight(survey: Survey, site: WeightSite, bits: float) -> Tensor:
    """Return all weights of a site at one precision, on the site's grid.

    Where it has no quantizer of that precision, with the errors of the next one below, as much smaller as steps are.
    """
    weight, stored = survey.network.weight_tensor(site), survey.network.stored_type(site)
    whole = whole_below(bits)
    value = rounded(weight, survey.grid(site), whole, survey.grouping.sizes(site), stored)
    return value if whole == bits else torch.lerp(weight, value, 2.0 ** (whole - bits))


def rounded_activation(survey: Survey, site: ActivationSite, values: Tensor, bits: float) -> Tensor:
    """Return the values of an activation at one precision; as weights are where there is no quantizer of it."""
    over, whole = survey.ranges[site.name], whole_below(bits)
    value = UniformActivation(whole, over.span, site.name, signed=over.signed)(values)
    return value if whole == bits else torch.lerp(values, value, 2.0 ** (whole - bits))


def error_columns(survey: Survey, squares: Squares) -> FloatArray:
    """Return what rounding errors that are no noise do to the margins, (G, 2 K); zero for all other groups.

    The first K columns, one a candidate, are what these errors would do if their signs were random: the sum of squared
    gradients times squared errors. The others are what they do as they are, to first order: the squared sum of
    gradients times errors.
    """
    shifts, width = survey.shifts, len(survey.bits)
    assert shifts is not None

    def factors(site: WeightSite) -> Tensor:
        if site.name not in shifts.errors:
            return torch.zeros(site.shape[0], width, dtype=torch.float64)
        square = shifts.errors[site.name].double().square()
        return square.movedim(0, -1) if survey.grouping.fine else square.mean(2).T

    table = np.zeros((len(survey), 2 * width))
    table[:, :width] = survey.fold(squares, weight=factors, activation=lambda site: [0.0] * width)
    for site in survey.unlike_noise:
        if site.name in squares.shifts:
            table[survey.rows(site), width:] = squares.shifts[site.name].cpu().numpy()
    return table


def as_rounded(
    survey: Survey, law: PowerLaw | DamageTable, mean: FloatArray, stderr: FloatArray, share: float = 1.0
) -> PowerLaw | DamageTable:
    """Return damages that rest on the errors as they are for groups whose errors are no noise, as ``law`` for others.

    Of the two things that :func:`error_columns` tells the larger one counts: errors that happen to cancel on these
    samples are no promise.

    Parameters
    ----------
    mean, stderr : ndarray (G, 2 K)
        As measured.
    share : float
        Of the first K columns: 1/2 where noise is taken to cross a margin on one side only.
    """
    if not survey.unlike_noise:
        return law
    values = law.at(slice(None), survey.bits).copy()
    errors = law.stderr if law.stderr is not None else np.full(len(law), np.nan)
    errors = errors[:, None] * law.scale(survey.bits) if isinstance(law, PowerLaw) else errors.copy()
    width = len(survey.bits)
    for site in survey.unlike_noise:
        rows = survey.rows(site)
        random, coherent = share * mean[rows, :width], mean[rows, width:]
        values[rows] = np.maximum(random, coherent)
        errors[rows] = np.where(coherent > random, stderr[rows, width:], share * stderr[rows, :width])
    return DamageTable(values, errors)


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
                float(_per_sample(layout, rounded_activation(survey, site, out, b) - out, len(x)) @ share)
                for b in survey.bits
            ]
        return keep(site.name, out) if keep else out

    return survey.network.run(x, visit, watch=frozenset(sites)), errors


def _per_sample(layout: Layout, error: Tensor, samples: int) -> Tensor:
    """Return the mean square (n,) of each sample's part."""
    return layout.by_sample(error, samples).flatten(1).double().square().mean(1)
