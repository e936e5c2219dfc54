"""Weights in the forms that people have them in, loaded into one network; those that do not fit, each in a sentence."""

from __future__ import annotations

import json
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from impq_opt import Problem
from impq_opt.errors import DataError, FileError, ImpqError, OptionError
from impq_opt.networks import load_network, read_state
from impq_opt.networks.matching import fill
from impq_opt.networks.own import unwrapped
from impq_opt.networks.states import State, read_states
from impq_opt.quantize import pack, quantize, unpack_into


class Small(nn.Module):
    """Two convolutions with a batch-norm, and a classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Any) -> Any:
        return self.fc(self.conv2(self.bn1(self.conv1(x)).relu()).relu().mean((2, 3)))


class Inside(nn.Module):
    """A network whose own names have a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Small()

    def forward(self, x: Any) -> Any:
        return self.backbone(x)


def trained(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in Small().state_dict().items()}


STATE, OTHER = trained(1), trained(2)
X = torch.randn(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(X)


def reference() -> torch.Tensor:
    network = Small()
    network.load_state_dict(STATE)
    return logits(network)


def under(prefix: str, state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def filled(path: Any) -> nn.Module:
    network = Small()
    fill(network, read_states(path), str(path))
    return network


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "model._orig_mod.module.",
        "anything.at.all.",
    ],
)  # fmt: skip
def test_a_prefix_is_dropped_where_the_names_then_fit(tmp_path: Path, prefix: str) -> None:
    save_file(under(prefix), tmp_path / "w.safetensors")
    assert torch.equal(logits(filled(tmp_path / "w.safetensors")), reference())


def test_a_wrapper_inside_a_name_is_dropped() -> None:
    named = {key.replace("conv2.", "conv2._orig_mod.").replace("bn1.", "bn1.module."): v for key, v in STATE.items()}
    network = Small()
    fill(network, [State("", named)], "file")
    assert torch.equal(logits(network), reference())


def test_a_prefix_is_added_where_the_network_has_one() -> None:
    network = Inside()
    fill(network, [State("", STATE)], "file")
    assert torch.equal(logits(network), reference())


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"state_dict": STATE, "epoch": 3, "best": torch.tensor(0.9)},
        {"model_state_dict": under("module."), "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        {"model": STATE, "model_ema": OTHER, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"ema": OTHER, "net": under("module.")},
        {"ema": STATE},
        {"checkpoint": {"state_dict": under("model."), "hyper_parameters": {"width": 4}}},
        {"state_dict": under("model.") | under("ema_model.", OTHER) | {"loss.weight": torch.zeros(5)}, "epoch": 1},
        {"generator": {"w": torch.zeros(3)}, "classifier": STATE},
        {**STATE, "epoch": 3, "note": "text"},
        OrderedDict(STATE),
        {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in STATE.items()},
        {key: value for key, value in STATE.items() if "num_batches" not in key},
        {**STATE, "embeddings.position_ids": torch.arange(4)},
    ],
    ids=lambda c: ",".join(map(str, list(c)[:2])),
)
def test_weights_are_found_in_a_checkpoint(tmp_path: Path, checkpoint: Any) -> None:
    torch.save(checkpoint, tmp_path / "w.ckpt")
    assert torch.equal(logits(filled(tmp_path / "w.ckpt")), reference())


def sharded(folder: Any, suffix: str, write: Any) -> None:
    keys = list(STATE)
    parts = {f"part-{k}{suffix}": {key: STATE[key] for key in keys[k::2]} for k in range(2)}
    for name, part in parts.items():
        write(part, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps(index))


