"""Methods that train otherwise than they test: what stands for a weight in training, what is frozen, what is added."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from rounds_world import Stripes, small
from scipy.stats import kstest, norm
from torch import nn
from torch.nn.utils import parametrize

from impq_opt import Problem
from impq_opt.errors import OptionError
from impq_opt.quantize import before_step, load_method, quantize, quantized_weights, training_of
from impq_opt.quantize.methods.base import Moment
from impq_opt.quantize.methods.dbq import annealed
from impq_opt.quantize.methods.rq import log_probabilities
from impq_opt.quantize.methods.uniform import WeightQuantizer
from impq_opt.quantize.methods.zero import Zero
from impq_opt.training import Batch, Hook, Hooks, Training, cross_entropy, train

EARLY, LATE = Moment(), Moment(0.999999)


def quantizer(spec: Any, weight: Any, bits: int) -> Any:
    return load_method(spec).quantizer(weight.shape, [bits], [weight.numel()])


def begun(spec: Any, weight: Any, bits: int, moment: Moment = EARLY) -> Any:
    """Return a quantizer in training, before a step."""
    chosen = quantizer(spec, weight, bits).train()
    with torch.no_grad():
        chosen.before_step(weight, moment)
    return chosen


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def networks(spec: Any, bits: int) -> Any:
    problem = Problem.from_sensitivities([54, 432], [1.0, 1.0], names=["conv1.weight", "conv2.weight"])
    return quantize(small(0), problem, [bits, bits], scheme=spec)


# -- the joints


class Telling(WeightQuantizer):
    """Writes down the moments that it is told."""

    def before_step(self, weight: Any, moment: Any) -> None:
        self.__dict__.setdefault("told", []).append(moment)


@dataclass(frozen=True)
class Told(Zero):
    name = "told"

    def quantizer(self, shape: Any, bits: Any, sizes: Any) -> Any:
        return Telling(shape, bits, sizes, self)


def test_quantizers_are_told_the_share_of_steps_done_and_their_number() -> None:
    quantized = networks(Told(), 2)
    objective, hook = training_of(quantized)
    assert objective is cross_entropy
    train(quantized, Stripes(128, 0), Training(batch=32, augment="none"), epochs=2, hook=hook)
    for place, weight in enumerate(quantized_weights(quantized).values()):
        told: Any = weight.quantizer.__dict__["told"]
        assert told == [Moment(step / 8, place, 2) for step in range(8)]


class Looking(Hook):
    """Looks at weights before and after the update, and at what the optimizer knows of them."""

    def __init__(self) -> None:
        self.steps = 0

    def before_step(self, course: Any) -> None:
        self.seen = []
        for weight in quantized_weights(course.network).values():
            frozen = weight.quantizer.frozen(weight.latent)
            assert frozen is not None
            self.seen.append((weight, frozen.clone(), weight.latent.detach().clone()))

    def after_step(self, course: Any) -> None:
        for weight, frozen, before in self.seen:
            assert torch.equal(weight.latent[frozen], before[frozen])
            assert not torch.equal(weight.latent, before)
            assert torch.equal(weight.value[frozen], before[frozen])  # at their levels
            pasts = [past for past in course.optimizer.state[weight.latent].values() if past.shape == before.shape]
            assert pasts and not any(past[frozen].any() for past in pasts)
            assert any(past[~frozen].any() for past in pasts)
            self.steps += bool(frozen.any())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_weights_keep_their_values_and_have_no_momentum(optimizer: Any) -> None:
    quantized, looking = networks("elq:stages=4", 2), Looking()
    objective, hook = training_of(quantized)
    training = Training(batch=32, rate=0.01, decay=0.1, augment="none", optimizer=optimizer)
    train(quantized, Stripes(128, 0), training, epochs=2, objective=objective, hook=Hooks(hook, looking))
    assert looking.steps == 2 * 6  # of two weights, in all steps but those of the first stage


def test_without_a_hook_a_network_in_eval_mode_has_the_rounded_weights() -> None:
    for spec, bits in (("rq", 3), ("uniq", 2), ("dbq", 4)):
        weight = normal(4, 9)
        chosen = begun(spec, weight, bits)
        assert not torch.equal(chosen(weight), chosen.eval()(weight))
        assert torch.equal(chosen(weight), chosen.values(chosen.codes(weight), chosen.side(weight)))


# -- ELQ


def bare() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def linear(spec: Any) -> Any:
    network = bare()
    parametrize.register_parametrization(network[0], "weight", quantizer(spec, network[0].weight, 2))
    before_step(network)
    return network


BATCH = Batch(normal(8, 6, seed=3), torch.arange(8) % 3)


def test_elq_adds_nothing_where_weights_are_at_their_levels() -> None:
    network = linear("elq:gap=2.0,pull=3.0")
    (weight,) = quantized_weights(network).values()
    objective = training_of(network).objective

    def loss(of: Any) -> Any:
        torch.manual_seed(1)
        return of(network, BATCH).loss.detach()

    assert float(loss(objective)) > float(loss(cross_entropy))
    with torch.no_grad():
        weight.latent.copy_(weight.value)
    assert torch.equal(weight.value, weight.latent)
    assert torch.equal(loss(objective), loss(cross_entropy))


def test_the_gradient_of_elq_is_that_of_its_formula_and_its_second_pass_leaves_no_trace() -> None:
    gap, pull = 0.5, 0.25
    network, float_network = linear(f"elq:gap={gap},pull={pull}"), bare()
    (weight,) = quantized_weights(network).values()
    assert torch.equal(float_network[0].weight, weight.latent)

    def passed(network: Any, objective: Any, latent: Any) -> tuple[float, Any]:
        network.zero_grad()
        torch.manual_seed(1)
        loss = objective(network, BATCH).loss
        loss.backward()
        return float(loss.detach()), latent.grad.clone()

    once = copy.deepcopy(network)
    (other,) = quantized_weights(once).values()
    quantized, by_quantized = passed(once, cross_entropy, other.latent)
    plain, by_plain = passed(float_network, cross_entropy, float_network[0].weight)
    whole, by_whole = passed(network, training_of(network).objective, weight.latent)
    error = weight.latent.detach() - weight.value
    assert whole == pytest.approx(quantized + gap * abs(plain - quantized) + pull * float(error.square().sum()))
    sign = math.copysign(1, quantized - plain)
    expected = (1 + gap * sign) * by_quantized - gap * sign * by_plain + 2 * pull * error
    assert torch.allclose(by_whole, expected, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(once.buffers(), network.buffers(), strict=True))


def test_elq_freezes_what_is_nearest_to_its_level_share_by_share() -> None:
    weight = normal(5, 20)
    chosen = quantizer("elq:stages=4", weight, 2)
    counts = []
    for step in range(8):
        errors, fixed = (weight - chosen.rounded(weight)).abs(), chosen.fixed.clone()
        with torch.no_grad():
            chosen.before_step(weight, Moment(step / 8))
        fresh = chosen.fixed & ~fixed
        assert not fresh.any() or errors[fresh].max() <= errors[~chosen.fixed].min()
        assert torch.equal(weight[chosen.fixed], chosen.rounded(weight)[chosen.fixed])
        weight = torch.where(chosen.fixed, weight, 1.1 * weight)
        counts.append(int(chosen.fixed.sum()))
    assert counts == [0, 0, 25, 25, 50, 50, 75, 75]
    assert len(chosen.rounded(weight).unique()) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("elq:gap=-1", r"elq.gap: must be finite and at least 0, got -1.0"),
        ("elq:pull=inf", r"elq.pull: must be finite and at least 0"),
        ("elq:stages=0", r"elq.stages: must be at least 1, got 0"),
        ("rq-st:temperature=0", r"rq-st.temperature: must be positive and finite, got 0.0"),
    ],
)
def test_options_that_mean_nothing_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_method(spec)


# -- RQ


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_probabilities_of_rq_are_those_of_the_noise_and_sum_to_one(bits: Any) -> None:
    places, noise = 6 * normal(3, 7, dtype=torch.float64), torch.tensor([[0.1], [0.4], [3.0]], dtype=torch.float64)
    codes, logs = log_probabilities(places, noise, bits)
    inside = (codes >= -(2 ** (bits - 1))) & (codes < 2 ** (bits - 1))
    away = codes - places[..., None]
    masses = ((away + 0.5) / noise[..., None]).sigmoid() - ((away - 0.5) / noise[..., None]).sigmoid()
    masses = masses * inside
    assert torch.allclose(logs.exp().sum(-1), torch.ones_like(places))
    # Far outside of the grid the difference of two numbers near 1 has lost its digits.
    near = (places.abs() < 2 ** (bits - 1) + 2)[..., None].expand_as(masses)
    assert torch.allclose(logs.exp()[near], (masses / masses.sum(-1, keepdim=True))[near], rtol=1e-4)


def test_without_noise_and_temperature_rq_rounds_and_clips() -> None:
    weight = normal(4, 50)
    for spec in ("rq:temperature=0.01", "rq-st"):
        chosen = begun(spec, weight, 3)
        with torch.no_grad():
            chosen.moved_3[:, 2] = -12
        relaxed, rounded = chosen(weight), chosen.eval()(weight)
        assert torch.allclose(relaxed, rounded, atol=1e-6)
        step = float(chosen.scales(weight, 3).detach()[0, 0])
        assert torch.allclose(rounded, (weight / step).round().clamp(-4, 3) * step)


def test_rq_st_draws_levels_as_often_as_they_are_probable_with_the_gradient_of_the_mixture() -> None:
    weight = torch.full((1, 20000), 0.4)
    start = normal(1, 20000)
    chosen, soft = begun("rq-st", start, 2), begun("rq", start, 2)
    chosen.load_state_dict(soft.state_dict())
    latents = [weight.clone().requires_grad_() for _ in range(2)]
    values = []
    for one, latent in zip((chosen, soft), latents, strict=True):
        torch.manual_seed(0)
        value = one(latent)
        value.sum().backward()
        values.append(value.detach())
    step = chosen.scales(weight, 2).detach()[:, :1]
    codes, logs = log_probabilities(weight[:, :1] / step, torch.full((1, 1), 1 / 3), 2)
    drawn = values[0] / step
    assert torch.allclose(drawn, drawn.round(), atol=1e-5)
    for code, log in zip(codes[0, 0].tolist(), logs[0, 0].tolist(), strict=True):
        assert float((drawn.round() == code).float().mean()) == pytest.approx(math.exp(log), abs=0.015)
    assert len(values[1].unique()) > 1000
    assert torch.allclose(latents[0].grad, latents[1].grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("spec", "bits"), [("rq", 1), ("rq", 3), ("dbq", 4)])
def test_what_is_learned_has_the_numerical_derivative(spec: Any, bits: int) -> None:
    weight = normal(2, 6, dtype=torch.float64)
    chosen = begun(f"{spec}:over=kernel", weight, bits).double()
    learned = tuple(chosen.parameters())

    def relaxed(values: Any, *_: Any) -> Any:
        torch.manual_seed(0)
        return chosen(values)

    assert torch.autograd.gradcheck(relaxed, (weight.requires_grad_(), *learned))


# -- UNIQ


def test_uniq_adds_uniform_noise_to_uniform_shares() -> None:
    weight, bits = 0.3 + 2 * normal(1, 4000, dtype=torch.float64), 3
    chosen = begun("uniq", weight, bits)
    torch.manual_seed(0)
    mean, deviation = (float(scale) for scale in chosen.scales(weight, bits)[0])
    before, after = (norm.cdf(values.numpy().ravel(), mean, deviation) for values in (weight, chosen(weight)))
    half = 2.0 ** -(bits + 1)
    inside = (before > 2 * half) & (before < 1 - 2 * half)
    assert kstest(before, "uniform").pvalue > 0.01
    assert kstest((after - before)[inside], "uniform", (-half, 2 * half)).pvalue > 0.01
    assert after.min() == pytest.approx(half) and after.max() == pytest.approx(1 - half)


def test_the_gradient_of_uniq_is_that_of_its_noisy_curve() -> None:
    weight = normal(1, 40, dtype=torch.float64).requires_grad_()
    chosen = begun("uniq", weight.detach(), 2)
    value = chosen(weight)
    value.sum().backward()
    mean, deviation = (float(scale) for scale in chosen.scales(weight.detach(), 2)[0])
    slope = norm.pdf(weight.detach(), mean, deviation) / norm.pdf(value.detach(), mean, deviation)
    inside = (norm.cdf(value.detach(), mean, deviation) - 0.5).__abs__() < 0.5 - 2**-3 - 1e-9
    assert weight.grad is not None and 5 < inside.sum() < 40
    assert torch.allclose(weight.grad[0, inside[0]], torch.from_numpy(slope)[0, inside[0]])


def test_uniq_goes_through_the_layers_stage_by_stage() -> None:
    weight = normal(3, 8)
    for share, turns in ((0.0, "nff"), (0.3, "nff"), (0.34, "rnf"), (0.99, "rrn")):
        for place, turn in enumerate(turns):
            chosen = begun("uniq", weight, 2, Moment(share, place, 3))
            latent = weight.clone().requires_grad_()
            value = chosen(latent)
            value.sum().backward()
            assert latent.grad is not None
            if turn == "r":
                assert torch.equal(value, chosen.rounded(weight)) and not latent.grad.any()
                assert bool(chosen.frozen(weight).all())
            elif turn == "f":
                assert torch.equal(value, weight) and torch.equal(latent.grad, torch.ones_like(weight))
            else:
                assert len(value.unique()) > 4 and latent.grad.any()
            assert torch.equal(chosen.eval()(weight), chosen.rounded(weight))


# -- DBQ


def test_the_sigmoids_of_dbq_become_its_hard_branches() -> None:
    weight = normal(2, 60, dtype=torch.float64)
    chosen = begun("dbq", weight, 4)
    values, hard = weight.reshape(1, -1), chosen.rounded(weight).reshape(1, -1)
    table = chosen.method.table(chosen.scales(values, 4), 4).detach()
    far = [float((annealed(values, table, steep) - hard).abs().mean()) for steep in (5.0, 50.0, 500.0, 5e4, 1e9)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 1e-9 and far[0] > 0.01
    with torch.no_grad():
        first, last = chosen(weight), begun("dbq", weight, 4, LATE)(weight)
    rounded = chosen.rounded(weight)
    assert (last - rounded).abs().mean() < 0.1 * (first - rounded).abs().mean()
    assert len(rounded.unique()) <= 9
