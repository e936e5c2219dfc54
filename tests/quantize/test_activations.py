"""Each rule of rounding activations against its paper's equations, and whole networks whose activations are rounded."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known
from quantize_world import EXAMPLE, declared, net
from rounds_world import comparable, hyper, measure, small, splits
from safetensors.torch import load_file

from impq_opt.errors import OptionError
from impq_opt.quantize import (
    UniformActivation,
    activation_quantizers,
    learned_of,
    load_method,
    pack,
    quantize,
    quantized_weights,
    state_of,
    unpack,
    unpack_into,
    weight_size,
)
from impq_opt.quantize.methods.dorefa import Clipped, DoReFa
from impq_opt.quantize.methods.lq_net import LQActivation
from impq_opt.rounds import rounds
from impq_opt.rounds.latent import with_latent_ranges
from impq_opt.rounds.learned import carry
from impq_opt.rounds.watch import PausedError, Report
from impq_opt.testing import ConformanceError
from impq_opt.testing.activations import check_activations

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = st.floats(-1, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3)


def vectors(least: int = 1, most: int = 12) -> Any:
    return st.lists(NUMBERS, min_size=least, max_size=most).map(torch.tensor)


def gradient(quantizer: Any, values: Any, upstream: Any) -> Any:
    taken = values.clone().requires_grad_()
    quantizer(taken).backward(upstream)
    return known(taken.grad)


def pact(bits: int, clip: float) -> Any:
    """Return PACT's quantizer at a clip value."""
    return load_method("pact").activation(bits, clip)


# -- DoReFa and PACT ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(vectors(), st.integers(1, 8), st.data())
def test_dorefa_is_the_papers_formula_and_pact_is_dorefa_at_one(values: Any, bits: int, data: Any) -> None:
    upstream = torch.tensor(data.draw(st.lists(NUMBERS, min_size=len(values), max_size=len(values))))
    dorefa, learned = load_method("dorefa").activation(bits, 2.5), pact(bits, 1.0)
    rounded, top = dorefa(values), 2**bits - 1
    place = values.clamp(0, 1).double() * top
    ties = (place - place.floor() - 0.5).abs() < 1e-4
    torch.testing.assert_close(rounded[~ties].double(), place[~ties].round() / top, atol=1e-7, rtol=1e-6)
    assert torch.equal(learned(values), rounded)
    assert torch.equal(gradient(dorefa, values, upstream), upstream * ((values >= 0) & (values <= 1)))
    away = values != 1
    assert torch.equal(gradient(learned, values, upstream)[away], gradient(dorefa, values, upstream)[away])


@settings(max_examples=25, deadline=None)
@given(vectors(2), st.floats(0.5, 3), st.integers(1, 8), st.data())
def test_pact_has_the_papers_derivatives(values: Any, clip: float, bits: int, data: Any) -> None:
    """By the clip value too, numerically: that of the clipped values, since rounding has none."""
    values = values[(values - clip).abs() > 1e-3].double()
    upstream = torch.tensor(data.draw(st.lists(NUMBERS, min_size=len(values), max_size=len(values)))).double()
    chosen = pact(bits, clip).double()
    got = gradient(chosen, values, upstream)
    assert torch.equal(got, upstream * ((values >= 0) & (values < clip)))

    def clipped(at: float) -> float:
        return float((values.clamp(0, at) * upstream).sum())

    numerical = (clipped(clip + 1e-5) - clipped(clip - 1e-5)) / 2e-5
    assert float(known(chosen.clip.grad)) == pytest.approx(numerical, abs=1e-5)
    assert float(known(chosen.clip.grad)) == pytest.approx(float(upstream[values >= clip].sum()), abs=1e-6)
    rounded = chosen(values).detach()
    step = clip / (2**bits - 1)
    assert bool(((rounded - values.clamp(0, clip)).abs() <= step / 2 * (1 + 1e-5)).all())


def test_a_clip_value_that_fell_below_zero_comes_back_by_its_gradient() -> None:
    chosen, values = pact(4, 1.0), torch.linspace(0, 2, 9)
    chosen.clip.data.fill_(-0.25)
    assert not chosen(values).any() and chosen.span > 0
    chosen(values).backward(-torch.ones(9))
    assert float(known(chosen.clip.grad)) == -9  # of all, which are not below it