def test_shards_are_put_together_and_folders_searched(tmp_path: Path) -> None:
    for name, suffix, write in (("s", ".safetensors", save_file), ("b", ".bin", torch.save)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        sharded(folder, suffix, write)
        index = next(folder.glob("*.index.json"))
        for path in (folder, index):
            assert torch.equal(logits(filled(path)), reference())
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "config.json").write_text("{}")
    save_file(STATE, whole / "model.safetensors")
    save_file(OTHER, whole / "optimizer.safetensors")
    assert torch.equal(logits(filled(whole)), reference())
    arrays: dict[str, Any] = {key: value.numpy() for key, value in STATE.items()}
    np.savez(tmp_path / "w.npz", **arrays)
    assert torch.equal(logits(filled(tmp_path / "w.npz")), reference())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_type(tmp_path: Path, dtype: Any) -> None:
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in STATE.items()}
    save_file(state, tmp_path / "w.safetensors")
    network = filled(tmp_path / "w.safetensors")
    assert {p.dtype for p in network.parameters()} == {dtype}
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


def test_a_tensor_under_two_names_may_be_stored_once() -> None:
    def tied() -> Any:
        network: Any = nn.Sequential(OrderedDict(e=nn.Embedding(7, 4), head=nn.Linear(4, 7, bias=False)))
        network.head.weight = network.e.weight
        return network

    weight = torch.randn(7, 4).bfloat16()
    network = tied()
    fill(network, [State("", {"e.weight": weight})], "file")
    assert network.head.weight is network.e.weight
    assert torch.equal(network.head.weight, weight)


