"""The runs of rounds that are kept in tests/golden: a network and pictures of whole numbers, the same on any machine.

A checkpoint says by a digest which network and data it belongs to, so no value may depend on how a processor rounds.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from rounds_world import Small, hyper

from impq_opt.rounds import Splits

STRATEGIES = ("exact", "iterative", "authors-code")


class Pictures:
    """Images (n, 1, 8, 8) of one of four orientations of stripes under noise, in sixty-fourths."""

    def __init__(self, count: Any, seed: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(4, (count,), generator=generator)
        shift = torch.randint(4, (count, 1, 1), generator=generator)
        down, right = torch.arange(8)[:, None], torch.arange(8)[None, :]
        waves = torch.stack([down + 0 * right, 0 * down + right, down + right, down - right])
        clean = ((waves[self.labels] + shift) % 4 // 2) * 128 - 64
        noise = torch.randint(-48, 49, (count, 8, 8), generator=generator)
        self.inputs = ((clean + noise).float() / 64).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Any) -> Any:
        return self.inputs[index], self.labels[index]


def network() -> Any:
    """Return a network whose weights are whole 256ths."""
    found, generator = Small(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if name.endswith(("conv1.weight", "conv2.weight", "fc.weight")):
                weight.copy_(torch.randint(-96, 97, weight.shape, generator=generator).float() / 256)
            elif name == "fc.bias":
                weight.zero_()
    return found


def splits() -> Any:
    return Splits(Pictures(128, 0), Pictures(100, 1), Pictures(100, 2))


def settings(strategy: Any, **changes: Any) -> Any:
    """Return the hyper-parameters of a kept run."""
    more = {} if strategy == "exact" else {"take": ((1, 0.4), (2, 3)), "activation_bits": 0}
    if strategy == "authors-code":
        more["take_activations"] = ((1, 0.25),)  # what was not said when these were begun
    fixed = {"strategy": strategy, "rounds": 2, "start_epochs": 1, "augment": "crop-flip", "seed": 3}
    return hyper(**(fixed | more | changes))


def lines(path: Any) -> list[Any]:
    """Return the records of a log without what depends on the clock or on versions."""
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("seconds", "versions", "format", "version")}
        for line in path.read_text().splitlines()
    ]
