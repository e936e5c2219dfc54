"""How a quantized network is trained: what its methods want made small, and what they want done around steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from impq_opt.quantize.methods.base import Method, Moment, QuantizedWeight
from impq_opt.quantize.network import quantized_weights
from impq_opt.training import Course, Hook, Objective, cross_entropy

__all__ = ["HowToTrain", "before_step", "training_of"]


class HowToTrain(NamedTuple):
    """What :func:`impq_opt.training.train` is told besides settings, to train a quantized network."""

    objective: Objective
    hook: Hook


def training_of(network: nn.Module, objective: Objective = cross_entropy) -> HowToTrain:
    """Return the objective and the hook that the methods of a quantized network want.

    ::

        objective, hook = training_of(quantized)
        train(quantized, data, training, epochs=10, objective=objective, hook=hook)

    Parameters
    ----------
    network : nn.Module
        As :func:`impq_opt.quantize.quantize` returns it.
    objective : Objective
        What is made small besides the terms of methods.
    """
    by_method: dict[Method, dict[str, QuantizedWeight]] = {}
    for name, weight in quantized_weights(network).items():
        by_method.setdefault(weight.quantizer.method, {})[name] = weight
    for method, weights in by_method.items():
        objective = method.objective(objective, network, weights)
    return HowToTrain(objective, _Steps())


@torch.no_grad()
def before_step(network: nn.Module, share: float = 0.0) -> None:
    """Do what the methods of a quantized network want done before a training step, ``share`` of all being done."""
    weights = quantized_weights(network).values()
    for place, weight in enumerate(weights):
        weight.quantizer.before_step(weight.latent, Moment(share, place, len(weights)))


class _Steps(Hook):
    """Calls ``Quantizer.before_step``, and keeps what is frozen where it is through a step.

    Weight decay and momentum would move it without a gradient; so it is put back, and its momentum is 0.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # from before a step to its update, and no longer

    @torch.no_grad()
    def before_step(self, course: Course) -> None:
        before_step(course.network, course.progress.step / course.steps)
        self.kept = []
        for weight in quantized_weights(course.network).values():
            frozen = weight.quantizer.frozen(weight.latent)
            if frozen is not None:
                self.kept.append((weight.latent, frozen.clone(), weight.latent.clone()))

    @torch.no_grad()
    def after_update(self, course: Course) -> None:
        for latent, frozen, value in self.kept:
            latent.copy_(torch.where(frozen, value, latent))
            for past in course.optimizer.state[latent].values():
                if isinstance(past, Tensor) and past.shape == latent.shape:
                    past.masked_fill_(frozen, 0)
        self.kept = []
