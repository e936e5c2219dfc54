"""A data set of inputs and labels that gives rows by number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import Structure, joined, mapped, parts_of
from impq_opt.data.items import divided, structured
from impq_opt.data.labels import as_labels, check_labels
from impq_opt.data.reading import Reading
from impq_opt.errors import DataError, InputError, first_line

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and labels with a length, read by row numbers.

    Parameters
    ----------
    inputs : Tensor (n, ...), tuple of Tensor, dict of str to Tensor, or sequence
        All inputs at once: of a network that takes one tensor, several by position, or several by keyword. Or a
        sequence (such as a torchvision data set) whose items are inputs, ``(inputs, label)``, or a mapping with a
        ``"label"``.
    labels : Tensor (n,), optional
        Class numbers, or what :func:`~impq_opt.data.labels.as_labels` reads; of a sequence they replace those of its
        items. Without labels accuracy cannot be reported, mismatch can.
    name : str
        Where it came from, for provenance.
    classes : int, optional
        How many classes the labels are of, where that is known.
    notes : tuple of str
        What was noticed about the data, a sentence each.
    reading : Reading
        How samples are given to the network.

    Raises
    ------
    DataError
        No samples, or not one label per sample.
    """

    inputs: Structure | Sequence[Any]
    labels: Tensor | None = None
    name: str = "tensors"
    classes: int | None = None
    notes: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        where = f"data {self.name}"
        if isinstance(self.inputs, np.ndarray) or self._whole:
            object.__setattr__(self, "inputs", structured(self.inputs, where))
            if any(part.ndim == 0 for part in parts_of(self.inputs).values()):  # type: ignore[arg-type]
                raise DataError("must have samples (n, ...)", where=where, value="a number alone")
        if len(self) == 0:
            raise DataError("holds no samples", where=where, hint="at least one input is needed")
        if self._whole and len({len(part) for part in parts_of(self.inputs).values()}) > 1:  # type: ignore[arg-type]
            sizes = {name: len(part) for name, part in parts_of(self.inputs).items()}  # type: ignore[arg-type]
            raise DataError("must have as many samples in each input", where=where, value=sizes)
        if self.labels is not None:
            object.__setattr__(self, "labels", as_labels(self.labels, where))
            if len(self.labels) != len(self):
                raise DataError("must have one label per input", where=where, value=(len(self), len(self.labels)))

    def __len__(self) -> int:
        if isinstance(self.inputs, (Tensor, np.ndarray)) or not self._whole:
            return len(self.inputs)
        return len(next(iter(parts_of(self.inputs).values())))  # type: ignore[arg-type]

    def rows(self, index: Tensor) -> tuple[Any, Tensor | None]:
        """Return inputs (m, ...), in their structure, and labels (m,) int64 of the rows ``index`` (m,) int64.

        Raises
        ------
        DataError
            A sample that cannot be read, is of another shape than the others, is not finite, or has an unknown token.
        """
        if self._whole:
            inputs = mapped(lambda part: part[index], self.inputs)  # type: ignore[arg-type]
            labels = None if self.labels is None else self.labels[index]
        else:
            inputs, labels = self._items(index)
        if self.reading.classes is not None:
            check_labels(labels, self.reading.classes, f"data {self.name}", index)
        return self.reading(inputs, index, f"data {self.name}"), labels

    def arrays(self) -> tuple[Any, Tensor]:
        """Return everything: inputs (n, ...), in their structure, and labels (n,).

        Raises
        ------
        DataError
            Where there are no labels, or several inputs.
        """
        inputs, labels = self.rows(torch.arange(len(self)))
        if labels is None:
            raise DataError("has no labels", where=f"data {self.name}")
        return inputs, labels

    def subset(self, index: Tensor) -> Dataset:
        """Return the rows ``index`` (m,) as a data set."""
        labels = None if self.labels is None else self.labels[index]
        inputs: Any
        if self._whole:
            inputs = mapped(lambda part: part[index], self.inputs)  # type: ignore[arg-type]
        else:
            inputs = torch.utils.data.Subset(self.inputs, index.tolist())  # type: ignore[arg-type]
        return replace(self, inputs=inputs, labels=labels, name=f"{self.name}[{len(index)}]")

    def digest(self) -> str:
        """Return what tells these samples from others: a hash of how many there are and of sixteen, evenly spaced."""
        places = torch.linspace(0, len(self) - 1, min(16, len(self))).round().long()
        inputs, labels = self.rows(places)
        digest = hashlib.sha256(str(len(self)).encode())
        for name, part in sorted(parts_of(inputs).items()):
            digest.update(f"{name}|{part.dtype}|{tuple(part.shape)}".encode())
            digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digest.update(b"" if labels is None else labels.numpy().tobytes())
        return digest.hexdigest()[:32]

    @property
    def _whole(self) -> bool:
        """Whether all inputs are there at once."""
        inputs = self.inputs
        if isinstance(inputs, tuple):
            return bool(inputs) and all(isinstance(part, (Tensor, np.ndarray)) for part in inputs)
        return isinstance(inputs, (Tensor, Mapping))

    def _items(self, index: Tensor) -> tuple[Structure, Tensor | None]:
        items = [self._item(row) for row in index.tolist()]
        shapes = [{name: tuple(part.shape) for name, part in parts_of(inputs).items()} for inputs, _ in items]
        strange = next((k for k, shape in enumerate(shapes) if shape != shapes[0]), None)
        if strange is not None:
            shown = [next(iter(shapes[k].values())) if set(shapes[k]) == {""} else shapes[k] for k in (0, strange)]
            raise DataError(
                f"sample {int(index[strange])} has another shape than sample {int(index[0])}",
                where=f"data {self.name}", value=tuple(shown), hint="pad or crop them to one shape",
            )  # fmt: skip
        inputs = joined(torch.stack, [inputs for inputs, _ in items])
        if self.labels is not None:
            return inputs, self.labels[index]
        labels = [label for _, label in items]
        if any(label is None for label in labels):
            return inputs, None
        return inputs, as_labels([_plain(label) for label in labels], f"data {self.name}")

    def _item(self, row: int) -> tuple[Structure, Any]:
        where = f"data {self.name}: sample {row}"
        try:
            item = self.inputs[row]  # type: ignore[index]
        except InputError:
            raise
        except Exception as error:  # of the caller's own data set, which may raise anything
            first = first_line(error)
            raise DataError("cannot be read", where=where, value=first) from error
        if self.labels is not None and not (isinstance(item, (tuple, list)) and len(item) == 2):
            return structured(item, where), None
        return divided(item, where)


def _plain(label: Any) -> Any:
    return label.tolist() if isinstance(label, (Tensor, np.ndarray)) else label
