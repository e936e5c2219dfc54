"""Methods of quantizing weights: the rules that all keep, liars that are caught, and what each one's levels are."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known
from quantize_world import EXAMPLE, net
from test_quantize import problem

from impq_opt.errors import OptionError
from impq_opt.quantize import METHODS, load_method, pack, quantize, quantized_weights, state_of, unpack, unpack_into
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.quantize.methods.uniform import WeightQuantizer
from impq_opt.quantize.methods.zero import Zero
from impq_opt.testing import ConformanceError, check_method

SPECS = (
    *METHODS, "zero:over=tensor", "zero:over=group", "mid-rise:over=group,statistic=normal,one_bit=mean",
    "mid-rise:over=tensor", "symmetric:over=2,statistic=mse", "asymmetric:over=2",
    "mid-rise:over=7,one_bit=mean",
)  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_every_method_keeps_the_rules(spec: Any) -> None:
    check_method(spec)


class Shifting(WeightQuantizer):
    def codes(self, weight: Any) -> Any:
        return super().codes(weight) + 1


class Lossy(WeightQuantizer):
    def values(self, codes: Any, side: Any, dtype: Any = None) -> Any:
        return super().values(codes, side, dtype) * 1.0001


class Blind(WeightQuantizer):
    def rounded(self, weight: Any) -> Any:
        return super().rounded(weight.detach())


class Widened(WeightQuantizer):
    def rounded(self, weight: Any) -> Any:
        return super().rounded(weight).float()


class Forgetful(WeightQuantizer):
    """Keeps what it counts outside of its state."""

    counted = 0

    def before_step(self, weight: Any, moment: Any) -> None:
        self.counted += 1
        weight.mul_(self.counted)


class Spoiling(WeightQuantizer):
    def before_step(self, weight: Any, moment: Any) -> None:
        weight.div_(0)


class Straying(WeightQuantizer):
    def relaxed(self, weight: Any) -> Any:
        return super().relaxed(weight) + float("inf")


class Unseeded(WeightQuantizer):
    """Draws its noise where no seed of torch reaches."""

    def relaxed(self, weight: Any) -> Any:
        return weight * (1 + 0.1 * random.random())


def lying(kind: Any, *, straight: bool = True) -> Any:
    @dataclass(frozen=True)
    class Liar(Zero):
        name = "liar"
        straight_through = straight

        def quantizer(self, shape: Any, bits: Any, sizes: Any) -> Any:
            return kind(shape, bits, sizes, self)

    return Liar()


@dataclass(frozen=True)
class NoZero(MidRise):
    name = "no-zero"
    has_zero = True


@dataclass(frozen=True)
class FewLevels(Zero):
    name = "few-levels"

    def levels(self, bits: Any) -> Any:
        return 2**bits - 1


@dataclass(frozen=True)
class ShortSpans(Zero):
    name = "short-spans"

    def spans(self, weight: Any) -> Any:
        return known(super().spans(weight)) / 4


@dataclass(frozen=True)
class Bending(Zero):
    name = "bending"
    straight_through = False

    def quantizer(self, shape: Any, bits: Any, sizes: Any) -> Any:
        return Bent(shape, bits, sizes, self)


class Bent(WeightQuantizer):
    def forward(self, weight: Any) -> Any:
        rounded = super().forward(weight).detach()
        return rounded + (weight - weight.detach()).double().mul(1e300).mul(1e300).nan_to_num(0.0).to(weight.dtype)


@dataclass(frozen=True)
class MoreWidths(Zero):
    name = "more-widths"
    widths = (2, 3)

    def quantizer(self, shape: Any, bits: Any, sizes: Any) -> Any:
        return WeightQuantizer(shape, bits, sizes, Zero())


@dataclass(frozen=True)
class LeavesMiddle(Zero):
    name = "leaves-middle"
    leaves_float = ("middle",)


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (lying(Forgetful), "what is learned is in its state"),
        (lying(Spoiling), "the latent weight stays finite"),
        (Bending(), "gradients are finite"),
        (lying(Straying, straight=False), "in training the weight is finite"),
        (lying(Unseeded, straight=False), "noise of torch's generator"),
        (MoreWidths(), "the precisions that it says"),
        (LeavesMiddle(), "first and last layers"),
        (lying(Shifting), "codes have B bits"),
        (lying(Lossy), "give the rounded weight back"),
        (lying(Blind), "gradients pass unchanged|does not require grad"),
        (lying(Widened), "shape, type and device"),
        (NoZero(), "zeros stay zeros"),
        (FewLevels(), "at most 1 values"),
        (ShortSpans(), "no error is larger than a step"),
    ],
)
def test_methods_that_break_a_rule_are_caught(method: Any, rule: str) -> None:
    with pytest.raises((ConformanceError, RuntimeError), match=rule):
        check_method(method)


def levels_of_zero(kernel: Any, bits: Any) -> list[Any]:
    """The levels of a kernel, exactly: the weight of largest size, and what lies whole steps from it."""
    extreme = max(kernel, key=lambda w: (abs(w), w))
    step = -Fraction(extreme) / 2 ** (bits - 1)
    return [code * step for code in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_grid_with_a_zero_takes_the_nearest_of_its_levels(data: Any) -> None:
    kernels, length = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.integers(1, 8), min_size=kernels, max_size=kernels))
    numbers = st.floats(-4, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)
    values = data.draw(st.lists(numbers | st.just(0.0), min_size=kernels * length, max_size=kernels * length))
    weight = torch.tensor(values).reshape(kernels, length)
    quantizer = Zero().quantizer(weight.shape, bits, [length] * kernels)
    rounded = quantizer(weight)
    assert torch.equal(quantizer(rounded), rounded)  # rounding twice is rounding once
    assert torch.equal(quantizer(-weight) == 0, rounded == 0)
    for row, got, width in zip(weight.tolist(), rounded.tolist(), bits, strict=True):
        levels = levels_of_zero(row, width)
        step = abs(levels[0]) / 2 ** (width - 1)
        for exact, value in zip(row, got, strict=True):
            assert value in [float(np.float32(float(level))) for level in levels]  # rounded once, to float32
            nearest = min(abs(Fraction(exact) - level) for level in levels)
            assert abs(Fraction(exact) - Fraction(value)) <= nearest + step / 10**5
            assert exact != 0 or value == 0
        assert not any(row) or max(row, key=lambda w: (abs(w), w)) in got


def test_one_and_two_bits_of_the_grid_with_a_zero() -> None:
    weight = torch.tensor([[-1.0, -0.6, -0.2, 0.0, 0.3, 0.6, 0.9], [1.0, 0.6, 0.2, 0.0, -0.3, -0.6, -1.0]])
    one, two = (Zero().quantizer(weight.shape, [bits], [14])(weight) for bits in (1, 2))
    assert one.tolist() == [[-1, -1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert two.tolist() == [[-1, -0.5, 0, 0, 0.5, 0.5, 0.5], [1, 0.5, 0, 0, -0.5, -0.5, -0.5]]


def test_specs_are_read_and_written() -> None:
    assert load_method("mid-rise") == MidRise() and MidRise().spec == "mid-rise"
    tensor = MidRise("tensor", one_bit="mean")
    assert tensor.spec == "mid-rise:over=tensor,one_bit=mean" and load_method(tensor.spec) == tensor
    assert load_method(tensor) is tensor


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("zeros", r"method: unknown method, got 'zeros' \(did you mean 'zero'"),
        ("zero:over", "options are written name=value"),
        ("zero:ovr=tensor", r"unknown option of method 'zero', got 'ovr' \(did you mean 'over'"),
        ("zero:over=tensr", r"range.over: unknown choice, got 'tensr' \(did you mean 'tensor'"),
    ],
)
def test_specs_that_mean_nothing_are_told(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_method(spec)


def sparse_net() -> Any:
    network = net()
    with torch.no_grad():
        for module in (network.conv1, network.conv2, network.fc):
            module.weight[torch.rand(module.weight.shape) < 0.7] = 0
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_problems_grids_are_what_is_quantized_and_packed(tmp_path: Path, dtype: Any) -> None:
    network, declared = sparse_net().to(dtype), problem()
    grids = {"conv2.weight": "zero", "fc.weight": "zero:over=tensor"}
    declared = replace(declared, grids=grids)
    bits = np.random.default_rng(5).integers(1, 9, len(declared))
    quantized = quantize(network, declared, bits, example=EXAMPLE.to(dtype)).eval()
    used = {name: one.quantizer.method.spec for name, one in quantized_weights(quantized).items()}
    assert used == {"conv1.weight": "mid-rise"} | grids
    values = state_of(quantized, latent=False)
    assert bool((values["conv2.weight"][network.conv2.weight == 0] == 0).all())
    assert bool((values["conv1.weight"] != 0).all())
    assert values["conv2.weight"].dtype == dtype
    path = tmp_path / "p.safetensors"
    size = pack(quantized, path)
    assert size.total == 8 * path.stat().st_size
    assert size.scales == (64 if dtype == torch.float64 else 32) * (4 + 4 + 1)
    restored = unpack(path).state
    assert all(torch.equal(values[name], restored[name]) and restored[name].dtype == dtype for name in used)
    x = torch.randn(6, 1, 8, 8, dtype=dtype)
    assert torch.equal(unpack_into(net(seed=9).to(dtype), path).eval()(x), quantized(x))


def test_a_scheme_given_to_quantize_is_for_all_weights() -> None:
    declared = problem()
    quantized = quantize(net(), declared, np.full(len(declared), 4), scheme="zero", example=EXAMPLE)
    assert {one.quantizer.method for one in quantized_weights(quantized).values()} == {Zero()}


@pytest.mark.parametrize("spec", ["mid-rise:over=5,one_bit=mean", "asymmetric:over=5,statistic=mse", "affine:over=32"])
@pytest.mark.parametrize("bits", [[1], [3, 1, 2, 8]])
def test_a_short_last_range_is_rounded_by_itself(spec: str, bits: Any) -> None:
    """As a weight of its own would be, and its scale is counted."""
    size = int(spec.partition("over=")[2].partition(",")[0])
    plain = spec.replace(f"over={size}", "over=kernel")
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    widths = np.repeat(bits, 4 // len(bits))
    quantizer: Any = load_method(spec).quantizer(weight.shape, bits, [48 // len(bits)] * len(bits))
    parts = [
        load_method(plain).quantizer(part.shape, widths, [part.shape[1]] * 4)
        for part in weight.flatten(1).split(size, 1)
    ]
    rounded = torch.cat([own(part) for own, part in zip(parts, weight.flatten(1).split(size, 1), strict=True)], 1)
    assert torch.equal(quantizer(weight).flatten(1), rounded)
    assert torch.equal(quantizer.values(quantizer.codes(weight), quantizer.side(weight)), quantizer(weight))
    counted = sum(own.side_bits(part) for own, part in zip(parts, weight.flatten(1).split(size, 1), strict=True))
    assert quantizer.side_bits(weight) == counted
    with pytest.raises(OptionError, match=r"range.over: .* need groups of whole output kernels"):
        load_method("zero:over=5").quantizer((2, 12), [2, 2, 2, 2], [6] * 4)


def test_ranges_may_depend_on_the_bits() -> None:
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    for bits, over in ((3, "4"), (4, "4"), (5, "kernel")):
        quantizer = load_method("symmetric:over=4/4").quantizer(weight.shape, [bits], [48])
        assert torch.equal(
            quantizer(weight), load_method(f"symmetric:over={over}").quantizer(weight.shape, [bits], [48])(weight)
        )
    with pytest.raises(OptionError, match="ranges that depend on the bits need one precision a weight"):
        load_method("symmetric:over=4/4").quantizer(weight.shape, [4, 8], [24, 24])
    for spec in ("zero:over=4/", "zero:over=1/4", "zero:over=/4", "zero:over=4/x"):
        with pytest.raises(OptionError, match=r"range\.over"):
            load_method(spec)


@given(st.integers(1, 8), st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=12))
def test_affine_ranges_are_those_of_mlx(bits: int, values: list[float]) -> None:
    """As its documentation and its loop on processors have it, written anew."""
    weight = torch.tensor([values])
    w, n = np.array(values, dtype=np.float64), 2**bits - 1
    low, high = w.min(), w.max()
    scale = max((high - low) / n, 1e-7) * (1 if abs(low) > abs(high) else -1)
    edge = low if abs(low) > abs(high) else high
    zero = np.rint(edge / scale)
    scale, bias = (edge / zero, edge) if zero else (scale, 0.0)
    places = (w - bias) / scale
    clear = np.abs(places - np.floor(places) - 0.5) > 1e-3  # no tie, on which rounding in float32 decides
    firm = abs(edge / max((high - low) / n, 1e-7) % 1 - 0.5) > 1e-3 and abs(abs(low) - abs(high)) > 1e-6
    rounded = np.clip(np.rint(places), 0, n) * scale + bias
    ours = load_method("affine").quantizer(weight.shape, [bits], [len(values)])(weight).numpy()[0]
    if firm:
        np.testing.assert_allclose(ours[clear], rounded[clear], rtol=1e-5, atol=1e-6)
