"""The networks that this project trained and ships, and the commands that train them again.

``resnet20-fashion-mnist`` is older than ``impq-opt train`` and has a program of its own, this module:
``python -m impq_opt.networks.shipped resnet20-fashion-mnist --output weights.safetensors``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impq_opt.networks.resnet import resnet20
from impq_opt.training import Batch, Course, Hook, Training, accuracy
from impq_opt.training.batches import placed, steps_per_epoch
from impq_opt.training.loop import train_on
from impq_opt.training.samples import Samples

__all__ = ["SHIPPED", "Shipped", "main"]


@dataclass(frozen=True)
class Shipped:
    """A trained network of the package: how to build it, on what it was trained, and how, in words and as a command."""

    build: Callable[[], nn.Module]
    data: str
    training: str
    command: str


_FASHION = "resnet20-fashion-mnist"
_EPOCHS = 4
_ONE_CYCLE = Training(rate=0.2, warmup=0.3, schedule="one-cycle", optimizer="nesterov", bf16=True)

SHIPPED = {
    _FASHION: Shipped(
        lambda: resnet20(channels=1),
        "fashion-mnist",
        f"{_EPOCHS} epochs of one-cycle SGD, batch {_ONE_CYCLE.batch}, peak rate {_ONE_CYCLE.rate}, "
        f"seed {_ONE_CYCLE.seed}",
        f"python -m impq_opt.networks.shipped {_FASHION}",
    ),
    "resnet20-cifar10": Shipped(
        resnet20,
        "cifar10",
        "30 epochs of one-cycle SGD on JPEG copies of 45,000 training pictures, batch 128, peak rate 0.2, mirrored and "
        "shifted, seed 0",
        "impq-opt train resnet20 --data cifar10.npz --epochs 30 --threads 1 --set batch=128 --set rate=0.2 "
        "--set warmup=0.3 --set schedule=one-cycle --set optimizer=nesterov --set augment=crop-flip",
    ),
}


class Drawn:
    """Batches as the shipped weights saw them: order and mirroring drawn from one generator, one after the other."""

    def __init__(self, data: Samples, training: Training) -> None:
        self.data, self.training = data, training
        self.per_epoch = steps_per_epoch(len(data), training)
        self._next, self._batches = 0, self._drawn()

    def at(self, epoch: int, place: int, device: torch.device) -> Batch:
        """Return a batch; one before the last is found by drawing all again."""
        wanted = epoch * self.per_epoch + place
        if wanted < self._next:
            self._next, self._batches = 0, self._drawn()
        while True:
            images, labels = next(self._batches)
            self._next += 1
            if self._next > wanted:
                return placed(images, labels, device, channels_last=self.training.channels_last)

    def _drawn(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator, batch = torch.Generator().manual_seed(self.training.seed), self.training.batch
        while True:
            order = torch.randperm(len(self.data), generator=generator)
            for rows in order[: self.per_epoch * batch].split(batch):
                images, labels = self.data.rows(rows)
                assert labels is not None
                mirrored = torch.rand(len(images), generator=generator) < 0.5
                yield torch.where(mirrored[:, None, None, None], images.flip(-1), images), labels


class _Told(Hook):
    """A line every hundred steps."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def after_step(self, course: Course) -> None:
        done = course.progress
        if done.step % 100 == 0 or done.step == course.steps:
            seconds, loss = time.perf_counter() - self.start, done.loss / done.seen
            print(f"step {done.step}/{course.steps}  loss {loss:.3f}  {seconds:.0f} s", file=sys.stderr, flush=True)


def train_again() -> tuple[nn.Module, dict[str, Any]]:
    """Train ResNet-20 on Fashion-MNIST from its seed; return it and what it reached."""
    from impq_opt.data import load_data

    shipped = SHIPPED[_FASHION]
    torch.manual_seed(_ONE_CYCLE.seed)
    network, data = shipped.build(), load_data(shipped.data, "train")
    train_on(network, Drawn(data, _ONE_CYCLE), _ONE_CYCLE, epochs=_EPOCHS, hook=_Told())
    reached = {split: accuracy(network, load_data(shipped.data, split)) for split in ("validation", "test")}
    recipe = {"epochs": _EPOCHS, **asdict(_ONE_CYCLE)}
    return network.eval(), {"network": _FASHION, "data": shipped.data, "accuracy": reached, "recipe": recipe}


def main() -> None:
    """Train one network and write its state as safetensors; print what it reached as JSON."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[_FASHION], help="those trained by impq-opt train have its command in SHIPPED")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="1 repeats the shipped weights most closely")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, reached = train_again()
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, options.output, metadata={"impq-opt": json.dumps(reached)})
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
