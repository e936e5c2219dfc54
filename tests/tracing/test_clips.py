"""Where an activation ends, as the calls say: the rules of clips, and who needs a tensor that is only moved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from quantize_world import EXAMPLE, net
from torch import Tensor, nn
from torch.nn import functional

from impq_opt.tracing.trace import trace


class Ends(nn.Module):
    """A convolution, perhaps a batch-norm, and what ends its values."""

    def __init__(self, end: nn.Module, norm: float | None) -> None:
        super().__init__()
        self.conv, self.end, self.out = nn.Conv2d(1, 3, 3), end, nn.Linear(3, 4)
        self.norm: nn.Module = nn.Identity()
        if norm is not None:
            batch_norm = nn.BatchNorm2d(3)
            nn.init.constant_(batch_norm.weight, norm)
            self.norm = batch_norm

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.end(self.norm(self.conv(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("end", "norm", "clip", "rule"),
    [
        (nn.ReLU(), None, math.nan, ""), (nn.ReLU(), 0.5, 3.0, "batch-norm"), (nn.ReLU6(), None, 6.0, "rectifier"),
        (nn.ReLU6(), 0.5, 3.0, "batch-norm"), (nn.ReLU6(), 2.0, 6.0, "rectifier"), (nn.Hardtanh(), None, math.nan, ""),
        (nn.Hardtanh(), 0.5, math.nan, ""), (nn.Hardtanh(0.0, 2.0), None, 2.0, "rectifier"),
        (nn.Hardtanh(0.0, 2.0), 0.25, 1.5, "batch-norm"), (nn.Hardtanh(-2.0, 2.0), 0.5, math.nan, ""),
        (nn.Sigmoid(), 0.5, math.nan, ""),
    ],
)  # fmt: skip
def test_where_a_rectifier_ends(end: nn.Module, norm: float | None, clip: float, rule: str) -> None:
    torch.manual_seed(0)
    site = trace(Ends(end, norm).eval(), torch.randn(2, 1, 6, 6)).activations[-1]
    assert site.rule == rule
    assert site.clip == pytest.approx(clip, nan_ok=True)


class Moved(nn.Module):
    """A tensor that is read late, through a chunk, and one that padding makes negative."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(4, 4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x).relu()
        left, _ = first.chunk(2, 1)
        later = self.b(x).relu().tanh().tanh().tanh()
        padded = nn.functional.pad(self.c(left).relu(), (2, 2), value=-1.0)
        logits: Tensor = self.out(torch.cat([padded[:, :4], later], 1))
        return logits


def test_a_tensor_is_in_memory_until_the_last_part_of_it_is_read() -> None:
    torch.manual_seed(0)
    traced = trace(Moved().eval(), torch.randn(2, 8), residual="accumulate")
    site = next(site for site in traced.activations if site.shape == (8,) and "relu" in site.node)
    reader = next(use.node for weight in traced.weights if weight.name == "c" for use in weight.uses)
    assert site.steps[1] == list(traced.graph).index(reader)


def test_padding_below_zero_is_no_rectified_tensor() -> None:
    torch.manual_seed(0)
    traced = trace(Moved().eval(), torch.randn(2, 8), residual="accumulate")
    padded = next(name for name in traced.graph if traced.graph.nodes[name]["op"] in ("pad", "constant_pad_nd"))
    assert not traced.is_rectified(padded)
    assert traced.is_rectified(next(traced.graph.predecessors(padded)))


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
