"""Trained and odd networks for the tests of measuring; everything in seconds and without downloads."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from known import known
from torch import Tensor, nn

from impq_opt.data import Dataset, load_data
from impq_opt.networks import FACTORIES
from impq_opt.tracing.trace import trace
from impq_opt.training import Training, train


@functools.cache
def digits_network() -> Any:
    """A small CNN trained on scikit-learn's digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = FACTORIES["small-cnn"]()
    settings = Training(batch=64, rate=0.1, schedule="one-cycle", warmup=0.3, optimizer="nesterov", augment="none")
    train(network, load_data("digits"), settings, epochs=8)
    torch.set_num_threads(threads)
    return network.eval()


_TRACED: dict[Any, Any] = {}


def _traced(network: Any, example: Any, **options: Any) -> Any:
    if not isinstance(example, Tensor) or not digits_network.cache_info().currsize or network is not digits_network():
        return trace(network, example, **options)
    weights = tuple(part._version for part in [*network.parameters(), *network.buffers()])
    modes = tuple(module.training for module in network.modules())
    key = weights, modes, example.dtype, example.shape, tuple(options.items())
    if key not in _TRACED:
        _TRACED[key] = trace(network, example, **options)
    return _TRACED[key]


@pytest.fixture(autouse=True)
def digits_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace :func:`digits_network` once, as long as its weights and modes stay: its graph is looked at, not changed."""
    for module in ("measure.api", "quantize.network", "validate.reality"):
        monkeypatch.setattr(f"impq_opt.{module}.trace", _traced)


class Odd(nn.Module):
    """Every kind of layer: strides, dilation, groups, depthwise, 'same' padding, 1d, shared linear, in-place calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 2, padding=(2, 1), dilation=(2, 1))
        self.b = nn.Conv2d(8, 8, 4, padding="same", groups=8)
        self.c = nn.Conv2d(8, 12, 3, groups=4, bias=False)
        self.d = nn.Conv1d(12, 12, 4, stride=2, padding=1)
        self.shared = nn.Linear(12, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        y = self.c(self.b(self.a(x).relu()).relu_()).relu().flatten(2)
        y = self.d(y).tanh().transpose(1, 2)
        y = self.shared(self.shared(y).relu()).relu()
        return self.out(y.mean(1))


class Volume(nn.Module):
    """A convolution in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Conv3d(2, 4, 3, stride=(1, 2, 1), padding=1), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.a(x).relu().mean((2, 3, 4)))


class Attention(nn.Module):
    """A transformer's encoder layer over tokens, with a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.out = nn.Linear(8, 4)

    def forward(self, tokens: Any) -> Any:
        return self.out(self.layer(self.embed(tokens)).mean(1))


class Branches(nn.Module):
    """A residual addition and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.after, self.out = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        x = self.relu(self.stem(x))
        x = self.relu(self.left(x) + x)
        both = torch.cat([x, self.relu(self.right(x))], 1)
        return self.out(self.relu(self.after(both)).mean((2, 3)))


class Norms(nn.Module):
    """Batch-norms: behind convolutions of every kind and a linear layer, without affine, read twice, in front."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.BatchNorm2d(2)
        self.a, self.norm_a = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6, eps=0.1)
        self.b, self.norm_b = nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6, affine=False)
        self.shared, self.norm_c, self.norm_d = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.twice, self.norm_e = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.line, self.norm_f = nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)
        self.full, self.norm_g = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.steps, self.norm_h = nn.Linear(8, 8), nn.BatchNorm1d(2)
        self.out = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                known(module.running_mean).normal_(0, 0.3)
                known(module.running_var).uniform_(0.3, 3)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)

    def forward(self, x: Any) -> Any:
        x = self.norm_a(self.a(self.front(x))).relu()
        x = self.norm_b(self.b(x)).relu()
        x = self.norm_c(self.shared(x)).relu() + self.norm_d(self.shared(x.tanh()))
        y = self.twice(x)
        x = (self.norm_e(y) + y).relu()  # read by the norm and by the addition
        x = self.norm_f(self.line(x.mean(3))).tanh().mean(2)
        x = self.norm_g(self.full(x)).tanh()
        x = self.norm_h(self.steps(torch.stack([x, -x], 1))).tanh()  # its channels are not the layer's outputs
        return self.out(x.mean(1))


def seeded(kind: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind().eval()


def noise(*shape: Any, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(network: Any, x: Any, fine: bool = False) -> Any:
    """E without range and constant, straight from the definition: one backward pass per sample and class.

    Returns the mean over samples per weight name of the squared gradients, per kernel (out,) or per weight.
    """
    total: dict[str, Any] = {}
    for sample in x:
        logits = network(sample[None])[0]
        best = int(logits.argmax())
        for other in range(len(logits)):
            if other == best:
                continue
            margin = logits[other] - logits[best]
            parameters = {n: p for n, p in network.named_parameters() if p.ndim > 1}
            grads = torch.autograd.grad(margin, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is None:
                    continue
                square = grad.double().flatten(1).square() / margin.detach().double() ** 2 / len(x)
                square = square if fine else square.sum(1)
                total[name] = total.get(name, 0) + square
    return total


def tensor_of(data: Dataset) -> torch.Tensor:
    """Return the inputs of data that are one tensor."""
    assert isinstance(data.inputs, torch.Tensor)
    return data.inputs


def data_of(x: Any, y: Any = None) -> Any:
    return Dataset(x, y, name="test")
