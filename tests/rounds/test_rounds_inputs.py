"""Rounds on networks of several inputs, and on data that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rounds_world import Small, hyper, splits
from torch import nn

from impq_opt.data import Dataset
from impq_opt.errors import DataError
from impq_opt.rounds import Splits, rounds
from impq_opt.rounds.measuring import measurer


class Half(nn.Module):
    """Takes the halves of a picture, and returns its logits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()

    def forward(self, left: Any, right: Any) -> dict[Any, Any]:
        return {"logits": self.small(torch.cat([left, right], 3))}


class Whole(nn.Module):
    """The same of whole pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()

    def forward(self, x: Any) -> Any:
        return self.small(torch.cat([x[..., :4], x[..., 4:]], 3))


def run(network: Any, parts: Any, folder: Any) -> Any:
    torch.manual_seed(0)
    settings = hyper(rounds=1, start_epochs=1, measure_samples=32)
    return rounds(network(), Splits(*parts), settings, folder, measure=measurer(settings))


def parts(change: Callable[..., Any] = lambda x: x, labels: Callable[..., Any] = lambda y: y) -> list[Any]:
    data = splits()
    return [Dataset(change(part.inputs), labels(part.labels)) for part in (data.train, data.validation, data.test)]


def test_rounds_on_several_inputs_are_those_on_one(tmp_path: Path) -> None:
    whole = run(Whole, parts(), tmp_path / "whole")
    halves = parts(lambda x: {"right": x[..., 4:], "left": x[..., :4]})
    several = run(Half, halves, tmp_path / "several")
    assert [record.bits for record in several] == [record.bits for record in whole]
    for one, other in zip(whole, several, strict=True):
        assert other.accuracy.test == pytest.approx(one.accuracy.test, abs=0.03)
    assert run(Half, halves, tmp_path / "several") == several  # a finished run is the same data again


@pytest.mark.parametrize(
    ("change", "labels", "said"),
    [
        (lambda x: x, lambda y: y + 1, "labels must be from 0 to 3, the network's classes"),
        (lambda x: x, lambda y: y - 1, "labels must be from 0 to 3, the network's classes"),
        (lambda x: x, lambda y: None, "has no labels, which are needed .for training and testing"),
        (lambda x: x.permute(0, 2, 3, 1), lambda y: y, "takes 1 channels, which come last here"),
        (lambda x: x.where(x < 2, torch.inf), lambda y: y, "inputs must be finite"),
    ],
)
def test_data_that_do_not_fit_are_told_before_training(
    tmp_path: Path, change: Callable[..., Any], labels: Callable[..., Any], said: str
) -> None:
    with pytest.raises(DataError, match=said) as told:
        run(Whole if change(torch.zeros(1, 1, 8, 8)).shape[1] == 1 else Small, parts(change, labels), tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()