def test_clip_values_begin_where_the_tensor_ends_or_all_at_one() -> None:
    assert pact(4, 2.5).span == 2.5
    assert load_method("pact:start=10").activation(4, 2.5).span == 10.0
    with pytest.raises(OptionError, match=r"pact: start: must be a positive clip value, or 0, got -1"):
        load_method("pact:start=-1")
    with pytest.raises(OptionError, match=r"pact has whole precisions of 1 to 8 bits, got 9"):
        pact(9, 2.5)


@pytest.mark.parametrize("spec", ["dorefa", "pact", "lq-net", "twn"])
def test_what_is_no_output_of_a_rectifier_is_rounded_as_in_impq(spec: Any) -> None:
    own, impq = load_method(spec).activation(3, 2.5, signed=True), UniformActivation(3, 2.5, signed=True)
    values = torch.linspace(-2, 2, 101)
    assert type(own) is UniformActivation and torch.equal(own(values), impq(values))


# -- LQ-Net -------------------------------------------------------------------------------------------------------


def with_basis(basis: Any) -> Any:
    chosen = LQActivation("lq-net", len(basis))
    chosen.basis.copy_(torch.tensor(basis))
    return chosen


def test_a_basis_of_activations_begins_as_in_the_paper() -> None:
    basis: Any = load_method("lq-net").activation(3, 2.5).basis
    assert basis.tolist() == pytest.approx([0.6745 * 2 / 7 * 2**place for place in range(3)])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.floats(0.125, 2, width=32), min_size=k, max_size=k)), vectors())
def test_the_nearest_sum_is_taken_and_an_update_never_increases_the_error(basis: Any, values: Any) -> None:
    chosen = with_basis(basis).train()
    bits, before = len(basis), chosen.basis.double().clone()
    binary = (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).double()
    levels = binary @ before
    rounded = chosen(values).double()
    nearest = (values.double()[:, None] - levels[None]).abs().min(1)
    torch.testing.assert_close((rounded - values).abs(), nearest.values, atol=1e-5, rtol=1e-5)
    middles = (levels.sort().values[1:] + levels.sort().values[:-1]) / 2
    near = (values[:, None] - middles[None]).abs() < 1e-5, levels.sort().values.diff() < 1e-5
    if any(bool(part.any()) for part in near):  # codes are a matter of the last bit
        return
    codes = binary[nearest.indices]  # (n, K)

    def error(v: Any) -> float:
        return float((values.double() - codes @ v).square().sum() + 1e-4 * v.square().sum())

    solved = torch.linalg.solve(codes.T @ codes + 1e-4 * torch.eye(bits), codes.T @ values.double())
    torch.testing.assert_close(chosen.basis.double(), 0.9 * before + 0.1 * solved, atol=1e-5, rtol=1e-5)
    assert error(chosen.basis.double()) <= error(before) * (1 + 1e-6) + 1e-9


def test_activations_pass_the_gradient_of_what_is_below_the_top_level() -> None:
    chosen = with_basis([0.5, 1.0]).eval()
    values, upstream = torch.tensor([-0.5, 0.0, 0.3, 1.4, 1.6, 9.0]), torch.arange(1.0, 7.0)
    assert torch.equal(chosen(values), torch.tensor([0.0, 0.0, 0.5, 1.5, 1.5, 1.5]))
    assert gradient(chosen, values, upstream).tolist() == [0, 2, 3, 4, 0, 0]
    assert chosen.basis.tolist() == [0.5, 1.0]  # in eval mode it stays


def test_rounded_activations_lie_in_memory_as_the_others() -> None:
    values = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    for spec in ("dorefa", "pact", "lq-net"):
        rounded = load_method(spec).activation(2, 1.0).train()(values)
        assert rounded.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(rounded, load_method(spec).activation(2, 1.0)(values.contiguous()))


def test_levels_are_as_fine_in_training_with_bfloat16() -> None:
    values, weight = torch.rand(50), torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    activation = load_method("lq-net").activation(3, 1.0).eval()
    quantizers = [load_method(spec).quantizer(weight.shape, [bits], [48]) for spec, bits in (("lq-net", 3), ("dbq", 4))]
    expected = [activation(values), *(quantizer(weight) for quantizer in quantizers)]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [activation(values), *(quantizer(weight) for quantizer in quantizers)]
    assert all(torch.equal(one, other) for one, other in zip(rounded, expected, strict=True))


