"""How samples are given to a network: which inputs, in which types, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from impq_opt.data.batch import Structure, parts_of
from impq_opt.errors import DataError

__all__ = ["Reading"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What is done to the inputs of samples when they are read; as they stand, nothing but checks.

    Names of inputs are those of :func:`~impq_opt.data.batch.parts_of`.

    Parameters
    ----------
    keywords : tuple of str
        Which of the inputs by keyword are given; all of them unless some are named.
    types : dict of str to torch.dtype
        What inputs are converted to; others stay as they are.
    tokens : dict of str to int
        How many tokens the network knows, for the inputs that it embeds.
    classes : int, optional
        The network's number of classes, where labels are needed and must be among them.
    """

    keywords: tuple[str, ...] = ()
    types: dict[str, torch.dtype] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    classes: int | None = None

    def __call__(self, inputs: Structure, index: Tensor, where: str) -> Structure:
        """Return the inputs of the rows ``index`` (m,) as the network takes them.

        Raises
        ------
        DataError
            A number that is not finite (among several inputs minus infinity may mask), or an unknown token.
        """
        parts = {name: part for name, part in parts_of(inputs).items() if not self.keywords or name in self.keywords}
        for name, part in parts.items():
            place = f"{name}: inputs" if name else "inputs"
            if part.is_floating_point() and not bool(torch.isfinite(part).all()):
                wrong = part.isnan() | (part == math.inf) if name else ~torch.isfinite(part)
                _tell(f"{place} must be finite", part, wrong, index, where)
            known = self.tokens.get(name)
            if known is not None and part.numel() and (int(part.min()) < 0 or int(part.max()) >= known):
                wrong, last = (part < 0) | (part >= known), known - 1
                _tell(f"{place} must be tokens from 0 to {last}, which the network embeds", part, wrong, index, where)
        parts = {name: part.to(self.types.get(name, part.dtype)) for name, part in parts.items()}
        if isinstance(inputs, Tensor):
            return parts[""]
        return parts if isinstance(inputs, Mapping) else tuple(parts.values())


def _tell(what: str, part: Tensor, wrong: Tensor, index: Tensor, where: str) -> None:
    """Raise DataError naming the first sample that has something ``wrong`` (n, ...), if there is one."""
    rows = wrong.reshape(len(wrong), -1).any(1).nonzero()
    if len(rows):
        row = int(rows[0])
        value = part[row].reshape(-1)[wrong[row].reshape(-1)][0].item()
        raise DataError(what, where=f"{where}: sample {int(index[row])}", value=value)
