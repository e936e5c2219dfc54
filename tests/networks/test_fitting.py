"""Data held against the network that is to run on them: made to fit, refused with the reason, or noted."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import known, law_of
from measure_world import digits_network, tensor_of
from PIL import Image
from torch import nn

from impq_opt.data import Dataset, load_data
from impq_opt.data.batch import prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.errors import DataError
from impq_opt.measure import Sampling, measure
from impq_opt.networks.fitting import fitted
from impq_opt.validate.contest import contest
from impq_opt.validate.reality import Validation

RANDOM = torch.Generator().manual_seed(0)
TWO = torch.arange(2)


class Words(nn.Module):
    """Mean of embedded tokens, perhaps of those that a mask leaves, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids: Any, mask: Any = None) -> Any:
        states = self.embed(ids)
        return self.head(states.mean(1) if mask is None else (states * mask[..., None]).sum(1))


class Pair(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(3, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, first: Any, second: Any) -> Any:
        return self.out((self.left(first) + self.right(second)).relu())


def pictures(channels: int = 3, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ]
    return nn.Sequential(*(layer for layer in layers if norm or not isinstance(layer, nn.BatchNorm2d))).eval()


def run(network: Any, data: Any) -> Any:
    fit = fitted(network, data)
    with torch.no_grad():
        return logits_of(call(network, prepare(fit.rows(TWO)[0], torch.device("cpu"))))


# -- made to fit -------------------------------------------------------------------------------------------------------

WHOLE = torch.randint(0, 50, (6, 3, 9, 9), generator=RANDOM)
TOKENS = torch.randint(0, 50, (6, 7), generator=RANDOM)
MASK = torch.randint(0, 2, (6, 7), generator=RANDOM)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_any_type_are_run_as_floats(dtype: Any) -> None:
    network = pictures()
    assert torch.equal(run(network, Dataset(WHOLE.to(dtype))), run(network, Dataset(WHOLE.float())))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_floats_get_the_type_of_the_network(dtype: Any) -> None:
    network = pictures().to(dtype)
    assert run(network, Dataset(WHOLE.float())).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_tokens_of_any_type_are_embedded(dtype: Any) -> None:
    network = Words()
    assert torch.equal(run(network, Dataset(TOKENS.to(dtype))), run(network, Dataset(TOKENS)))


def test_inputs_go_by_position_and_by_keyword() -> None:
    network = Words()
    by_keyword = run(network, Dataset({"mask": MASK, "ids": TOKENS}))
    assert torch.equal(by_keyword, run(network, Dataset((TOKENS, MASK))))
    assert torch.equal(run(network, Dataset({"input_ids": TOKENS})), run(network, Dataset(TOKENS)))  # one needs no name
    more = fitted(network, Dataset({"ids": TOKENS, "mask": MASK, "row": torch.arange(6)}))
    assert more.notes == ("the network's forward does not take 'row', left out",)
    assert list(more.rows(TWO)[0]) == ["ids", "mask"]
    assert torch.equal(run(network, more), by_keyword)


def test_a_network_is_left_as_it_was() -> None:
    network = pictures()
    network.train()
    network[1].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fitted(network, Dataset(WHOLE.float()))
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("deep", [False, True])
def test_what_a_folder_gives_a_network_of_one_channel_is_said(tmp_path: Path, deep: bool) -> None:
    values = np.arange(64).reshape(8, 8)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        grey = (values * 1000).astype(np.uint16) if deep else values.astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / folder / "one.png")
    with pytest.raises(DataError, match=r"given as three colours, normalised as ImageNet's; others go into an \.npz"):
        fitted(pictures(1), load_data(str(tmp_path), size=8))


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "inputs", "said"),
    [
        (
            pictures(),
            torch.rand(6, 9, 9, 3),
            r"'0' takes 3 channels, which come last here: give images.transpose\(0, 3, 1, 2\)",
        ),
        (
            pictures(),
            torch.rand(6, 1, 9, 9),
            r"'0' takes 3 channels, and these samples have 1 \(colour; these are grey\)",
        ),
        (
            pictures(1),
            torch.rand(6, 3, 9, 9),
            r"'0' takes 1 channels, and these samples have 3 \(grey; these are colour\)",
        ),
        (pictures(1), torch.rand(6, 9, 9), r"add the dimension of channels, as in images\[:, None\]"),
        (pictures(5), torch.rand(6, 3, 9, 9), "'0' takes 5 channels, and these samples have 3"),
        (pictures(), torch.rand(6, 3, 2, 2), r"does not take samples of shape \(3, 2, 2\), torch.float32"),
        (nn.Linear(16, 3), torch.rand(6, 1, 4, 4), r"takes 16 features: give samples flattened, \(n, 16\)"),
        (nn.Linear(16, 3), torch.rand(6, 15), "takes 16 features and gets 15"),
        (Words(), torch.rand(6, 7), "'embed' embeds tokens, which are whole numbers"),
        (Words(), TOKENS + 50, r"must be tokens from 0 to 49, which the network embeds, got \d+"),
        (Words(), TOKENS - 60, r"must be tokens from 0 to 49, which the network embeds, got -\d+"),
        (Words(), {"ids": TOKENS + 50, "mask": MASK}, "ids: inputs must be tokens from 0 to 49"),
        (
            Words(),
            {"tokens": TOKENS, "rest": MASK},
            r"its forward takes \(ids, mask=None\), which does not fit the data's inputs",
        ),
        (Words(), (TOKENS, MASK, MASK), r"which does not fit the data's inputs \(too many positional arguments\)"),
        (Pair(), torch.rand(6, 4), r"\(missing a required argument: 'second'\), got 1"),
        (Pair(), {"first": torch.rand(6, 4)}, r"\(missing a required argument: 'second'\), got \['first'\]"),
        (Pair(), (torch.rand(6, 3), torch.rand(6, 4)), r"'left' takes 4 features and gets 3"),
    ],
    ids=range(17),
)
def test_data_that_the_network_does_not_take_are_told(network: Any, inputs: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as told:
        data = Dataset(inputs)
        fitted(network, data).rows(torch.arange(6))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("metric", ["hawq", "fit", "loss-delta"])
@pytest.mark.parametrize(
    ("shift", "lazily", "said"),
    [
        (None, False, "has no labels"),
        (None, True, "has no labels"),
        (
            1,
            False,
            r"labels must be from 0 to 9, the network's classes; \d+ of 100 are not, got 10 .they seem to count",
        ),
        (1, True, "labels must be from 0 to 9, the network's classes"),
        (-1, False, "labels must be from 0 to 9, the network's classes"),
        (-1, True, "labels must be from 0 to 9, the network's classes"),
    ],
)
def test_labels_that_a_metric_needs_are_there_and_right(
    metric: str, shift: int | None, lazily: bool, said: str
) -> None:
    digits = load_data("digits", "test").subset(torch.arange(100))
    labels = None if shift is None else known(digits.labels) + shift
    if lazily:
        images = tensor_of(digits)
        samples = [images[k] if labels is None else (images[k], int(labels[k])) for k in range(100)]
    data = Dataset(samples) if lazily else Dataset(digits.inputs, labels)
    with pytest.raises(DataError, match=said) as told:
        measure(digits_network(), data, metric=metric, bits=(2, 4))
    assert "\n" not in str(told.value)
    with pytest.raises(DataError, match=said):
        contest(digits_network(), data, data, ["impq", metric], [3], samples=40)


# -- noted -------------------------------------------------------------------------------------------------------------


def digits(change: Any = None, labels: Any = None) -> Dataset:
    data = load_data("digits", "test")
    inputs = data.inputs if change is None else change(data.inputs)
    return Dataset(inputs, data.labels if labels is None else labels(data.labels))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            digits(lambda x: (x + 0.5) * 255),
            "the first batch-norm, .* are the inputs, from 0 to 255, scaled as in training?",
        ),
        (digits(lambda x: x / 255), "the first batch-norm, .* times as narrow as those it was trained on"),
        (digits(lambda x: x + 40), "standard deviations away from those it was trained on"),
        (
            digits(torch.rand_like),
            r"the float network gets [\d.]+% of 128 labels right, chance is 10.0%: is this its data",
        ),
        (digits(None, lambda y: y + 1), "labels go from 1 to 10 and the network's classes from 0 to 9: subtract 1"),
        (digits(None, lambda y: y + 1), r"Were the labels counted from 0, not 1, 9[\d.]+% would be right"),
        (digits(None, lambda y: y - 1), "labels go from -1 to 8 and the network's classes from 0 to 9"),
        (digits(None, lambda y: (y + 3) % 10), r"With the classes in another order 9[\d.]+% would be right"),
        (digits(None, lambda y: (3 * y) % 10), r"With the classes in another order 9[\d.]+% would be right"),
        (digits(lambda x: x * 0), "the network decides for class . in all of 128 samples"),
        (dataclasses.replace(digits(), classes=9), "the data have 9 classes and the network 10"),
    ],
    ids=range(11),
)
def test_what_seems_wrong_is_noted_in_measuring_and_in_validating(data: Any, said: str) -> None:
    told: list[str] = []
    network = digits_network()
    problem = measure(network, data, sampling=Sampling(samples=128), bits=(2, 8), tell=told.append)
    assert any(re.search(said, note) for note in told), told
    assert list(problem.provenance["data_notes"]) == told
    assert any(re.search(said, note) for note in Validation(network, problem, data, samples=2).data.notes)


