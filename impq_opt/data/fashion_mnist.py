"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 + 10,000 images of 28x28 in ten classes."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, first_line

__all__ = ["DEBIAN", "load_fashion_mnist"]

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images
VALIDATION = 5000  # the last training images, which no shipped network has been trained on

_FILES = {"train": "train", "validation": "train", "test": "t10k"}


def load_fashion_mnist(split: str, root: Path | None = None, *, download: bool = True) -> tuple[Tensor, Tensor]:
    """Return normalised images (n, 1, 28, 28) float32 and labels (n,) int64 of a split.

    Looked for in ``root/FashionMNIST/raw`` (torchvision's place; gzipped or not), then in Debian's folder, then
    downloaded by torchvision into ``root``.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        55,000, 5,000 and 10,000 images; validation is the tail of the official training set.
    root : Path, optional
        Where torchvision keeps data sets; ``~/.cache/impq-opt`` unless given.

    Raises
    ------
    DataError
        None of the three places has it.
    """
    root = root or Path("~/.cache/impq-opt").expanduser()
    stem = _FILES[split]
    for folder in (root / "FashionMNIST" / "raw", DEBIAN):
        names = [_present(folder / f"{stem}-{part}") for part in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        if names[0] and names[1]:
            return _split(_idx(names[0]), _idx(names[1]), split)
    try:
        if not download:
            raise OSError("not allowed to download")
        datasets = torchvision_module("datasets")
        datasets.FashionMNIST(str(root), train=stem == "train", download=True)
    except (OSError, RuntimeError) as error:  # torchvision wraps network errors in RuntimeError
        shutil.rmtree(root / "FashionMNIST", ignore_errors=True)  # no half-written download
        raise DataError(
            f"Fashion-MNIST is neither in {root / 'FashionMNIST' / 'raw'} (torchvision's place), nor in {DEBIAN} "
            f"(Debian's package dataset-fashion-mnist), nor could torchvision download it ({first_line(error)})",
            where="data fashion-mnist",
            hint="name the folder with --root, or apt-get install dataset-fashion-mnist",
        ) from None
    return load_fashion_mnist(split, root, download=False)


def _present(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes (LeCun's MNIST page)."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        if zero or kind != 8:
            raise ValueError("not an IDX file of unsigned bytes")
        array = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError):
        raise DataError("truncated or foreign file", where=str(path)) from None
    return torch.from_numpy(array.copy())


def _split(images: Tensor, labels: Tensor, split: str) -> tuple[Tensor, Tensor]:
    if len(images) != len(labels):
        raise DataError("as many labels as images", where="data fashion-mnist", value=(len(images), len(labels)))
    part = {"train": slice(None, -VALIDATION), "validation": slice(-VALIDATION, None), "test": slice(None)}[split]
    scaled = (images[part].float() / 255 - MEAN) / STD
    return scaled.unsqueeze(1), labels[part].long()
