"""A data set of images and labels that yields batches of chosen rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from impq_opt.errors import DataError

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and labels with a length, read by row numbers.

    Parameters
    ----------
    inputs : Tensor (n, ...) or sequence
        Either all inputs at once, or a sequence (such as a torchvision data set) whose items are ``(input, label)``.
    labels : Tensor (n,), optional
        int64. Only with a tensor of inputs; without labels accuracy cannot be reported, mismatch can.
    name : str
        Where it came from, for provenance.
    """

    inputs: Tensor | Sequence[Any]
    labels: Tensor | None = None
    name: str = "tensors"
    classes: int | None = field(default=None)

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise DataError("holds no samples", where=f"data {self.name}", hint="at least one input is needed")
        if self.labels is not None and len(self.labels) != len(self.inputs):
            raise DataError(
                "must have one label per input",
                where=f"data {self.name}",
                value=(len(self.inputs), len(self.labels)),
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return inputs (m, ...) float32 and labels (m,) of the rows ``index`` (m,) int64."""
        if isinstance(self.inputs, Tensor):
            return self.inputs[index], None if self.labels is None else self.labels[index]
        items = [self.inputs[int(row)] for row in index]
        images = torch.stack([item[0] for item in items])
        return images, torch.tensor([int(item[1]) for item in items])

    def arrays(self) -> tuple[Tensor, Tensor]:
        """Return everything: inputs (n, ...) and labels (n,)."""
        inputs, labels = self.rows(torch.arange(len(self)))
        if labels is None:
            raise DataError("has no labels", where=f"data {self.name}")
        return inputs, labels
