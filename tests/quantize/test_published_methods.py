"""Each published method against its paper's equations: levels, scales, gradients, and what it does before a step."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds_world import Stripes, measure, small, splits
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from impq_opt import Problem, solve
from impq_opt.data import Dataset
from impq_opt.errors import OptionError
from impq_opt.measure import measure as measure_network
from impq_opt.quantize import (
    before_step,
    load_method,
    pack,
    quantize,
    quantized_weights,
    state_of,
    training_of,
    unpack_into,
    weight_size,
)
from impq_opt.quantize.methods.base import Moment
from impq_opt.quantize.methods.basis import Basis, step
from impq_opt.quantize.methods.codebook import between
from impq_opt.quantize.methods.normal import unit_levels
from impq_opt.quantize.methods.uniq import UNIQ
from impq_opt.rounds import Hyper
from impq_opt.rounds.latent import with_latent_ranges
from impq_opt.training import Hook, Hooks, Progress, Training, train

NUMBERS = st.floats(-4, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3)


def quantizer(spec: str, weight: Any, bits: int) -> Any:
    return load_method(spec).quantizer(weight.shape, [bits], [weight.numel()])


def vectors(least: int = 1, most: int = 7) -> Any:
    return st.lists(NUMBERS, min_size=least, max_size=most).map(torch.tensor)


def gradients(quantizer: Any, weight: Any, upstream: Any) -> tuple[Any, Any]:
    """Return the rounded weight, and the gradient of the latent one."""
    latent = weight.clone().requires_grad_()
    rounded = quantizer(latent)
    rounded.backward(upstream)
    return rounded.detach(), latent.grad


# -- one precision for all, or one for each -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_a_group_becomes_does_not_depend_on_the_bits_of_others(data: Any) -> None:
    spec = data.draw(st.sampled_from(["normal", "uniq", "uniq:over=kernel", "dorefa", "dorefa:over=kernel"]))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    sizes[-1] += -sum(sizes) % 3  # so that the groups are three kernels, and need not end where kernels do
    bits = data.draw(st.lists(st.integers(1, 4), min_size=len(sizes), max_size=len(sizes)))
    values = data.draw(st.lists(NUMBERS, min_size=sum(sizes), max_size=sum(sizes)))
    weight = torch.tensor(values).reshape(3, -1)
    mixed = load_method(spec).quantizer(weight.shape, bits, sizes)
    uniform = {width: quantizer(spec, weight, width)(weight).flatten() for width in set(bits)}
    expected = torch.stack([uniform[width][place] for place, width in enumerate(np.repeat(bits, sizes))])
    assert torch.equal(mixed(weight).flatten(), expected)
    assert torch.equal(mixed.values(mixed.codes(weight), mixed.side(weight)), mixed(weight))


def test_a_basis_does_not_depend_on_the_bits_of_others() -> None:
    """To the last bits: solving for several kernels at once rounds otherwise than for one."""
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    mixed = load_method("lq-net").quantizer(weight.shape, [1, 3, 2, 3], [6, 6, 12, 12])
    uniform = {width: quantizer("lq-net", weight, width)(weight) for width in (1, 2, 3)}
    expected = torch.stack([torch.cat([uniform[1][0, :6], uniform[3][0, 6:]]), uniform[2][1], uniform[3][2]])
    torch.testing.assert_close(mixed(weight), expected)


@pytest.mark.parametrize(
    ("spec", "bits", "message"),
    [
        ("bwn", 2, r"bits: bwn has whole precisions of 1 bit, got 2"),
        ("twn", 1, r"bits: twn has whole precisions of 2 bits, got 1"),
        ("lq-net", 9, r"bits: lq-net has whole precisions of 1 to 8 bits, got 9"),
        ("symmetric", 17, r"bits: symmetric has whole precisions of 1 to 16 bits, got 17"),
    ],
)
def test_precisions_that_a_method_has_not_are_told(spec: Any, bits: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        quantizer(spec, torch.ones(2, 2), bits)


# -- BWN ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(vectors())
def test_bwn_is_the_best_of_all_signs_and_scales(weight: Any) -> None:
    rounded = quantizer("bwn", weight[None], 1)(weight[None])[0]
    best = math.inf
    for signs in itertools.product((-1.0, 1.0), repeat=len(weight)):
        pattern = torch.tensor(signs)
        scale = (weight @ pattern) / len(weight)  # least squares
        best = min(best, float((weight - scale * pattern).double().square().sum()))
    assert float((weight - rounded).double().square().sum()) <= best + 1e-5 * (1 + best)
    assert len(rounded.abs().unique()) == 1 and bool((rounded[weight >= 0] >= 0).all())


def test_bwn_takes_the_mean_off_and_clamps_before_a_step() -> None:
    weight = 0.2 * torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    latent = weight.clone()
    chosen = quantizer("bwn", weight, 1)
    chosen.before_step(latent, Moment())
    torch.testing.assert_close(latent.mean(1), torch.zeros(4, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(latent, weight - weight.mean(1, keepdim=True))
    far = 9 * weight
    chosen.before_step(far, Moment())
    assert float(far.abs().max()) == 1.0


@settings(max_examples=20, deadline=None)
@given(st.lists(NUMBERS, min_size=12, max_size=12), st.lists(NUMBERS, min_size=12, max_size=12))
def test_bwn_has_the_gradient_of_the_authors_code(values: Any, upstream: Any) -> None:
    weight, given = torch.tensor(values).reshape(2, 3, 2), torch.tensor(upstream).reshape(2, 3, 2)
    _, gradient = gradients(quantizer("bwn", weight, 1), weight, given)
    for kernel, g, got in zip(weight, given, gradient, strict=True):
        scale = float(kernel.abs().mean())
        expected = [
            float(one) * (1 / 6 + scale * (abs(float(w)) < 1)) * (1 - 1 / 3) * 6
            for w, one in zip(kernel.flatten(), g.flatten(), strict=True)
        ]
        assert got.flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


# -- TWN and TTQ --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(vectors(most=12))
def test_twn_is_the_least_squares_of_its_pattern(weight: Any) -> None:
    rounded = quantizer("twn", weight[None], 2)(weight[None])[0]
    pattern = rounded.sign().double()
    assert abs(float((weight.double() - rounded.double()) @ pattern)) <= 1e-5 * float(weight.abs().sum())
    threshold = 0.7 * weight.abs().mean()
    assert torch.equal(pattern, (weight.sign() * (weight.abs() > threshold)).double())
    assert len(rounded.unique()) <= 3


def test_twn_leaves_zeros_zeros() -> None:
    assert not quantizer("twn", torch.zeros(2, 3), 2)(torch.zeros(2, 3)).any()


@settings(max_examples=30, deadline=None)
@given(vectors(2, 8), st.floats(0.25, 4), st.floats(0.25, 4), st.data())
def test_ttq_has_the_papers_derivatives(weight: Any, positive: float, negative: float, data: Any) -> None:
    count = len(weight)
    upstream = torch.tensor(data.draw(st.lists(NUMBERS, min_size=count, max_size=count)))
    chosen = quantizer("ttq", weight[None], 2)
    assert chosen.positive.tolist() == chosen.negative.tolist() == [[1.0]]

    def loss(up: float, down: float) -> float:
        chosen.positive.data.fill_(up)
        chosen.negative.data.fill_(down)
        return float((chosen(weight[None])[0].double() * upstream).detach().sum())

    steps = (loss(positive + 1, negative) - loss(positive, negative), loss(positive, negative + 1))
    numerical = (steps[0], steps[1] - loss(positive, negative))  # the loss is linear in both
    rounded, gradient = gradients(chosen, weight[None], upstream[None])
    got = (float(known_grad(chosen.positive)), float(known_grad(chosen.negative)))
    assert got == pytest.approx(numerical, rel=1e-4, abs=1e-4)
    threshold = 0.05 * weight.abs().max()
    above, below = weight > threshold, weight < -threshold
    up, down = np.float32(positive), np.float32(negative)
    expected = torch.where(above, float(up), torch.where(below, -float(down), 0.0))
    assert torch.equal(rounded[0], expected)
    factor = torch.where(above, float(up), torch.where(below, float(down), 1.0))
    assert torch.equal(gradient[0], upstream * factor)


def known_grad(parameter: Any) -> Any:
    assert parameter.grad is not None
    return parameter.grad


# -- DoReFa -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(vectors(most=10).filter(lambda w: bool(w.any())), st.integers(1, 8))
def test_dorefa_is_the_papers_formula_and_odd(weight: Any, bits: int) -> None:
    chosen = quantizer("dorefa", weight[None], bits)
    rounded, mirrored = chosen(weight[None])[0], chosen(-weight[None])[0]
    exact = weight.double()
    if bits == 1:
        expected = torch.where(exact >= 0, 1.0, -1.0).double() * exact.abs().mean()
        ties = exact == 0
    else:
        top = 2**bits - 1
        place = (exact.tanh() / (2 * exact.tanh().abs().max()) + 0.5) * top
        expected, ties = 2 * place.round() / top - 1, (place - place.floor() - 0.5).abs() < 1e-4
        assert bool((rounded.abs() <= 1).all())
    torch.testing.assert_close(rounded[~ties].double(), expected[~ties], atol=1e-6, rtol=1e-6)
    assert torch.equal(mirrored[~ties], -rounded[~ties])


@settings(max_examples=20, deadline=None)
@given(vectors(2, 6).filter(lambda w: len(w.abs().unique()) == len(w)), st.integers(1, 8), st.data())
def test_dorefa_has_the_gradient_of_its_formula_without_rounding(weight: Any, bits: int, data: Any) -> None:
    upstream = torch.tensor(data.draw(st.lists(NUMBERS, min_size=len(weight), max_size=len(weight)))).double()
    _, gradient = gradients(quantizer("dorefa", weight[None], bits), weight[None].double(), upstream[None])

    def smooth(w: Any) -> float:
        curve = w if bits == 1 else w.tanh() / w.tanh().abs().max()
        return float(curve @ upstream)

    for place in range(len(weight)):
        move = torch.zeros(len(weight), dtype=torch.float64)
        move[place] = 1e-6
        numerical = (smooth(weight.double() + move) - smooth(weight.double() - move)) / 2e-6
        assert float(gradient[0, place]) == pytest.approx(numerical, rel=1e-3, abs=1e-3)


# -- sums of scales: LQ-Net and DBQ -------------------------------------------------------------------------------


def codes_of(method: Basis, values: Any, scales: Any, bits: int) -> Any:
    """Return the factors B (n, P) that each weight has, by the nearest level."""
    factors = method.factors(bits).double()
    nearest = (values.double()[:, None] - (factors @ scales.double())[None]).abs().argmin(1)
    return factors[nearest]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["lq-net", "dbq"]), vectors(2, 9), st.data())
def test_an_update_of_a_basis_never_increases_the_error_for_fixed_codes(spec: Any, weight: Any, data: Any) -> None:
    method = load_method(spec)
    assert isinstance(method, Basis)
    bits = 4 if spec == "dbq" else data.draw(st.integers(1, 3))
    count = method.factors(bits).shape[1]
    scales = torch.tensor(data.draw(st.lists(st.floats(0.125, 3, width=32), min_size=count, max_size=count)))
    codes = codes_of(method, weight, scales, bits)
    moved = step(method, weight[None], scales[None], bits)[0]

    def error(v: Any) -> float:
        v = v.double()
        return float((weight.double() - codes @ v).square().sum() + 1e-4 * v.square().sum())

    after, part = error(moved), error(0.9 * scales + 0.1 * moved)
    assert after <= error(scales) * (1 + 1e-6) + 1e-9 or near_a_threshold(method, weight, scales, bits)
    assert part <= error(scales) * (1 + 1e-6) + 1e-9 or near_a_threshold(method, weight, scales, bits)


def near_a_threshold(method: Basis, weight: Any, scales: Any, bits: int) -> bool:
    """Return whether codes are a matter of the last bit: two levels are one, or a weight lies between two."""
    levels = (method.factors(bits) @ scales).sort().values
    middles = between(levels[None])[0]
    return bool(((weight[:, None] - middles[None]).abs() < 1e-5).any()) or bool((levels.diff() < 1e-5).any())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([("lq-net", 1), ("lq-net", 3), ("dbq", 4), ("normal", 3)]), vectors(2, 9))
def test_the_nearest_level_is_taken(case: Any, weight: Any) -> None:
    spec, bits = case
    chosen = quantizer(spec, weight[None], bits)
    rounded = chosen(weight[None])[0]
    table = chosen.method.table(chosen.side(weight[None])[f"scale_{bits}"], bits)[0]
    nearest = (weight[:, None] - table[None]).abs().min(1).values
    torch.testing.assert_close((weight - rounded).abs(), nearest, atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(vectors())
def test_one_bit_of_lq_net_is_the_mean_size(weight: Any) -> None:
    rounded = quantizer("lq-net", weight[None], 1)(weight[None])[0]
    assert rounded.abs().tolist() == pytest.approx([float(weight.abs().mean())] * len(weight), rel=2e-4)


def test_a_basis_moves_by_a_tenth_before_a_step_and_stays_for_rounding() -> None:
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    chosen = quantizer("lq-net", weight, 2)
    began = chosen.side(weight)["scale_2"]
    assert not chosen.basis_2.any() and torch.equal(chosen.method.scales(weight, 2), began)
    chosen.before_step(3 * weight, Moment())
    first = chosen.basis_2.clone()
    torch.testing.assert_close(first, 3 * began, rtol=0.02, atol=0)
    chosen.before_step(weight, Moment())
    torch.testing.assert_close(chosen.basis_2, 0.9 * first + 0.1 * step(chosen.method, weight, first, 2))
    assert torch.equal(chosen.side(weight)["scale_2"], chosen.basis_2)


@settings(max_examples=30, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=40).map(torch.tensor))
def test_dbq_has_nine_levels_that_are_sums_of_two_branches(weight: Any) -> None:
    chosen = quantizer("dbq", weight[None], 4)
    rounded, (one, two) = chosen(weight[None])[0], chosen.side(weight[None])["scale_4"][0].tolist()
    assert len(rounded.unique()) <= 9
    levels = [a * one + b * two for a in (-1, 0, 1) for b in (-1, 0, 1)]
    assert all(min(abs(value - level) for level in levels) <= 1e-6 for value in rounded.tolist())
    assert bool((rounded[weight == 0] == 0).all())


# -- normal weights: Max and UNIQ ---------------------------------------------------------------------------------


def test_maxs_levels_are_those_of_his_table() -> None:
    """Max 1960, table I: levels, and mean squared errors, of 2, 4, 8 and 16 levels."""
    table = {1: [0.7980], 2: [0.4528, 1.510], 3: [0.2451, 0.7560, 1.344, 2.152]}
    for bits, levels in table.items():
        assert unit_levels(bits)[2 ** (bits - 1) :] == pytest.approx(levels, abs=6e-4)
    for bits, error in {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}.items():
        # The error of a centroid quantizer is the variance minus that of its levels.
        centres = unit_levels(bits)
        edges = np.concatenate([[-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]])
        assert 1 - float(np.diff(norm.cdf(edges)) @ centres**2) == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_maxs_levels_are_the_means_of_their_bins(bits: Any) -> None:
    levels = unit_levels(bits)
    assert np.all(np.diff(levels) > 0) and np.array_equal(levels, -levels[::-1])
    edges = np.concatenate([[-12.0], (levels[1:] + levels[:-1]) / 2, [12.0]])
    for place in {0, 1, len(levels) // 2, len(levels) - 1}:
        low, high = edges[place], edges[place + 1]
        mean = quad(lambda x: x * norm.pdf(x), low, high)[0] / quad(norm.pdf, low, high)[0]
        assert levels[place] == pytest.approx(mean, abs=1e-7)


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_uniq_rounds_to_the_medians_of_bins_of_one_probability(bits: Any) -> None:
    scales = torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    levels = (UNIQ().table(scales, bits)[0] - 0.3) / 2
    count = 2**bits
    assert norm.cdf(levels) == pytest.approx((np.arange(count) + 0.5) / count)
    weight = 0.3 + 2 * torch.randn(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[None]
    thresholds = (UNIQ().thresholds(weight, levels[None], bits)[0] - weight.mean()) / weight.std(correction=0)
    assert np.diff(norm.cdf(thresholds), prepend=0, append=1) == pytest.approx(np.full(count, 1 / count))
    codes = quantizer("uniq", weight, bits).codes(weight)
    counts = torch.bincount(codes.flatten().long(), minlength=count).double()
    expected = 40_000 / count
    assert float(((counts - expected) ** 2 / expected).sum()) < count + 5 * math.sqrt(2 * count)  # chi-squared


@settings(max_examples=30, deadline=None)
@given(vectors(), st.integers(2, 8))
def test_the_symmetric_grid_is_odd_and_keeps_zero_and_the_largest(weight: Any, bits: int) -> None:
    chosen = quantizer("symmetric", weight[None], bits)
    rounded = chosen(weight[None])[0]
    assert torch.equal(chosen(-weight[None])[0], -rounded)
    assert bool((rounded[weight == 0] == 0).all())
    assert rounded.abs().max().item() == pytest.approx(weight.abs().max().item(), rel=1e-6)


# -- whole networks -----------------------------------------------------------------------------------------------


def test_what_the_weights_of_a_network_take_is_counted_in_levels_and_in_codes() -> None:
    network = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4))
    problem = Problem.from_sensitivities([200], [1.0], names=["0.weight"])
    own = weight_size(quantize(network, problem, [2], scheme="twn"))
    assert (own.elements, own.codes, own.side, own.floats) == (240, 400, 32, 40 * 32)
    assert own.levels == pytest.approx(200 * math.log2(3))
    assert own.packed == pytest.approx((400 + 32 + 1280) / 240)
    assert own.effective == pytest.approx((200 * math.log2(3) + 32 + 1280) / 240)
    trained: Any = quantize(network, problem, [2], scheme="ttq")
    assert (weight_size(trained).side, weight_size(trained).floats) == (64, 1280)  # learned scales are counted once
    half = weight_size(quantize(network, problem, [3], scheme="lq-net"))
    assert (half.levels, half.codes, half.side) == (600, 600, 10 * 3 * 32)


def digits() -> tuple[Any, Any]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    return network, Dataset(torch.randn(24, 1, 4, 4), name="noise")


@pytest.mark.parametrize(
    ("grid", "bits"),
    [("symmetric", (2, 4)), ("normal", (2, 4)), ("lq-net", (2, 4)), ("bwn", (1,)), ("twn", (2,))],
)
def test_damages_are_measured_of_the_errors_as_they_are(grid: Any, bits: Any) -> None:
    network, data = digits()
    problem = measure_network(network, data, grid=grid, bits=bits, weights_only=True, metric="measured-error")
    assert dict(problem.grids) == dict.fromkeys(("1", "3"), grid)
    errors, own = [], load_method(grid)
    for name in ("1", "3"):
        weight = network.get_submodule(name).weight.detach()
        errors.append(
            [float((own.quantizer(weight.shape, [b], [weight.numel()])(weight) - weight).square().sum()) for b in bits]
        )
    table = problem.damage.at(slice(None), [float(b) for b in bits])
    assert bool((table > 0).all())
    if len(bits) > 1:  # errors that are smaller do less damage
        assert bool((np.sign(np.diff(table)) == np.sign(np.diff(errors))).all())


@pytest.mark.parametrize(
    ("grid", "bits", "message"),
    [
        ("twn", (1, 2, 4), r"bits: twn has 2 bits, got"),
        ("normal", (4, 12), r"bits: normal has 1 to 8 bits, got"),
        ("dorefa", (4,), r"grid: is not near the weights of a network that was not trained with it.*got 'dorefa'"),
        ("ttq", (2,), r"grid: is not near the weights.*got 'ttq'"),
    ],
)
def test_grids_whose_damage_cannot_be_measured_are_told(grid: Any, bits: Any, message: str) -> None:
    network, data = digits()
    with pytest.raises(OptionError, match=message):
        measure_network(network, data, grid=grid, bits=bits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "twn"}, r"rounds.bits: must be among the precisions of twn, 2 bits"),
        ({"method": "dorefa", "measure_at": "latent"}, r"rounds.measure_at: cannot be with dorefa, whose levels"),
        ({"method": "dorefa", "metric": "measured-error"}, r"rounds.metric: cannot be with dorefa, whose levels"),
    ],
)
def test_rounds_that_a_method_cannot_make_are_told(changes: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Hyper(budget="fixed:2", **changes)


class Recorder(Hook):
    def __init__(self, told: list[str], name: str) -> None:
        self.told, self.name = told, name

    def before_step(self, course: Any) -> None:
        self.told.append(f"{self.name} before")

    def after_update(self, course: Any) -> None:
        self.told.append(f"{self.name} update")

    def after_step(self, course: Any) -> None:
        self.told.append(f"{self.name} after")

    def after_epoch(self, course: Any) -> None:
        self.told.append(f"{self.name} epoch")


def test_several_hooks_are_called_in_turn() -> None:
    told: list[str] = []
    course: Any = None
    hook = Hooks(Recorder(told, "a"), Recorder(told, "b"))
    for call in (hook.before_step, hook.after_update, hook.after_epoch, hook.after_step):
        call(course)
    assert told == [f"{name} {when}" for when in ("before", "update", "epoch", "after") for name in "ab"]


def test_a_shared_weight_is_prepared_once() -> None:
    network: Any = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    network[1].weight = network[0].weight
    problem = Problem.from_sensitivities([16], [1.0], names=["0.weight"])
    quantized = quantize(network, problem, [2], scheme="lq-net")
    weights = quantized_weights(quantized)
    before_step(quantized)
    (weight,) = weights.values()
    kept = weight.quantizer.get_buffer("basis_2")
    expected = load_method("lq-net").quantizer((4, 4), [2], [16])
    with torch.no_grad():
        expected.before_step(weight.latent, Moment())
    assert torch.equal(kept, expected.get_buffer("basis_2"))


class Stopping(Hook):
    def after_step(self, course: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        ("bwn", 1),
        ("ttq", 2),
        ("lq-net", 2),
        ("dorefa", 3),
        ("elq", 2),
        ("dbq", 4),
        ("uniq", 2),
        ("rq", 3),
        ("rq-st", 3),
    ],
)
def test_training_that_stops_after_every_step_ends_with_the_same_bits(method: Any, bits: Any, tmp_path: Path) -> None:
    problem = Problem.from_sensitivities([54, 432], [1.0, 1.0], names=["conv1.weight", "conv2.weight"])
    data, training = Stripes(128, 0), Training(batch=32, rate=0.05, augment="none")

    def fresh(seed: int) -> Any:
        return quantize(small(seed), problem, [bits, bits], scheme=method)

    whole = fresh(0)
    objective, hook = training_of(whole)
    train(whole, data, training, epochs=2, objective=objective, hook=hook)
    parts, progress, stops = fresh(0), Progress(), 0
    while progress.step < 8:
        with contextlib.suppress(KeyboardInterrupt):
            objective, hook = training_of(parts)
            hooks = Hooks(hook, Stopping())
            train(parts, data, training, epochs=2, objective=objective, hook=hooks, progress=progress)
        state, parts, stops = copy.deepcopy(parts.state_dict()), fresh(1), stops + 1
        parts.load_state_dict(state)
    assert stops == 8
    expected, got = whole.state_dict(), parts.state_dict()
    assert expected.keys() == got.keys() and all(torch.equal(tensor, got[name]) for name, tensor in expected.items())
    pack(whole.eval(), tmp_path / "packed")
    restored = unpack_into(small(2), tmp_path / "packed").eval()
    with torch.no_grad():
        assert torch.equal(restored(data.inputs[:8]), whole(data.inputs[:8]))


@pytest.mark.parametrize("method", ["dorefa", "lq-net"])
def test_the_integer_program_drives_methods_of_several_precisions(method: Any) -> None:
    network, data = small().eval(), splits().train
    problem = measure(network, data, 0, samples=4).revise(weights_only=True)
    before = quantize(network, problem, [4] * 18, scheme=method)
    values = copy.deepcopy(network)
    values.load_state_dict(state_of(before, latent=False))
    measured = measure(values, data, 0, samples=4).revise(weights_only=True)
    restated = with_latent_ranges(measured, before)
    assert measured.ranges is not None and restated.ranges is not None
    # Those of the levels, where these are not near the latent weights; else a little wider, as the latent ones are.
    kept = np.array_equal(restated.ranges, measured.ranges)
    assert kept if method == "dorefa" else not kept
    found = solve(restated, budget=int(3 * problem.sizes.sum()))
    assert len(set(found.bits)) > 1
    quantized = quantize(network, problem, found, scheme=method)
    used = [int(b) for weight in quantized_weights(quantized).values() for b in weight.quantizer.group_bits]
    assert used == [int(b) for b in found.bits]
