"""Data in files of arrays: ``.npz``, ``.npy`` and ``.safetensors``."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import Structure
from impq_opt.data.dataset import Dataset
from impq_opt.data.items import LABELS, tensor_of
from impq_opt.data.labels import as_labels
from impq_opt.data.parts import ALL, SPLITS, part_of
from impq_opt.errors import DataError, first_line

__all__ = ["SUFFIXES", "load_file"]

SUFFIXES = (".npz", ".npy", ".safetensors")
# Names of an array that is the one input, whatever else there is; and of labels, and of the names of classes.
_ALONE = ("images", "inputs", "tokens", "x")
_LABELS = (*LABELS, "targets", "y")
_CLASSES = "classes"


def load_file(path: Path, split: str | None) -> Dataset:
    """Return the data of a file.

    An array ``images``, ``inputs``, ``tokens`` or ``x`` is the network's one input; otherwise all arrays are its
    inputs, by keyword where there are several (``input_ids`` and ``attention_mask``). ``labels`` are labels,
    ``classes`` the names that they use, in order. Names may end in ``_train``, ``_validation`` and ``_test``; where
    none does the file is one set, and :func:`~impq_opt.data.parts.part_of` divides it. Floats are read as float32.
    Whole numbers stay whole, as tokens must, but for pictures: ``images`` of bytes, or of three dimensions and more.

    Raises
    ------
    DataError
        A file that is missing or foreign, arrays that are no inputs and labels, or a part that is not there.
    """
    where = str(path)
    every = _arrays(path)
    own = {end for name in every for end in SPLITS if name.endswith(f"_{end}")}
    split = split or ("train" if own else None)
    if own and split not in own:
        raise DataError(
            "is of data without parts; these have them" if split == ALL else "has no arrays of this part",
            where=where, value=split, hint=f"there are {', '.join(sorted(own))}",
        )  # fmt: skip
    arrays = _of_split(every, str(split)) if own else every
    names = arrays.pop(_CLASSES, None)
    labels = next((arrays.pop(name) for name in _LABELS if name in arrays), None)
    inputs = _inputs(arrays, where)
    read = None if labels is None else as_labels(labels, f"{where}: labels", names)
    data = Dataset(inputs, read, path.name, None if names is None else len(names))
    return replace(data, name=f"{path.name}/{split}") if own else part_of(data, split)


def _inputs(arrays: dict[str, Any], where: str) -> Structure:
    alone = next((name for name in _ALONE if name in arrays), next(iter(arrays)) if len(arrays) == 1 else None)
    if alone is not None and np.ndim(arrays[alone]) > 1:
        return _input(arrays[alone], alone, where)
    if alone is None and len(arrays) > 1 and all(np.ndim(array) > 0 for array in arrays.values()):
        return {name: _input(array, name, where) for name, array in arrays.items()}
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    raise DataError("needs an array 'images' (n, ...)", where=where, value=shapes, hint="and 'labels' for accuracy")


def _input(array: Any, name: str, where: str) -> Tensor:
    place = f"{where}: {name}"
    if not isinstance(array, Tensor):
        if array.dtype.kind not in "fiub":
            raise DataError("inputs must be numbers (n, ...)", where=place, value=(array.dtype.name, array.shape))
        array = tensor_of(array, place)
    if array.is_complex():
        raise DataError("inputs must be real numbers (n, ...)", where=place, value=str(array.dtype))
    picture = name == "images" and (array.ndim > 2 or array.dtype in (torch.uint8, torch.bool))
    tensor = array.float() if array.is_floating_point() or picture else array
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        row = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
        raise DataError("inputs must be finite", where=f"{place}: sample {row}", value=_wrong(tensor[row]))
    return tensor


def _wrong(sample: Tensor) -> float:
    return float(sample[~torch.isfinite(sample)].flatten()[0])


def _of_split(arrays: dict[str, Any], split: str) -> dict[str, Any]:
    """Return the arrays of a split under their plain names."""
    ends = {name: end for name in arrays for end in SPLITS if name.endswith(f"_{end}")}
    own = {name.removesuffix(f"_{split}"): arrays[name] for name, end in ends.items() if end == split}
    return {name: array for name, array in arrays.items() if name == _CLASSES} | own


def _arrays(path: Path) -> dict[str, Any]:
    """Return what the file holds by name; nothing is unpickled."""
    if not os.path.exists(path):
        raise DataError("no such file", where=str(path))
    if not os.path.isfile(path) or (path.suffix == ".npz" and not zipfile.is_zipfile(path)):
        raise DataError(
            "missing, truncated or foreign file", where=str(path), hint="an .npz file is written by np.savez"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            return dict(load_safetensors(path))
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return {"inputs": held}
        with held:
            return {name: held[name] for name in held.files}
    except Exception as error:  # zip, numpy and safetensors each raise their own kinds
        first = first_line(error)
        if "Object arrays" in first:
            raise DataError("holds Python objects, which are not unpickled", where=str(path), hint=_HINT) from None
        raise DataError("missing, truncated or foreign file", where=str(path), value=first) from None


_HINT = "save arrays of numbers of one shape"
