"""Quantizers against their formulas, quantized networks against their problems, packed files against both."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known
from quantize_world import EXAMPLE, LABELS, net
from torch import nn
from torch.nn import functional

from impq_opt import GroupNames, Problem, solve
from impq_opt.data import Dataset
from impq_opt.errors import AllocationError, DataError, FileError, OptionError
from impq_opt.measure import measure
from impq_opt.quantize import (
    UniformActivation,
    WeightQuantizer,
    activation_quantizers,
    of_other_weights,
    pack,
    quantize,
    quantized_weights,
    state_of,
    storage_bits,
    unpack,
    unpack_into,
)
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.quantize.packing import pack_codes, unpack_codes


def problem(shapes: Any = ((4,), (4, 4), ()), seed: int = 0) -> Problem:
    """Kernels of conv1, slices of conv2, the whole of fc, and four activations."""
    sizes = []
    for weight, shape in zip((36, 144, 12), shapes, strict=True):
        count = math.prod(shape)
        sizes += [weight // count] * count
    sizes += [4 * 64] * 4
    rng = np.random.default_rng(seed)
    weights = len(sizes) - 4
    return Problem.from_sensitivities(
        sizes,
        rng.lognormal(0, 2, len(sizes)),
        names=GroupNames(LABELS, (*shapes, (), (), (), ())),
        kinds=[0] * weights + [1] * 4,
        ranges=np.array([np.nan] * weights + [5.0, 6.0, np.nan, 3.0]),
    )


def reference(weight: Any, bits: Any, one_bit: str = "max") -> Any:
    """The formula of the authors' code, one weight at a time, in float64."""
    out = np.empty(weight.shape)
    for kernel, widths, row in zip(weight, bits, out, strict=True):
        m = np.abs(kernel).max()
        for place in np.ndindex(kernel.shape):
            b = int(widths[place])
            u = np.clip(float(kernel[place]) / (2 * m), -(0.5 - 1e-6), 0.5 - 1e-6)
            row[place] = (np.round(2.0**b * u - 0.5) + 0.5) / 2.0**b * 2 * m
            if b == 1 and one_bit == "mean":
                row[place] = np.sign(row[place]) * np.abs(kernel.astype(np.float64)).mean()
    return out


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (6, 1, 3, 3), (7, 10), (4, 2, 5)])
@pytest.mark.parametrize("one_bit", ["max", "mean"])
@pytest.mark.parametrize("groups", ["layer", "kernel", "slice", "element", "uneven"])
def test_weights_are_rounded_by_the_papers_formula_with_mixed_bits(shape: Any, groups: str, one_bit: str) -> None:
    rng = np.random.default_rng(len(shape) + shape[0])
    weight = rng.normal(size=shape).astype(np.float32)
    total = weight.size
    count = {"layer": 1, "kernel": shape[0], "slice": shape[0] * shape[1], "element": total, "uneven": 3}[groups]
    sizes = np.full(count, total // count)
    if groups == "uneven":
        sizes = np.array([5, 1, total - 6])
    bits = rng.integers(1, 9, count)
    quantizer = WeightQuantizer(shape, bits, sizes, MidRise(one_bit=one_bit))
    got = quantizer(torch.from_numpy(weight)).numpy()
    expected = reference(weight, np.repeat(bits, sizes).reshape(shape), one_bit)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_weight_has_at_most_two_to_the_b_levels_and_no_zero(data: Any) -> None:
    kernels, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    bits = data.draw(st.lists(st.integers(1, 8), min_size=kernels, max_size=kernels))
    values = data.draw(
        st.lists(st.floats(-4, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=kernels * length,
                 max_size=kernels * length)
    )  # fmt: skip
    weight = torch.tensor(values).reshape(kernels, length)
    quantizer = WeightQuantizer(weight.shape, bits, [length] * kernels)
    rounded, codes = quantizer(weight), quantizer.codes(weight)
    for kernel, row, code, b in zip(weight, rounded, codes, bits, strict=True):
        scale = float(kernel.abs().max())
        assert 0 <= int(code.min()) <= int(code.max()) < 2**b
        assert float((row - kernel).abs().max()) <= scale * (2.0**-b + 1e-6) + 1e-12
        assert scale == 0 or bool((row != 0).all())
    assert torch.equal(quantizer.values(codes, quantizer.side(weight)), rounded)


def test_gradients_pass_straight_through() -> None:
    weight = torch.randn(3, 8, requires_grad=True)
    quantizer = WeightQuantizer(weight.shape, [1, 4, 8], [8] * 3)
    upstream = torch.randn(3, 8)
    quantizer(weight).backward(upstream)
    assert torch.equal(known(weight.grad), upstream)


@pytest.mark.parametrize("bits", range(1, 9))
def test_activations_are_rounded_to_the_levels_below_the_clip(bits: int) -> None:
    clip = 2.5
    values = torch.linspace(-1, 4, 4001).requires_grad_()
    rounded = UniformActivation(bits, clip)(values)
    step = clip * 2.0**-bits
    levels = np.arange(2**bits) * step
    plain = values.detach().double().numpy()
    nearest = np.abs(plain[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(rounded.detach().numpy() - plain), nearest, atol=1e-6)
    assert float(rounded.detach().max()) == pytest.approx(clip * (1 - 2.0**-bits))
    upstream = torch.randn(4001)
    rounded.backward(upstream)
    inside = (values > 0) & (values < clip)
    assert torch.equal(known(values.grad), torch.where(inside, upstream, 0))


@pytest.mark.parametrize("bits", range(1, 9))
def test_signed_activations_span_both_sides(bits: int) -> None:
    values = torch.linspace(-4, 4, 4001).requires_grad_()
    rounded = UniformActivation(bits, 5.0, signed=True)(values)
    levels = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) * 5.0 * 2.0**-bits
    plain = values.detach().double().numpy()
    nearest = np.abs(plain[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(rounded.detach().numpy() - plain), nearest, atol=1e-6)
    rounded.sum().backward()
    assert torch.equal(known(values.grad), ((values > -2.5) & (values < 2.5)).float())


def test_activations_keep_bfloat16_and_memory_format() -> None:
    values = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    quantizer = UniformActivation(3, 1.0)
    assert quantizer(values).is_contiguous(memory_format=torch.channels_last)
    half = quantizer(values.bfloat16())
    assert half.dtype == torch.bfloat16
    assert set(half.float().unique().tolist()) <= {k / 8 for k in range(8)}


@pytest.mark.parametrize("over", ["kernel", "group", "tensor"])
@pytest.mark.parametrize("statistic", ["max", "normal"])
def test_range_options_set_what_shares_a_scale(over: str, statistic: str) -> None:
    torch.manual_seed(1)
    weight = torch.randn(4, 6, 5)
    quantizer = WeightQuantizer(weight.shape, [3] * 24, [5] * 24, MidRise(over, statistic))
    scale = quantizer.side(weight)["scale"]
    parts = {"kernel": weight.reshape(4, -1), "group": weight.reshape(24, -1), "tensor": weight.reshape(1, -1)}[over]
    expected = parts.abs().amax(1) if statistic == "max" else parts.square().mean(1).sqrt()
    torch.testing.assert_close(scale.flatten(), expected)
    assert len(quantizer(weight).unique()) <= 8 * scale.numel()


@pytest.mark.parametrize("name", ["mid-rise", "zero", "symmetric", "integer", "asymmetric"])
def test_the_range_of_least_error_has_the_least_error_of_64(name: str) -> None:
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[1, 7] = 9.0  # an outlier, which is worth clipping
    widths = [2, 3, 4]
    plain, fitted = (WeightQuantizer(weight.shape, widths, [40] * 3, f"{name}:statistic={s}") for s in ("max", "mse"))
    side, rounded = plain.side(weight), fitted.rounded(weight)
    tried = []
    for share in range(1, 65):
        scaled = {part: tensor * share / 64 for part, tensor in side.items()}
        step, offset = plain.grid(scaled)
        codes = (weight / step - offset).round().clamp(plain.least, plain.most)
        tried.append(((codes + offset) * step - weight).square().sum(1))
    torch.testing.assert_close((rounded - weight).square().sum(1), torch.stack(tried).amin(0))
    assert float((rounded - weight)[1].square().sum()) < float((plain.rounded(weight) - weight)[1].square().sum())


def test_the_integer_grid_has_all_its_codes_and_zero() -> None:
    weight = torch.tensor([[-1.0, 0.3, 0.1, 0.9], [0.0, 0.5, -0.1, 1.0], [0.0, 0.0, 0.0, 0.0]])
    rounded = WeightQuantizer(weight.shape, [2], [12], "integer").rounded(weight)  # steps of 2/3
    torch.testing.assert_close(rounded, torch.tensor([[-4 / 3, 0, 0, 2 / 3], [0, 2 / 3, 0, 2 / 3], [0, 0, 0, 0]]))


def test_the_asymmetric_grid_has_its_ends_and_zero() -> None:
    weight = torch.tensor([[-0.2, 0.0, 0.1, 1.0], [-1.0, -0.6, -0.3, -0.25], [0.0, 0.0, 0.0, 0.0]])
    rounded = WeightQuantizer(weight.shape, [2], [12], "asymmetric").rounded(weight)
    # Steps of 0.4 and 1/3; the zero points are 0 (of -low / step = 0.5, to the even one) and 3.
    torch.testing.assert_close(rounded, torch.tensor([[0, 0, 0, 0.8], [-1, -2 / 3, -1 / 3, -1 / 3], [0, 0, 0, 0]]))


def test_ranges_over_consecutive_weights_are_of_one_kernel() -> None:
    weight = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3))
    for sizes in ([120], [30] * 4, [5] * 24, [60, 60], [31, 89]):
        bits = [2 + place % 3 for place in range(len(sizes))]
        quantizer = WeightQuantizer(weight.shape, bits, sizes, MidRise("10"))
        scale = quantizer.side(weight)["scale"]
        torch.testing.assert_close(scale.flatten(), weight.reshape(12, 10).abs().amax(1))
        spread = torch.tensor(bits).repeat_interleave(torch.tensor(sizes)).reshape(12, 10)
        own = quantizer.rounded(weight).reshape(12, 10)
        for row, width in [(place, width) for place in range(12) for width in spread[place].unique().tolist()]:
            alone = WeightQuantizer((1, 10), [width], [10]).rounded(weight.reshape(12, 10)[row : row + 1])[0]
            assert torch.equal(own[row][spread[row] == width], alone[spread[row] == width])
    short = WeightQuantizer(weight.shape, [2], [120], MidRise("7")).side(weight)["scale"]
    for kernel, scales in zip(weight.reshape(4, 30), short.reshape(4, 5), strict=True):  # the last of two weights
        torch.testing.assert_close(scales, torch.stack([part.abs().amax() for part in kernel.split(7)]))


def test_a_weight_may_be_a_group_with_a_range_of_its_own() -> None:
    weight = torch.randn(3, 4)
    quantizer = WeightQuantizer(weight.shape, [2] * 12, [1] * 12, MidRise("group"))
    torch.testing.assert_close(quantizer(weight), 0.75 * weight)  # the top level of two bits


def test_the_normal_range_has_the_least_error_for_normal_weights() -> None:
    weight = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    for bits, expected in ((1, 0.3634), (2, 0.1188), (3, 0.03744), (4, 0.01154)):  # Max 1960, table II
        rounded = WeightQuantizer(weight.shape, [bits], [200_000], MidRise(statistic="normal"))(weight)
        assert float((rounded - weight).square().mean()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightQuantizer((2, 3), [2, 2.5], [3, 3]), "whole precisions"),
        (lambda: WeightQuantizer((2, 3), [0], [6]), "1 to 16 bits, got 0.0"),
        (lambda: WeightQuantizer((2, 3), [2], [5]), r"add up to the weight, got 5 \(the weight has shape \[2, 3\]"),
        (lambda: MidRise(over="kernal"), "did you mean 'kernel'"),
        (lambda: UniformActivation(4, math.nan), "span: must be positive"),
    ],
)
def test_bad_options_are_told(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_a_quantized_copy_leaves_the_network_alone_and_costs_what_the_problem_says() -> None:
    network, declared = net(), problem()
    before = copy.deepcopy(network.state_dict())
    allocation = solve(declared, bound=0.5)
    quantized = quantize(network, declared, allocation, example=EXAMPLE)
    assert storage_bits(quantized) == allocation.cost
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert type(network.conv1) is nn.Conv2d
    assert sorted(activation_quantizers(quantized)) == sorted(LABELS[3:])
    bits = dict(zip(declared.names, allocation.bits.tolist(), strict=True))
    for label in LABELS[3:]:
        assert activation_quantizers(quantized)[label].bits == bits[label]
    clips = {label: one.span for label, one in activation_quantizers(quantized).items()}
    # The problem gives none for "act": it comes from the batch-norm before it.
    assert clips == {
        "relu": 5.0,
        "relu_1": 6.0,
        "act": pytest.approx(8.099800109863281),
        "relu_2": 3.0,
    }


def test_the_copy_computes_what_quantizing_by_hand_computes() -> None:
    network, declared = net(), problem()
    bits = np.random.default_rng(3).integers(1, 9, len(declared))
    quantized = quantize(network, declared, bits, example=EXAMPLE)
    x = torch.randn(5, 1, 8, 8)
    by_hand = copy.deepcopy(network)
    start = 0
    for module, groups in ((by_hand.conv1, 4), (by_hand.conv2, 16), (by_hand.fc, 1)):
        widths = np.repeat(bits[start : start + groups], module.weight.numel() // groups).reshape(module.weight.shape)
        module.weight.data = torch.from_numpy(reference(module.weight.detach().numpy(), widths)).float()
        start += groups

    def rounded(values: Any, place: Any, clip: Any) -> Any:
        step = clip * 2.0 ** -int(bits[start + place])
        return (values / step).round().clamp(0, 2.0 ** int(bits[start + place]) - 1) * step

    y = rounded(functional.relu(by_hand.bn1(by_hand.conv1(x))), 0, 5.0)
    y = rounded(functional.relu(by_hand.bn2(by_hand.conv2(y)) + y), 1, 6.0)
    y = rounded(functional.relu(y), 2, 8.099800109863281)
    y = rounded(functional.relu(y - 0.1), 3, 3.0)
    torch.testing.assert_close(quantized(x), by_hand.fc(y.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_shared_weights_are_quantized_together_and_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Any) -> Any:
            return self.two(self.one(x))

    declared = Problem.from_sensitivities([16], [1.0], names=["one.weight"])
    quantized: Any = quantize(Tied(), declared, [3])
    assert storage_bits(quantized) == 48
    assert list(quantized_weights(quantized)) == ["one.weight"]
    quantized(torch.randn(2, 4)).sum().backward()
    assert quantized.one.parametrizations.weight.original is quantized.two.parametrizations.weight.original
    assert torch.equal(quantized.one.weight, quantized.two.weight)
    assert sum(p.numel() for p in quantized.parameters()) == 16


def test_training_moves_the_latent_weights_and_state_goes_back_to_the_float_network() -> None:
    network, declared = net(), problem()
    quantized = quantize(network, declared, np.full(len(declared), 2), example=EXAMPLE).train()
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.1)
    functional.cross_entropy(quantized(torch.randn(8, 1, 8, 8)), torch.randint(3, (8,))).backward()
    optimizer.step()
    latent = state_of(quantized, latent=True)
    assert latent.keys() == network.state_dict().keys()
    assert not torch.equal(latent["conv1.weight"], network.conv1.weight)
    rounded = state_of(quantized, latent=False)
    assert len(rounded["conv1.weight"][0].unique()) <= 4
    network.load_state_dict(latent)
    again = quantize(network, declared, np.full(len(declared), 2), example=EXAMPLE).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(x), quantized.eval()(x))


@pytest.mark.parametrize(
    ("label", "sizes", "message"),
    [
        ("conv3.weight", [36], "is not of this network, which has no weight 'conv3.weight' .did you mean 'conv"),
        ("conv1.weight", [35], "do not add up to the weight, got 35 .the network's weight has 36"),
    ],
)
def test_a_problem_of_another_network_is_told(label: str, sizes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        quantize(net(), Problem.from_sensitivities(sizes, [1.0], names=[label]), [4])


def test_an_unknown_activation_is_told() -> None:
    declared = Problem.from_sensitivities([4], [1.0], names=["relu_7"], kinds=["activation"])
    with pytest.raises(DataError, match=r"is not of this network, which has no activation 'relu_7' \(did you mean"):
        quantize(net(), declared, [4], example=EXAMPLE)


def test_what_a_problem_has_of_another_network_is_counted() -> None:
    names = ["conv1", "conv3", "conv4", "conv5", "conv6"]
    declared = Problem.from_sensitivities([36] * 5, [1.0] * 5, names=names)
    with pytest.raises(
        DataError, match=r"has 1 of its 5 weights, and no 'conv3', 'conv4', 'conv5' and 1 more \(did you mean 'conv"
    ):
        quantize(net(), declared, [4] * 5)


def test_a_problem_measured_at_other_weights_is_told() -> None:
    network = net()
    data = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    measured = measure(network, Dataset(data), groups="kernel", bits=(2, 8))
    assert not of_other_weights(measured, network.state_dict())
    assert not of_other_weights(measured, network.bfloat16().state_dict())
    torch.manual_seed(99)
    other = net()
    with torch.no_grad():
        other.conv2.weight *= 1.1
    assert not of_other_weights(replace(measured, provenance={}), other.state_dict())
    assert "measured at other weights: 1 of 3 have another range, 'conv2' by 9%" in of_other_weights(
        measured, state_of(quantize(other, measured, np.full(len(measured), 8)), latent=True)
    )


def test_an_allocation_of_another_length_is_told() -> None:
    with pytest.raises(AllocationError, match="one precision per group"):
        quantize(net(), problem(), [4, 4])


# -- packing ------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 16), st.integers(0, 2**16 - 1)), min_size=1, max_size=60))
def test_codes_survive_packing_in_exactly_their_bits(pairs: Any) -> None:
    bits = np.array([b for b, _ in pairs])
    codes = np.array([c % 2**b for b, c in pairs])
    stream = pack_codes(codes, bits)
    assert len(stream) == -(-int(bits.sum()) // 8)
    # The stream is the number whose binary digits are the codes, last code first.
    expected = int("".join(format(c, f"0{b}b") for b, c in zip(bits[::-1], codes[::-1], strict=True)), 2)
    assert int.from_bytes(stream.tobytes(), "little") == expected
    assert unpack_codes(stream, bits).tolist() == codes.tolist()


def test_long_streams_are_packed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(1, 9, 1000)
    codes = rng.integers(0, 2**bits)
    whole = pack_codes(codes, bits)
    monkeypatch.setattr("impq_opt.quantize.packing._CHUNK", 37)
    assert np.array_equal(pack_codes(codes, bits), whole)
    assert np.array_equal(unpack_codes(whole, bits), codes)


@pytest.mark.parametrize("scheme", [MidRise(), MidRise("group", "normal", "mean"), MidRise("tensor")])
def test_a_packed_file_has_the_stated_size_and_restores_the_network_bit_for_bit(tmp_path: Path, scheme: Any) -> None:
    network, declared = net(), problem()
    bits = np.random.default_rng(5).integers(1, 9, len(declared))
    quantized = quantize(network, declared, bits, scheme=scheme, example=EXAMPLE).eval()
    path = tmp_path / "net.safetensors"
    size = pack(quantized, path)
    weights = declared.weights()
    assert size.codes == int(np.dot(declared.sizes[weights], bits[weights])) == storage_bits(quantized)
    assert size.total == 8 * path.stat().st_size
    assert size.padding < 8 * 3
    restored = unpack_into(net(seed=9), path).eval()
    x = torch.randn(6, 1, 8, 8)
    assert torch.equal(restored(x), quantized(x))
    for name, value in state_of(quantized, latent=False).items():
        assert torch.equal(unpack(path).state[name], value)
    assert np.concatenate(list(unpack(path).bits.values())).tolist() == bits[weights].tolist()


def test_uneven_groups_are_packed(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(7, 3))
    declared = Problem.from_sensitivities([8, 8, 5], [1.0] * 3, names=GroupNames(("0.weight",), ((3,),)))
    quantized = quantize(network, declared, [1, 3, 6])
    assert pack(quantized, tmp_path / "a").codes == 8 + 24 + 30
    x = torch.randn(2, 7)
    assert torch.equal(unpack_into(network, tmp_path / "a")(x), quantized(x))


def test_packing_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no quantized weight"):
        pack(net(), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(FileError, match="no such file"):
        unpack(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"\0" * 100)
    with pytest.raises(FileError, match="cannot be read"):
        unpack(tmp_path / "b")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "c")
    with pytest.raises(FileError, match="is not a packed network"):
        unpack(tmp_path / "c")
    declared = problem()
    pack(quantize(net(), declared, np.full(len(declared), 3), example=EXAMPLE), tmp_path / "d")
    with pytest.raises(DataError, match="does not fit the network"):
        unpack_into(nn.Linear(2, 2), tmp_path / "d")
    whole = (tmp_path / "d").read_bytes()
    for end in (0, 7, 100, len(whole) - 1):
        (tmp_path / "e").write_bytes(whole[:end])
        with pytest.raises(FileError):
            unpack(tmp_path / "e")