def test_two_sets_that_fit_are_told_apart_or_refused() -> None:
    network = Small()
    fill(network, [State("", under("student.") | under("copy."))], "file")
    assert torch.equal(logits(network), reference())
    with pytest.raises(DataError, match=r"several sets of weights that fit the network, got \['copy.', 'student.'\]"):
        fill(network, [State("", under("student.") | under("copy.", OTHER))], "file")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def write_bad(folder: Any) -> None:
    """Write the files of the table below."""
    torch.save(Small(), folder / "whole.pt")
    torch.save({"state_dict": STATE, "extra": Trap(folder / "sprung")}, folder / "trap.pt")
    (folder / "trap.pkl").write_bytes(pickle.dumps({"a": Trap(folder / "sprung")}))
    np.savez(folder / "objects.npz", a=np.array([{1: 2}], dtype=object))
    np.savez(folder / "text.npz", a=np.array(["a"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it, people still have such files
        torch.jit.script(nn.Linear(2, 2)).save(str(folder / "script.pt"))
    (folder / "cut.safetensors").write_bytes(b"12345678nonsense")
    torch.save(STATE, folder / "full.pt")
    (folder / "cut.pt").write_bytes((folder / "full.pt").read_bytes()[:500])
    (folder / "empty.pt").write_bytes(b"")
    (folder / "net.onnx").write_bytes(b"onnx")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"epoch": 1}, folder / "nothing.pt")
    (folder / "hollow").mkdir()
    (folder / "hollow" / "config.json").write_text("{}")
    (folder / "many").mkdir()
    for name in ("a", "b"):
        save_file(STATE, folder / "many" / f"{name}.safetensors")
    shards = folder / "shards"
    shards.mkdir()
    sharded(shards, ".safetensors", save_file)
    (shards / "part-1.safetensors").unlink()
    (folder / "outside.index.json").write_text(json.dumps({"weight_map": {"a": "../full.pt"}}))
    (folder / "odd.index.json").write_text("[]")
    lacking = folder / "lacking"
    lacking.mkdir()
    sharded(lacking, ".safetensors", save_file)
    save_file({"x": torch.zeros(1)}, lacking / "part-0.safetensors")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("whole.pt", "holds more than tensors and will not be unpickled"),
        ("trap.pt", "holds more than tensors and will not be unpickled, got '_*io.open'"),
        ("trap.pkl", "holds more than tensors and will not be unpickled"),
        ("objects.npz", "is not a state dict or safetensors file"),
        ("text.npz", "must be numbers"),
        ("script.pt", "is a TorchScript program, which holds code"),
        ("cut.safetensors", "is not a state dict or safetensors file"),
        ("cut.pt", "is not a state dict or safetensors file"),
        ("empty.pt", "is not a state dict or safetensors file"),
        ("net.onnx", "is of another framework"),
        ("list.pt", "is not a state dict, got 'list'"),
        ("nothing.pt", r"is not a state dict, got \['epoch'\]"),
        ("hollow", r"holds no weights, got \['config.json'\]"),
        ("many", r"several files of weights, and no index of them, got \['a.safetensors', 'b.safetensors'\]"),
        ("shards", "names a shard that is missing, got 'part-1.safetensors'"),
        ("outside.index.json", "must name files beside it"),
        ("odd.index.json", "is no index of shards"),
        ("lacking", "should hold 'conv1.weight'"),
        ("none.pt", "no such file"),
    ],
)
def test_what_is_no_weights_is_told_and_never_run(tmp_path: Path, name: str, said: str) -> None:
    write_bad(tmp_path)
    with pytest.raises(FileError, match=said) as told:
        read_states(tmp_path / name)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            under("model.", {k: v for k, v in STATE.items() if k != "fc.bias"}),
            r"missing: fc.bias, 1 of the network's 11",
        ),
        (STATE | {"fc2.weight": torch.zeros(1)}, r"unknown: fc2.weight, 1 of the file's 12"),
        (
            {key.replace("conv1", "conv_1"): value for key, value in STATE.items()},
            r"missing: conv1.weight, conv1.bias, 2 .* unknown: conv_1.weight, conv_1.bias, 2 .*"
            r"the file has conv_1.weight, conv_1.bias, bn1.weight ...; nearest to conv1.weight is conv_1.weight",
        ),
        (
            STATE | {"fc.weight": torch.zeros(7, 4)},
            r"of another shape: fc.weight, 1 of 11; fc.weight is \(7, 4\), not \(5, 4\)",
        ),
        ({"a": torch.zeros(1)}, r"missing: conv1.weight, conv1.bias, bn1.weight ..., 10 .*the file has a"),
        (STATE | {"fc.weight": torch.zeros(5, 4, dtype=torch.int8)}, "is of another kind of number"),
    ],
)
def test_weights_that_do_not_fit_are_told_by_name_and_number(state: Any, said: str) -> None:
    network = Small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(DataError, match=said) as told:
        fill(network, [State("", state)], "file")
    assert "\n" not in str(told.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_weights_tell_the_number_of_classes_of_a_torchvision_network(tmp_path: Path) -> None:
    network = load_network("squeezenet1_1", classes=7, untrained=True)
    save_file(under("module.", network.state_dict()), tmp_path / "w.safetensors")
    loaded = load_network("squeezenet1_1", weights=tmp_path / "w.safetensors")
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(x), network(x))


