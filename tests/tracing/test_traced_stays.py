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
    named = [site.parameter for site in traced.weights] + [stay.name for stay in traced.stays]
    parameters = dict(network.named_parameters())
    assert sorted(named) == sorted(parameters)
    for stay in traced.stays:
        assert (stay.elements, stay.bits) == (
            parameters[stay.name].numel(),
            8 * parameters[stay.name].element_size(),
        )
        assert stay.reason


def test_the_reasons_are_the_true_ones() -> None:
    reasons = {stay.name: stay.reason for stay in trace(seeded(Mixed), noise(2, 6)).stays}
    assert reasons["idle.weight"] == reasons["idle.bias"] == "the logits do not depend on it"
    assert reasons["first.bias"] == reasons["out.bias"] == "bias of a layer"
    assert reasons["gain"] == "read by mul, as no layer's weight"
    norms = {stay.name: stay.reason for stay in trace(seeded(Norms), noise(2, 2, 9, 9)).stays}
    assert norms["front.weight"] == norms["norm_h.bias"] == "scale or shift of a normalization"


class Positions(nn.Module):
    """A table of positions that is looked up without the data, and a token that is put in front."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.first = nn.Embedding(4, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.line, self.unused = nn.Linear(8, 3), nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * (1 + self.place(torch.arange(4)))
        logits: torch.Tensor = self.line(torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1).mean(1))
        return logits


def test_what_is_read_without_the_data_is_not_said_to_be_unread() -> None:
    traced = trace(Positions().eval(), torch.randn(2, 4, 8))
    reasons = {stay.name: stay.reason for stay in traced.stays}
    assert reasons["place.weight"] == "table of an embedding"
    assert reasons["first"].startswith("read by")
    assert reasons["unused"] == "the logits do not depend on it"


def test_biases_of_recurrent_layers_are_called_so() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g, self.out = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.out(self.g(x)[0][:, -1])
            return logits

    reasons = {stay.name: stay.reason for stay in trace(Recurrent().eval(), torch.randn(2, 3, 4)).stays}
    assert reasons["g.bias_ih_l0"] == reasons["g.bias_hh_l0"] == "bias of a recurrent layer"
