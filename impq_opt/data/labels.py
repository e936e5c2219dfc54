"""Labels as people keep them, as class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.decisions import IGNORED
from impq_opt.errors import DataError

__all__ = ["as_labels", "check_labels"]

_HINT = "give one class number per sample, counted from 0"


def as_labels(labels: Any, where: str, names: Any = None) -> Tensor:
    """Return class numbers (n,) int64, or (n, decisions) of samples with several decisions.

    Parameters
    ----------
    labels : array
        Whole numbers (n,), also as floats, as a column (n, 1) or as text; one-hot rows (n, classes); whole numbers
        (n, decisions), some of which are neither 0 nor 1; or names of classes, where ``names`` says their order.
    where : str
        The data's name, for errors.
    names : array of str (classes,), optional

    Raises
    ------
    DataError
        What is not clear: parts of whole numbers, soft labels, names in no order.
    """
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
        labels = (labels.float() if labels.dtype == torch.bfloat16 else labels).numpy()
    try:
        values = np.asarray(labels)
    except ValueError:  # rows of unequal length
        raise DataError("labels must be one class number per sample", where=where, hint=_HINT) from None
    if values.dtype.kind in "USO":
        values = _numbers_of(values, where, names)
    if values.dtype.kind not in "fiub":
        raise DataError("labels must be whole numbers (n,)", where=where, value=values.dtype.name, hint=_HINT)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and not _of_decisions(values):
        values = _hot(values, where)
    if values.ndim > 2 or values.ndim == 0:
        raise DataError("labels must be whole numbers (n,)", where=where, value=values.shape, hint=_HINT)
    return torch.from_numpy(_whole(values, where))


def check_labels(labels: Tensor | None, classes: int, where: str, index: Tensor | None = None) -> None:
    """Raise DataError unless there are ``labels`` (n, ...), of the samples ``index`` (n,), all among the ``classes``.

    Those of decisions that do not count need not be.
    """
    if labels is None:
        raise DataError("has no labels, which are needed", where=where)
    if labels.ndim > 1:
        outside = ((labels < 0) | (labels >= classes)) & (labels != IGNORED)
        rows = outside.any(1).nonzero()[:1, 0]
        labels, index = labels[rows, outside[rows].int().argmax(1)], rows if index is None else index[rows]
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        raise DataError(
            f"labels must be from 0 to {classes - 1}, the network's classes; {len(wrong)} of {len(labels)} are not",
            where=f"{where}: sample {int(wrong[0] if index is None else index[wrong[0]])}",
            value=int(labels[wrong[0]]),
            hint="they seem to count from 1"
            if int(labels.min()) == 1 and int(labels.max()) == classes
            else "is it the network's own data?",
        )


def _of_decisions(values: Any) -> bool:
    """Return whether rows hold several class numbers each, and are no one-hot or soft labels."""
    return bool((values == np.floor(values)).all()) and bool(((values != 0) & (values != 1)).any())


def _whole(values: Any, where: str) -> Any:
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(values != np.floor(values))  # infinities are told below, NaN here
        wrong = wrong if len(wrong) else np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            value = float(values[wrong[0]])
            raise DataError(
                "labels must be whole numbers", where=f"{where}: sample {wrong[0]}", value=value, hint=_HINT
            )
    if len(values) and (values.max() > np.iinfo(np.int64).max or values.min() < np.iinfo(np.int64).min):
        raise DataError("labels must be class numbers", where=where, value=values.max().item(), hint=_HINT)
    return values.astype(np.int64)


def _hot(values: Any, where: str) -> Any:
    """Return the places (n,) of the ones in rows (n, classes)."""
    clear = ((values == 0) | (values == 1)).all(1) & (values.sum(1) == 1)
    if not clear.all():
        row = int(np.flatnonzero(~clear)[0])
        place, value = f"{where}: sample {row}", values[row].tolist()
        raise DataError("a row of several labels must be one-hot", where=place, value=value, hint=_HINT)
    return values.argmax(1)


def _numbers_of(values: Any, where: str, names: Any) -> Any:
    """Return the numbers that text stands for: whole numbers, or the places of names in ``names``."""
    if not all(isinstance(value, (str, bytes)) for value in values.ravel().tolist()):
        raise DataError("labels must be whole numbers, not objects", where=where, hint=_HINT)
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.ravel().tolist()]
    known = None if names is None else {str(name): place for place, name in enumerate(np.asarray(names).tolist())}
    numbers = []
    for place, text in enumerate(texts):
        number = known.get(text) if known is not None else int(text) if text.strip().isdecimal() else None
        if number is None:
            raise DataError(
                "a label is a name, and which of the network's classes that is, is not said" if known is None
                else "a label is not among the classes that the data name",
                where=f"{where}: sample {place}", value=text,
                hint=f"{_HINT}, or an array 'classes' of the names in their order",
            )  # fmt: skip
        numbers.append(number)
    return np.array(numbers, dtype=np.int64).reshape(values.shape)
