"""Torchvision's classifiers, one of each family, the whole way: measure, solve, quantize, validate, pack, unpack.

    python benchmarks/families.py [--quick] [NAME ...] [--json]

Weights are random; batch-norms have seen one batch, so that what flows through has a usual size. Each network is
measured by layer on 16 pictures, at 4 bits a weight on average the exact strategy chooses, another 16 pictures are
decided by the quantized network and by its packed file, and the logits of both are compared to the bit. The
smallest input that the family takes, or nearly, is given to it. How many decisions change says nothing about trained
networks. A line of a Markdown table comes with each network; the exit status is 1 where one does not go the whole way.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _needs import need

need("torch", "torchvision")

import torch
from torch import nn

from impq_opt import ImpqError, Problem, Status, solve
from impq_opt.data import Dataset
from impq_opt.data.torchvision import torchvision_module
from impq_opt.measure import Sampling, measure
from impq_opt.quantize import pack, quantize, unpack_into
from impq_opt.validate.reality import Validation

# Name: the side of its pictures, and what else its constructor is told.
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (63, {}),
    "vgg11_bn": (32, {}),
    "inception_v3": (75, {"init_weights": False}),
    "googlenet": (32, {"init_weights": False}),
    "squeezenet1_1": (32, {}),
    "densenet121": (32, {}),
    "resnet18": (32, {}),
    "resnext50_32x4d": (32, {}),
    "wide_resnet50_2": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "mobilenet_v2": (32, {}),
    "mobilenet_v3_small": (32, {}),
    "efficientnet_b0": (32, {}),
    "efficientnet_v2_s": (32, {}),
    "regnet_x_400mf": (32, {}),
    "regnet_y_400mf": (32, {}),
    "mnasnet0_5": (32, {}),
    "convnext_tiny": (32, {}),
    "vit_b_16": (32, {"image_size": 32}),
    "swin_t": (32, {}),
    "swin_v2_t": (32, {}),
    "maxvit_t": (64, {}),
}
# torchvision's own function of this name takes 224x224 alone; the same layers, with windows of 2 for 7.
MAXVIT_T = {
    "stem_channels": 64,
    "block_channels": [64, 128, 256, 512],
    "block_layers": [2, 2, 5, 2],
    "head_dim": 32,
    "stochastic_depth_prob": 0.2,
    "partition_size": 2,
    "input_size": (64, 64),
}
QUICK = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5")
CLASSES, SAMPLES, AVERAGE_BITS = 10, 16, 4


@dataclass
class Row:
    """One network; ``missing`` says what did not go well, "" where all did."""

    network: str
    side: int
    parameters: int = 0
    weight_groups: int = 0
    activation_groups: int = 0
    in_groups: float = 0.0
    unmeasured: int = 0
    status: str = ""
    bits: float = 0.0
    changed: float = 0.0
    packed: int = 0
    missing: str = ""


HEAD = (
    "| network | input | parameters | groups w + a | in groups | no gradient | solved | bits w | decided otherwise |"
    " file | equal to the bit |\n|---|--:|--:|--:|--:|--:|---|--:|--:|--:|---|"
)


def line(row: Row) -> str:
    """Return a row of the table."""
    cells = (
        row.network,
        f"{row.side}x{row.side}",
        f"{row.parameters / 1e6:.2f} M",
        f"{row.weight_groups} + {row.activation_groups}",
        f"{row.in_groups:.2%}",
        row.unmeasured or "-",
        row.status,
        f"{row.bits:.2f}",
        f"{row.changed:.0%}",
        f"{row.packed / 2**20:.2f} MiB",
        row.missing or "yes",
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def pictures(side: int, seed: int) -> Dataset:
    """Return smooth random pictures, far enough from each other that decisions differ."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(SAMPLES, 3, 5, 5, generator=generator) * 2
    return Dataset(nn.functional.interpolate(coarse, size=side, mode="bicubic"), None, "smooth noise")


def build(name: str) -> nn.Module:
    """Return a network with random weights, whose batch-norms have seen a batch."""
    torch.manual_seed(0)
    side, options = FAMILIES[name]
    models = torchvision_module("models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "maxvit_t":
            network: nn.Module = models.maxvit.MaxVit(num_classes=CLASSES, **MAXVIT_T)
        else:
            network = getattr(models, name)(num_classes=CLASSES, **options)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        network(pictures(side, 0).inputs)
    return network.eval()


def whole_way(network: nn.Module, row: Row, folder: Path) -> None:
    """Go from a network to a packed file and back, and note what is seen on the way."""
    data, held_out = pictures(row.side, 1), pictures(row.side, 2)
    problem = measure(network, data, sampling=Sampling(samples=SAMPLES), bits=range(2, 9))
    about(problem, row)
    weights = problem.weights()
    answer = solve(problem, budget=AVERAGE_BITS * int(problem.sizes[weights].sum()))
    row.status, row.bits = answer.status.value, float(answer.effective_bits[0] or math.nan)
    if answer.status is not Status.OPTIMAL:
        row.missing = "not solved"
        return
    quantized = quantize(network, problem, answer).eval()
    path = folder / f"{row.network}.safetensors"
    size = pack(quantized, path)
    row.packed = size.total // 8
    restored = unpack_into(network, path).eval()
    allocated, from_file = Validation(network, problem, held_out).hold_all([answer.bits, path])
    row.changed = allocated.mismatch
    with torch.no_grad():
        x = held_out.inputs
        same = torch.equal(quantized(x), restored(x))
    if not same or allocated != from_file:
        row.missing = "the packed network differs"
    elif size.codes != int((answer.bits * problem.sizes)[weights].sum()):
        row.missing = f"codes take {size.codes} bits"


def about(problem: Problem, row: Row) -> None:
    """Note what a problem has in groups."""
    weights = problem.weights()
    row.weight_groups, row.activation_groups = int(weights.sum()), int((~weights).sum())
    row.in_groups = int(problem.sizes[weights].sum()) / row.parameters
    row.unmeasured = 0 if problem.unmeasured is None else int(problem.unmeasured.sum())
    accounted = int(problem.sizes[weights].sum()) + sum(stay.elements for stay in problem.stays)
    if accounted != row.parameters:
        row.missing = f"{row.parameters - accounted} parameters in no group and no list"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", help="only these networks")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or (QUICK if options.quick else FAMILIES):
            row = Row(name, FAMILIES[name][0])
            try:
                network = build(name)
                row.parameters = sum(parameter.numel() for parameter in network.parameters())
                whole_way(network, row, Path(folder))
            except Exception as error:  # the next family is tried all the same
                row.missing = str(error) if isinstance(error, ImpqError) else f"{type(error).__name__}: {error}"
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    return 1 if any(row.missing for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
