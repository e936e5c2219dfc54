"""The bound against really quantized networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import known
from measure_world import Branches, data_of, digits_network, noise, seeded, tensor_of
from safetensors.torch import save_file

from impq_opt import solve
from impq_opt.cli import run
from impq_opt.data import load_data
from impq_opt.errors import DataError
from impq_opt.files import save_allocation, save_problem
from impq_opt.measure import Sampling, measure
from impq_opt.quantize import quantize
from impq_opt.tracing.trace import trace
from impq_opt.validate.reality import Validation, interval


@pytest.fixture(scope="module")
def problem() -> Any:
    return measure(
        digits_network(), load_data("digits"), groups="kernel", residual="accumulate", bits=range(1, 13),
        sampling=Sampling(samples=400, concede=0.01),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_it_decides_as_the_quantized_module_does(problem: Any, seed: int) -> None:
    network, data = digits_network(), load_data("digits", "test")
    bits = np.random.default_rng(seed).integers(2, 6, len(problem)).astype(float)
    held = Validation(network, problem, data, samples=16)
    reality = held.hold(bits)
    quantized = quantize(network, problem, bits).eval()
    with torch.no_grad():
        decisions, before = quantized(data.inputs).argmax(1), network(data.inputs).argmax(1)
    assert reality.mismatch == pytest.approx(float((decisions != before).double().mean()), abs=2 / len(data))
    assert reality.accuracy == pytest.approx(float((decisions == data.labels).double().mean()), abs=2 / len(data))
    assert reality.low <= reality.mismatch <= reality.high


def test_bounds_on_samples_are_what_they_say(problem: Any) -> None:
    """From autograd, sample by sample, with a scale for every group."""
    network, data = digits_network(), load_data("digits", "test")
    few = data_of(tensor_of(data)[:6])
    bits = np.random.default_rng(0).integers(2, 7, len(problem)).astype(float)
    reality = Validation(network, problem, few, samples=6).hold(bits)
    bounds = []
    for sample in tensor_of(few):
        kept: dict[str, Any] = {}
        hooks = [
            network.get_submodule(f"relu{n}").register_forward_hook(
                lambda m, a, out, n=n, kept=kept: kept.__setitem__(n, out)
            )
            for n in (1, 2, 3)
        ]
        logits = network(sample[None])[0]
        best, total = int(logits.argmax()), 0.0
        for other in set(range(10)) - {best}:
            margin = logits[other] - logits[best]
            names = ["conv1", "conv2", "conv3", "fc"]
            inputs = [network.get_submodule(n).weight for n in names] + list(kept.values())
            grads = torch.autograd.grad(margin, inputs, retain_graph=True)
            for name, grad in zip([*names, "relu1", "relu2", "relu3"], grads, strict=True):
                rows = problem.names.select(name)
                step = torch.from_numpy(problem.ranges[rows] * 2.0 ** -bits[rows])
                squares = grad.double().flatten(1).square().sum(1)
                total += float((squares * step**2).sum()) / 12 / float(margin.detach()) ** 2
        bounds.append(total)
        for hook in hooks:
            hook.remove()
    assert reality.here == pytest.approx(np.mean(bounds), rel=1e-3)
    assert reality.clipped == pytest.approx(np.minimum(bounds, 1).mean(), rel=1e-3)
    assert 0 <= known(reality.gaussian) <= known(reality.clipped)


def test_more_bits_come_nearer_to_the_float_network(problem: Any) -> None:
    held = Validation(digits_network(), problem, load_data("digits", "test"), samples=32)
    coarse, fine = (held.hold(np.full(len(problem), b)) for b in (2.0, 12.0))
    assert fine.mismatch < coarse.mismatch
    assert fine.bound < coarse.bound
    assert fine.bound > 0.01  # the conceded share
    assert fine.mismatch <= fine.bound


def test_signed_tensors_are_quantized_on_both_sides() -> None:
    network, x = seeded(Branches), noise(24, 1, 8, 8)
    problem = measure(network, data_of(x), bits=(4, 12), sampling=Sampling())
    reality = Validation(network, problem, data_of(x), samples=24).hold(np.full(len(problem), 12.0))
    assert reality.mismatch < 0.1
    assert reality.accuracy is None


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    low, high = interval(0, 20, 0.95)
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 20))
    low, high = interval(20, 20, 0.9)
    assert low == pytest.approx(0.05 ** (1 / 20)) and high == 1.0
    low, high = interval(10, 100, 0.95)
    assert low == pytest.approx(0.0490, abs=1e-4) and high == pytest.approx(0.1762, abs=1e-4)


def test_a_foreign_network_is_told(problem: Any) -> None:
    with pytest.raises(DataError, match="is not of this network, which has"):
        Validation(seeded(Branches), problem, data_of(noise(8, 1, 8, 8)))


def test_the_command(problem: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, weights)
    save_problem(problem, tmp_path / "p.toml")
    allocation = solve(problem, bound=0.5)
    save_allocation(allocation, tmp_path / "a.json")
    where = [
        "--network",
        "small-cnn",
        "--weights",
        str(weights),
        "--data",
        "digits",
        "--samples",
        "16",
        "--threads",
        "1",
    ]
    curve = tmp_path / "curve.svg"
    files = [str(tmp_path / "p.toml"), str(tmp_path / "a.json")]
    more = ["--uniform", "3,8", "--bounds", "0.1", "--plot", str(curve)]
    assert run(["validate", *files, *where, *more, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["a", "all 3 bits", "all 8 bits", "bound 0.1"]
    assert rows[0]["bound"] == pytest.approx(float(allocation.damage) + 0.01)
    assert curve.read_text().lstrip().startswith("<?xml")
    assert run(["validate", *files, *where]) == 0
    assert "mismatch" in capsys.readouterr().out
    assert run(["validate", files[0], *where]) == 2
    assert "nothing to validate" in capsys.readouterr().err


def test_rows_are_like_with_like(problem: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights alone: activations in float in every row, and the bound is that of the weights."""
    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, weights)
    save_problem(problem, tmp_path / "p.toml")
    rows = problem.weights()
    mixed = solve(problem, budget=3 * int(problem.sizes[rows].sum()))
    save_allocation(mixed, tmp_path / "a.json")
    files = [str(tmp_path / "p.toml"), str(tmp_path / "a.json")]
    where = [
        "--network",
        "small-cnn",
        "--weights",
        str(weights),
        "--data",
        "digits",
        "--samples",
        "16",
        "--threads",
        "1",
    ]
    command = ["validate", *files, *where, "--uniform", "3", "--average-bits", "3,8", "--bounds", "0.5"]

    assert run([*command, "--weights-only", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(found) == ["a", "all 3 bits", "bound 0.5", "average 3 bits", "average 8 bits"]
    assert all(row["effective_bits"]["activation"] is None for row in found.values())
    assert found["all 3 bits"]["effective_bits"]["weight"] == 3
    assert 2.9 < found["average 3 bits"]["effective_bits"]["weight"] <= 3
    assert found["average 3 bits"]["bound"] < found["all 3 bits"]["bound"]
    # The very network: weights rounded as allocated and nothing else, with the damage of the weights and no more.
    network, data = digits_network(), load_data("digits", "test")
    for name, bits in (("a", np.asarray(mixed.bits)), ("all 3 bits", np.full(len(problem), 3.0))):
        quantized = quantize(network, problem.revise(weights_only=True), bits[rows]).eval()
        with torch.no_grad():
            decisions, before = quantized(data.inputs).argmax(1), network(data.inputs).argmax(1)
        mismatch = float((decisions != before).double().mean())
        assert found[name]["mismatch"] == pytest.approx(mismatch, abs=2 / len(data))
        damage = float((problem.damage.sensitivity[rows] * 4.0 ** -bits[rows]).sum())
        assert found[name]["bound"] == pytest.approx(damage + 0.01)

    assert run([*command, "--json"]) == 0
    rounded = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rounded["all 3 bits"]["effective_bits"]["activation"] == 3
    assert rounded["all 3 bits"]["bound"] > found["all 3 bits"]["bound"]
    assert rounded["average 3 bits"]["effective_bits"]["activation"] == 12
    assert rounded["average 3 bits"]["effective_bits"]["weight"] <= 3

    for text in ("nan", "inf", "0", "-1", "three", ""):
        assert run(["validate", *files, *where, f"--average-bits={text}"]) == 2
        assert "--average-bits: must be" in capsys.readouterr().err


def test_metrics_are_compared_at_equal_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, weights)
    code = (
        "from impq_opt.networks import load_network\n"
        f"def digits(): return load_network('small-cnn', weights={str(weights)!r})\n"
    )
    (tmp_path / "own_networks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    command = ["compare", "--metric", "impq,fit", "--network", "own_networks:digits", "--data", "digits"]
    options = ["--average-bits", "3", "--samples", "64"]
    traces: list[Any] = []

    def counted(*args: Any, **how: Any) -> Any:
        traces.append(args)
        return trace(*args, **how)

    monkeypatch.setattr("impq_opt.measure.api.trace", counted)
    assert run([*command, *options, "--json"]) == 0
    assert len(traces) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["metric"] for row in rows] == ["uniform", "impq", "fit"]
    assert all(row["effective_bits"] <= 3 for row in rows)
    assert rows[1]["unit"] != rows[2]["unit"]
    assert run([*command, *options]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run(["compare", "--metric", "all"]) == 2
    assert run([*command, "--average-bits", "9"]) == 2


def test_samples_are_called_held_out_only_where_they_are(problem: Any) -> None:
    network, train, test = digits_network(), load_data("digits"), load_data("digits", "test")
    assert Validation(network, problem, test).origin == "held-out samples of digits/test"
    assert Validation(network, problem, train).origin.endswith("the very ones that the problem was measured on")
    copied = data_of(tensor_of(train))  # the same images under another name and without labels
    assert Validation(network, problem, copied).origin == f"samples of {copied.name}"
    whole = replace(test, name="digits/all")
    shared = "samples of digits/all, which share some with digits/train, where the problem was measured"
    assert Validation(network, problem, whole).origin == shared


def test_a_bound_that_does_not_hold_is_told(problem: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scaled down a thousand times the damages promise what no rounding to 2 bits keeps."""
    weights = {name: value.contiguous() for name, value in digits_network().state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    law = replace(problem.damage, sensitivity=problem.damage.sensitivity / 1e6, stderr=None)
    save_problem(replace(problem, damage=law), tmp_path / "p.toml")
    arguments = ["validate", str(tmp_path / "p.toml"), "--network", "small-cnn", "--data", "digits", "--uniform", "2"]
    assert run([*arguments, "--weights", str(tmp_path / "w.safetensors")]) == 0
    printed = capsys.readouterr()
    assert "held-out samples of digits/test" in printed.out
    assert "the bound of all 2 bits does not hold on these samples" in printed.err
