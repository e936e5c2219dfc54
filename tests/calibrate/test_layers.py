"""Steps that go layer by layer: what the walk shows, means of the float network, roundings against brute force."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from calibrate_world import world
from measure_world import noise
from torch.nn.functional import conv2d

from impq_opt.calibrate import load_calibration
from impq_opt.calibrate.graphs import graph_of
from impq_opt.calibrate.layers import Walk, layers_of
from impq_opt.calibrate.parts.adaround import _error, _learned
from impq_opt.calibrate.parts.gptq import compensated, output_error
from impq_opt.calibrate.rounding import Cells, cells_of, patches
from impq_opt.errors import OptionError
from impq_opt.quantize import WeightQuantizer, quantized_weights
from impq_opt.tracing.sites import Use
from impq_opt.tracing.trace import trace

ROUNDING = ("gptq", "gptq:order=given", "adaround:steps=50")


def seen(network: Any, x: Any) -> dict[str, tuple[Any, Any]]:
    """Return what every module without parts reads and gives; of one that is called twice, the last time."""
    taken, copied = {}, copy.deepcopy(network).eval()
    for name, module in copied.named_modules():
        if not name.startswith("_") and ".parametrizations" not in name:
            module.register_forward_hook(lambda _, inputs, output, name=name: taken.update({name: (inputs[0], output)}))
    with torch.no_grad():
        copied(x)
    return taken


def test_a_walk_shows_what_layers_read_and_give_as_they_are_then() -> None:
    found = world("norms")
    quantized, traced = found.quantized(4), trace(found.network, found.x[:2])
    graph = traced.copy().eval()
    layers, left = layers_of(graph_of(quantized, traced), traced)
    assert [layer.name for layer in layers] == ["a", "b", "twice", "line", "full", "steps", "out"]
    assert left.notes() == ("used by several calls: shared",)
    assert [(len(layer.norms), layer.alone, layer.bias is None) for layer in layers] == [
        (1, True, False), (1, True, True), (1, False, False), (1, True, False), (1, True, False), (0, False, True),
        (0, False, False),
    ]  # fmt: skip
    walk, expected = Walk(graph, found.x.tensor_split(3)), seen(found.network, found.x)
    with torch.no_grad():
        for layer in layers:
            reads, gives = expected[layer.name]
            torch.testing.assert_close(torch.cat(list(walk.to(layer.use.node))), reads)
            if layer.name == "out":
                graph.get_submodule("out").bias.add_(1)  # type: ignore[operator]
                gives = gives + 1
            torch.testing.assert_close(torch.cat(walk.output()), gives)


@pytest.mark.parametrize("steps", [["bias"], ["statistics", "bias"]])
def test_means_become_those_of_the_float_network(steps: Any) -> None:
    """Behind each norm, or where none is, behind each layer; as if it were done layer after layer."""
    found = world("norms")
    quantized = found.quantized(2)
    done = found.calibrate(quantized, steps, samples=66)
    assert done.steps[-1].kept
    assert set(done.steps[-1].changed) == {"a", "b", "twice", "line", "full", "out"}
    assert done.steps[-1].notes == (
        "used by several calls: shared",
        "no bias of its own and no batch-norm behind it, to take up a shift: steps",
    )
    x = found.calibrated_on(66)
    wanted, got, before = (seen(each, x) for each in (found.network, done.network, quantized))
    for name in ("norm_a", "norm_b", "twice", "norm_e", "norm_f", "norm_g", "out"):
        shift = [(mean(taken[name][1]) - mean(wanted[name][1])).abs().max() for taken in (got, before)]
        assert shift[0] < 1e-4 < shift[1], name


def mean(output: Any) -> Any:
    """Return the mean of each channel."""
    return output.double().transpose(0, 1).flatten(1).mean(1) if output.ndim > 2 else output.double().mean(0)


# -- rounding --------------------------------------------------------------------------------------------------------


def cells(weight: Any, bits: int, scheme: str = "symmetric", groups: int = 1) -> tuple[Cells, Any]:
    quantizer = WeightQuantizer(weight.shape, [bits], [weight.numel()], scheme)
    return cells_of(quantizer, weight, groups), quantizer


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (6, 1, 2)])
def test_patches_are_what_kernels_are_multiplied_by(groups: int, stride: int, dilation: int) -> None:
    weight, x = noise(6, 6 // groups, 3, 2), noise(3, 6, 8, 9, seed=1)
    use = Use("", 2, (stride, stride), ((1, 1), (0, 0)), (dilation, dilation), groups, (), 1, 1)
    products = patches(x, weight.shape, use) @ weight.reshape(groups, 6 // groups, -1).mT
    expected = conv2d(x, weight, None, stride, (1, 0), dilation, groups)
    got = products.reshape(groups, 3, -1, 6 // groups).permute(1, 0, 3, 2).reshape(expected.shape)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("scheme", ["mid-rise", "asymmetric", "symmetric:over=2"])
def test_cells_round_as_the_quantizer_does(scheme: str) -> None:
    weight = noise(4, 6)
    found, quantizer = cells(weight, 3, scheme, groups=2)
    assert torch.equal(found.rounded(weight.reshape(2, 2, 6)).reshape(4, 6), quantizer(weight))


def by_hand(weight: Any, found: Cells, hessian: Any, order: Any) -> Any:
    """Round one weight after the other; after each, solve for those that are left, as the paper's equation (2) says."""
    left, values = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    for done, column in enumerate(order):
        rest = order[done:]
        inverse = torch.linalg.inv(hessian[rest][:, rest])
        values[:, column] = found.rounded(left[None, :, column].float(), (..., column))[0].double()
        error = (left[:, column] - values[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
    return values


@pytest.mark.parametrize("order", ["given", "activation"])
def test_compensation_is_that_of_the_paper_and_between_nearest_and_the_best(order: str) -> None:
    weight, x = noise(8, 5), noise(200, 5, seed=1) @ noise(5, 5, seed=2)
    hessian = (x.T @ x).double() / 200
    found, _ = cells(weight, 2)
    better = found.rounded(compensated(weight[None], found, hessian[None], 1e-9, order, torch.float32))
    places = hessian.diagonal().argsort(descending=True) if order == "activation" else torch.arange(5)
    torch.testing.assert_close(better[0].double(), by_hand(weight, found, hessian, places.tolist()))
    nearest, after = (
        output_error(weight[None], each, hessian[None])[0] for each in (found.rounded(weight[None]), better)
    )
    assert float(after.sum()) < float(nearest.sum())
    step = found.step[0, :, :1]
    best = torch.stack([
        output_error(weight[None], (torch.tensor(codes) * step)[None], hessian[None])[0]
        for codes in itertools.product((-1.0, 0.0, 1.0), repeat=5)
    ]).amin(0)  # fmt: skip
    assert bool((best <= after * (1 + 1e-9)).all())
    learned = _learned(weight[None], found, hessian[None], weight[None].double() @ hessian, 100)
    base = _error(weight[None], hessian[None], weight[None].double() @ hessian)[0]
    up_or_down = _error(found.rounded(learned), hessian[None], weight[None].double() @ hessian)[0] - base
    assert float(up_or_down.sum()) < float(nearest.sum()) and bool((best <= up_or_down * (1 + 1e-6)).all())


def test_where_inputs_are_not_alike_nothing_is_to_be_made_good() -> None:
    weight = noise(1, 8, 5)
    found, _ = cells(weight[0], 2)
    hessian = torch.diag_embed(torch.tensor([[1.0, 3.0, 0.0, 0.5, 2.0]], dtype=torch.float64))
    assert torch.equal(compensated(weight, found, hessian, 0.01, "activation", torch.float32), weight)


@pytest.mark.parametrize("spec", ROUNDING)
def test_no_kernel_of_a_network_gives_more_error_than_by_nearest_rounding(spec: str) -> None:
    """On the samples that it was calibrated on, with the same scales: of the first layer, which reads the same."""
    found = world("norms")
    quantized = found.quantized(3)
    before = {name: one.value for name, one in quantized_weights(quantized).items()}
    done = found.calibrate(quantized, [spec], samples=66)
    (step,) = done.steps
    assert step.notes == ("used by several calls: shared",)
    assert step.kept and {"a", "b"} <= set(step.changed), step
    after = {name: one.value for name, one in quantized_weights(done.network).items()}
    assert torch.equal(after["shared.weight"], before["shared.weight"])
    x = seen(found.network, found.calibrated_on(66))["a"][0]

    def errors(weight: Any) -> Any:
        change = conv2d(x.double(), (weight - found.network.a.weight.detach()).double(), padding=1)
        return change.square().mean((0, 2, 3))

    assert bool((errors(after["a.weight"]) <= errors(before["a.weight"]) * (1 + 1e-6)).all())
    assert float(errors(after["a.weight"]).sum()) < float(errors(before["a.weight"]).sum())
    for name, weight in quantized_weights(done.network).items():  # on the same grids
        own = quantized_weights(quantized)[name]
        assert all(
            torch.equal(kept, own.quantizer.side(own.latent)[part])
            for part, kept in weight.quantizer.side(weight.latent).items()
        )


def test_options_are_checked() -> None:
    for spec, message in {
        "gptq:damping=0": "gptq.damping: must be positive and finite",
        "gptq:order=backward": "order: unknown choice, got 'backward'",
        "adaround:steps=0": "adaround.steps: must be at least 1",
        "adaround:steps=many": "must be of type int, got 'many'",
    }.items():
        with pytest.raises(OptionError, match=message):
            load_calibration(spec)


def test_what_is_left_alone_is_told_by_the_reason() -> None:
    found = world("norms")
    (step,) = found.calibrate(found.quantized(2, scheme="twn"), ["gptq"]).steps
    assert (step.outcome, step.changed) == ("nothing", ())
    assert step.reason == (
        "used by several calls: shared; rounded by twn, whose levels cannot be held: a, b, twice and 4 more; "
        "no other kernel comes closer"
    )
