"""Whether a problem is of a network: its groups are the network's, and it was measured at these weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from impq_opt.errors import DataError, nearest
from impq_opt.problem.problem import Problem
from impq_opt.quantize.methods import load_method

__all__ = ["check_activations", "check_weights", "labels_of", "of_other_weights", "weight_of"]

_SHOWN = 3  # names in a sentence
# Rounded to half precision, the largest weight of a kernel moves by 0.2 % at most.
_ALIKE = 0.005


def labels_of(problem: Problem, *, weights: bool) -> Iterator[tuple[str, slice]]:
    """Yield the labels of weights, or of activations, with their groups."""
    offsets, are_weights = problem.names.offsets, problem.weights()
    for place, label in enumerate(problem.names.labels):
        groups = slice(int(offsets[place]), int(offsets[place + 1]))
        if bool(are_weights[groups].any()) is weights:
            yield label, groups


def weight_of(label: str, parameters: Mapping[str, nn.Parameter]) -> nn.Parameter | None:
    """Return the parameter that a label names, by its own name or by that of the module whose weight it is."""
    return parameters.get(label, parameters.get(f"{label}.weight"))


def check_weights(problem: Problem, network: nn.Module) -> None:
    """Raise DataError unless the weights of a problem are parameters of a network, of the sizes that it says."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    labels = dict(labels_of(problem, weights=True))
    missing = [label for label in labels if weight_of(label, parameters) is None]
    own = [name for name, parameter in parameters.items() if parameter.ndim > 1]
    whole = any(label.endswith(".weight") for label in missing)  # labels are names of parameters
    _refuse(missing, len(labels), "weight", own if whole else [name.removesuffix(".weight") for name in own])
    for label, groups in labels.items():
        weight, elements = weight_of(label, parameters), int(problem.sizes[groups].sum())
        if weight is not None and elements != weight.numel():
            raise DataError(
                "the groups do not add up to the weight",
                where=f"problem: {label}",
                value=elements,
                hint=f"the network's weight has {weight.numel()} elements: is the problem of another network?",
            )


def check_activations(problem: Problem, calls: Iterable[str]) -> None:
    """Raise DataError unless the activations of a problem are named calls of a network."""
    own, labels = set(calls), [label for label, _ in labels_of(problem, weights=False)]
    _refuse([label for label in labels if label not in own], len(labels), "activation", own)


def _refuse(missing: list[str], count: int, kind: str, own: Iterable[str]) -> None:
    if not missing:
        return
    shown = ", ".join(map(repr, missing[:_SHOWN]))
    if count == 1:
        said = f"is not of this network, which has no {kind} {shown}"
    else:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        said = f"is not of this network, which has {count - len(missing)} of its {count} {kind}s, and no {shown}{more}"
    raise DataError(said, where="problem", hint=nearest(missing[0], own))


def of_other_weights(problem: Problem, state: Mapping[str, Tensor]) -> str:
    """Return a sentence where a problem was measured at other weights than those of a state dict; "" where not.

    The ranges that a measurement keeps tell: of each weight tensor the root mean square of what its kernels span.
    """
    if problem.provenance.get("source") != "measured" or problem.ranges is None:
        return ""
    off = {}
    for label, groups in labels_of(problem, weights=True):
        weight = state.get(label, state.get(f"{label}.weight"))
        sizes, ranges = problem.sizes[groups], problem.ranges[groups]
        measured = math.sqrt(float(np.dot(sizes, np.square(ranges)) / sizes.sum()))
        if weight is not None and math.isfinite(measured):
            here = _span(weight, problem.grid(label))
            off[label] = abs(here - measured) / (max(here, measured) or 1.0)
    far = {label: share for label, share in off.items() if share > _ALIKE}
    if not far:
        return ""
    worst = max(far, key=lambda label: far[label])
    return (
        f"the problem was measured at other weights: {len(far)} of {len(off)} have another range, {worst!r} by "
        f"{far[worst]:.0%}, so neither its damages nor its ranges of activations are of these; measure again"
    )


def _span(weight: Tensor, grid: str) -> float:
    spans = load_method(grid).spans(weight)
    if spans is None:  # as measuring has it
        spans = 2 * weight.detach().flatten(1).abs().amax(1).double()
    return float(spans.square().mean().sqrt())
