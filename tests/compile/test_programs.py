"""Programs against the quantized networks that they are of, and against themselves in another order."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compile_world import noise, program_of, subject
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from impq_opt.compile import (
    Add,
    Encoding,
    IntTensor,
    Program,
    Rescale,
    agreement,
    lowering,
    run,
    run_torch,
    trace_program,
)
from impq_opt.compile.apart import with_additions
from impq_opt.compile.api import rounded_from
from impq_opt.compile.encoding import encoding_between, encoding_of
from impq_opt.compile.levels import coded_of
from impq_opt.compile.lowering import lower
from impq_opt.compile.memory import Piece, plan
from impq_opt.data import Dataset, load_data
from impq_opt.errors import DataError, OptionError
from impq_opt.measure import structure_of
from impq_opt.quantize import activation_quantizers, pack, quantize_traced
from impq_opt.tracing.trace import trace


@pytest.mark.parametrize("grid", ["mid-rise", "zero", "symmetric", "asymmetric"])
def test_every_call_computes_what_the_quantized_network_does(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = subject("every")
    x, rounded = own.x, own.quantized(grid)
    ordered = program_of(rounded, x)
    monkeypatch.setattr(lowering, "by_precision", lambda program: program)
    program = program_of(rounded, x)
    made = dict(trace_program(program, program.encode(x.numpy())))
    seen: dict[str, Any] = {}
    for label, quantizer in activation_quantizers(rounded).items():
        quantizer.register_forward_hook(lambda own, _, out, label=label: seen.__setitem__(label, out / own.step))
    with torch.no_grad():
        logits = rounded(x).numpy()
    assert len(seen) == 11
    for label, codes in seen.items():
        off = np.abs(made[label] - codes.round().numpy())
        # A code is another one where a value lies at the edge of two, or where one in front of it is.
        assert off.max() <= 1, label
        assert (off > 0).mean() < 0.005, label
    np.testing.assert_allclose(program.decode(made[program.output]), logits, atol=0.02 * np.abs(logits).max())
    np.testing.assert_array_equal(run(ordered, ordered.encode(x.numpy())), made[program.output])


def test_what_nothing_rounds_is_rounded_once_behind_it() -> None:
    own = subject("unrounded")
    x, rounded = own.x, own.quantized()
    program = program_of(rounded, x)
    kinds = [type(op).__name__ for op in program.operations]
    assert kinds.count("Layer") == 5
    assert program.layers[1].added == (program.layers[1].source,)
    assert "norm.held" not in program.tensors  # the largest of rounded values, not the rounded largest
    codes = program.encode(x.numpy())
    made = run(program, codes)
    np.testing.assert_array_equal(run(with_additions(program), codes), made)
    with torch.no_grad():
        logits = copy.deepcopy(rounded).double()(x.double()).numpy()
    assert np.abs(program.decode(made) - logits).max() < 1e-3 * np.abs(logits).max()


@pytest.mark.parametrize("name", ["every", "unrounded"])
def test_torch_puts_out_the_same_numbers(name: str) -> None:
    own = subject(name)
    program = program_of(own.quantized(), own.x)
    codes = program.encode(own.x.numpy())
    np.testing.assert_array_equal(run_torch(program, torch.from_numpy(codes)).numpy(), run(program, codes))
    with pytest.raises(ValueError, match="-128 to 127"):
        run_torch(program, torch.from_numpy(codes + 200))


def test_kernels_of_one_precision_lie_together(monkeypatch: pytest.MonkeyPatch) -> None:
    own = subject("resnet8")
    x, rounded = own.x, own.quantized()
    ordered = program_of(rounded, x)
    monkeypatch.setattr(lowering, "by_precision", lambda program: program)
    plain = program_of(rounded, x)
    codes = ordered.encode(x.numpy())
    np.testing.assert_array_equal(run(ordered, codes), run(plain, codes))

    def runs(program: Program, name: str) -> int:
        layer = next(layer for layer in program.layers if layer.name == name)
        return sum(1 + int((np.diff(part.channels) > 1).sum()) - 1 for part in layer.parts)

    # The first layer adds to what the last of its stage writes, which has more weights and says the order.
    assert [runs(ordered, name) for name in ("layer1.0.conv1", "layer1.0.conv2", "layer3.0.conv2")] == [0, 0, 0]
    assert runs(ordered, "conv1") > 0
    assert runs(plain, "layer3.0.conv2") > 0
    assert runs(ordered, "fc") == runs(plain, "fc")  # classes stay where they are


def test_decisions_on_digits_and_from_a_packed_file(tmp_path: Path) -> None:
    own, data = subject("digits"), load_data("digits", "test")
    x, rounded = own.x, own.quantized()
    labels = data.rows(torch.arange(len(data)))[1]
    program = program_of(rounded, x)
    alike = agreement(program, rounded, x, labels)
    assert alike.samples == len(x)
    assert alike.alike / alike.samples >= 0.999
    assert alike.right == pytest.approx(alike.right_in_float, abs=1)
    pack(rounded, tmp_path / "packed.safetensors")
    unpacked = rounded_from(own.network, tmp_path / "packed.safetensors").program(program.encoding)
    np.testing.assert_array_equal(run(unpacked, program.encode(x)), run(program, program.encode(x)))
    coarse = program_of(rounded, x, output_bits=8)
    assert np.abs(
        coarse.decode(run(coarse, coarse.encode(x))) - program.decode(run(program, program.encode(x)))
    ).max() <= (0.51 * coarse.tensors[coarse.output].scale)


def _sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.mark.parametrize(
    ("network", "options", "bits", "said"),
    [
        (_sequence(nn.ReLU()), {}, (4, 32), "reads an activation in float"),
        (_sequence(nn.ReLU()), {}, (4, 16), "more than 8 bits"),
        (_sequence(nn.ReLU()), {}, (10, 8), "weights of more than 8 bits"),
        (_sequence(nn.ReLU()), {}, (32, 8), "has a weight in float"),
        (_sequence(nn.ReLU()), {"groups": "slice"}, None, "several precisions"),
        (_sequence(nn.ReLU()), {"grid": "lq-net"}, (3, 8), "not whole numbers times one scale"),
        (_sequence(nn.Sigmoid()), {}, (4, 8), "sigmoid"),
    ],
)
def test_what_has_no_form_in_whole_numbers_is_refused_by_name(network: Any, options: Any, bits: Any, said: str) -> None:
    x = noise(4, 1, 8, 8)
    grid = options.pop("grid", None)
    problem = structure_of(network, Dataset(x, name="noise"), **options)
    weights, others = bits or (None, 8)
    chosen = np.where(problem.weights(), 2 + np.arange(len(problem)) % 3 if weights is None else weights, others)
    rounded = quantize_traced(trace(network, x), problem, chosen, scheme=grid).eval()
    with pytest.raises(DataError, match=said):
        lower(rounded, coded_of(rounded), encoding_of(x.numpy()))


def test_pixels_that_were_normalized_are_encoded_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 5, 5))
    mean, deviation = (np.array(v).reshape(3, 1, 1) for v in ([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]))
    x = ((pixels / 255 - mean) / deviation).astype(np.float32)
    found = encoding_of(x)
    codes = np.rint(x / found.scale.reshape(3, 1, 1) + found.zero.reshape(3, 1, 1))
    assert codes.min() == -128
    steps = np.diff(np.unique(codes[:, 0])), np.diff(np.unique(pixels[:, 0]))
    np.testing.assert_array_equal(*steps)
    np.testing.assert_allclose((codes - found.zero.reshape(3, 1, 1)) * found.scale.reshape(3, 1, 1), x, atol=1e-5)
    other = encoding_of(np.random.default_rng(0).normal(size=(500, 7)))
    np.testing.assert_allclose((np.array([-128, 127]) - other.zero[0]) * other.scale[0], [-3.4, 3.4], atol=0.8)
    for wrong in (np.ones((2, 3)), np.array([[np.nan, 1.0]])):
        with pytest.raises(DataError):
            encoding_of(wrong)
    with pytest.raises(DataError, match="smaller first"):
        encoding_between(1.0, -1.0, 3)


def _doubled(shift: int = 2, multiplier: int = 2) -> Program:
    tensors = {"in": IntTensor("in", (3,), 8, True, 1.0), "out": IntTensor("out", (3,), 8, True, 2.0)}
    rescale = Rescale(np.full((1, 3), multiplier), np.full(3, 2), shift, -128, 127)
    return Program(
        "half", tensors, (Add("half", ("in",), "out", rescale),), "in", "out", Encoding(np.ones(3), np.zeros(3))
    )


def test_a_half_is_rounded_up_and_rules_are_kept() -> None:
    assert run(_doubled(), [[1, -1, -3]]).tolist() == [[1, 0, -1]]
    with pytest.raises(ValueError, match="-128 to 127"):
        run(_doubled(), [[1, 2, 200]])
    with pytest.raises(DataError, match="written by nothing"):
        replace(_doubled(), output="other")
    own = subject("every")
    with pytest.raises(OptionError, match="2 to 24"):
        program_of(own.quantized(), own.x, output_bits=32)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 12), st.integers(0, 4)), max_size=14))
def test_tensors_that_are_alive_together_do_not_overlap(drawn: list[tuple[int, int, int]]) -> None:
    pieces = [Piece(str(k), size, first, first + length) for k, (size, first, length) in enumerate(drawn)]
    starts, total = plan(pieces)
    for step in range(17):
        alive = [p for p in pieces if p.first <= step <= p.last]
        places = [place for p in alive for place in range(starts[p.name], starts[p.name] + p.size)]
        assert len(set(places)) == len(places) <= total
