"""Weights of every kind of call: their per-sample gradients are those that torch finds one sample at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measure_world import noise
from torch import nn
from torch.nn import functional

from impq_opt.measure.taps import Taps
from impq_opt.tracing.trace import trace

TOKENS = torch.tensor([[1, 4, 4, 2], [0, 3, 1, 5], [2, 2, 2, 6]])


class Made(nn.Module):
    """A network from its parts and a function of itself and the input."""

    def __init__(self, forward: Any, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.made = forward

    def forward(self, x: Any) -> Any:
        return self.made(self, x)


def weights(*shape: Any) -> Any:
    return nn.Parameter(torch.randn(*shape))


def transposed() -> Any:
    def forward(net: Any, x: Any) -> Any:
        return net.out(functional.relu(net.up(functional.relu(net.a(x)))).mean((2, 3)))

    return Made(forward, a=nn.Conv2d(1, 4, 3), up=nn.ConvTranspose2d(4, 6, 3, 2, groups=2), out=nn.Linear(6, 3))


def recurrent() -> Any:
    def forward(net: Any, x: Any) -> Any:
        steps, last = net.lstm(x.squeeze(1))
        return net.out(steps[:, -1] + net.gru(steps)[1][0].repeat(1, 2) + last[0][-1].repeat(1, 2))

    parts = {"lstm": nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True), "gru": nn.GRU(8, 4, batch_first=True)}
    return Made(forward, **parts, out=nn.Linear(8, 3))


def cells() -> Any:
    def forward(net: Any, x: Any) -> Any:
        x = x.squeeze(1)
        state = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)
        for step in range(3):
            state = net.cell(x[:, step], state)
        return net.out(state[0] + state[1])

    return Made(forward, cell=nn.LSTMCell(6, 4), out=nn.Linear(4, 3))


def products() -> Any:
    def forward(net: Any, x: Any) -> Any:
        x = functional.relu(x.flatten(1) @ net.w.t())
        x = torch.addmm(net.b, x, net.v).relu()
        x = torch.einsum("bi,eio->beo", x, net.experts).relu().sum(1)
        return net.pair(x, x)

    parts = {"w": weights(8, 36), "v": weights(8, 5), "b": weights(5), "experts": weights(3, 5, 4)}
    return Made(forward, **parts, pair=nn.Bilinear(4, 4, 3))


def prefix() -> Any:
    def forward(net: Any, x: Any) -> Any:
        x = functional.relu(net.a(x.flatten(1)))
        return net.out(functional.relu(functional.linear(x, net.a.weight[:5, :8])))

    return Made(forward, a=nn.Linear(36, 8), out=nn.Linear(5, 3))


def tied() -> Any:
    def forward(net: Any, x: Any) -> Any:
        return net.head(functional.relu(net.a(net.table(x).mean(1))))

    made: Any = Made(forward, table=nn.Embedding(7, 4), a=nn.Linear(4, 4), head=nn.Linear(4, 7, bias=False))
    made.head.weight = made.table.weight
    return made


def looked_up() -> Any:
    return Made(lambda net, x: net.out(net.table(x).flatten(1).tanh()), table=nn.Embedding(7, 4), out=nn.Linear(16, 3))


KINDS = {
    transposed: ({"a", "up", "out"}, noise(3, 1, 6, 6)),
    recurrent: (
        {f"lstm.weight_{k}_l{n}{r}" for k in ("ih", "hh") for n in (0, 1) for r in ("", "_reverse")}
        | {"gru.weight_ih_l0", "gru.weight_hh_l0", "out"},
        noise(3, 1, 6, 6),
    ),
    cells: ({"cell.weight_ih", "cell.weight_hh", "out"}, noise(3, 1, 6, 6)),
    products: ({"w", "v", "experts", "pair"}, noise(3, 1, 6, 6)),
    prefix: ({"a", "out"}, noise(3, 1, 6, 6)),
    tied: ({"head", "a"}, TOKENS),
    looked_up: ({"table", "out"}, TOKENS),
}


@pytest.mark.parametrize("portion", [1, 1 << 21])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_gradients_are_those_of_every_sample_alone(kind: Any, portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names, x = KINDS[kind]
    monkeypatch.setattr("impq_opt.measure.calls._PORTION", portion)
    torch.manual_seed(0)
    network = kind().eval()
    traced = trace(network, x)
    assert {site.name for site in traced.weights} == names
    parameters = dict(network.named_parameters(remove_duplicate=False))
    expected: dict[str, list[Any]] = {site.name: [] for site in traced.weights}
    for sample in x:
        logits = network(sample[None])[0]
        held = [parameters[site.parameter] for site in traced.weights]
        for site, gradient in zip(traced.weights, torch.autograd.grad(logits[1] - logits[0], held), strict=True):
            expected[site.name].append(gradient.flatten(1).square())
    for fine in (False, True):
        taps = Taps(traced, fine=fine)
        logits = taps.forward(x)
        taps.backward((logits[:, 1] - logits[:, 0]).sum())
        for name, squares in expected.items():
            every = torch.stack(squares)
            wanted = every.sum(0) if fine else every.sum(2)
            torch.testing.assert_close(taps.weights[name], wanted, rtol=1e-4, atol=1e-6)


def test_multiply_accumulates_and_lengths_are_those_of_the_formulas() -> None:
    sites = {site.name: site for site in trace(products().eval(), noise(2, 1, 6, 6)).weights}
    assert [(sites[n].uses[0].macs, sites[n].length) for n in ("w", "v", "experts", "pair")] == [
        (8 * 36, 36),
        (8 * 5, 8),
        (3 * 5 * 4, 5),
        (3 * 4 * 4, 16),
    ]
    steps = {site.name: site for site in trace(recurrent().eval(), noise(2, 1, 6, 6)).weights}
    assert steps["gru.weight_ih_l0"].uses[0].macs == 6 * 12 * 8
