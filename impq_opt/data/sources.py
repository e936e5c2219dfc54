"""Finding data: by name, in a folder of pictures, or in a file of arrays."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from impq_opt.data.dataset import Dataset
from impq_opt.data.fashion_mnist import load_fashion_mnist
from impq_opt.data.files import SUFFIXES, load_file
from impq_opt.data.parts import ALL, SPLITS
from impq_opt.data.pictures import load_folder
from impq_opt.data.text import TEXT, Tokens, load_text
from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, MissingPackageError, OptionError, nearest

__all__ = ["DATA_NAMES", "load_data"]

DATA_NAMES = ("cifar10", "digits", "fashion-mnist")
# Mean and standard deviation per channel, of the training images scaled to [0, 1].
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def load_data(
    name: str,
    split: str | None = None,
    *,
    root: Path | None = None,
    size: int = 224,
    tokens: Tokens | None = None,
    download: bool = True,
) -> Dataset:
    """Return a data set.

    Parameters
    ----------
    name : str
        One of :data:`DATA_NAMES`, a folder with one sub-folder of pictures per class
        (:func:`~impq_opt.data.pictures.load_folder`), a file of arrays, ``.npz``, ``.npy`` or ``.safetensors``
        (:func:`~impq_opt.data.files.load_file`), or a text, ``.txt`` (:func:`~impq_opt.data.text.load_text`).
    split : {"train", "validation", "test", "all"}, optional
        What a network may be trained on, what choices may be made on, and what is only reported on. A folder that has
        sub-folders ``train``, ``val`` or ``test`` is split so, and a file whose arrays are named so. Any other folder
        or file is one set: :func:`~impq_opt.data.parts.part_of` divides it, and ``"all"`` takes it whole. Where none is
        named: ``train``, or the whole of one set.
    root : Path, optional
        Where torchvision keeps data sets.
    size : int
        Side in pixels that pictures of a folder are resized and cropped to.
    tokens : Tokens, optional
        How the model takes text; needed of a text.
    download : bool
        Let torchvision download what is not there.

    Raises
    ------
    OptionError, DataError
        Unknown name or split, or files that are missing or foreign.
    """
    if split is not None and split not in (*SPLITS, ALL):
        raise OptionError("unknown split", where="data", value=split, hint=nearest(split, (*SPLITS, ALL)))
    if split == ALL and name in DATA_NAMES:
        raise OptionError("is of data without parts; these have them", where="data", value=ALL, hint=", ".join(SPLITS))
    path = Path(name).expanduser()
    if name not in DATA_NAMES and os.path.isdir(path):
        return load_folder(path, split, size)
    if path.suffix in SUFFIXES:
        return load_file(path, split)
    if path.suffix in TEXT:
        if tokens is None:
            raise OptionError(
                "is text, which a model's tokenizer reads", where="data", value=name, hint="name a model: hf:FOLDER"
            )
        return load_text(path, tokens, split)
    split = split or "train"
    if name == "fashion-mnist":
        return Dataset(*load_fashion_mnist(split, root, download=download), name=f"fashion-mnist/{split}", classes=10)
    if name == "digits":
        return _digits(split)
    if name == "cifar10":
        return _cifar10(split, root, download=download)
    raise OptionError(
        "neither a known data set, nor a folder of pictures, nor an .npz, .npy, .safetensors or .txt file",
        where="data",
        value=name,
        hint=nearest(name, DATA_NAMES),
    )


def _digits(split: str) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingPackageError("scikit-learn", "data digits", "scikit-learn") from None
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16 - 0.5
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # the set is sorted by writer
    rows = {"train": order[:1200], "validation": order[1200:1400], "test": order[1400:]}[split]
    return Dataset(images[rows], torch.from_numpy(digits.target).long()[rows], f"digits/{split}", 10)


def _cifar10(split: str, root: Path | None, *, download: bool) -> Dataset:
    root = root or Path("~/.cache/impq-opt").expanduser()
    datasets = torchvision_module("datasets")
    loaded: object = None
    try:
        loaded = datasets.CIFAR10(str(root), train=split != "test", download=False)
    except RuntimeError as error:
        missing = str(error)
    if loaded is None:
        try:
            if not download:
                raise OSError(missing)
            loaded = datasets.CIFAR10(str(root), train=split != "test", download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"CIFAR-10 is not in {root / 'cifar-10-batches-py'} and could not be downloaded ({error})",
                where="data cifar10",
                hint="name the folder that holds cifar-10-batches-py with --root",
            ) from None
    images = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).float() / 255  # type: ignore[attr-defined]
    labels = torch.tensor(loaded.targets)  # type: ignore[attr-defined]
    held = len(images) // 10
    rows = {"train": slice(None, -held), "validation": slice(-held, None), "test": slice(None)}[split]
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in CIFAR10)
    return Dataset((images[rows] - mean) / std, labels[rows], f"cifar10/{split}", 10)
