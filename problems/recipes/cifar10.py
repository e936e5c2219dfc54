"""CIFAR-10 from a folder of small pictures as one file of arrays, with a validation split of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.pictures import load_folder, read_picture
from impq_opt.data.sources import CIFAR10
from impq_opt.documents.writing import writing
from impq_opt.errors import DataError

__all__ = ["write_arrays"]

HELD_OUT = 5000


def write_arrays(folder: Path, output: Path) -> None:
    """Write the pictures of ``folder`` to an ``.npz`` file: train, validation and test, float32, normalised.

    Pictures keep their size: enlarged and cut, as pictures of a folder usually are, these would be others.
    A tenth of the training pictures, drawn with seed 0, is held out for validation.

    Parameters
    ----------
    folder : Path
        ``train`` and ``test``, with one sub-folder of pictures a class.
    output : Path

    Raises
    ------
    DataError
        A part is not there, or a picture is of another size than 32x32.
    """
    arrays: dict[str, Tensor] = {}
    images, labels = _pictures(folder, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held = min(HELD_OUT, len(images) // 10)
    for part, rows in (("validation", order[:held]), ("train", order[held:])):
        own = rows.sort().values
        arrays |= {f"images_{part}": images[own], f"labels_{part}": labels[own]}
    arrays["images_test"], arrays["labels_test"] = _pictures(folder, "test")
    beside = output.with_name(f".{output.stem}.part.npz")
    with writing(output):
        np.savez(beside, allow_pickle=False, **{name: tensor.numpy() for name, tensor in arrays.items()})
        beside.replace(output)


def _pictures(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    data = load_folder(folder, split, 32)
    files = data.inputs.files  # type: ignore[union-attr]
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in CIFAR10)
    pixels = np.stack([_pixels(file) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    assert data.labels is not None
    return ((images - mean) / deviation).contiguous(), data.labels


def _pixels(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = np.asarray(read_picture(file))
    if pixels.shape != (32, 32, 3):
        raise DataError("must be a colour picture of 32x32", where=f"data {file}", value=pixels.shape)
    return pixels
