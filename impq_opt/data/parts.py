"""Data that come as one set, divided by a stated seed: nothing is measured and judged on the same samples."""

from __future__ import annotations

from dataclasses import replace

import torch

from impq_opt.data.dataset import Dataset
from impq_opt.errors import DataError

__all__ = ["ALL", "SEED", "SPLITS", "part_of"]

SPLITS = ("train", "validation", "test")
# Of data that are one set only.
ALL = "all"
SEED = 0


def part_of(whole: Dataset, split: str | None) -> Dataset:
    """Return a part of a data set that has no parts of its own: half for train, a quarter each for validation and test.

    Which samples is decided by :data:`SEED` and their number alone, in the order of the set.

    Parameters
    ----------
    whole : Dataset
    split : {"train", "validation", "test", "all"}, optional
        All of it where none is named.

    Raises
    ------
    DataError
        The set has fewer than four samples, and ``split`` is not ``"all"``.
    """
    count = len(whole)
    if split is None or split == ALL:
        return replace(whole, name=f"{whole.name}[{count}]/{ALL}")
    if count < 4:
        raise DataError(
            "is one set of too few samples to be divided", where=f"data {whole.name}", value=count,
            hint="split='all' takes it whole",
        )  # fmt: skip
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
    train, validation = count // 2, count // 4
    first, last = {
        "train": (0, train),
        "validation": (train, train + validation),
        "test": (train + validation, count),
    }[split]
    note = (
        f"{whole.name} is one set of {count:,} samples: its part {split!r} is {last - first:,} of them, drawn with "
        f"seed {SEED}; --split all takes them all"
    )
    part = whole.subset(order[first:last].sort().values)
    # The name tells how large the set was: with another sample in it the parts are others.
    return replace(part, name=f"{whole.name}[{count}]/{split}", notes=(*whole.notes, note))