def test_right_data_are_not_noted() -> None:
    for data in (digits(), Dataset(digits().inputs), digits().subset(torch.arange(3))):
        assert fitted(digits_network(), data).notes == ()
    one_class = digits()
    assert fitted(digits_network(), one_class.subset((known(one_class.labels) == 3).nonzero()[:, 0])).notes == ()
    problem = measure(digits_network(), digits(), sampling=Sampling(samples=64), bits=(2, 8))
    assert "data_notes" not in problem.provenance


def test_stored_pictures_are_noted_unless_the_network_shows_that_it_takes_them() -> None:
    stored = torch.randint(0, 256, (30, 3, 9, 9), generator=RANDOM).float()
    network = pictures(norm=False)
    assert "as pictures are stored" in " ".join(fitted(network, Dataset(stored)).notes)
    assert "as pictures are stored" not in " ".join(fitted(network, Dataset(stored / 255)).notes)
    trained: Any = pictures()
    trained[1].momentum = None
    trained.train()
    with torch.no_grad():
        trained(stored)
    assert "as pictures are stored" not in " ".join(fitted(trained.eval(), Dataset(stored)).notes)


# -- outputs -----------------------------------------------------------------------------------------------------------

LOGITS, HIDDEN = torch.zeros(2, 3), torch.zeros(2, 5, 4)