# -- the conformance suite ----------------------------------------------------------------------------------------


class Forgetful(Clipped):
    seen = 0

    def forward(self, values: Any) -> Any:
        self.seen += self.training
        return super().forward(values) * 2.0**-self.seen


class Restless(LQActivation):
    def forward(self, values: Any) -> Any:
        self._follow(values.detach().float(), self._places(values, self.table()))
        return super().forward(values)


class Shifted(Clipped):
    def values(self, codes: Any, dtype: Any = torch.float32) -> Any:
        return super().values(codes, dtype) + 1


class Falling(Clipped):
    def forward(self, values: Any) -> Any:
        return super().forward(1 - values)

    def codes(self, values: Any) -> Any:
        return super().codes(1 - values)


class Raised(Clipped):
    def forward(self, values: Any) -> Any:
        return super().forward(values + 0.5)

    def codes(self, values: Any) -> Any:
        return super().codes(values + 0.5)


class Unbounded(Clipped):
    def clipped(self, values: Any) -> Any:
        return values.float().clamp_min(0)


def lying(kind: Any) -> Any:
    @dataclass(frozen=True)
    class Liar(DoReFa):
        name = "liar"
        widths = (2,)

        def activation(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> Any:
            return super().activation(bits, span, label, signed=True) if signed else kind(self.spec, int(bits), label)

    return Liar()


@dataclass(frozen=True)
class Silent(DoReFa):
    name = "silent"
    activations = ""


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (lying(Forgetful), "what is learned is in its state"),
        (lying(Restless), "in eval mode nothing is learned"),
        (lying(Shifted), "codes give the rounded activations back"),
        (lying(Falling), "what is larger is not rounded to less"),
        (lying(Raised), "zeros stay zeros"),
        (lying(Unbounded), "codes have B bits"),
        (Silent(), "says in a few words how it rounds activations"),
    ],
)
def test_rules_for_activations_that_are_broken_are_caught(method: Any, rule: str) -> None:
    with pytest.raises(ConformanceError, match=rule):
        check_activations(method)


# -- whole networks -----------------------------------------------------------------------------------------------


