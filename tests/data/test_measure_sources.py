"""Networks and data by name, and the command line of measuring."""

from __future__ import annotations

import gzip
import importlib.resources
import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import known, law_of
from measure_world import digits_network, tensor_of
from safetensors import safe_open
from safetensors.torch import save_file

from impq_opt.cli import run
from impq_opt.data import Dataset, load_data
from impq_opt.data.fashion_mnist import DEBIAN, load_fashion_mnist
from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, FileError, OptionError
from impq_opt.files import load_problem
from impq_opt.measure import Estimator, Sampling, measure, trace
from impq_opt.networks import FACTORIES, SHIPPED, load_network, read_state
from impq_opt.problems import path as gallery_path
from impq_opt.training import accuracy

fashion = pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")


@pytest.mark.parametrize(
    ("name", "shape", "weights", "kernels", "macs"),
    [
        ("resnet20", (3, 32, 32), 268_336, 698, 40.55e6),
        ("vgg-small", (3, 32, 32), 4_656_512, 1_802, 607.6e6),
        ("mobilenet-v1", (3, 224, 224), 4_209_088, 11_944, 568.74e6),
        ("mobilenet-v1-tf", (3, 224, 224), 4_209_088 + 1024, 11_944 + 1, 568.74e6),  # and the background
    ],
)
def test_networks_have_the_sizes_of_the_papers(name: str, shape: Any, weights: int, kernels: int, macs: float) -> None:
    traced = trace(FACTORIES[name](), torch.zeros(1, *shape))
    assert sum(np.prod(site.shape) for site in traced.weights) == weights
    assert sum(site.shape[0] for site in traced.weights) == kernels
    assert sum(use.macs for site in traced.weights for use in site.uses) == pytest.approx(macs, rel=2e-4)


@pytest.mark.parametrize("name", ["mobilenet_v2"])
def test_torchvision_classifiers_are_traced(name: str) -> None:
    network = load_network(name, classes=7, untrained=True)
    x = torch.rand(2, 3, 64, 64)
    traced = trace(network, x)
    assert traced.classes == 7
    biases = [key for key, _ in network.named_parameters() if key.endswith("relative_position_bias_table")]
    assert list(traced.skipped) == biases  # of attention, added to its scores; Swin alone has them
    assert bool(biases) == (name == "swin_t")
    torch.testing.assert_close(traced.run(x), network(x), rtol=1e-3, atol=1e-4)


@fashion
def test_a_shipped_network_reaches_its_accuracy() -> None:
    images, labels = load_data("fashion-mnist", "test").arrays()
    assert accuracy(load_network("resnet20-fashion-mnist"), Dataset(images[:1000], labels[:1000])) > 0.9


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_told_as_it_was_trained(name: Any) -> None:
    """Where its data are at no hand, its own record still belongs to its weights and to the table."""
    path = Path(str(importlib.resources.files("impq_opt.networks.weights").joinpath(f"{name}.safetensors")))
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["impq-opt"])
        assert set(file.keys()) == set(SHIPPED[name].build().state_dict())
    assert record["network"] == name
    assert record["accuracy"]["test"] > 0.8
    assert load_network(name).state_dict()["bn1.num_batches_tracked"] > 0
    told = record.get("training") or f"{record['recipe']['epochs']} epochs of one-cycle SGD"
    assert SHIPPED[name].training.startswith(told)


