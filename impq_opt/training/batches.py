"""Batches as functions of epoch and place, so that training can go on from any step."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from impq_opt.data.batch import Several, Structure, prepare
from impq_opt.errors import DataError
from impq_opt.training.augment import augmented
from impq_opt.training.samples import Samples
from impq_opt.training.seeds import mix, processes
from impq_opt.training.settings import Training

__all__ = ["Batch", "Batches", "Shuffled", "labelled", "steps_per_epoch"]


class Batch(NamedTuple):
    """Inputs (m, ...), one tensor or several, and labels (m,), on the device that trains."""

    inputs: Tensor | Several
    labels: Tensor


class Batches(Protocol):
    """What the loop trains on.

    Attributes
    ----------
    per_epoch : int
        Batches in an epoch.
    """

    per_epoch: int

    def at(self, epoch: int, place: int, device: torch.device) -> Batch:
        """Return one batch, and seed torch for what the step draws itself, such as dropout."""
        ...


def steps_per_epoch(samples: int, training: Training) -> int:
    """Return the whole batches in an epoch; the remainder of a shuffled epoch is left out.

    Raises
    ------
    DataError
        Where there is less than one batch.
    """
    if samples < training.batch:
        raise DataError(
            "is smaller than one batch", where="training data", value=samples, hint=f"batch = {training.batch}"
        )
    return samples // training.batch


class Shuffled:
    """Data in an order of its own each epoch, a function of the seed and the epoch's number alone.

    Parameters
    ----------
    data : Samples
        With labels.
    training : Training
    first_epoch : int
        Epochs trained before these, so that runs that differ in something else see the same batches.
    """

    def __init__(self, data: Samples, training: Training, first_epoch: int = 0) -> None:
        self.data, self.training, self.first_epoch = data, training, first_epoch
        self.per_epoch = steps_per_epoch(len(data), training)
        self.rank, self.world = processes()
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def at(self, epoch: int, place: int, device: torch.device) -> Batch:
        """Return this process's share of a batch."""
        number, batch = self.first_epoch + epoch, self.training.batch
        torch.manual_seed(mix(self.training.seed, number, place, self.rank))
        rows = self.order(number)[place * batch : (place + 1) * batch]
        inputs, labels = labelled(self.data, rows[self.rank :: self.world])
        if self.training.augment != "none" and isinstance(inputs, Tensor) and inputs.dim() == 4:
            inputs = augmented(inputs, self.training.augment)
        return placed(inputs, labels, device, channels_last=self.training.channels_last)

    def order(self, number: int) -> Tensor:
        """Return the rows (n,) of epoch ``number`` in their order; the last one asked for is kept."""
        if self._order[0] != number:
            generator = torch.Generator().manual_seed(mix(self.training.seed, number))
            self._order = number, torch.randperm(len(self.data), generator=generator)
        return self._order[1]


def labelled(data: Samples, rows: Tensor) -> tuple[Structure, Tensor]:
    """Return inputs and labels of some rows; raise DataError where there are no labels."""
    inputs, labels = data.rows(rows)
    if labels is None:
        raise DataError("has no labels", where="data", hint="training and testing need labels")
    return inputs, labels


def placed(inputs: Structure, labels: Tensor, device: torch.device, *, channels_last: bool) -> Batch:
    """Return a batch on ``device``, images in the memory format asked for."""
    return Batch(prepare(inputs, device, channels_last=channels_last), labels.to(device, non_blocking=True))
