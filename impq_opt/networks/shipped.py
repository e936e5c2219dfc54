"""The networks that this project trained and ships, and the command that trains them again.

python -m impq_opt.networks.shipped resnet20-fashion-mnist --output weights.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from impq_opt.networks.resnet import resnet20
from impq_opt.training.one_cycle import Recipe, accuracy, train

__all__ = ["SHIPPED", "Shipped", "main"]


@dataclass(frozen=True)
class Shipped:
    """A trained network of the package: how to build it, on what it was trained, and how."""

    build: Callable[[], nn.Module]
    data: str
    recipe: Recipe


SHIPPED = {
    "resnet20-fashion-mnist": Shipped(lambda: resnet20(channels=1), "fashion-mnist", Recipe(epochs=4, bf16=True)),
}


def train_again(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Train a shipped network from its seed; return it and what it reached."""
    from impq_opt.data import load_data

    shipped = SHIPPED[name]
    torch.manual_seed(shipped.recipe.seed)
    network = train(shipped.build(), *load_data(shipped.data, "train").arrays(), shipped.recipe)
    reached = {split: accuracy(network, *load_data(shipped.data, split).arrays()) for split in ("validation", "test")}
    return network, {"network": name, "data": shipped.data, "accuracy": reached, "recipe": asdict(shipped.recipe)}


def main() -> None:
    """Train one network and write its state as safetensors; print what it reached as JSON."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(SHIPPED))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="1 repeats the shipped weights most closely")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, reached = train_again(options.name)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, options.output, metadata={"impq-opt": json.dumps(reached)})
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
