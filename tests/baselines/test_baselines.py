"""Tables of methods: rows on equal terms, made in pieces, and what they say of sizes and accuracy."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from impq_opt.baselines import run_folder, run_methods, table
from impq_opt.cli import run
from impq_opt.data import Dataset
from impq_opt.errors import OptionError
from impq_opt.quantize import unpack, unpack_into
from impq_opt.rounds import PausedError, Report, Splits, accuracy
from impq_opt.rounds.checkpoint import load_state
from impq_opt.rounds.folder import Folder, trained_state
from impq_opt.rounds.recipes import Published, load_recipe, row_settings, splits_of

SHARED: dict[str, Any] = {
    "start_epochs": 2,
    "batch": 20,
    "rate": 0.3,
    "activation_bits": 32,
    "augment": "none",
    "measure_samples": 40,
}
ROWS: dict[str, dict[str, Any]] = {
    "float": {"leave_float": ["*"]},
    "twn": {"method": "twn"},
    "bwn": {"method": "bwn", "leave_float": ["first", "last"]},
    "impq": {"strategy": "exact", "start_bits": 4, "start_epochs": 1, "rounds": 1, "epochs": 1, "budget": "fixed:2"},
}


class Net(nn.Module):
    """Two convolutions and a linear layer: 72 + 1,152 + 64 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        out: torch.Tensor = self.last(torch.relu(self.middle(x)).mean((2, 3)))
        return out


def part(seed: int, count: int) -> Dataset:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=draw)
    images = torch.randn(count, 1, 6, 6, generator=draw)
    sign = torch.tensor([1.0, -1.0]).repeat(3)
    patterns = torch.stack([torch.ones(6, 6), sign.expand(6, 6), sign[:, None].expand(6, 6), sign[:, None] * sign])
    return Dataset(images / 2 + patterns[labels][:, None], labels, "patterns", 4)


TEST = part(2, 80)
DATA = Splits(part(0, 120), part(1, 40), TEST)


