"""Where quantizers are put: what every layer reads is on the grid of the group that the problem says it reads.

Networks are generated: blocks in blocks, modules that are called twice, calls of functions of one name, writes in
place, views, branches that are added or joined. A layer reads a group's grid through calls that only move values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from quantize_world import declared
from torch import nn
from torch.nn import functional

from impq_opt.quantize import activation_quantizers, quantize, quantized_weights

WIDTH, CLASSES = 4, 3
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # a network takes a second: a failing one is small enough


class Block(nn.Module):
    """Runs its steps on x (n, 4, 5, 5); each step is a name and modules of its own, or those that others have too."""

    def __init__(self, steps: Any, shared: Any) -> None:
        super().__init__()
        self.steps = [name for name, _ in steps]
        for number, (name, inner) in enumerate(steps):
            if name in ("conv", "linear", "encoder"):
                setattr(self, f"layer{number}", layer(name))
            if name == "block":
                setattr(self, f"inner{number}", Block(inner, shared))
        self.act = nn.ReLU()
        self.shared = shared  # the same module in every block

    def forward(self, x: Any) -> Any:
        kept = x
        for number, name in enumerate(self.steps):
            x, kept = self.step(name, number, x, kept)
        return x

    def step(self, name: Any, number: Any, x: Any, kept: Any) -> Any:
        own: Any = getattr(self, f"layer{number}", None)
        made = {
            "conv": lambda: own(x),
            "linear": lambda: own(x.transpose(1, 3)).transpose(1, 3),
            "encoder": lambda: own(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape),
            "block": lambda: getattr(self, f"inner{number}")(x),
            "shared": lambda: self.shared(x),
            "act": lambda: self.act(x),
            "relu": lambda: functional.relu(x),
            "relu_in_place": lambda: functional.relu(x * 1.0, inplace=True),
            "tanh": x.tanh,
            "keep": lambda: x,
            "add": lambda: x + kept,
            "add_in_place": lambda: x.clone().add_(kept),
            "join": lambda: joined(x, kept),
            "halves": lambda: torch.cat([x[:, 2:], x[:, :2]], 1),
            "write": lambda: overwritten(x * 1.0),
        }
        return made[name](), x if name == "keep" else kept


def joined(x: Any, kept: Any) -> Any:
    left, right = torch.cat([x, kept], 1).chunk(2, 1)
    return functional.relu(left) - right


def overwritten(x: Any) -> Any:
    x[:, :2] += 0.25
    x[:, 2:].mul_(2).relu_()
    return x


def layer(name: Any) -> Any:
    if name == "encoder":
        return nn.TransformerEncoderLayer(WIDTH, 2, 6, dropout=0.1, batch_first=True)
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1) if name == "conv" else nn.Linear(WIDTH, WIDTH)


class Net(nn.Module):
    def __init__(self, steps: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.body = Block(steps, nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU()))
        self.head = nn.Linear(WIDTH * 25, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(self.stem(x)).flatten(1))


LEAVES = ("conv", "linear", "shared", "act", "relu", "relu_in_place", "tanh", "keep", "add", "add_in_place", "join")
STEPS = st.recursive(
    st.lists(st.tuples(st.sampled_from((*LEAVES, "halves", "write", "encoder")), st.none()), min_size=1, max_size=4),
    lambda inner: st.lists(
        st.one_of(st.tuples(st.sampled_from(LEAVES), st.none()), st.tuples(st.just("block"), inner)),
        min_size=1,
        max_size=4,
    ),
    max_leaves=3,
)


def readings(quantized: Any, survey: Any, x: Any) -> Any:
    """Return what every layer of a quantized network reads, by the node of its call."""
    nodes = {use.node: site for site in survey.network.weights for use in site.uses}
    seen = {}

    class Look(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            if n.name in nodes:
                seen[n.name] = self.fetch_args_kwargs_from_env(n)[0][0]
            return super().run_node(n)

    with torch.no_grad():
        Look(quantized, graph=quantized.traced_graph).run(x)
    return seen


def on_grid(values: Any, quantizer: Any) -> Any:
    codes = values.double() / quantizer.step
    low, high = quantizer.ends
    whole = codes.round()
    return ((codes - whole).abs() < 1e-3) & (whole >= low) & (whole <= high)  # float32 holds a step to 1e-7


@pytest.mark.parametrize("residual", ["tie", "accumulate"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=UNSHRUNK)
@given(steps=STEPS, seed=st.integers(0, 99))
def test_every_layer_reads_the_grid_of_its_group(residual: str, steps: Any, seed: Any) -> None:
    torch.manual_seed(seed)
    network = Net(steps).eval()
    x = torch.randn(4, 1, 5, 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    problem, survey = declared(network, x, residual)
    bits = np.random.default_rng(seed).integers(2, 9, len(problem))
    quantized = quantize(network, problem, bits).eval()
    quantizers = activation_quantizers(quantized)
    seen = readings(quantized, survey, x)
    by_node = {site.node: site.name for site in survey.network.activations}
    for site in survey.network.weights:
        for use in site.uses:
            if not use.reads:
                continue
            grids = [quantizers[by_node[source]] for source in use.reads]
            assert torch.stack([on_grid(seen[use.node], grid) for grid in grids]).any(0).all(), (site.name, use.node)
    assert sorted(quantizers) == sorted(by_node.values())
    # Where nothing is rounded nothing changes: the traced copy without its quantizers is the network.
    plain = survey.network.copy().eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), rtol=1e-4, atol=1e-5)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for name, weight in quantized_weights(quantized).items():
        assert torch.equal(weight.latent, before[name])


def test_the_relu_that_is_meant_gets_the_quantizer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)

        def forward(self, x: Any) -> Any:
            return functional.relu(self.b(functional.relu(self.a(x))))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, WIDTH, 1), Twice(), nn.Flatten(), nn.Linear(WIDTH * 25, CLASSES)).eval()
    x = torch.randn(4, 1, 5, 5)
    problem, survey = declared(network, x, "accumulate")
    reads = [problem.names[int(source)] for source in problem.reads[problem.weights()] if source >= 0]
    quantized = quantize(network, problem, np.full(len(problem), 2)).eval()
    seen = readings(quantized, survey, x)
    inner = next(use.node for site in survey.network.weights if site.name == "1.b" for use in site.uses)
    assert reads[1] == "1"
    assert on_grid(seen[inner], activation_quantizers(quantized)["1"]).all()
    assert len(seen[inner].unique()) <= 4
