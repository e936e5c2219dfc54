"""What a quantized training step costs: this project, brevitas and torchao on one network in one run.

    python benchmarks/training.py [--quick] [--threads 1] [--json]

ResNet-20 on images of 28x28, weights kernel by kernel in a random mix of 1 to 8 bits and every rectifier's output in 8.
brevitas quantizes the same tensors at 4 and 8 bits (per-channel weights, learned activation ranges, as its layers
come); torchao's fake quantizer has no convolutions and no static activations, so it is given the weights alone (4 bits,
per channel). Steps of all networks take turns, so that what else the machine does falls on all of them; the ratio is
that of the medians. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings

import numpy as np
from _needs import need, skips

need("torch")

import torch
from torch import nn
from torch.nn import functional

from impq_opt.measure.structure import structure
from impq_opt.networks import load_network
from impq_opt.quantize import quantize

TARGET = 1.3  # of the float step


def ours(network: nn.Module) -> nn.Module:
    problem = structure(network, (1, 28, 28), groups="kernel", bits=range(1, 9))
    bits = np.random.default_rng(0).integers(1, 9, len(problem))
    bits[~problem.weights()] = 8
    return quantize(network, problem, bits)


def brevitas(network: nn.Module) -> nn.Module:
    import brevitas.nn as qnn

    def convert(module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                new = qnn.QuantConv2d(
                    child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,
                    bias=False, weight_bit_width=4, weight_scaling_per_output_channel=True,
                )  # fmt: skip
            elif isinstance(child, nn.Linear):
                new = qnn.QuantLinear(child.in_features, child.out_features, bias=True, weight_bit_width=4)
            elif isinstance(child, nn.ReLU):
                new = qnn.QuantReLU(bit_width=8)
            else:
                convert(child)
                continue
            new.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, new)
        return module

    return convert(copy.deepcopy(network)).to(memory_format=torch.channels_last)


def torchao(network: nn.Module) -> nn.Module:
    from torch.nn.utils import parametrize
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int4, "per_channel", is_symmetric=True))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return self.quantizer(weight.flatten(1)).reshape(weight.shape)

    copied = copy.deepcopy(network)
    for module in list(copied.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            parametrize.register_parametrization(module, "weight", Weights())
    return copied


PEERS = {"brevitas": brevitas, "torchao": torchao}


class Stepper:
    """One network and its optimizer."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.network, self.images, self.labels = network.train(), images, labels
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step(self) -> float:
        began = time.perf_counter()
        loss = functional.cross_entropy(self.network(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(128, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (128,))
    base = load_network("resnet20", channels=1, classes=10, untrained=True).to(memory_format=torch.channels_last)
    steppers = {"float": Stepper(copy.deepcopy(base), images, labels), "impq-opt": Stepper(ours(base), images, labels)}
    for name, make in PEERS.items():
        if not skips(name, name):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                steppers[name] = Stepper(make(base), images, labels)
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(2 + (12 if options.quick else 60)):
        for name, stepper in steppers.items():
            seconds = stepper.step()
            if number >= 2:  # the first steps allocate
                times[name].append(seconds)
    medians = {name: float(np.median(some)) for name, some in times.items()}
    ratios = {name: median / medians["float"] for name, median in medians.items()}
    print(f"{'training step':14}{'median [ms]':>12}{'of float':>10}   128 images, {options.threads} thread(s)")
    for name, median in medians.items():
        print(f"{name:14}{1e3 * median:12.1f}{ratios[name]:10.2f}")
    peers = [ratios[name] for name in PEERS if name in ratios]
    figures = {"quantized step": (ratios["impq-opt"], TARGET)}
    if peers:
        figures["quantized step against the slower peer"] = (ratios["impq-opt"] / max(peers), 1.0)
    record = {
        name: {"value": value, "target": target, "unit": "ratio", "holds": value <= target}
        for name, (value, target) in figures.items()
    }
    if options.json:
        print(json.dumps(record))
    return 0 if all(one["holds"] for one in record.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
