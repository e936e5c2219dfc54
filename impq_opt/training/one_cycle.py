"""Training the small networks of the gallery: one-cycle SGD, on a CPU in minutes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from impq_opt.memory import kept_memory

__all__ = ["Recipe", "accuracy", "train"]


@dataclass(frozen=True)
class Recipe:
    """How a network was trained; everything that a second run needs."""

    epochs: int = 3
    batch: int = 128
    rate: float = 0.2  # the peak of the one-cycle schedule
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.3  # share of the steps before the peak
    flip: bool = True  # mirror half of the images, left to right
    bf16: bool = False
    seed: int = 0


@kept_memory()
def train(network: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, *, quiet: bool = False) -> nn.Module:
    """Train ``network`` in place on images (n, c, h, w) and labels (n,); leave it in eval mode.

    The network's initial weights are the caller's: seed torch before building it.
    """
    network = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = recipe.epochs * (len(images) // recipe.batch)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.rate, momentum=recipe.momentum, weight_decay=recipe.decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, steps, pct_start=recipe.warmup)
    start = time.perf_counter()
    for step, (x, y) in enumerate(_batches(images, labels, recipe), 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = functional.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if not quiet and (step % 100 == 0 or step == steps):
            seconds = time.perf_counter() - start
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {seconds:.0f} s", file=sys.stderr, flush=True)
    return network.eval()


def _batches(images: Tensor, labels: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            x = images[rows]
            if recipe.flip:
                mirrored = torch.rand(len(x), generator=generator) < 0.5
                x[mirrored] = x[mirrored].flip(-1)
            yield x, labels[rows]


@kept_memory()
@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Return the share of ``images`` that ``network`` labels as ``labels`` says."""
    network.eval()
    hits = 0
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        hits += int((network(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
    return hits / len(images)