def test_weights_are_read_and_never_unpickled(tmp_path: Path) -> None:
    network = digits_network()
    state = network.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    torch.save(network, tmp_path / "whole.pt")
    x = tensor_of(load_data("digits", "test"))[:5]
    for file in ("w.safetensors", "w.pt"):
        torch.testing.assert_close(load_network("small-cnn", weights=tmp_path / file)(x), network(x))
    with pytest.raises(FileError, match="not be unpickled"):
        read_state(tmp_path / "whole.pt")

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(FileError):
        read_state(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_bad_weights_and_networks_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"12345678nonsense")
    with pytest.raises(FileError, match="not a state dict"):
        read_state(tmp_path / "bad.safetensors")
    with pytest.raises(FileError, match="no such file"):
        read_state(tmp_path / "none.pt")
    save_file({"conv1.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "small.safetensors")
    with pytest.raises(DataError, match="do not fit"):
        load_network("small-cnn", weights=tmp_path / "small.safetensors")
    with pytest.raises(OptionError, match="did you mean 'resnet18'"):
        load_network("resnet_18")
    with pytest.raises(OptionError, match="never trained"):
        load_network("resnet20")
    with pytest.raises(OptionError, match="cannot be imported"):
        load_network("no_such_module:factory")
    with pytest.raises(OptionError, match="must return a torch module"):
        load_network("os:getcwd")


def test_data_of_every_kind_is_read(tmp_path: Path) -> None:
    digits = load_data("digits", "test")
    assert len(load_data("digits")) + len(load_data("digits", "validation")) + len(digits) == 1797
    np.savez(tmp_path / "d.npz", images=np.zeros((3, 1, 8, 8)), labels=np.arange(3))
    assert load_data(str(tmp_path / "d.npz")).arrays()[1].tolist() == [0, 1, 2]
    image = pytest.importorskip("PIL.Image")
    for place, name in enumerate(("cat", "dog")):
        folder = tmp_path / "pictures" / "val" / name
        folder.mkdir(parents=True)
        for number in range(2):
            image.new("RGB", (40, 30), (90 * place, 10, 20 * number)).save(folder / f"{number}.png")
    pictures = load_data(str(tmp_path / "pictures"), "validation", size=16)
    images, labels = pictures.arrays()
    assert images.shape == (4, 3, 16, 16)
    assert labels.tolist() == [0, 0, 1, 1]
    assert pictures.classes == 2


def test_cifar10_is_read_where_torchvision_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = torchvision_module("datasets")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        rng = np.random.default_rng(len(name))
        batch = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: setattr(self, "classes", list("abcdefghij")))
    train, held = load_data("cifar10", root=tmp_path), load_data("cifar10", "validation", root=tmp_path)
    assert (len(train), len(held), train.arrays()[0].shape[1:]) == (45, 5, (3, 32, 32))
    assert len(load_data("cifar10", "test", root=tmp_path)) == 10


def write_idx(path: Any, array: Any, zipped: Any) -> None:
    data = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_is_looked_for_in_three_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setattr("impq_opt.data.fashion_mnist.DEBIAN", tmp_path / "debian")
    with pytest.raises(DataError) as told:
        load_fashion_mnist("test", tmp_path, download=False)
    for place in ("torchvision's place", "Debian's package dataset-fashion-mnist", "download"):
        assert place in str(told.value)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    end = ".gz" if zipped else ""
    write_idx(raw / f"t10k-images-idx3-ubyte{end}", np.full((3, 28, 28), 255, np.uint8), zipped)
    write_idx(raw / f"t10k-labels-idx1-ubyte{end}", np.array([1, 2, 3], np.uint8), zipped)
    images, labels = load_fashion_mnist("test", tmp_path, download=False)
    assert images.shape == (3, 1, 28, 28)
    assert labels.tolist() == [1, 2, 3]
    assert float(images.max()) == pytest.approx((1 - 0.2860) / 0.3530)
    (raw / f"t10k-labels-idx1-ubyte{end}").write_bytes(b"short")
    with pytest.raises(DataError, match="truncated or foreign"):
        load_fashion_mnist("test", tmp_path, download=False)


def test_bad_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(OptionError, match="split"):
        load_data("digits", "dev")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="truncated or foreign"):
        load_data(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match="needs an array 'images'"):
        load_data(str(tmp_path / "other.npz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one sub-folder"):
        load_data(str(tmp_path / "empty"))
    np.savez(tmp_path / "nan.npz", images=np.full((2, 3), np.nan))
    with pytest.raises(DataError, match="finite"):
        load_data(str(tmp_path / "nan.npz"))


def test_torchvision_is_imported_beside_another_torch_build() -> None:
    """In a fresh process, where nothing has declared its operators yet."""
    code = (
        "from impq_opt.data.torchvision import torchvision_module as t; m = t('models'); m.resnet18(); "
        "from torchvision.transforms import v2; assert t().__name__ == 'torchvision'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.fixture
def weights(tmp_path: Path) -> Any:
    path = tmp_path / "digits.safetensors"
    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, path)
    return path


def test_the_command_measures_and_the_problem_solves(
    tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "problem.toml"
    common = ["small-cnn", "--weights", str(weights), "--data", "digits", "--samples", "64", "--threads", "1"]
    assert run(["measure", *common, "--groups", "block:32", "--estimator", "top:3", "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    problem = load_problem(out)
    assert said["problem_digest"] == problem.digest
    assert said["groups"] == len(problem)
    assert problem.provenance["estimator"] == "top"
    assert problem.provenance["command"].startswith("impq-opt measure ")
    assert not out.with_name("problem.toml.partial").exists()
    assert run(["solve", str(out), "--bound", "100"]) == 0
    capsys.readouterr()
    assert run(["measure", *common, "-o", str(out)]) == 0
    assert "most sensitive" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet_18", "--data", "digits"], "unknown network"),
        (["small-cnn", "--data", "digits"], "--weights"),
        (["small-cnn", "--data", "nowhere", "--weights", "W"], "neither a known data set"),
        (["small-cnn", "--data", "digits", "--weights", "W", "--groups", "rows"], "grouping"),
        (["small-cnn", "--data", "digits", "--weights", "W", "--groups", "block:x"], "whole number"),
        (["small-cnn", "--data", "digits", "--weights", "W", "--device", "gpu"], "--device"),
        (["small-cnn", "--data", "digits", "--weights", "W", "--concede", "2"], "concede"),
        (["small-cnn", "--weights", "W"], "data"),
    ],
)
def test_bad_usage_ends_in_one_sentence(
    arguments: Any, said: str, tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "problem.toml"
    assert run(["measure", *(str(weights) if a == "W" else a for a in arguments), "-o", str(out)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not out.exists()


def test_a_factory_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text("from torch import nn\ndef tiny(): return nn.Linear(64, 10)\n")
    monkeypatch.chdir(tmp_path)
    assert load_network("my_networks:tiny").out_features == 10


@pytest.mark.parametrize("name", ["resnet20-fashion-mnist", "resnet20-fashion-mnist-kernel"])
def test_the_gallery_was_measured_on_the_shipped_network(name: str) -> None:
    """Ranges, sizes and clips of the problem are those of the weights in the package."""
    problem, network = load_problem(gallery_path(name)), load_network("resnet20-fashion-mnist")
    traced = trace(network, torch.zeros(1, 1, 28, 28), residual="accumulate")
    sites = [s.name for s in traced.weights] + [s.name for s in traced.activations]
    assert list(problem.names.labels) == sites
    for site in traced.weights:
        rows = problem.names.select(site.name)
        spans = 2 * traced.weight_tensor(site).flatten(1).abs().amax(1).double()
        wanted = spans.numpy() if len(rows) > 1 else [float(spans.square().mean().sqrt())]
        np.testing.assert_allclose(known(problem.ranges)[rows], wanted, rtol=1e-6)
        assert problem.sizes[rows].sum() == np.prod(site.shape)
        assert known(problem.macs)[rows].sum() == sum(use.macs for use in site.uses)
    for read in traced.activations:
        if np.isfinite(read.clip):
            assert known(problem.ranges)[problem.names.index_of(read.name)] == pytest.approx(read.clip, rel=1e-6)


@fashion
def test_the_gallery_is_measured_again_from_fewer_samples() -> None:
    """Sensitivities of another 4000 samples rank the layers as the shipped ones do."""
    problem = load_problem(gallery_path("resnet20-fashion-mnist"))
    torch.set_num_threads(1)
    again = measure(
        load_network("resnet20-fashion-mnist"), load_data("fashion-mnist"), residual="accumulate", bits=range(1, 13),
        estimator=Estimator(draws=16), sampling=Sampling(samples=4000, concede=0.005, seed=7),
    )  # fmt: skip
    ratio = np.log(law_of(again).sensitivity / law_of(problem).sensitivity)
    assert np.abs(ratio - ratio.mean()).max() < 1
    assert np.corrcoef(np.log(law_of(again).sensitivity), np.log(law_of(problem).sensitivity))[0, 1] > 0.97