# torch.compile loads parts of torch that torch deprecates
old_parts = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SOURCE = """
import torch
from dataclasses import dataclass
from torch import nn
import beside

@dataclass
class Settings:
    width: int = 64

def tiny(): return nn.Linear(Settings().width, beside.CLASSES)
class Net(nn.Linear):
    def __init__(self): super().__init__(64, 3)
ready = nn.Linear(64, 2)
compiled = torch.compile(nn.Linear(64, 4))
def parallel(): return nn.DataParallel(torch.compile(nn.Linear(64, 6)))
class Holder:
    inside = nn.Linear(64, 8)
number = 3
def broken(): raise ZeroDivisionError("no\\nwidth")
def asks(width): return nn.Linear(width, 2)
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_own_networks.py").write_text(SOURCE)
    (folder / "beside.py").write_text("CLASSES = 10\n")
    (folder / "bad_source.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(folder)
    return folder


@old_parts
@pytest.mark.parametrize(
    ("name", "classes"),
    [("tiny", 10), ("Net", 3), ("ready", 2), ("compiled", 4), ("parallel", 6), ("Holder.inside", 8)],
)
def test_a_network_of_ones_own_by_module_and_by_file(source: Any, name: str, classes: int) -> None:
    for place in ("my_own_networks", str(source / "my_own_networks.py")):
        network = load_network(f"{place}:{name}")
        assert type(network).__name__ in ("Linear", "Net")
        assert network.out_features == classes


@old_parts
def test_a_network_of_ones_own_takes_weights(source: Any, tmp_path: Path) -> None:
    state = {"_orig_mod.weight": torch.randn(10, 64), "_orig_mod.bias": torch.randn(10)}
    torch.save(state, tmp_path / "w.pt")
    network: Any = load_network(f"{source / 'my_own_networks.py'}:tiny", weights=tmp_path / "w.pt")
    assert torch.equal(network.weight, state["_orig_mod.weight"])


@old_parts
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_own_networks:number", "must be a torch module, or return one"),
        ("my_own_networks:broken", "could not be built, got 'ZeroDivisionError: no'"),
        ("my_own_networks:asks", "called without arguments"),
        ("my_own_networks:nothing", "my_own_networks has no 'nothing'"),
        ("my_own_networks.py:tiny", "no such file"),
        ("bad_source:f", "cannot be imported"),
        ("{folder}/bad_source.py:f", "cannot be imported"),
        ("os:getcwd", "must return a torch module"),
    ],
)
def test_what_is_no_network_of_ones_own_is_told(
    source: Any, name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=said) as told:
        load_network(name.format(folder=source))
    assert "\n" not in str(told.value)


def test_a_file_in_the_place_of_a_network_is_told(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    with pytest.raises(ImpqError, match="a file of its weights with --weights"):
        load_network(str(tmp_path / "w.pt"))
    with pytest.raises(ImpqError, match=r"nets.py:name, where name is a module in the file"):
        load_network("nets.py")
    torch.save({"best": torch.tensor(0.9)}, tmp_path / "none.pt")
    with pytest.raises(DataError, match="do not fit the network"):
        load_network("small-cnn", weights=tmp_path / "none.pt")


@old_parts
def test_wrappers_are_taken_off() -> None:
    inner = nn.Linear(2, 2)
    compiled: Any = torch.compile(nn.DataParallel(inner))
    assert unwrapped(compiled) is inner
    assert unwrapped(inner) is inner


def test_the_weights_tell_classes_and_channels_beside_other_numbers(tmp_path: Path) -> None:
    network = load_network("small-cnn", classes=7, channels=2, untrained=True)
    torch.save({"best": torch.tensor(0.9), "model": under("module.", network.state_dict())}, tmp_path / "w.pt")
    loaded = load_network("small-cnn", weights=tmp_path / "w.pt")
    x = torch.rand(1, 2, 8, 8)
    assert torch.equal(loaded(x), network(x))


def test_a_shard_alone_is_told(tmp_path: Path) -> None:
    save_file({key: STATE[key] for key in list(STATE)[:3]}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(DataError, match="it is one of several shards, so give their folder or index"):
        filled(tmp_path / "model-00001-of-00002.safetensors")


def test_one_reads_the_likeliest_weights_alone(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": under("module.")}, tmp_path / "w.pt")
    assert list(read_state(tmp_path / "w.pt")) == list(STATE)


class Versioned(nn.Linear):
    """As torchvision's MNASNet: not loaded from a state dict that does not say its version."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") is None:
            raise ValueError("version should be set")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_modules_that_ask_for_a_version_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = Versioned(6, 3), Versioned(6, 3)
    fill(network, [State("", dict(other.state_dict()))], "file")
    assert torch.equal(network.weight, other.weight)
    problem = Problem.from_sensitivities([18], [1.0], names=["weight"])
    quantized: Any = quantize(network, problem, [4])
    pack(quantized, tmp_path / "packed.safetensors")
    restored: Any = unpack_into(other, tmp_path / "packed.safetensors")
    assert torch.equal(restored.weight, quantized.weight)
