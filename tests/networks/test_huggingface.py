"""Folders of Hugging Face's models: tiny ones with random weights, from files to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from impq_opt.cli import run
from impq_opt.data import load_data
from impq_opt.data.transformers import transformers_module
from impq_opt.errors import FileError, OptionError
from impq_opt.files import load_problem
from impq_opt.measure import Sampling, measure
from impq_opt.networks import load_network
from impq_opt.networks.huggingface import embeddings, tokens_of

pytestmark = [pytest.mark.peer("transformers", "tokenizers"), pytest.mark.filterwarnings("ignore")]

WORDS = ("in", "the", "beginning", "god", "created", "heaven", "and", "earth", "without", "form", "void", "was", "upon")
SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    drawn = np.random.default_rng(0).choice(WORDS, 3000)
    path.write_text(" ".join(drawn))
    return path


def _tokenizer(folder: Path, *, masked: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"] if masked else ["<unk>", "<s>"]
    own = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*special, *WORDS])}, unk_token=special[0]))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    around = "[CLS] $A [SEP]" if masked else "<s> $A"
    own.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[(name, k) for k, name in enumerate(special) if name in around]
    )
    named = {"unk_token": special[0]} | ({"mask_token": "[MASK]"} if masked else {"bos_token": "<s>"})
    transformers_module().PreTrainedTokenizerFast(tokenizer_object=own, **named).save_pretrained(folder)


def _saved(folder: Path, kind: str) -> Path:
    transformers = transformers_module()
    torch.manual_seed(0)
    if kind == "causal":
        config = transformers.LlamaConfig(**SHAPE, num_key_value_heads=1, tie_word_embeddings=True)
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.BertConfig(**SHAPE)
        model = (transformers.BertForMaskedLM if kind == "masked" else transformers.BertModel)(config)
    model.save_pretrained(folder)
    _tokenizer(folder, masked=kind != "causal")
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("causal"), "causal")


def _measured(folder: Path, text: Path, metric: str, **options: Any) -> Any:
    network = load_network(f"hf:{folder}")
    data = load_data(str(text), "train", tokens=tokens_of(folder, 16))
    without = embeddings(network)
    return measure(
        network, data, metric=metric, bits=(2, 4), grid="symmetric", sampling=Sampling(samples=8), weights_only=True,
        without=without, **options,
    )  # fmt: skip


def test_a_causal_model_is_measured_allocated_quantized_and_loaded_again(
    causal: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem, folder = tmp_path / "problem.toml", tmp_path / "quantized"
    common = [f"hf:{causal}", "--data", str(text), "--window", "16", "--samples", "8"]
    assert run(["measure", *common, "--bits", "2,3,4", "--fused", "-o", str(problem)]) == 0
    declared = load_problem(problem)
    stem = "model.layers.0"
    projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    assert list(declared.names) == [
        f"{stem}.{name}" for name in (*projections, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    assert declared.metric == "fisher"
    assert declared.provenance["decisions"] == 16
    stays = {stay.name: stay.reason for stay in declared.stays or ()}
    assert "model.embed_tokens.weight" in stays
    assert len(declared.ties) == 2

    capsys.readouterr()
    assert run(["quantize", *common, "--bits", "3", "--candidates", "2,3,4", "-o", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "perplexity" in out
    assert "paired over windows" in out or "uniform" not in out
    told = json.loads((folder / "result.json").read_text())
    assert told["rows"][1]["language"]["kl"]["value"] > 0
    again = load_network(f"hf:{folder / 'checkpoint'}")
    data = load_data(str(text), "test", tokens=tokens_of(folder / "checkpoint", 16))
    ids = data.rows(torch.arange(len(data)))[0]["input_ids"]
    with torch.no_grad():
        float_logits, logits = (net(input_ids=ids).logits.double() for net in (load_network(f"hf:{causal}"), again))
    p, q = float_logits.log_softmax(2), logits.log_softmax(2)
    kl = float((p.exp() * (p - q)).sum(2).mean())
    row = next(row for row in told["rows"] if row["name"] == told["chosen"])
    assert row["language"]["kl"]["value"] == pytest.approx(kl, rel=1e-3)

    args = ["validate", str(folder / "problem.toml"), "--network", f"hf:{causal}", "--data", str(text)]
    assert run([*args, "--window", "16", "--uniform", "2,4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["language"]["kl"]["value"] > rows[1]["language"]["kl"]["value"]
    assert rows[1]["language"]["ahead"]["high"] < 0


def test_masked_models_and_encoders_are_measured(tmp_path: Path, text: Path) -> None:
    masked = _measured(_saved(tmp_path / "masked", "masked"), text, "kl")
    assert "bert.encoder.layer.0.attention.self.query" in masked.names
    assert (masked.damage.at(slice(None), (2,)) > 0).all()
    folder = _saved(tmp_path / "encoder", "encoder")
    encoder = _measured(folder, text, "output-error")
    assert (encoder.damage.at(slice(None), (2,)) > 0).all()
    with pytest.raises(OptionError, match=r"gives states, not decisions.*output-error"):
        _measured(folder, text, "fisher")


def test_folders_that_hold_no_whole_model_are_refused(causal: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no such folder, got 'hf:"):
        load_network(f"hf:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"holds no config.json"):
        load_network(f"hf:{tmp_path / 'empty'}")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in causal.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(FileError, match="has weights that cannot be read"):
        load_network(f"hf:{copy}")
    from safetensors.torch import load, save

    state = load(weights)
    state.pop("model.layers.0.mlp.up_proj.weight")
    (copy / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
    with pytest.raises(FileError, match=r"lacks 1 of the weights of its LlamaForCausalLM, got 'model\.layers\.0\.mlp"):
        load_network(f"hf:{copy}")
    for file in copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(FileError, match="holds no tokenizer"):
        load_data(str(text), tokens=tokens_of(copy))
    with pytest.raises(OptionError, match="is longer than the 32 positions of the model, got 33"):
        tokens_of(causal, 33)
    assert tokens_of(causal).window == 32


def test_a_tied_head_is_one_group_where_it_is_asked_for(causal: Path, text: Path) -> None:
    network = load_network(f"hf:{causal}")
    assert embeddings(network) == ("model.embed_tokens.weight", "lm_head.weight")
    assert isinstance(network, nn.Module)
    data = load_data(str(text), "train", tokens=tokens_of(causal, 16))
    problem = measure(
        network, data, metric="fisher", bits=(2, 4), grid="symmetric", sampling=Sampling(samples=4), weights_only=True
    )
    assert len(problem) == 8
    tied = [name for name in problem.names if name in ("lm_head", "model.embed_tokens")]
    assert len(tied) == 1
    assert problem.damage.at(slice(None), (2,))[problem.names.index_of(tied[0])] > 0