def trained(quantized: Any) -> Any:
    """Return a network after two steps, in eval mode."""
    optimizer = torch.optim.SGD(quantized.train().parameters(), 0.05, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        quantized(3 * EXAMPLE).square().sum().backward()
        optimizer.step()
    return quantized.eval()


@pytest.mark.parametrize("spec", ["pact", "lq-net"])
def test_a_method_rounds_both_and_what_it_learned_is_packed(tmp_path: Path, spec: Any) -> None:
    network = net()
    problem, _ = declared(network, EXAMPLE)
    quantized = quantize(network, problem, np.full(len(problem), 3), scheme=spec, example=EXAMPLE)
    fresh = {label: one.span for label, one in activation_quantizers(quantized).items()}
    methods = {label: one.method for label, one in activation_quantizers(quantized).items()}
    assert methods == {"relu": spec, "relu#3": spec, "bn2": "mid-rise"}  # the last has both signs
    assert not any(module.training for module in activation_quantizers(quantized).values())  # as the network
    before = weight_size(quantized)
    trained(quantized)
    learned = {label: one.span for label, one in activation_quantizers(quantized).items()}
    assert {label for label in fresh if learned[label] != fresh[label]} == {"relu", "relu#3"}
    now = weight_size(quantized)
    assert (now.elements, now.floats, now.levels) == (before.elements, before.floats, before.levels)
    assert set(state_of(quantized, latent=True)) == set(network.state_dict())
    size = pack(quantized, tmp_path / "packed")
    assert size.total == 8 * (tmp_path / "packed").stat().st_size
    restored = unpack_into(net(seed=3), tmp_path / "packed").eval()
    assert {label: one.span for label, one in activation_quantizers(restored).items()} == learned
    with torch.no_grad():
        assert torch.equal(restored(3 * EXAMPLE), quantized(3 * EXAMPLE))
    weights = sum(one.quantizer.side_bits(one.latent) for one in quantized_weights(quantized).values())
    assert size.scales == weights + 2 * 32 * {"pact": 1, "lq-net": 3}[spec]
    half = copy.deepcopy(quantized).half()
    assert all(one.basis.dtype == torch.float32 for one in half.modules() if isinstance(one, LQActivation))


def test_a_problem_names_the_method_of_an_activation() -> None:
    network = net()
    problem, _ = declared(network, EXAMPLE)
    mixed = dataclasses.replace(problem, grids={"relu#3": "pact", "conv1": "zero"})
    quantized = quantize(network, mixed, np.full(len(mixed), 4), example=EXAMPLE)
    methods = {label: one.method for label, one in activation_quantizers(quantized).items()}
    assert methods == {"relu": "mid-rise", "bn2": "mid-rise", "relu#3": "pact"}


ACTIVATIONS = {"relu": ("pact", 3, 2.5), "bn2": ("mid-rise", 4, 8.0), "relu#3": ("lq-net", 2, 1.75)}


def test_packed_files_with_learned_activations_are_read_as_ever() -> None:
    """The golden file is never written again: a change of format needs a new version and a new golden file."""
    unpacked = unpack(GOLDEN / "packed-2-activations.safetensors")
    assert {a.label: (a.method, a.bits, a.span) for a in unpacked.activations} == ACTIVATIONS
    restored = unpack_into(net(seed=9), GOLDEN / "packed-2-activations.safetensors").eval()
    with torch.no_grad():
        torch.testing.assert_close(restored(EXAMPLE), torch.tensor(GOLDEN_LOGITS))


GOLDEN_LOGITS = [
    [-0.24581633508205414, 0.023942291736602783, -0.22853294014930725],
    [-0.2274230420589447, 0.013325661420822144, -0.20167383551597595],
]


# -- rounds -------------------------------------------------------------------------------------------------------


def quick(network: Any, data: Any, seed: Any) -> Any:
    return measure(network, data, seed, 4)


def test_rounds_go_on_with_what_activations_learned(tmp_path: Path) -> None:
    """Killed after every step, they come to the same; what was learned is there for the round after."""
    how = hyper(rounds=1, epochs=1, start_epochs=1, batch=256, method="pact", activation_bits=4)
    whole = rounds(small(), splits(), how, tmp_path / "whole", measure=quick)
    pauses = 0
    while True:
        try:
            report = Report(deadline=0.0)
            parts = rounds(small(), splits(), how, tmp_path / "parts", measure=quick, report=report)
            break
        except PausedError:
            pauses += 1
    assert pauses >= 2 and comparable(parts) == comparable(whole)
    ends = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")]
    learned = [name for name in ends[0] if name.startswith("learned.activation_quantizer")]
    assert len(learned) == 2 and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_round_begins_with_what_the_one_before_learned_where_it_means_the_same() -> None:
    network = small()
    problem, bits = measure(network, splits().train, 0, 1), np.full(20, 2)
    bits[18:] = 3
    before: Any = quantize(network, problem, bits, scheme="lq-net")
    for name, tensor in learned_of(before).items():
        tensor.fill_(0.5 if "activation" in name else 0.25)
    bits[:1], bits[19] = 1, 2  # a kernel of conv1, and relu2
    after = quantize(network, problem, bits, scheme="lq-net")
    carry(before, after)
    kept = {name: set(tensor.unique().tolist()) for name, tensor in learned_of(after).items()}
    assert kept.pop("activation_quantizer_0.basis") == {0.5}
    assert kept.pop("activation_quantizer_1.basis") != {0.5}
    assert {name for name, values in kept.items() if values == {0.25}} == {
        f"{layer}.parametrizations.weight.0.basis_2" for layer in ("conv2", "fc")
    }


def test_spans_that_are_not_measured_are_those_of_the_method() -> None:
    network = small()
    problem = measure(network, splits().train, 0)
    quantized = quantize(network, problem, np.full(20, 4), scheme="pact")
    learned: Any = activation_quantizers(quantized)["relu1"]
    learned.clip.data.fill_(3.0)
    restated = with_latent_ranges(problem, quantized)
    assert known(restated.ranges)[18:].tolist() == pytest.approx([3.0, known(problem.ranges)[19]])
    factor = (3.0 / known(problem.ranges)[18]) ** 2
    assert restated.damage.sensitivity[18] == pytest.approx(problem.damage.sensitivity[18] * factor)