def network() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def settings(**changes: Any) -> dict[str, Any]:
    return {name: row_settings(SHARED | row | changes, name) for name, row in ROWS.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    folder = tmp_path_factory.mktemp("table")
    rows = settings()
    return folder, rows, run_methods(network(), DATA, rows, range(2), folder)


def test_a_row_says_what_its_weights_take(made: Any) -> None:
    folder, rows, runs = made
    published = [Published(method="TWN", weight_bits="ternary", accuracy=90.0, row="twn")]
    told = table(
        network(), runs, rows, partial(run_folder, folder),
        test=TEST, validation=DATA.validation, in_float=0.5, published=published,
    )  # fmt: skip
    by_name = {row.name: row for row in told}
    assert list(by_name) == list(ROWS)
    weights = 72 + 1152 + 64
    assert by_name["float"].weight_bits.mean == 32
    assert by_name["float"].storage.mean == 32 * weights
    # Three levels and a scale a tensor.
    assert by_name["twn"].weight_bits.mean == pytest.approx((math.log2(3) * weights + 3 * 32) / weights)
    assert by_name["twn"].storage.mean == 2 * weights + 3 * 32
    # First and last in float, the middle one of one bit and 16 scales.
    assert by_name["bwn"].storage.mean == 32 * (72 + 64) + 1152 + 16 * 32
    # Operations of 32 by 8 bits at the picture, 1 by 32, and 32 by 32.
    assert by_name["bwn"].costs["bit-operations"].value == 32 * (8 * 36 * 72 + 36 * 1152 + 32 * 64)
    # At most two bits each, and a scale a kernel.
    assert by_name["impq"].storage.mean <= 2 * weights + (8 + 16 + 4) * 32
    assert {row.activation_bits.mean for row in told if row.activation_bits} == {32}
    assert {row.epochs for row in told} == {2}
    assert by_name["twn"].published == published[0]
    assert by_name["twn"].change == by_name["twn"].test.mean - 0.5
    assert json.loads(json.dumps(by_name["twn"].to_dict()))["seeds"] == 2
    assert by_name["float"].test.mean > 0.5  # the patterns are learnt


def test_one_seed_has_the_error_of_its_samples(made: Any) -> None:
    folder, rows, runs = made
    alone = {name: trials[:1] for name, trials in runs.items()}
    told = table(
        network(), alone, rows, partial(run_folder, folder), test=TEST, validation=DATA.validation
    )  # fmt: skip
    for row in told:
        p = row.test.mean
        assert row.test.stderr == math.sqrt(p * (1 - p) / 80)
        assert row.change is None


def test_what_the_trained_network_computes_is_kept(made: Any) -> None:
    folder, _, runs = made
    for name in ROWS:
        place = run_folder(folder, 0, name)
        trained = network()
        trained.load_state_dict(trained_state(place))
        record = runs[name][0][-1]
        assert accuracy(trained, TEST) == record.accuracy.test
    # The layers in float are no codes.
    packed = unpack(Folder(run_folder(folder, 0, "bwn")).packed_path(0))
    assert list(packed.bits) == ["middle.weight"]
    again = unpack_into(network(), Folder(run_folder(folder, 0, "bwn")).packed_path(0))
    assert accuracy(again, TEST) == runs["bwn"][0][-1].accuracy.test


def test_a_table_made_in_pieces_is_the_same(made: Any, tmp_path: Path) -> None:
    _, rows, runs = made
    pieces = 0
    while True:
        pieces += 1
        try:
            again = run_methods(network(), DATA, rows, range(1), tmp_path, report=Report(deadline=0.0, save_every=0.0))
        except PausedError:
            continue
        break
    assert pieces > 8
    for name in ROWS:
        ended = [load_state(run_folder(place, 0, name)) for place in (tmp_path, made[0])]
        assert ended[0] is not None
        assert ended[1] is not None
        mine, theirs = ended[0][0].network, ended[1][0].network
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert [r.accuracy for r in again[name][0]] == [r.accuracy for r in runs[name][0]]


def test_rows_that_see_other_batches_are_no_table(tmp_path: Path) -> None:
    rows = settings() | {"longer": row_settings(SHARED | {"method": "twn", "start_epochs": 3}, "longer")}
    with pytest.raises(OptionError, match="rows must train on the same batches"):
        run_methods(network(), DATA, rows, range(1), tmp_path)
    assert not any(tmp_path.iterdir())


RECIPE = """
title = "digits"
network = "small-cnn"
data = "digits"
strategies = {}
hyper = {}
pretraining = {epochs = 1, batch = 100, augment = "none"}
[table]
start_epochs = 1
batch = 100
activation_bits = 32
augment = "none"
[methods.twn]
method = "twn"
[methods.lq]
method = "lq-net"
start_bits = 2
[[published]]
method = "TWN"
weight_bits = "ternary"
accuracy = 90.0
float_accuracy = 91.0
row = "twn"
"""


def ask(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    status = run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_baselines_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    command = ["baselines", recipe, "-o", tmp_path / "runs", "--threads", 1]
    status, _, err = ask(capsys, *command, "--minutes", "0.00001")
    assert status == 1
    assert "the same command goes on" in err
    status, out, _ = ask(capsys, *command, "--json")
    assert status == 0
    document = json.loads(out)
    assert [row["name"] for row in document["rows"]] == ["twn", "lq"]
    assert json.loads((tmp_path / "runs" / "methods.json").read_text()) == document
    status, out, _ = ask(capsys, *command, "--methods", "twn")
    assert status == 0
    assert "-1.00" in out  # the published change
    assert "lq" not in out
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        status, out, _ = ask(capsys, *command)
        lines = out.splitlines()
        assert max(map(len, lines)) <= width
        assert not [line for line in lines if line.endswith(" ")]
        assert "B_w,eff" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["baselines", "resnet20-cifar10", "--methods", "tvn"], "did you mean 'twn'"),
        (["baselines", "resnet20-fashion-mnist"], "has no table of methods"),
        (["baselines", "resnet8-fashion-mnist", "--seeds", "0"], "must be at least 1"),
        (["baselines", "resnet8-fashion-mnist", "--set", "rte=1"], "did you mean 'rate'"),
        (["train", "small-cnn", "--data", "digits", "--epochs", "0"], "must be at least 1"),
        (["train", "small-cnn", "--data", "digits", "--bits", "2"], "goes with a --method"),
        (["train", "small-cnn", "--data", "digits", "--method", "tvn"], "did you mean 'twn'"),
        (["train", "small-cnn", "--data", "digits", "--method", "bwn", "--bits", "2"], "1 bit"),
        (["train", "small-cnn", "--data", "digits", "--method", "twn"], "--pretrain EPOCHS"),
        (["train", "small-cnn", "--data", "digits", "--method", "lq-net", "--activation-bits", "17"], "from 1 to 16"),
        (["train"], "needs a network and --data"),
    ],
)
def test_what_cannot_be_is_told(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = ask(capsys, *arguments, "-o", tmp_path / "run")
    assert status == 2
    assert expected in err
    assert not (tmp_path / "run").exists()


def test_train_in_float_then_with_a_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ["train", "small-cnn", "--data", "digits", "--epochs", 2, "--set", "batch=50", "--set", "augment=none"]
    assert ask(capsys, *first, "-o", tmp_path / "f", "--threads", 1)[0] == 0
    weights = tmp_path / "f" / "weights.safetensors"
    second = [*first, "--method", "mid-rise", "--bits", 3, "--activation-bits", 4, "--weights", weights]
    status, out, _ = ask(capsys, *second, "-o", tmp_path / "q", "--json", "--threads", 1)
    row = json.loads(out)
    assert (status, row["activation_bits"]["mean"]) == (0, 4)
    assert row["test"]["mean"] > 0.3
    assert row["float_test"] > 0.3
    assert (tmp_path / "q" / "weights.safetensors").exists()


def test_data_without_a_validation_part_have_a_tenth_held_out(tmp_path: Path) -> None:
    images = np.arange(40 * 9, dtype=np.float32).reshape(40, 1, 3, 3)
    parts = {f"{name}_{split}": array for split in ("train", "test") for name, array in
             (("images", images), ("labels", np.arange(40) % 4))}  # fmt: skip
    np.savez(tmp_path / "d.npz", **parts, allow_pickle=False)
    recipe = load_recipe("resnet8-fashion-mnist").but(data=str(tmp_path / "d.npz"), train_samples=None)
    splits = splits_of(recipe)
    assert (len(splits.train), len(splits.validation)) == (36, 4)
    rows = [part.rows(torch.arange(len(part)))[0][:, 0, 0, 0].tolist() for part in (splits.train, splits.validation)]
    assert sorted(rows[0] + rows[1]) == images[:, 0, 0, 0].tolist()
    assert splits_of(recipe).validation.rows(torch.arange(4))[0].flatten()[0] == rows[1][0]


def test_shipped_tables_name_rows_that_they_have() -> None:
    for name in ("resnet20-cifar10", "vgg-small-cifar10", "mobilenet-v1-imagenet"):
        recipe = load_recipe(name)
        beside = {line.row for line in recipe.published if line.row}
        assert beside <= set(recipe.methods)
        epochs = {row.plan.epochs_before(row.plan.rounds + 1) for row in recipe.rows().values()}
        assert epochs == {6}