@dataclasses.dataclass
class Output:
    """What some networks give back."""

    hidden: torch.Tensor
    scores: torch.Tensor
    loss: torch.Tensor | None = None


Named = namedtuple("Named", ["hidden", "logits"])


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, HIDDEN),
        [LOGITS],
        ((LOGITS, HIDDEN), HIDDEN),
        {"loss": torch.zeros(()), "logits": LOGITS, "pooled": torch.zeros(2, 4)},
        {"hidden": HIDDEN, "scores": LOGITS},
        Output(HIDDEN, LOGITS),
        Named(HIDDEN, LOGITS),
    ],
    ids=range(8),
)
def test_logits_are_found_in_what_a_network_gives_back(output: Any) -> None:
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    "output", [None, {}, (), {"a": LOGITS, "b": LOGITS}, {"a": HIDDEN}, Output(HIDDEN, HIDDEN), "text"]
)
def test_outputs_without_clear_logits_are_told(output: Any) -> None:
    with pytest.raises(DataError, match=r"its output must be one tensor of logits|none is called 'logits'"):
        logits_of(output)


def test_programs_without_layers_are_left_to_tracing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it, people still have such networks
        network = torch.jit.trace(nn.Linear(4, 3), torch.zeros(2, 4))
        with pytest.raises(DataError, match="TorchScript"):
            measure(network, Dataset(torch.rand(6, 4)))


def test_measuring_stored_whole_numbers_is_measuring_the_floats() -> None:
    values = (tensor_of(load_data("digits", "test"))[:64] + 0.5) * 16
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    plain = law_of(measure(network, Dataset(values), bits=(2, 4))).sensitivity
    others: list[Any] = [values.to(torch.uint8), values.long(), values.double(), values.numpy().astype(np.int16)]
    for other in others:
        assert np.array_equal(law_of(measure(network, Dataset(other), bits=(2, 4))).sensitivity, plain)
