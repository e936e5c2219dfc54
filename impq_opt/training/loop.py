"""The one training loop; on one process or under torch.distributed.

Every random number is a function of the seed and the step, so training that stops after any step and goes on from its
saved state repeats the uninterrupted run: on a CPU, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from impq_opt.errors import DataError
from impq_opt.memory import kept_memory
from impq_opt.training.batches import Batches, Shuffled
from impq_opt.training.objective import Objective, Scored, cross_entropy
from impq_opt.training.optimizers import OPTIMIZERS, restore, set_pace, state_by_name
from impq_opt.training.samples import Samples
from impq_opt.training.schedules import SCHEDULES
from impq_opt.training.seeds import processes
from impq_opt.training.settings import Training

__all__ = ["Course", "Hook", "Hooks", "Progress", "train", "train_on"]


@dataclass
class Progress:
    """Where training stands, and all that it needs to go on besides the network's own state.

    Parameters
    ----------
    step : int
        Steps done.
    optimizer : dict of str to Tensor
        The optimizer's tensors, as :func:`impq_opt.training.optimizers.state_by_name` names them.
    hits, seen : int
        Samples labelled right, and seen, in the present epoch.
    loss : float
        Sum over the samples seen.
    """

    step: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    hits: int = 0
    seen: int = 0
    loss: float = 0.0

    def add(self, scored: Scored, labels: Tensor) -> None:
        """Count one batch."""
        self.hits += int((scored.logits.argmax(1) == labels).sum())
        self.seen += len(labels)
        self.loss += float(scored.loss.detach()) * len(labels)


@dataclass(frozen=True)
class Course:
    """A training under way, as hooks see it.

    Parameters
    ----------
    network : nn.Module
        That is trained.
    optimizer : Optimizer
    progress : Progress
    per_epoch, steps : int
        Steps in an epoch, and in all.
    """

    network: nn.Module
    optimizer: Optimizer
    progress: Progress
    per_epoch: int
    steps: int


class Hook:
    """What happens around steps: schedules, projections, statistics, checkpoints. Derive, and override what is needed.

    A hook keeps nothing of its own that must survive: what it sets is a function of the course, or is written to the
    network's parameters and buffers, which are saved. So training that goes on calls it as if it had never stopped. Any
    method may raise to stop training.
    """

    def before_step(self, course: Course) -> None:
        """Act once the step has its rate, before its forward pass."""

    def after_update(self, course: Course) -> None:
        """Act when the optimizer has moved the parameters, before the step is counted."""

    def after_step(self, course: Course) -> None:
        """Act when the step is done and counted."""

    def after_epoch(self, course: Course) -> None:
        """Act after the last step of an epoch, before ``after_step`` of that step."""


class Hooks(Hook):
    """Several hooks, each called in turn."""

    def __init__(self, *hooks: Hook) -> None:
        self.hooks = hooks

    def before_step(self, course: Course) -> None:
        for hook in self.hooks:
            hook.before_step(course)

    def after_update(self, course: Course) -> None:
        for hook in self.hooks:
            hook.after_update(course)

    def after_step(self, course: Course) -> None:
        for hook in self.hooks:
            hook.after_step(course)

    def after_epoch(self, course: Course) -> None:
        for hook in self.hooks:
            hook.after_epoch(course)


def train(
    network: nn.Module,
    data: Samples,
    training: Training,
    *,
    epochs: int,
    first_epoch: int = 0,
    objective: Objective = cross_entropy,
    hook: Hook | None = None,
    progress: Progress | None = None,
) -> Progress:
    """Train ``network`` in place on shuffled data; it stays in training mode.

    Parameters
    ----------
    network : nn.Module
        In float, or as :func:`impq_opt.quantize.quantize` returns it.
    data : Samples
        With labels.
    training : Training
    epochs : int
    first_epoch : int
        Epochs trained before this call: the data order of an epoch depends on the seed and its number alone, so all
        who train as long see the same batches.
    objective : Objective
    hook : Hook, optional
    progress : Progress, optional
        Where an interrupted call stood; the network must have the state that it had then.

    Raises
    ------
    DataError
        Data without labels or of less than a batch; training that diverged.
    """
    batches = Shuffled(data, training, first_epoch)
    return train_on(network, batches, training, epochs=epochs, objective=objective, hook=hook, progress=progress)


@kept_memory()
def train_on(
    network: nn.Module,
    batches: Batches,
    training: Training,
    *,
    epochs: int,
    objective: Objective = cross_entropy,
    hook: Hook | None = None,
    progress: Progress | None = None,
) -> Progress:
    """Train as :func:`train` does, on batches in an order of their own.

    Raises
    ------
    DataError
        Where training diverged.
    """
    hook, progress = hook or Hook(), progress or Progress()
    device = next(network.parameters()).device
    if training.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    make = OPTIMIZERS[training.optimizer]
    optimizer = make(network.parameters(), training.rate, training.momentum, training.decay)
    restore(network, optimizer, progress.optimizer)
    model = _wrapped(network.train(), training)
    course = Course(network, optimizer, progress, batches.per_epoch, epochs * batches.per_epoch)
    pace = SCHEDULES[training.schedule]
    while progress.step < course.steps:
        epoch, place = divmod(progress.step, course.per_epoch)
        if place == 0:
            progress.hits, progress.seen, progress.loss = 0, 0, 0.0
        batch = batches.at(epoch, place, device)
        set_pace(optimizer, pace(training.rate, training.warmup, progress.step, course.steps, course.per_epoch))
        hook.before_step(course)
        with torch.autocast(device.type, torch.bfloat16) if training.bf16 else nullcontext():
            scored = objective(model, batch)
        optimizer.zero_grad()
        scored.loss.backward()
        optimizer.step()
        hook.after_update(course)
        progress.add(scored, batch.labels)
        progress.step += 1
        if not math.isfinite(progress.loss):
            raise DataError(
                "training diverged: the loss is not finite", where=f"step {progress.step}", hint="lower the rate"
            )
        progress.optimizer = state_by_name(network, optimizer)
        if progress.step % course.per_epoch == 0:
            hook.after_epoch(course)
        hook.after_step(course)
    _share_buffers(network)
    return progress


def _wrapped(network: nn.Module, training: Training) -> Callable[[Tensor], Tensor]:
    model: Any = network
    if processes()[1] > 1:
        device = next(network.parameters()).device
        model = nn.parallel.DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None
        )
    return torch.compile(model) if training.compile else model


def _share_buffers(network: nn.Module) -> None:
    """Give all processes the first one's batch statistics; each kept its own since the last step began."""
    if processes()[1] > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
