"""Packed files of every version that was ever written are still read, and mean what they meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantize_world import LABELS, declared, learning, net
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from impq_opt import Problem
from impq_opt.errors import DataError, FileError
from impq_opt.quantize import pack, quantize, quantized_weights, unpack, unpack_into
from impq_opt.tracing.trace import trace

GOLDEN = Path(__file__).parents[1] / "golden"


def sequence() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


# What the networks computed that were packed, by the program that wrote the files.
GRID = torch.linspace(-2, 2, 128).reshape(2, 1, 8, 8)
LINE = torch.linspace(-3, 3, 14).reshape(2, 7)
VERSION_1 = {
    "traced": (
        net,
        GRID,
        [
            [-0.2873101830482483, -0.02169163152575493, -0.1442335993051529],
            [-0.35268914699554443, 0.02229994535446167, -0.35246706008911133],
        ],
        {"relu": (6, 5.0), "relu_1": (7, 6.0), "act": (2, 8.099800109863281), "relu_2": (3, 3.0)},
    ),
    "hooked": (
        sequence,
        LINE,
        [
            [-0.7281831502914429, 0.03373643755912781, 0.2524271309375763],
            [-0.36118626594543457, 0.10537964105606079, -0.2772600054740906],
        ],
        {"1": (4, 2.5)},
    ),
}


@pytest.mark.parametrize("name", VERSION_1)
def test_version_1_is_still_read(name: Any) -> None:
    """The golden files are never written again: a change of format needs a new version and new golden files."""
    make, x, expected, activations = VERSION_1[name]
    path = GOLDEN / f"packed-1-{name}.safetensors"
    assert {a.label: (a.bits, a.span) for a in unpack(path).activations} == activations
    network = make(seed=9) if make is net else make()
    with torch.no_grad():
        torch.testing.assert_close(unpack_into(network, path, example=x)(x), torch.tensor(expected))
    with pytest.raises(DataError, match=r"nothing tells what the network takes.*give example="):
        unpack_into(network, path)


def version_3() -> Any:
    network = net()
    problem, _ = declared(network, GRID)
    return quantize(network, problem, 1 + np.arange(len(problem)) % 8).eval()


def test_version_3_is_still_read_and_written_alike(tmp_path: Path) -> None:
    path = GOLDEN / "packed-3-kernels.safetensors"
    assert unpack(path).version == "3"
    with torch.no_grad():
        torch.testing.assert_close(unpack_into(net(seed=9), path).eval()(GRID), version_3()(GRID))
    pack(version_3(), tmp_path / "packed")
    held, again = unpack(path), unpack(tmp_path / "packed")
    assert held.state.keys() == again.state.keys() and held.input == again.input
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in held.state.items())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_each_tensor_comes_back_under_its_name_with_its_type(kind: torch.dtype, tmp_path: Path) -> None:
    """Names once, types alike, numbers of no dimension, nothing at all, and modules inside modules."""
    network: Any = nn.Sequential(nn.Linear(7, 5, dtype=kind), nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)))
    network.register_parameter("gain", nn.Parameter(torch.ones(2, 3)))
    network.register_buffer("nothing", torch.empty(0, 4, dtype=torch.int32))
    network[1].register_buffer("flag", torch.tensor(True))
    problem = Problem.from_sensitivities([35, 15], [1.0] * 2, names=["0.weight", "1.1.weight"])
    quantized = quantize(network, problem, [3, 2], scheme="asymmetric:over=2").eval()
    pack(quantized, tmp_path / "packed")
    held = unpack(tmp_path / "packed")
    expected = {**network.state_dict(), **{n: w.value for n, w in quantized_weights(quantized).items()}}
    assert held.state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert held.state[name].dtype == tensor.dtype and torch.equal(held.state[name], tensor), name


def test_a_file_whose_tensors_and_words_differ_is_refused(tmp_path: Path) -> None:
    """Longer, shorter, of another type, or without a pool: nothing is taken for something else."""
    pack(version_3(), tmp_path / "packed")
    with safe_open(tmp_path / "packed", framework="pt") as file:
        about = file.metadata()
        pools = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    for name, pool in pools.items():
        for wrong in (pool[:-1], torch.cat([pool, pool[:1]]), pool.to(torch.int32), None):
            kept = {n: t for n, t in pools.items() if n != name} | ({} if wrong is None else {name: wrong})
            save_file(kept, tmp_path / "wrong", about)
            with pytest.raises(FileError, match=r"wrong: .*(truncated|holds more|another type|damaged)"):
                unpack(tmp_path / "wrong")


def test_a_new_file_tells_what_the_network_takes_and_needs_no_example(tmp_path: Path) -> None:
    network = net()
    problem, _ = declared(network, GRID)
    quantized = quantize(network, problem, np.full(len(problem), 5)).eval()
    pack(quantized, tmp_path / "packed")
    about = unpack(tmp_path / "packed")
    assert (about.version, about.input) == ("3", {"shape": [1, 8, 8], "dtype": "float32"})
    with torch.no_grad():
        assert torch.equal(unpack_into(net(seed=3), tmp_path / "packed").eval()(GRID), quantized(GRID))


def test_what_a_quantizer_learned_is_in_what_is_packed(tmp_path: Path) -> None:
    network = net()
    problem, _ = declared(network, GRID)
    quantized = learning(quantize(network, problem, np.full(len(problem), 3)).eval())
    before = quantized_weights(quantized)["conv2.weight"].value
    quantized.get_submodule("conv2").parametrizations.weight[0].gain.data.fill_(1.25)
    learned = quantized_weights(quantized)["conv2.weight"].value
    assert not torch.equal(learned, before)
    pack(quantized, tmp_path / "packed")
    assert torch.equal(unpack(tmp_path / "packed").state["conv2.weight"], learned)
    with torch.no_grad():
        assert torch.equal(unpack_into(net(seed=3), tmp_path / "packed").eval()(GRID), quantized(GRID))


def test_what_cannot_be_packed_is_told_before_anything_is_written(tmp_path: Path) -> None:
    network = sequence()
    weights = Problem.from_sensitivities([35], [1.0], names=["0.weight"])
    quantized: Any = quantize(network, weights, [3])
    nn.utils.parametrizations.weight_norm(quantized[2])
    with pytest.raises(DataError, match=r"2.weight: is computed by a parametrization other than its quantizer"):
        pack(quantized, tmp_path / "packed")
    quantized = quantize(network, weights, [3])
    quantized.register_buffer("mask", torch.eye(3).to_sparse())
    with pytest.raises(DataError, match=r"mask: cannot be packed: only plain dense tensors"):
        pack(quantized, tmp_path / "packed")
    assert list(tmp_path.iterdir()) == []


def test_names_of_version_1_are_those_of_the_symbolic_trace() -> None:
    traced, symbolic = trace(net(), GRID), torch.fx.symbolic_trace(net())
    order = [node.name for node in symbolic.graph.nodes if node.op.startswith("call") and node.name != "fc"]
    exported = list(traced.nodes)
    places = [exported.index(traced.node_of(name, old=True)) for name in order]
    assert places == sorted(set(places))  # as many calls, in the same order
    assert [name for name in order if name in LABELS] == list(LABELS[3:])
