"""Every parameter of a network is in a weight site or stays as it is, with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measure_world import Attention, Branches, Norms, Odd, noise, seeded
from torch import nn
from torch.nn import functional

from impq_opt.tracing.trace import trace


class Mixed(nn.Module):
    """A layer that nobody calls, and weights that are multiplied by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle = nn.Linear(6, 5, dtype=torch.float64), nn.Linear(3, 3)
        self.by_hand, self.gain = nn.Parameter(torch.randn(5, 4).double()), nn.Parameter(torch.ones(5).double())
        self.out = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Any) -> Any:
        return self.out((functional.relu(self.first(x.double())) * self.gain) @ self.by_hand)


@pytest.mark.parametrize(
    ("kind", "x"),
    [
        (Odd, noise(2, 3, 16, 16)),
        (Attention, torch.zeros(2, 7, dtype=torch.int64)),
        (Branches, noise(2, 1, 9, 9)),
        (Norms, noise(2, 2, 9, 9)),
        (Mixed, noise(2, 6)),
    ],
)
def test_nothing_vanishes(kind: Any, x: Any) -> None:
    network = seeded(kind)
    traced = trace(network, x)
    named = [site.parameter for site in traced.weights] + [stay.parameter for stay in traced.stays]
    parameters = dict(network.named_parameters())
    assert sorted(named) == sorted(parameters)
    for stay in traced.stays:
        assert (stay.elements, stay.bits) == (
            parameters[stay.parameter].numel(),
            8 * parameters[stay.parameter].element_size(),
        )
        assert stay.reason


def test_the_reasons_are_the_true_ones() -> None:
    reasons = {stay.parameter: stay.reason for stay in trace(seeded(Mixed), noise(2, 6)).stays}
    assert reasons["idle.weight"] == reasons["idle.bias"] == "the logits do not depend on it"
    assert reasons["first.bias"] == reasons["out.bias"] == "bias of a layer"
    assert reasons["gain"] == "read by mul, as no layer's weight"
    norms = {stay.parameter: stay.reason for stay in trace(seeded(Norms), noise(2, 2, 9, 9)).stays}
    assert norms["front.weight"] == norms["norm_h.bias"] == "scale or shift of a normalization"
