"""A folder of pictures, one sub-folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.dataset import Dataset
from impq_opt.data.parts import ALL, part_of
from impq_opt.data.torchvision import torchvision_module
from impq_opt.errors import DataError, first_line, nearest

__all__ = ["load_folder", "read_picture"]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation for torchvision's classifiers
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # torchvision's
# What file managers, notebooks and network disks leave behind, beside all whose names begin with a dot.
_LEFTOVERS = frozenset(("@eadir", "__macosx", "__pycache__", "thumbs.db", "desktop.ini", "lost+found", "#recycle"))
_SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test", "val")}


@dataclass(frozen=True)
class Pictures(Sequence[Any]):
    """Pictures that are read when they are asked for: float32 (3, size, size), normalised."""

    files: tuple[Path, ...]
    prepare: Any

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: Any) -> Any:
        return self.prepare(read_picture(self.files[row]))


def load_folder(path: Path, split: str | None, size: int) -> Dataset:
    """Return the pictures of a folder that has one sub-folder per class.

    Classes are numbered in the order of their names (torchvision's ``ImageFolder``). Where the folder has ``train``,
    ``val`` or ``test``, the classes are those of ``train``, on which a network learnt them. Hidden folders and
    leftovers of file managers are no classes, and neither are folders without pictures; notes tell of them. A folder
    without ``train``, ``val`` or ``test`` is one set, and :func:`~impq_opt.data.parts.part_of` divides it.

    Parameters
    ----------
    path : Path
    split : {"train", "validation", "test", "all"}, optional
    size : int
        Side in pixels that pictures are resized and cropped to, with the usual margin (256 for a crop of 224).

    Raises
    ------
    DataError
        The part is not there, no class has a picture, or a class is not among those of ``train``; when read, a picture
        that is broken.
    """
    own = [name for names in _SPLITS.values() for name in names if (path / name).is_dir()]
    split = split or ("train" if own else None)
    part = next((path / name for name in _SPLITS.get(str(split), ()) if name in own), path)
    if own and part == path:
        raise DataError(
            "is of data without parts; these have them" if split == ALL else "has no folder of this part",
            where=f"data {path}", value=split, hint=f"there are {', '.join(dict.fromkeys(own))}",
        )  # fmt: skip
    try:
        folders, hidden, empty = _classes(part)
        apart = part != path and part.name != "train" and (path / "train").is_dir()
        learnt = (_classes(path / "train")[0] if apart else folders) or folders
    except OSError as error:
        raise DataError("cannot be read", where=f"data {error.filename}", value=error.strerror) from None
    if apart:
        unknown = [name for name in folders if name not in learnt]
        if unknown:
            hint = nearest(unknown[0], learnt)
            raise DataError("has a class that 'train' has not", where=f"data {part}", value=unknown[0], hint=hint)
    if not folders:
        names = sorted(entry.name for entry in part.iterdir())[:4]
        raise DataError(
            "is not a folder with one sub-folder of pictures per class", where=f"data {part}", value=names,
            hint=f"pictures are {', '.join(sorted(SUFFIXES))}",
        )  # fmt: skip
    number = {name: place for place, name in enumerate(learnt)}
    files = [(file, number[name]) for name, pictures in folders.items() for file in pictures]
    labels = torch.tensor([label for _, label in files])
    pictures = Pictures(tuple(file for file, _ in files), _preparation(size))
    empty = [name for name in empty if name not in learnt]
    notes = (
        *([f"{_some('folder', hidden)} in {part.name} {_are(hidden)} hidden, and skipped"] if hidden else []),
        *([f"{_some('folder', empty)} in {part.name} {_are(empty)} without pictures, and no class"] if empty else []),
    )
    data = Dataset(pictures, labels, name=path.name, classes=len(learnt), notes=notes)
    return replace(data, name=f"{path.name}/{split}") if own else part_of(data, split)


def _classes(folder: Path) -> tuple[dict[str, list[Path]], list[str], list[str]]:
    """Return the pictures of each class by its folder's name, in order; hidden folders; and empty ones."""
    classes: dict[str, list[Path]] = {}
    hidden, empty = [], []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.is_dir():
            continue
        if _is_leftover(entry):
            hidden.append(entry.name)
            continue
        pictures = list(_pictures(entry))
        if pictures:
            classes[entry.name] = pictures
        else:
            empty.append(entry.name)
    return classes, hidden, empty


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures under a folder, in ``ImageFolder``'s order: a folder's own, then those of folders in it."""
    entries = sorted((e for e in folder.iterdir() if not _is_leftover(e)), key=lambda e: e.name)
    yield from (e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file())
    for entry in entries:
        if entry.is_dir():
            yield from _pictures(entry)


def _is_leftover(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in _LEFTOVERS


def _some(what: str, names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{what}{'s' if len(names) > 1 else ''} {shown}"


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _preparation(size: int) -> Any:
    transforms = torchvision_module("transforms")

    def normalised(picture: Any) -> Tensor:
        values = (
            torch.from_numpy(np.array(picture))[None].expand(3, -1, -1)
            if picture.mode == "F"
            else transforms.functional.to_tensor(picture)
        )
        scaled: Tensor = transforms.functional.normalize(values, *IMAGENET)
        return scaled

    return transforms.Compose([transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size), normalised])


def read_picture(path: Path) -> Any:
    """Return a picture as three colours of 8 bits (``"RGB"``), or as one channel of floats from 0 to 1 (``"F"``).

    Grey becomes three equal colours, a palette the colours it stands for. Transparency is dropped, so that a pixel has
    the colour stored under it, as networks are trained. Grey of more than 8 bits keeps its values, as floats: white is
    65535. Colours of 16 bits each are read at their upper eight.

    Raises
    ------
    DataError
        A file that is broken or no picture; grey of 32 bits or floats outside of 0 to 1, whose white nobody knows.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode.startswith(("I", "F")):
                return Image.fromarray(_deep(np.array(picture), path))
            seen_through = picture.mode == "P" and "transparency" in picture.info
            return (picture.convert("RGBA") if seen_through else picture).convert("RGB")  # Pillow warns of one step
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for a broken file: OSError, SyntaxError, struct.error
        first = first_line(error)
        raise DataError("is a broken file or no picture", where=f"data {path}", value=first) from None


def _deep(values: Any, path: Path) -> Any:
    """Return grey values of 16 bits, or floats from 0 to 1, as float32 from 0 to 1."""
    low, high = float(values.min()), float(values.max())
    white = 1.0 if values.dtype.kind == "f" else 65535.0
    if not (0 <= low <= high <= white):
        raise DataError(
            f"grey values must be from 0 to {white:g}, where it is white", where=f"data {path}", value=(low, high),
            hint="store it with 8 or 16 bits",
        )  # fmt: skip
    return (values / white).astype(np.float32)
