"""Data that are one set: divided by a stated seed, and whole where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impq_opt.data import Dataset, load_data
from impq_opt.data.parts import ALL, SPLITS, part_of
from impq_opt.errors import DataError, OptionError


def _file(folder: Path, **arrays: Any) -> str:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("count", [4, 5, 7, 100, 1001])
def test_parts_share_no_sample_and_leave_none_out(count: int) -> None:
    whole = Dataset(torch.arange(count * 2.0).reshape(count, 2), torch.arange(count) % 2, "set")
    parts = [part_of(whole, split).rows(torch.arange(len(part_of(whole, split))))[0][:, 0] for split in SPLITS]
    assert all(len(part) for part in parts)
    assert sorted(torch.cat(parts).tolist()) == [2.0 * k for k in range(count)]
    again = part_of(whole, "test")
    assert torch.equal(again.rows(torch.arange(len(again)))[0][:, 0], parts[2])


def test_a_set_says_how_it_was_divided(tmp_path: Path) -> None:
    name = _file(tmp_path, images=np.zeros((10, 3)), labels=np.arange(10))
    train, test = load_data(name, "train"), load_data(name, "test")
    assert (len(train), len(test), train.name, test.name) == (5, 3, "set.npz[10]/train", "set.npz[10]/test")
    assert "one set of 10 samples" in train.notes[-1]
    assert "seed 0" in train.notes[-1]
    assert "one set of 10 samples" in test.notes[-1]
    for whole in (load_data(name), load_data(name, ALL)):
        assert (len(whole), whole.notes, whole.name) == (10, (), "set.npz[10]/all")


def test_named_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    name = _file(tmp_path, images_train=np.zeros((6, 3)), images_test=np.ones((2, 3)))
    assert [len(load_data(name, split)) for split in ("train", "test")] == [6, 2]
    assert load_data(name, "test").notes == ()
    assert len(load_data(name)) == 6
    with pytest.raises(DataError, match=r"has no arrays of this part.*validation.*there are test, train"):
        load_data(name, "validation")
    with pytest.raises(DataError, match="is of data without parts"):
        load_data(name, ALL)


def test_folders_with_and_without_parts(tmp_path: Path) -> None:
    for folder, count in (("one", 4), ("own/train", 3), ("own/val", 2)):
        for kind in "ab":
            (tmp_path / folder / kind).mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / folder / kind / f"{k}.png")
    one, own = str(tmp_path / "one"), str(tmp_path / "own")
    parts = [load_data(one, split, size=8) for split in SPLITS]
    assert [len(part) for part in parts] == [4, 2, 2]
    assert len(load_data(one, size=8)) == 8
    assert [len(load_data(own, split, size=8)) for split in SPLITS] == [6, 4, 4]
    with pytest.raises(DataError, match="is of data without parts"):
        load_data(own, ALL, size=8)


def test_too_few_samples_are_not_divided(tmp_path: Path) -> None:
    name = _file(tmp_path, images=np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"too few samples to be divided.*3.*split='all'"):
        load_data(name, "train")
    assert len(load_data(name, ALL)) == 3
    with pytest.raises(OptionError, match="these have them"):
        load_data("digits", ALL)


def test_a_digest_tells_samples_apart() -> None:
    images = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    digests = [
        Dataset(images).digest(),
        Dataset(images[:39]).digest(),
        Dataset(images, torch.zeros(40)).digest(),
        Dataset(images.flip(0)).digest(),
        Dataset(images.double()).digest(),
        Dataset(images.bfloat16()).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert Dataset(images.clone()).digest() == digests[0]
    items: Any = torch.utils.data.TensorDataset(images)
    assert Dataset(items).digest() == digests[0]
