"""Optimizers by name, and their state by the names of the parameters, so that it can be kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from impq_opt.training.schedules import Pace

__all__ = ["OPTIMIZERS", "restore", "set_pace", "state_by_name"]

Parameters = Iterable[nn.Parameter]


def _sgd(parameters: Parameters, rate: float, momentum: float, decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)


def _nesterov(parameters: Parameters, rate: float, momentum: float, decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=True)


def _adam(parameters: Parameters, rate: float, momentum: float, decay: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)


OPTIMIZERS: dict[str, Callable[[Parameters, float, float, float], Optimizer]] = {
    "sgd": _sgd,
    "nesterov": _nesterov,
    "adam": _adam,  # its moments have no use for the momentum
}


def set_pace(optimizer: Optimizer, pace: Pace) -> None:
    """Give the next step its rate, and its momentum where both have one."""
    for group in optimizer.param_groups:
        group["lr"] = pace.rate
        if pace.momentum is not None and "momentum" in group:
            group["momentum"] = pace.momentum


def state_by_name(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by ``"KIND.PARAMETER"``, such as ``momentum_buffer.fc.weight``; no copies."""
    return {
        f"{kind}.{name}": value
        for name, parameter in network.named_parameters()
        if parameter in optimizer.state
        for kind, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore(network: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give the optimizer what :func:`state_by_name` returned, copied to where each parameter is."""
    parameters = dict(network.named_parameters())
    for full, value in state.items():
        kind, _, name = full.partition(".")
        if name in parameters:
            # Counters of steps are numbers without a shape, which torch keeps on the CPU.
            device = parameters[name].device if value.dim() else value.device
            optimizer.state[parameters[name]][kind] = value.to(device).clone(memory_format=torch.preserve_format)
