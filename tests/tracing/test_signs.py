"""What the calls in front of a tensor say of its range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quantize_world import EXAMPLE, net
from torch import nn
from torch.nn import functional

from impq_opt.tracing.trace import trace


def test_the_default_clip_is_the_batch_norms() -> None:
    network = net()
    traced = trace(network, EXAMPLE)
    expected = float((network.bn2.bias + 6 * network.bn2.weight.abs()).detach().max())
    assert traced.default_clip(traced.node_of("relu#2")) == pytest.approx(expected)
    plain = trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.randn(2, 2))
    assert plain.default_clip(plain.node_of("1")) == 4.0


def test_tensors_that_cannot_be_negative_are_known() -> None:
    traced = trace(net(), EXAMPLE)
    rectified = [
        label
        for label in ("conv1", "bn2", "relu", "add", "relu#2", "sub", "mean")
        if traced.is_rectified(traced.node_of(label))
    ]
    assert rectified == ["relu", "relu#2", "mean"]

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.out(torch.flatten(functional.relu(x) + torch.sigmoid(x), 1) - 1)

    sums = trace(Sum(), torch.randn(2, 2, 2))
    signs = [sums.is_rectified(sums.node_of(label)) for label in ("add", "flatten", "sub")]
    assert signs == [True, True, False]
