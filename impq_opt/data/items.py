"""What data sets and loaders hand out, one sample or a batch at a time, taken apart into inputs and labels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import Structure
from impq_opt.errors import DataError

__all__ = ["divided", "structured"]

LABELS = ("labels", "label")  # keys of a batch of Hugging Face's


def divided(item: Any, where: str) -> tuple[Structure, Any]:
    """Return the inputs and the label, or None, of a sample or a batch.

    Parameters
    ----------
    item : Tensor, pair or mapping
        Inputs alone; inputs and labels; or inputs by keyword, with the labels under ``"labels"`` or ``"label"``. Inputs
        are a tensor, a tuple of them by position, or a mapping by keyword.

    Raises
    ------
    DataError
        Something else.
    """
    if isinstance(item, Mapping):
        label = next((item[key] for key in LABELS if item.get(key) is not None), None)
        return structured({key: value for key, value in item.items() if key not in LABELS}, where), label
    if not isinstance(item, (tuple, list)):
        return structured(item, where), None
    if len(item) > 2 or not item:
        raise DataError(
            "inputs and labels must be a pair", where=where, value=f"{len(item)} of them",
            hint="several inputs go together: ((first, second), labels), or a dict by keyword",
        )  # fmt: skip
    return structured(item[0], where), item[1] if len(item) == 2 else None


def structured(inputs: Any, where: str) -> Structure:
    """Return ``inputs`` as a tensor, a tuple of them or a dict of them.

    Raises
    ------
    DataError
        Where there are no inputs, or one is no array of numbers.
    """
    if isinstance(inputs, Mapping):
        named = {str(key): _tensor(value, f"{where}: {key}") for key, value in inputs.items() if value is not None}
        if not named:
            raise DataError("holds no inputs", where=where, value=sorted(map(str, inputs)))
        return named
    if isinstance(inputs, (tuple, list)) and inputs and all(isinstance(x, (Tensor, np.ndarray)) for x in inputs):
        return tuple(_tensor(value, f"{where}: input {place}") for place, value in enumerate(inputs))
    return _tensor(inputs, where)


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic, int, float, list, tuple)):
        with contextlib.suppress(ValueError, TypeError):  # rows of unequal length, or what numpy cannot hold
            array = np.asarray(value)
            if array.dtype.kind in "fiub":
                return tensor_of(array, where)
    raise DataError(
        "must be a tensor or numbers of one shape", where=where, value=type(value).__name__,
        hint="pad what is of unequal length, turn pictures into tensors, leave out what is text",
    )  # fmt: skip


def tensor_of(array: Any, where: str) -> Tensor:
    """Return a numpy array as a tensor; whole numbers stay whole, in a type that torch computes with.

    Raises
    ------
    DataError
        Where a value is no array of numbers.
    """
    if array.dtype.kind not in "fiub":
        raise DataError("must be numbers", where=where, value=(array.dtype.name, array.shape))
    wider = {"u2": "i4", "u4": "i8", "u8": "i8"}.get(array.dtype.kind + str(array.dtype.itemsize))
    if array.dtype.itemsize > 8:  # long double
        wider = "f8"
    if array.dtype.kind + str(array.dtype.itemsize) == "u8" and array.size and int(array.max()) > np.iinfo("i8").max:
        raise DataError("whole numbers must fit into 64 bits", where=where, value=int(array.max()))
    return torch.from_numpy(np.array(array, dtype=wider or array.dtype.newbyteorder("="), order="C"))
