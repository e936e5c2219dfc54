"""A tiny world for the tests of rounds: a network of three layers, noisy stripes to tell apart, exact sensitivities."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from impq_opt import GroupNames, Problem
from impq_opt.quantize.network import traced_for
from impq_opt.rounds import Hyper, Schedule, Splits
from impq_opt.rounds.record import Seconds


class Stripes:
    """Images (n, 1, 8, 8) of one of four orientations of stripes, under noise."""

    def __init__(self, count: Any, seed: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(4, (count,), generator=generator)
        grid = torch.arange(8.0)
        waves = [grid[:, None] + 0 * grid, 0 * grid[:, None] + grid, grid[:, None] + grid, grid[:, None] - grid]
        phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
        clean = torch.sin(torch.stack(waves)[self.labels] * 1.57 + phase)
        self.inputs = (clean + 0.7 * torch.randn(count, 8, 8, generator=generator)).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Any) -> Any:
        return self.inputs[index], self.labels[index]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.fc(self.drop(x.mean((2, 3))))


def small(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return Small()


_TRACED: dict[Any, Any] = {}


def traced_once(network: Any, example: Any, described: Any) -> Any:
    """Return what ``traced_for`` does, from the first time for networks alike: a run fills in the weights itself."""
    if not type(network).__module__.startswith(("rounds_world", "impq_opt.networks", "torch.nn")):
        return traced_for(network, example, described)  # what it does is not told by its modules
    key = str(network), example.shape, example.stride()
    if key not in _TRACED:
        _TRACED[key] = traced_for(network, example, described)
    return _TRACED[key]


def splits() -> Any:
    return Splits(Stripes(256, 0), Stripes(200, 1), Stripes(200, 2))


def hyper(**changes: Any) -> Any:
    values = {"rounds": 3, "epochs": 1, "batch": 32, "rate": 0.05, "start_epochs": 3, "augment": "none"}
    if changes.get("strategy", "exact") not in ("slides", "iterative", "authors-code"):
        values["budget"] = Schedule("geometric", 3.0, 1.5)
    return Hyper(**(values | changes))


def measure(network: Any, data: Any, seed: Any, samples: int = 24) -> Problem:
    """E by its definition: one backward pass per sample and class (IMPQ slides), kernel-wise."""
    network = network.eval()
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:samples]
    images, _ = data.rows(rows)
    weights = [network.conv1.weight, network.conv2.weight, network.fc.weight]
    spans = [2 * w.detach().flatten(1).abs().amax(1).double() for w in weights]
    sums = [torch.zeros(len(w), dtype=torch.float64) for w in weights]
    for image in images:
        logits = network(image[None])[0]
        winner = int(logits.argmax())
        for other in set(range(4)) - {winner}:
            margin = logits[other] - logits[winner]
            for total, gradient in zip(sums, torch.autograd.grad(margin, weights, retain_graph=True), strict=True):
                total.add_(gradient.flatten(1).double().square().sum(1) / (12 * float(margin.detach()) ** 2) / samples)
    values = torch.cat([e * s**2 for e, s in zip(sums, spans, strict=True)]).numpy()
    clips = [float((b.bias + 6 * b.weight.abs()).detach().max()) for b in (network.bn1, network.bn2)]
    return Problem.from_sensitivities(
        [w[0].numel() for w in weights for _ in w] + [6 * 36, 8 * 16],
        np.concatenate([values, [1.0, 1.0]]),
        names=GroupNames(("conv1", "conv2", "fc", "relu1", "relu2"), ((6,), (8,), (4,), (), ())),
        kinds=[0] * 18 + [1] * 2,
        ranges=np.concatenate([torch.cat(spans).numpy(), clips]),
        provenance={"input": {"shape": [1, 8, 8], "dtype": "float32"}},
    )


def comparable(records: Any) -> list[Any]:
    """Return records without what depends on the clock and on versions."""
    return [msgspec.structs.replace(record, seconds=Seconds(0.0, 0.0, 0.0), versions={}) for record in records]
