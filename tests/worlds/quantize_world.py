"""A small network with calls of every kind that activations are named after; problems without a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from known import known
from torch import nn
from torch.nn import functional

from impq_opt.data import Dataset
from impq_opt.groups.damage import PowerLaw
from impq_opt.measure.api import survey_of
from impq_opt.measure.assemble import assemble
from impq_opt.quantize import WeightQuantizer


class Net(nn.Module):
    """A residual network whose relu is called three times, once as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)) + x)
        x = functional.relu(self.act(x) - 0.1)
        return self.fc(x.mean((2, 3)))


EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = ("conv1.weight", "conv2.weight", "fc.weight", "relu", "relu_1", "act", "relu_2")


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    network = Net()
    for bn in (network.bn1, network.bn2):
        nn.init.uniform_(bn.weight, 0.5, 1.5)
        nn.init.uniform_(known(bn.running_var), 0.5, 1.5)
    return network.eval()


def declared(network: Any, x: Any, residual: str = "tie") -> Any:
    """Return the problem of a network without measuring it, and its survey."""
    survey = survey_of(network, Dataset(x, name="noise"), bits=range(1, 9), residual=residual)
    signed = [name for name, over in survey.ranges.items() if over.signed]
    about = {"input": survey.network.module.takes, "signed": signed}
    law = PowerLaw(np.ones(len(survey)))
    return assemble(survey, law, metric="none", unit="none", provenance=about), survey


class Learned(WeightQuantizer):
    """The quantizer of a weight with a learned gain on its scale, as a method with learned spans has."""

    def __init__(self, plain: WeightQuantizer) -> None:
        super().__init__(plain.shape, plain.group_bits, plain.group_sizes, plain.method)
        self.gain = nn.Parameter(torch.ones(()))

    def side(self, weight: Any) -> Any:
        return {name: tensor * self.gain.detach() for name, tensor in super().side(weight).items()}

    def forward(self, weight: Any) -> Any:
        return super().forward(weight) + (self.gain - self.gain.detach()) * weight.detach()


def learning(quantized: Any) -> Any:
    """Return a quantized network, changed: the quantizer of ``conv2.weight`` learns."""
    chain = quantized.get_submodule("conv2").parametrizations.weight
    chain[0] = Learned(chain[0])
    return quantized
