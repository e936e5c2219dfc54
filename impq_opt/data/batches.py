"""What callers hand over as data, as a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import Structure, joined, parts_of
from impq_opt.data.dataset import Dataset
from impq_opt.data.items import divided
from impq_opt.data.labels import as_labels
from impq_opt.errors import DataError

__all__ = ["Batches", "tensors"]

Batches = Dataset | Iterable[Any]


def tensors(data: Batches, samples: int | None) -> Dataset:
    """Return ``data`` as a data set.

    Parameters
    ----------
    data : Dataset, Tensor (n, ...), mapping, torch data set, or iterable
        A mapping of tensors by keyword is all the data, with labels under ``"labels"``. A torch data set is read by its
        row numbers. Anything else is read as batches: inputs, pairs of inputs and labels, or mappings.
    samples : int, optional
        Read batches until there are so many.

    Raises
    ------
    DataError
        Batches that are something else, that do not fit together, or none.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, bytes, Path)):
        hint = "load_data reads names, files and folders"
        raise DataError("must be a data set, tensors or an iterable of batches", where="data", value=data, hint=hint)
    if isinstance(data, (Tensor, np.ndarray)):
        return Dataset(data)  # type: ignore[arg-type]
    if isinstance(data, Mapping):
        inputs, labels = divided(data, "data")
        return Dataset(inputs, labels)
    if _is_read_by_row(data):
        return Dataset(data, name=type(data).__name__)  # type: ignore[arg-type]
    return _read(data, samples)


def _is_read_by_row(data: Any) -> bool:
    """Return whether ``data`` has samples by number, as torch's data sets have and loaders have not."""
    return not isinstance(data, (list, tuple)) and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _read(data: Iterable[Any], samples: int | None) -> Dataset:
    try:
        batches = iter(data)
    except TypeError:
        kind = type(data).__name__
        raise DataError("must be a data set, tensors or an iterable of batches", where="data", value=kind) from None
    inputs: list[Structure] = []
    labels: list[Tensor] = []
    count = 0
    for place, batch in enumerate(batches):
        where = f"data: batch {place}"
        part, label = _batch(batch, where)
        if inputs and _kind(part) != _kind(inputs[0]):
            raise DataError(
                "must have samples of the shape of those before it", where=where, value=(_kind(inputs[0]), _kind(part)),
                hint="pad or crop all of them to one shape",
            )  # fmt: skip
        inputs.append(part)
        size = len(next(iter(parts_of(part).values())))
        if label is not None:
            labels.append(as_labels(label, where))
            if len(labels[-1]) != size:
                raise DataError("must have one label per input", where=where, value=(size, len(labels[-1])))
        count += size
        if samples is not None and count >= samples:
            break
    if not inputs:
        raise DataError("holds no samples", where="data", hint="the iterable of batches is empty")
    complete = len(labels) == len(inputs)
    return Dataset(joined(torch.cat, inputs), torch.cat(labels) if complete else None, name="batches")


def _batch(batch: Any, where: str) -> tuple[Structure, Any]:
    if not isinstance(batch, (Tensor, np.ndarray, tuple, list, Mapping)):
        raise DataError(
            "a batch must be a tensor (n, ...), a dict of tensors, or a pair of inputs and labels",
            where=where,
            value=batch,
        )
    inputs, label = divided(batch, where)
    parts = parts_of(inputs)
    if any(part.ndim == 0 for part in parts.values()) or max(part.ndim for part in parts.values()) < 2:
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        raise DataError("a batch must have samples (n, ...)", where=where, value=shapes.get("", shapes))
    return inputs, label


def _kind(inputs: Structure) -> dict[str, tuple[int, ...]] | tuple[int, ...]:
    """Return the shape of a sample, for each input."""
    shapes = {name: tuple(part.shape[1:]) for name, part in parts_of(inputs).items()}
    return shapes.get("", shapes) if set(shapes) == {""} else shapes
