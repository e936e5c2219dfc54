"""What is validated is what `pack` writes: the same network, to the bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measure_world import Branches, data_of, digits_network, noise, seeded, tensor_of
from quantize_world import declared, net
from safetensors.torch import save_file
from torch import nn

from impq_opt import solve
from impq_opt.cli import run
from impq_opt.data import load_data
from impq_opt.data.batch import prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.errors import DataError, FileError
from impq_opt.files import save_allocation, save_problem
from impq_opt.measure import Sampling, measure
from impq_opt.quantize import activation_quantizers, pack, quantize, unpack_into
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.validate.reality import Validation


class Twice(nn.Module):
    """A layer called twice, in one module with its rectifiers: names that only a trace tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.c2, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Any) -> dict[Any, Any]:
        x = torch.relu(self.c2(torch.relu(self.c(x))))
        return {"logits": self.out(torch.relu(self.c2(x)).mean((2, 3)))}


class Pair(nn.Module):
    """Two inputs by keyword, and an output beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, *, y: Any, x: Any) -> dict[Any, Any]:
        both = torch.relu(self.a(x) + self.b(y))
        return {"hidden": both.sum(1), "logits": self.out(both)}


def digits() -> Any:
    return digits_network(), tensor_of(load_data("digits", "test"))[:200], "kernel"


NETWORKS: dict[str, Callable[[], Any]] = {
    "digits": digits,
    "branches": lambda: (seeded(Branches), noise(40, 1, 8, 8), "layer"),
    "residual": lambda: (net(), noise(40, 1, 8, 8), "kernel"),
    "twice": lambda: (seeded(Twice), noise(40, 1, 8, 8), "layer"),
    "pair": lambda: (seeded(Pair), {"x": noise(40, 6), "y": noise(40, 5, seed=1)}, "kernel"),
}


def decided(network: Any, x: Any) -> Any:
    with torch.no_grad():
        return logits_of(call(network, x)).argmax(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_decisions_are_those_of_the_packed_network(name: Any, tmp_path: Path) -> None:
    network, x, groups = NETWORKS[name]()
    data = data_of(x)
    x = prepare(x, torch.device("cpu"))
    problem = measure(network, data, groups=groups, bits=range(1, 9), sampling=Sampling(samples=32))
    for seed, asked in enumerate((problem, problem.revise(weights_only=True))):
        bits = np.random.default_rng(seed).integers(1, 6, len(asked)).astype(float)
        pack(quantize(network, asked, bits, example=x[:2]), tmp_path / "packed.safetensors")
        restored = unpack_into(network, tmp_path / "packed.safetensors", example=x[:2]).eval()
        held = Validation(network, asked, data)
        assert torch.equal(decided(held.quantized(bits), x), decided(restored, x))
        parts = x.split(held._batch)
        before, after = (torch.cat([decided(n, part) for part in parts]) for n in (network, restored))
        reality = held.hold(bits)
        assert reality.mismatch == float((before != after).double().mean())
        assert held.hold(tmp_path / "packed.safetensors") == reality
        assert held.bits(tmp_path / "packed.safetensors").tolist() == bits.tolist()


def test_logits_are_those_of_the_packed_network(tmp_path: Path) -> None:
    network, x, _ = digits()
    problem = measure(network, data_of(x), bits=range(1, 9), sampling=Sampling(samples=32))
    bits = np.random.default_rng(0).integers(2, 5, len(problem)).astype(float)
    pack(quantize(network, problem, bits), tmp_path / "packed.safetensors")
    held = Validation(network, problem, data_of(x))
    with torch.no_grad():
        assert torch.equal(held.quantized(bits)(x), unpack_into(network, tmp_path / "packed.safetensors")(x))


def test_packed_networks_of_methods_that_learn_are_held(tmp_path: Path) -> None:
    network, x = net(), noise(40, 1, 8, 8)
    problem, _ = declared(network, x[:2])
    grids = {"conv1": "twn", "conv2": "pact", "relu": "pact", "relu#3": "lq-net"}
    problem = dataclasses.replace(problem, grids=grids)
    bits = np.repeat([2.0, 3, 4, 3, 5, 2], problem.names.counts)
    quantized: Any = quantize(network, problem, bits)
    for one in activation_quantizers(quantized).values():
        for tensor in one.state_dict().values():
            tensor.mul_(0.75)
    pack(quantized, tmp_path / "packed.safetensors")
    held = Validation(network, problem, data_of(x))
    assert held.bits(tmp_path / "packed.safetensors").tolist() == bits.tolist()
    reality, fresh = held.hold_all([tmp_path / "packed.safetensors", bits])
    assert reality.mismatch == float((decided(network, x) != decided(quantized.eval(), x)).double().mean())
    assert reality.bound == fresh.bound


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The problem of the digits network, an allocation and what `pack` makes of it, in files."""
    folder, network, data = tmp_path_factory.mktemp("packed"), digits_network(), load_data("digits")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "w.safetensors")
    problem = measure(network, data, groups="kernel", bits=range(1, 9), sampling=Sampling(samples=200))
    save_problem(problem, folder / "p.toml")
    allocation = solve(problem, bound=1.0)
    save_allocation(allocation, folder / "a.json")
    pack(quantize(network, problem, allocation), folder / "packed.safetensors")
    pack(quantize(network, problem, allocation, scheme=MidRise("tensor")), folder / "other.safetensors")
    return folder, problem


def test_packed_files_are_rows_as_allocations_are(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = world
    where = ["--network", "small-cnn", "--weights", str(folder / "w.safetensors"), "--data", "digits", "--threads", "1"]
    files = [str(folder / name) for name in ("p.toml", "a.json", "packed.safetensors", "other.safetensors")]
    assert run(["validate", *files, *where, "--json"]) == 0
    first, second, third = json.loads(capsys.readouterr().out)["rows"]
    assert [row.pop("name") for row in (first, second, third)] == ["a", "packed", "other"]
    assert first == second
    assert third["bound"] == first["bound"]
    assert third["mismatch"] != first["mismatch"]  # one range for a whole tensor
    assert run(["validate", *files[:1], files[2], *where, "--weights-only"]) == 2
    assert "is quantized in the file and no group of the problem" in capsys.readouterr().err


def test_foreign_packed_files_are_told(world: Any, tmp_path: Path) -> None:
    folder, problem = world
    network, data = digits_network(), load_data("digits", "test")
    layers = measure(network, load_data("digits"), bits=range(1, 9), sampling=Sampling(samples=32))
    held = Validation(network, layers, data)
    with pytest.raises(DataError, match="has not the groups of the problem"):
        held.hold(folder / "packed.safetensors")
    with pytest.raises(FileError, match="is not a packed network"):
        held.hold(folder / "w.safetensors")
    with pytest.raises(FileError, match="no such file"):
        held.hold(tmp_path / "none.safetensors")
    pack(
        quantize(network, problem.revise(weights_only=True), np.full(int(problem.weights().sum()), 4)),
        tmp_path / "w.safetensors",
    )
    with pytest.raises(DataError, match=r"w.safetensors: relu1: is no candidate of the group, got 32.0 \(it may"):
        Validation(network, problem, data).hold(tmp_path / "w.safetensors")
