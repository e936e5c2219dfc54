"""Fine-tuning a quantized network, and testing it; on one process or under torch.distributed.

Every random number is a function of the seed and the step, so training that stops after any step and goes on from its
saved state repeats the uninterrupted run: on a CPU, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from impq_opt.errors import DataError
from impq_opt.memory import kept_memory
from impq_opt.rounds.settings import Hyper
from impq_opt.training.augment import augmented
from impq_opt.training.samples import Samples
from impq_opt.training.seeds import mix, processes

__all__ = ["Tally", "accuracy", "fine_tune", "learning_rate"]


@dataclass
class Tally:
    """Where training stands: steps done in this round, momentum, and what the present epoch has seen."""

    step: int = 0
    momentum: dict[str, Tensor] = field(default_factory=dict)
    hits: int = 0
    seen: int = 0
    loss: float = 0.0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch."""
        self.hits += int((logits.argmax(1) == labels).sum())
        self.seen += len(labels)
        self.loss += float(loss.detach()) * len(labels)


def learning_rate(hyper: Hyper, step: int, steps: int) -> float:
    """Return the rate of ``step``: a linear rise, then a cosine to 0 (authors' code, per round)."""
    warm = max(1, round(hyper.warmup * steps)) if hyper.warmup else 0
    if step < warm:
        return hyper.rate * (step + 1) / warm
    return hyper.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def steps_per_epoch(samples: int, hyper: Hyper) -> int:
    """Return the whole batches in an epoch; the remainder of a shuffled epoch is left out."""
    if samples < hyper.batch:
        raise DataError(
            "is smaller than one batch", where="training data", value=samples, hint=f"batch = {hyper.batch}"
        )
    return samples // hyper.batch


@kept_memory()
def fine_tune(
    network: nn.Module,
    data: Samples,
    hyper: Hyper,
    *,
    first_epoch: int,
    epochs: int,
    tally: Tally | None = None,
    after: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Train ``network`` in place; ``after`` is called after each step and may raise to stop.

    Parameters
    ----------
    network : nn.Module
        As :func:`impq_opt.quantize.quantize` returns it, or any other.
    data : Samples
        With labels.
    first_epoch : int
        Epochs trained before this call: the data order of an epoch depends on the seed and its number alone, so all
        strategies see the same batches.
    tally : Tally
        Where an interrupted call stood.
    """
    tally = tally or Tally()
    rank, world = processes()
    device = next(network.parameters()).device
    per_epoch = steps_per_epoch(len(data), hyper)
    optimizer = torch.optim.SGD(network.parameters(), lr=hyper.rate, momentum=hyper.momentum, weight_decay=hyper.decay)
    _restore_momentum(network, optimizer, tally.momentum)
    model = _prepared(network.train(), hyper, world)
    autocast = torch.autocast(device.type, torch.bfloat16) if hyper.bf16 else nullcontext()
    total = epochs * per_epoch
    while tally.step < total:
        epoch, place = divmod(tally.step, per_epoch)
        if place == 0:
            tally.hits, tally.seen, tally.loss = 0, 0, 0.0
        torch.manual_seed(mix(hyper.seed, first_epoch + epoch, place, rank))  # for dropout and the like
        rows = _order(len(data), hyper.seed, first_epoch + epoch)[place * hyper.batch : (place + 1) * hyper.batch]
        inputs, labels = _batch(data, rows[rank::world], hyper, device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(hyper, tally.step, total)
        with autocast:
            logits = model(inputs)
            loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tally.add(loss, logits, labels)
        tally.step += 1
        if not math.isfinite(tally.loss):
            raise DataError(
                "training diverged: the loss is not finite", where=f"step {tally.step}", hint="lower the rate"
            )
        tally.momentum = _momentum(network, optimizer)
        after(tally)
    if world > 1:  # each process kept batch statistics of its own since the last step began
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
    return tally


@kept_memory()
@torch.inference_mode()
def accuracy(network: nn.Module, data: Samples, hyper: Hyper, batch: int = 500) -> float:
    """Return the share of ``data`` that the network labels right; processes share the work."""
    rank, world = processes()
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    hits = torch.zeros((), dtype=torch.int64, device=device)
    with parametrize.cached():
        for rows in list(torch.split(torch.arange(len(data)), batch))[rank::world]:
            inputs, labels = _batch(data, rows, hyper, device, augment=False)
            hits += (network(inputs).argmax(1) == labels).sum()
    if world > 1:
        distributed.all_reduce(hits)
    network.train(training)
    return int(hits) / len(data)


def _prepared(network: nn.Module, hyper: Hyper, world: int) -> Callable[[Tensor], Tensor]:
    model: Any = network
    if world > 1:
        device = next(network.parameters()).device
        model = nn.parallel.DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None
        )
    return torch.compile(model) if hyper.compile else model


_ORDERS: dict[tuple[int, int, int], Tensor] = {}


def _order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the rows of an epoch in their order; the last one asked for is kept."""
    key = (samples, seed, epoch)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = torch.randperm(samples, generator=torch.Generator().manual_seed(mix(seed, epoch)))
    return _ORDERS[key]


def _batch(
    data: Samples, rows: Tensor, hyper: Hyper, device: torch.device, *, augment: bool = True
) -> tuple[Tensor, Tensor]:
    inputs, labels = data.rows(rows)
    if labels is None:
        raise DataError("has no labels", where="data", hint="rounds train and test on labels")
    if augment and hyper.augment != "none" and inputs.dim() == 4:
        inputs = augmented(inputs, hyper.augment)
    inputs = inputs.to(device, non_blocking=True)
    if hyper.channels_last and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, labels.to(device, non_blocking=True)


def _momentum(network: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    return {name: state for name, state in _states(network, optimizer) if state is not None}


def _states(network: nn.Module, optimizer: torch.optim.SGD) -> Iterator[tuple[str, Tensor | None]]:
    for name, parameter in network.named_parameters():
        yield name, optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None


def _restore_momentum(network: nn.Module, optimizer: torch.optim.SGD, momentum: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = (
                momentum[name].to(parameter.device).clone(memory_format=torch.preserve_format)
            )
