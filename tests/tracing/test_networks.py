"""Networks of every kind: traced, quantized, packed and unpacked equal to the bit, or one sentence with the reason."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantize_world import declared
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils import _pytree as pytree

from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError
from impq_opt.quantize import activation_quantizers, pack, quantize, quantize_traced, storage_bits, unpack_into
from impq_opt.tracing.trace import trace

PICTURES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 9, (6, 5), generator=torch.Generator().manual_seed(0))


class Made(nn.Module):
    """A network from its parts and a function of itself and the input."""

    def __init__(self, forward: Any, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.made = forward

    def forward(self, x: Any, scale: Any = None) -> Any:
        out = self.made(self, x)
        return out if scale is None else out * scale


def convolutions(
    change: Callable[..., Any] = lambda net: net,
    middle: Callable[..., Any] = lambda net, x: functional.relu(net.b(x)),
    end: Callable[..., Any] = lambda net, z: z,
) -> Any:
    """Two convolutions and a linear layer; what is between and behind them is the kind."""
    net = Made(
        lambda net, x: end(net, net.out(middle(net, functional.relu(net.a(x))).mean((2, 3)))),
        a=nn.Conv2d(1, 6, 3, padding=1),
        b=nn.Conv2d(6, 6, 3, padding=1),
        out=nn.Linear(6, 4),
    )
    return change(net) or net


def without_gradient(net: Any, x: Any) -> Any:
    with torch.no_grad():
        return functional.relu(net.b(x))


def with_autocast(net: Any, x: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        x = functional.relu(net.b(x))
    return x.float()


def constants(net: Any, x: Any) -> Any:
    x = functional.relu(net.b(x))
    grid = torch.arange(8.0, device=x.device) / 8
    return x + grid * torch.tensor([0.5]) + torch.zeros_like(x)


def by_size(net: Any, x: Any) -> Any:
    return functional.relu(net.b(functional.interpolate(x, size=8) if x.shape[-1] != 8 else x))


def masked(net: Any, z: Any) -> Any:
    return z.masked_fill(torch.tensor([False, False, False, True]), -torch.inf)


def length(net: Any, x: Any) -> Any:
    return functional.relu(net.b(x)) + torch.zeros(len(x), 6, 1, 1)


def pruned(net: Any) -> None:
    prune.l1_unstructured(net.b, "weight", 0.5)


def tied() -> Any:
    net = Made(
        lambda net, x: functional.linear(functional.relu(net.a(net.table(x).mean(1))), net.table.weight),
        table=nn.Embedding(9, 6),
        a=nn.Linear(6, 6),
    )
    return net


def encoder() -> Any:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
    return Made(
        lambda net, x: net.out(net.layer(net.front(x.squeeze(1))).mean(1)),
        front=nn.Linear(8, 8),
        layer=layer,
        out=nn.Linear(8, 4),
    )


def attention() -> Any:
    def forward(net: Any, x: Any) -> Any:
        x = net.front(x.squeeze(1))
        return net.out((x + net.attention(x, x, x)[0])[:, 0])

    parts = {"attention": nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.2)}
    return Made(forward, front=nn.Linear(8, 8), **parts, out=nn.Linear(8, 4))


def experts() -> Any:
    def forward(net: Any, x: Any) -> Any:
        x = x.flatten(1)
        return net.out(torch.einsum("bi,eio->beo", x, net.experts).relu().mean(1))

    return Made(forward, experts=nn.Parameter(torch.randn(3, 64, 6) / 8), out=nn.Linear(6, 4))


def recurrent() -> Any:
    return Made(
        lambda net, x: net.out(net.steps(x.squeeze(1))[0][:, -1]),
        steps=nn.GRU(8, 5, batch_first=True),
        out=nn.Linear(5, 4),
    )


def bags() -> Any:
    return Made(lambda net, x: net.out(net.bag(x)), bag=nn.EmbeddingBag(9, 6), out=nn.Linear(6, 4))


def prefix() -> Any:
    return Made(
        lambda net, x: net.out(functional.linear(functional.relu(net.a(x.flatten(1))), net.a.weight[:, :8]).tanh()),
        a=nn.Linear(64, 8),
        out=nn.Linear(8, 4),
    )


def other_strides(net: Any) -> None:
    net.out.weight = nn.Parameter(torch.randn(6, 4).T)


def idle(net: Any) -> None:
    net.idle = nn.Linear(30, 30)


def written(net: Any, x: Any) -> Any:
    x = functional.relu(net.b(x))
    x[:, :2] += 1
    x.flatten(2).mul_(2)
    return x


def complex_gain(net: Any) -> None:
    net.gain = nn.Parameter(torch.randn(8, 5, dtype=torch.complex64))


def filtered(net: Any, x: Any) -> Any:
    return torch.fft.irfft2(torch.fft.rfft2(functional.relu(net.b(x))) * net.gain)


WORK: dict[str, Any] = {
    "plain": (convolutions, PICTURES),
    "without gradient": (lambda: convolutions(middle=without_gradient), PICTURES),
    "autocast inside": (lambda: convolutions(middle=with_autocast), PICTURES),
    "constants made in forward": (lambda: convolutions(middle=constants), PICTURES),
    "branches by size": (lambda: convolutions(middle=by_size), PICTURES),
    "length of the batch": (lambda: convolutions(middle=length), PICTURES),
    "masked logits": (lambda: convolutions(end=masked), PICTURES),
    "tuple": (lambda: convolutions(end=lambda net, z: (z, z.mean(1))), PICTURES),
    "dict": (lambda: convolutions(end=lambda net, z: {"hidden": z.T @ z, "logits": z}), PICTURES),
    "writes into views": (lambda: convolutions(middle=written), PICTURES),
    "weight norm": (lambda: convolutions(lambda net: parametrizations.weight_norm(net.b) and None), PICTURES),
    "spectral norm": (lambda: convolutions(lambda net: parametrizations.spectral_norm(net.out) and None), PICTURES),
    "pruned": (lambda: convolutions(pruned), PICTURES),
    "compiled": (lambda: torch.compile(convolutions(), backend="eager"), PICTURES),
    "data parallel": (lambda: nn.DataParallel(convolutions()), PICTURES),
    "double": (lambda: convolutions().double(), PICTURES.double()),
    "strides": (lambda: convolutions(other_strides), PICTURES),
    "idle layer": (lambda: convolutions(idle), PICTURES),
    "complex weight": (lambda: convolutions(complex_gain, filtered), PICTURES),
    "encoder layer": (encoder, PICTURES),
    "attention": (attention, PICTURES),
    "experts": (experts, PICTURES),
    "recurrent": (recurrent, PICTURES),
    "tied": (tied, TOKENS),
    "bags": (bags, TOKENS),
    "prefix of a weight": (prefix, PICTURES),
}


def logits_of(out: Any) -> Any:
    return out["logits"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out


@pytest.mark.filterwarnings("ignore")  # torch deprecates its own parts
@pytest.mark.parametrize("kind", WORK)
def test_it_works(kind: Any, tmp_path: Path) -> None:
    make, x = WORK[kind]
    torch.manual_seed(0)
    network = make().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    problem, survey = declared(network, x)
    named = [site.parameter for site in survey.network.weights] + [stay.name for stay in survey.network.stays]
    assert len(named) == len(set(named))
    with torch.no_grad():
        expected = network(x)
        fine = quantize(network, problem, np.full(len(problem), 8)).eval()(x)
        assert pytree.tree_structure(fine) == pytree.tree_structure(expected)
        error = (logits_of(fine) - logits_of(expected)).masked_fill(logits_of(expected).isinf(), 0).abs().max()
        assert float(error) < 0.1 * float(logits_of(expected).masked_fill(logits_of(expected).isinf(), 0).abs().max())
        rough = quantize(network, problem, np.where(problem.weights(), 3, 6)).eval()
        size = pack(rough, tmp_path / "packed")
        assert size.codes == storage_bits(rough) == 3 * int(problem.sizes[problem.weights()].sum())
        restored = unpack_into(network, tmp_path / "packed").eval()
        for batch in (x, x[:1], torch.cat([x, x])):  # any number of samples
            assert torch.equal(logits_of(restored(batch)), logits_of(rough(batch)))
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def stochastic(net: Any, x: Any) -> Any:
    return functional.dropout(functional.relu(net.b(x)), 0.3, training=True)


def batch_means(net: Any, x: Any) -> Any:
    return net.b(x - x.mean(0))


def batch_statistics(net: Any) -> None:
    net.b = nn.BatchNorm2d(6, track_running_stats=False)


def by_value(net: Any, x: Any) -> Any:
    return x if x.sum() > 0 else functional.relu(net.b(x))


def lazy() -> Any:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))


def scripted() -> Any:
    return torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), PICTURES)


def quantized() -> Any:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), {nn.Linear})


REFUSED: dict[str, Any] = {
    "stochastic": (lambda: convolutions(middle=stochastic), "decides by chance: the same input gives other logits"),
    "mean over the batch": (lambda: convolutions(middle=batch_means), "mixes the samples of a batch"),
    "batch statistics": (lambda: convolutions(batch_statistics), "mixes the samples of a batch"),
    "some rows": (
        lambda: convolutions(middle=lambda net, x: functional.relu(net.b(x[x.sum((1, 2, 3)) > 0]))),
        "index: has a tensor whose size depends on the values of the input",
    ),
    "by value": (lambda: convolutions(middle=by_value), "does other calls for other values of its input"),
    "fixed batch": (
        lambda: convolutions(middle=lambda net, x: net.b(x.view(2, 6, 8, 8))),
        "works for one size of batch only: .*from x.shape",
    ),
    "maps": (
        lambda: nn.Conv2d(1, 4, 3),
        r"is not a classifier: its output must be one tensor of logits .*\(0, 4, 6, 6\)",
    ),
    "one class": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), "needs at least two classes, got 1"),
    "no weights": (nn.Flatten, "has no weight of two or more dimensions"),
    "lazy": (lazy, "0: is not initialized: .*call the network once"),
    "TorchScript": (scripted, "is TorchScript, .*from its Python class"),
    "quantized": (quantized, "1: is quantized already, .*give the float network"),
    "meta": (lambda: nn.Linear(64, 3, device="meta"), "has no values: it is on the device 'meta'"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_one_sentence(kind: Any) -> None:
    make, sentence = REFUSED[kind]
    network = make().train()
    with pytest.raises(DataError, match=sentence) as told:
        trace(network, PICTURES)
    assert "\n" not in str(told.value)
    assert "..." not in str(told.value)
    assert all(module.training for module in network.modules() if not isinstance(module, torch.jit.ScriptModule))


def convnext(models: Any) -> Any:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(96, 192, 2), block(192, None, 2)], num_classes=5)


def efficientnet(models: Any) -> Any:
    block = functools.partial(models.efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    blocks = [block(1, 3, 1, 32, 16, 1), block(6, 3, 2, 16, 24, 2), block(6, 5, 2, 24, 40, 2)]
    return models.EfficientNet(blocks, dropout=0.2, num_classes=5)


def swin(models: Any) -> Any:
    return models.SwinTransformer([4, 4], 96, depths=[2, 2], num_heads=[3, 6], window_size=[7, 7], num_classes=5)


# Where one block is repeated many times, fewer of them. Whole networks and other families: benchmarks/families.py.
FAMILIES: dict[str, Callable[[Any], Any]] = {
    "convnext": convnext,
    "efficientnet": efficientnet,
    "googlenet": methodcaller("googlenet", num_classes=5, init_weights=False),
    "mobilenet_v3_small": methodcaller("mobilenet_v3_small", num_classes=5),
    "resnet18": methodcaller("resnet18", num_classes=5),
    "shufflenet_v2_x0_5": methodcaller("shufflenet_v2_x0_5", num_classes=5),
    "squeezenet1_1": methodcaller("squeezenet1_1", num_classes=5),
    "swin": swin,
}


# What multiplies nothing, and what is there for training alone.
STAY = ("the logits do not depend on it", "read by ")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_torchvision_is_quantized_whole(name: Any) -> None:
    torch.manual_seed(0)
    network = FAMILIES[name](torchvision_module("models")).eval()
    x = torch.randn(2, 3, 32, 32)
    problem, survey = declared(network, x)
    traced = survey.network
    reasons = {stay.name: stay.reason for stay in traced.stays}
    assert all(reasons[parameter].startswith(STAY) for parameter in traced.skipped)
    weights = int(problem.sizes[problem.weights()].sum())
    assert weights + sum(stay.elements for stay in traced.stays) == sum(p.numel() for p in network.parameters())
    quantized = quantize_traced(traced, problem, np.full(len(problem), 8)).eval()
    assert len(activation_quantizers(quantized)) == len(traced.activations)
    with torch.no_grad():
        expected = network(x)
        scale = float(expected.abs().max())
        assert float((traced.copy().eval()(x) - expected).abs().max()) <= 1e-3 * scale
        assert bool(torch.isfinite(quantized(x)).all())


def test_training_the_copy_is_training_the_network() -> None:
    """Dropout draws the same numbers, batch-norms count and average alike, frozen parts stay frozen."""

    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
            self.b, self.mean = nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6, momentum=None)
            self.drop, self.out = nn.Dropout(0.4), nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = functional.dropout(self.norm(self.a(x)).relu_(), 0.2, self.training)
            return self.out(self.drop(self.mean(self.b(x)).relu().mean((2, 3))))

    torch.manual_seed(0)
    network: Any = Drops().eval()
    network.a.weight.requires_grad_(False)
    traced = trace(network, PICTURES)
    copied: Any = traced.copy()
    assert list(copied.state_dict()) == list(network.state_dict())
    assert not copied.training
    for model in (network, copied):
        model.train()
        model.norm.eval()
        for seed in range(2):
            torch.manual_seed(seed)
            model(PICTURES + seed).square().sum().backward()
    assert copied.a.weight.grad is None
    for (name, value), other in zip(network.named_parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(other.grad, value.grad, msg=name)
    for (name, value), other in zip(network.named_buffers(), copied.buffers(), strict=True):
        torch.testing.assert_close(other, value, msg=name)
    again = copy.deepcopy(copied).eval()
    torch.testing.assert_close(again(PICTURES), network.eval()(PICTURES))


@pytest.mark.parametrize("kind", [encoder, attention])
def test_attention_drops_in_training_as_it_did(kind: Any) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    copied = trace(network, PICTURES).copy()
    for model in (network, copied):
        model.train()
    torch.manual_seed(1)
    expected = network(PICTURES)
    torch.manual_seed(1)
    torch.testing.assert_close(copied(PICTURES), expected)
    torch.testing.assert_close(copied.eval()(PICTURES), network.eval()(PICTURES))


def test_a_label_of_any_call_is_a_place_for_a_quantizer() -> None:
    from impq_opt import Problem

    torch.manual_seed(0)
    network = convolutions().eval()
    problem, _ = declared(network, PICTURES)
    assert [str(name) for name in problem.names] == ["a", "b", "out", "relu", "relu#2"]
    for label in ("a", "a.output", "relu", "mean", "out", "out.output"):
        one = Problem.from_sensitivities([4], [1.0], names=[label], kinds=["activation"], ranges=[8.0])
        quantize(network, one, [3], example=PICTURES)
    wrong = Problem.from_sensitivities([4], [1.0], names=["rely"], kinds=["activation"])
    with pytest.raises(
        DataError, match=re.escape("not of this network, which has no activation 'rely' (did you mean 'relu'")
    ):
        quantize(network, wrong, [3], example=PICTURES)


def test_tensors_that_calls_make_follow_the_parameters() -> None:
    traced = trace(convolutions(middle=constants).eval(), PICTURES)
    moved = traced.copy().to("meta")
    assert moved(PICTURES.to("meta")).device.type == "meta"
    assert traced.copy()(PICTURES).device.type == "cpu"


def test_labels_are_those_that_problems_have_always_had() -> None:
    torch.manual_seed(0)
    names = [site.name for site in trace(encoder().eval(), PICTURES).activations]
    assert names == [
        "front.output",
        "layer.self_attn.scaled_dot_product_attention",
        "layer.self_attn.out_proj.output",
        "layer.norm1",
        "layer.relu",
        "layer.linear2.output",
        "layer.norm2",
    ]
