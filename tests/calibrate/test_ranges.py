"""Ranges of weights by squared gradients, and of activations by squared errors, against brute force."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from calibrate_world import same, state, world
from torch import nn

from impq_opt.calibrate import Calibration, Change, Reference, Work
from impq_opt.calibrate.parts.ranges import squared_gradients
from impq_opt.data import Dataset
from impq_opt.errors import OptionError
from impq_opt.quantize import activation_quantizers, load_method, quantized_weights
from impq_opt.tracing.trace import trace


def _work(found: Any, quantized: Any, samples: int = 66) -> Work:
    rows = torch.arange(samples)
    reference = Reference(trace(found.network, found.x[:2]), Dataset(found.x), rows, rows[:8])
    return Work(copy.deepcopy(quantized), reference)


def test_squared_gradients_are_those_of_the_fisher_information() -> None:
    """Of one linear layer they are known: the mean of p (1 - p) x^2, for each class and input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 3, generator=generator) * torch.tensor([0.3, 1.0, 3.0])
    network = nn.Linear(3, 4).eval()
    with torch.no_grad():
        network.weight.copy_(torch.randn(4, 3, generator=generator) * torch.tensor([[0.1], [0.5], [1.0], [1.0]]))
    rows = torch.arange(4096)
    squares = squared_gradients(Work(network, Reference(trace(network, x[:2]), Dataset(x), rows, rows[:8])), "ranges")[
        "weight"
    ]
    with torch.no_grad():
        chances = network(x).softmax(1)
    exact = ((chances * (1 - chances))[:, :, None] * x[:, None].square()).mean(0)
    ratio = squares / (exact / exact.mean())
    assert float(ratio.min()) > 0.6 and float(ratio.max()) < 1.6  # 512 sums of eight
    assert float(exact.max() / exact.min()) > 50


@pytest.mark.parametrize("spec", ["mid-rise", "mid-rise:one_bit=mean", "asymmetric", "symmetric:over=2", "zero"])
def test_a_fitted_range_has_the_least_weighted_error_of_all_that_are_tried(spec: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, counts = (torch.randn(4, 6, generator=generator) for _ in range(2))
    counts = counts.abs().pow(4)
    quantizer: Any = load_method(spec).quantizer(weight.shape, [1, 2, 3, 4], [6, 6, 6, 6])
    before = quantizer.side(weight)

    def error(side: Any) -> Any:
        quantizer.hold(side)
        return ((quantizer(weight) - weight).square() * counts).double().sum(1)

    fitted = quantizer.fitted(weight, counts)
    least = error(fitted)
    for share in torch.arange(1, 65) / 64:
        tried = error({name: share * part for name, part in before.items()})
        assert bool((least <= tried + 1e-5).all()), (float(share), least, tried)
    assert bool((error(before) > least).any())
    alike = quantizer.fitted(weight, torch.ones_like(weight))
    if "one_bit" not in spec:
        errors = load_method(f"{spec}{',' if ':' in spec else ':'}statistic=mse").quantizer(
            weight.shape, [1, 2, 3, 4], [6] * 4
        )
        assert all(torch.equal(alike[name], part) for name, part in errors.side(weight).items())


def test_what_does_not_count_has_no_say() -> None:
    """An outlier of no importance is clipped, and where nothing counts the range stays."""
    weight = torch.tensor([[0.1, -0.2, 0.15, 9.0], [0.1, -0.2, 0.15, 9.0]])
    counts = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    quantizer: Any = load_method("zero").quantizer(weight.shape, 3, [8])
    side = quantizer.fitted(weight, counts)
    assert float(side["scale"][0].abs()) < 0.5 and float(side["scale"][1].abs()) == 9.0


def test_ranges_are_held_before_codes_are_chosen_and_left_alone_behind() -> None:
    found = world("net")
    quantized = found.quantized(2, scheme="symmetric")
    work = _work(found, quantized)
    expected = squared_gradients(work, "ranges")
    done = found.calibrate(quantized, ["ranges", "gptq", "ranges"], samples=66)
    assert [step.outcome for step in done.steps] == ["kept", "kept", "nothing"]
    assert done.steps[2].reason.startswith("its grid is held already: ")
    for name, weight in quantized_weights(done.network).items():
        assert weight.quantizer._buffers["held_scale"] is not None
        assert name in expected
    alone = found.calibrate(quantized, ["ranges:by=error"], samples=66)
    errors = quantized_weights(found.quantized(2, scheme="symmetric:statistic=mse"))
    for name, weight in quantized_weights(alone.network).items():
        assert torch.equal(weight.value, errors[name].value)
    other = found.calibrate(found.quantized(1, scheme="bwn"), ["ranges"], samples=66).steps[0]
    assert other.outcome == "nothing" and "rounded by bwn" in other.reason
    with pytest.raises(OptionError, match=r"ranges.by"):
        found.calibrate(quantized, ["ranges:by=max"])


def test_ranges_of_activations_have_the_least_error_call_after_call() -> None:
    """Held against the float network with the quantizers in front as they are now."""
    found = world("net")
    quantized = found.quantized(3, weights_only=False)
    for quantizer in activation_quantizers(quantized).values():
        quantizer.stretch(quantizer.span * 7)
    done = found.calibrate(quantized, ["clips"], samples=66)
    (step,) = done.steps
    own = activation_quantizers(done.network)
    assert step.outcome == "kept" and set(step.changed) == set(own) and len(own) > 1
    read: dict[str, Any] = {}
    for label, quantizer in own.items():
        quantizer.register_forward_pre_hook(lambda _, given, label=label: read.__setitem__(label, given[0]))
    with torch.no_grad():
        done.network.eval()(found.calibrated_on(66))
    for label, quantizer in own.items():
        values, best = read[label], quantizer.span
        least = float((quantizer(values) - values).double().square().sum())
        top = float(values.abs().max()) * (2 if quantizer.signed else 1)
        for place in range(1, 65):
            quantizer.stretch(top * place / 64)
            assert least <= float((quantizer(values) - values).double().square().sum()) * (1 + 1e-6), label
        quantizer.stretch(best)
    assert found.calibrate(found.quantized(3), ["clips"]).steps[0].reason == "no activation is quantized"


@dataclass(frozen=True)
class Stretched(Calibration):
    """Makes every range of activations too long by far."""

    name = "stretched"
    summary = "a longer range"
    source = "none"

    def apply(self, work: Work) -> Change:
        for quantizer in activation_quantizers(work.network).values():
            quantizer.stretch(1e4)
        return Change(("all",))


def test_ranges_of_activations_are_undone_too() -> None:
    found = world("net")
    quantized = found.quantized(4, weights_only=False)
    done = found.calibrate(quantized, [Stretched()], samples=66)
    assert [step.outcome for step in done.steps] == ["undone"]
    spans = [
        [quantizer.span for quantizer in activation_quantizers(each).values()] for each in (quantized, done.network)
    ]
    assert spans[0] == spans[1] and max(spans[0]) < 1e3
    assert same(state(done.network), state(quantized))
