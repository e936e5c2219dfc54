"""What a network takes for n samples: one tensor, several by position, or several by keyword."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Several", "Structure", "joined", "mapped", "parts_of", "prepare", "together"]

Structure: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor]"


def parts_of(inputs: Structure) -> dict[str, Tensor]:
    """Return the tensors by name: ``""`` for a tensor alone, ``"0"``, ``"1"`` by position, or the keywords."""
    if isinstance(inputs, Tensor):
        return {"": inputs}
    return dict(inputs) if isinstance(inputs, Mapping) else {str(k): part for k, part in enumerate(inputs)}


def mapped(function: Callable[[Tensor], Tensor], inputs: Structure) -> Structure:
    """Return the same structure with ``function`` applied to each tensor."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: function(part) for name, part in inputs.items()}
    return tuple(function(part) for part in inputs)


def joined(function: Callable[[list[Tensor]], Tensor], items: list[Structure]) -> Structure:
    """Return the structure that all of ``items`` have, with ``function`` applied to the tensors of each place."""
    first = items[0]
    if isinstance(first, Tensor):
        return function(items)  # type: ignore[arg-type]
    columns = [function(list(column)) for column in zip(*(parts_of(item).values() for item in items), strict=True)]
    return dict(zip(first, columns, strict=True)) if isinstance(first, Mapping) else tuple(columns)


class Several:
    """Several tensors (n, ...) that a network takes together; it has a length, is cut and moved as one tensor is.

    Parameters
    ----------
    inputs : tuple of Tensor, or dict of str to Tensor
        By position, or by keyword.
    """

    def __init__(self, inputs: tuple[Tensor, ...] | dict[str, Tensor]) -> None:
        self.inputs = inputs

    @property
    def args(self) -> tuple[Tensor, ...]:
        """Those given by position."""
        return () if isinstance(self.inputs, Mapping) else self.inputs

    @property
    def kwargs(self) -> dict[str, Tensor]:
        """Those given by keyword."""
        return dict(self.inputs) if isinstance(self.inputs, Mapping) else {}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in order."""
        return tuple(parts_of(self.inputs).values())

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.tensors[0].device

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, rows: Any) -> Several:
        return self.mapped(lambda part: part[rows])

    def split(self, size: int) -> tuple[Several, ...]:
        """Return parts of ``size`` samples, the last one perhaps of fewer."""
        return tuple(self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: torch.device) -> Several:
        """Move all of them."""
        return self.mapped(lambda part: part.to(device))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Several:
        """Return what ``function`` makes of each of them."""
        return Several(mapped(function, self.inputs))  # type: ignore[arg-type]


def together(inputs: Structure | Several) -> Tensor | Several:
    """Return one tensor as it is, and several as one thing."""
    return inputs if isinstance(inputs, (Tensor, Several)) else Several(inputs)


def prepare(inputs: Structure, device: torch.device, *, channels_last: bool = True) -> Any:
    """Move a batch to the device, pictures channels last; what is not one tensor becomes :class:`Several`."""

    def placed(part: Tensor) -> Tensor:
        part = part.to(device, non_blocking=True)
        return part.contiguous(memory_format=torch.channels_last) if channels_last and part.ndim == 4 else part

    return together(mapped(placed, inputs))
