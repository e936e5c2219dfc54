"""Small networks with the statistics of their data, to be quantized and calibrated."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from measure_world import Branches, Norms, noise, seeded
from quantize_world import declared, net

from impq_opt.calibrate import calibrate
from impq_opt.calibrate.api import drawn
from impq_opt.data import Dataset
from impq_opt.quantize import quantize

STATISTICS = (".running_mean", ".running_var")
SHAPES = {"net": (1, 8, 8), "norms": (2, 9, 9), "branches": (1, 8, 8)}


def state(network: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def averaged(network: Any, batches: Any) -> dict[str, Any]:
    """Return the means over batches of what batch-norms see, from the momentum that they have in training."""
    copied = copy.deepcopy(network).eval()
    own = {name: tensor for name, tensor in copied.state_dict().items() if name.endswith(STATISTICS)}
    for name in own:
        copied.get_submodule(name.rpartition(".")[0]).train()
    total = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    for batch in batches:
        for tensor in own.values():
            tensor.zero_()
        with torch.no_grad():
            copied(batch)
        for name, tensor in own.items():
            total[name] += tensor / 0.1 / len(batches)
    return total


class World(NamedTuple):
    """A network with statistics of its data or others, the data, and a problem."""

    network: Any
    x: Any
    problem: Any

    def quantized(self, bits: int, *, weights_only: bool = True, scheme: Any = None) -> Any:
        widths = np.where(self.problem.weights() | (not weights_only), bits, 32)
        return quantize(self.network, self.problem, widths, scheme=scheme)

    def calibrated_on(self, samples: int) -> Any:
        """Return the samples that ``calibrate`` draws."""
        return self.x[drawn(Dataset(self.x), samples, 0)[0]]

    def calibrate(self, quantized: Any, *args: Any, **options: Any) -> Any:
        return calibrate(quantized, self.network, Dataset(self.x), *args, **options)


@cache
def world(name: str, *, foreign: bool = False) -> World:
    x = noise(99, *SHAPES[name])
    network = net() if name == "net" else seeded({"norms": Norms, "branches": Branches}[name])
    if not foreign:
        network.load_state_dict(network.state_dict() | averaged(network, [x]))
    return World(network, x, declared(network, x[:4])[0])
