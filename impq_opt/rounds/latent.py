"""What the latent weights say of a problem that was measured at their quantized values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.problem.problem import Problem
from impq_opt.quantize import activation_quantizers, load_method, quantized_weights
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.quantize.origin import labels_of
from impq_opt.types import FloatArray

__all__ = ["RESTATED", "group_means", "with_latent_ranges", "with_rounding_errors"]


def group_means(problem: Problem, weights: Mapping[str, Tensor]) -> FloatArray:
    """Return mean abs(w) (G,) of each weight group, by weights of these names; 1 for activations."""
    means = np.ones(len(problem))
    for _, groups, values in _weights_of(problem, weights):
        sizes = problem.sizes[groups]
        sums = np.add.reduceat(np.abs(values.reshape(-1)), np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        means[groups] = sums / sizes
    return means


def with_latent_ranges(problem: Problem, quantized: nn.Module) -> Problem:
    """Return the problem with the ranges of the latent weights, and of activations whose span is learned or fixed.

    It was measured at the quantized values, whose largest lies half a step below the range that the quantizer really
    spans: at one bit at half of it. Sensitivities carry the square of the range. Methods whose levels are not near the
    latent weights keep the range of the quantized ones, which is that of their levels. Activations were measured for
    the span that their batch-norms give, which is not that of all methods.
    """
    if problem.ranges is None or not isinstance(problem.damage, (PowerLaw, DamageTable)):
        return problem
    weights = quantized_weights(quantized)
    rounded = {name: weight.value for name, weight in weights.items()}
    latent = {n: rounded[n] if w.quantizer.method.needs_training else w.latent for n, w in weights.items()}
    floats = dict(quantized.named_parameters(remove_duplicate=False))  # where no quantizer is, there is one value
    latent, rounded = floats | latent, floats | rounded
    factor = np.ones(len(problem))
    for (_, groups, wide), (_, _, narrow) in zip(
        _weights_of(problem, latent), _weights_of(problem, rounded), strict=True
    ):
        starts = np.concatenate([[0], np.cumsum(problem.sizes[groups])[:-1]])
        squares = [np.add.reduceat(_kernel_squares(v), starts) for v in (wide, narrow)]
        factor[groups] = np.where(squares[1] > 0, squares[0] / np.where(squares[1] > 0, squares[1], 1), 1)
    activations = activation_quantizers(quantized)
    for label, groups in labels_of(problem, weights=False):
        if label in activations and activations[label].method != MidRise.name:
            factor[groups] = (activations[label].span / problem.ranges[groups]) ** 2
    damage = problem.damage
    if isinstance(damage, PowerLaw):
        damage = PowerLaw(damage.sensitivity * factor, None if damage.stderr is None else damage.stderr * factor)
    else:
        wider = factor[:, None]
        damage = DamageTable(damage.values * wider, None if damage.stderr is None else damage.stderr * wider)
    return dataclasses.replace(problem, damage=damage, ranges=problem.ranges * np.sqrt(factor))


def with_rounding_errors(problem: Problem, network: nn.Module, method: str) -> Problem:
    """Return the problem with the squared error that rounding ``network`` really makes in place of ``step^2 / 12``.

    Gradients stay those that were measured, at quantized weights maybe; errors are those of the latent weights, by the
    quantizer that will round them: that of ``method``, or of the problem where it is empty. Activations keep their
    damage.
    """
    assert problem.ranges is not None
    widths = problem.candidates.sets[0]
    values = problem.damage.at(slice(None), widths).copy()
    for label, groups, weights in _weights_of(problem, dict(network.named_parameters(remove_duplicate=False))):
        rule = load_method(method or problem.grid(label))
        sizes, tensor = problem.sizes[groups], torch.from_numpy(weights).float()
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        for column, bits in enumerate(widths):
            rounded = rule.quantizer(tensor.shape, np.full(len(sizes), bits), sizes).rounded(tensor).detach()
            errors = np.add.reduceat(np.square(rounded.double().numpy() - weights).reshape(-1), starts) / sizes
            assumed = np.square(problem.ranges[groups] * 2.0**-bits) / 12
            values[groups, column] *= np.divide(errors, assumed, out=np.zeros(len(errors)), where=assumed > 0)
    return dataclasses.replace(problem, damage=DamageTable(values), metric="measured-error")


# Metrics that look at the latent weights: what is measured for them at whatever weights, and how it is restated.
RESTATED: dict[str, tuple[str, Callable[[Problem, nn.Module, str], Problem]]] = {
    "measured-error": ("impq", with_rounding_errors)
}


def _kernel_squares(values: FloatArray) -> FloatArray:
    """Return, for every weight in C order, the squared largest weight of its kernel."""
    kernels = values.reshape(len(values), -1)
    squares: FloatArray = np.repeat(np.abs(kernels).max(axis=1) ** 2, kernels.shape[1])
    return squares


def _weights_of(problem: Problem, tensors: Mapping[str, Tensor]) -> list[tuple[str, slice, FloatArray]]:
    """Return each weight label, its groups and its values."""
    values = []
    offsets = problem.names.offsets
    weights = problem.weights()
    for place, label in enumerate(problem.names.labels):
        groups = slice(int(offsets[place]), int(offsets[place + 1]))
        if weights[groups.start]:
            tensor = tensors[label] if label in tensors else tensors[f"{label}.weight"]
            values.append((label, groups, tensor.detach().cpu().double().numpy()))
    return values
