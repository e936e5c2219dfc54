"""llama.cpp itself: it writes the tensors that we write, loads the file, and computes what the dequantized model does.

Run where llama-cpp-python is installed, which takes minutes to build; skipped elsewhere.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

from impq_opt import Problem, solve
from impq_opt.encodings import encoding
from impq_opt.encodings.gguf import GGUF_TYPES
from impq_opt.exchange import make_format
from impq_opt.exchange.gguf_model import GgufModel
from impq_opt.problem.allocation import Allocation

pytestmark = [
    pytest.mark.peer("gguf", "libgguf"),
    pytest.mark.filterwarnings("ignore"),  # peers warn of their own affairs
]

# Where weights are quantized llama.cpp rounds activations to 8 bits in blocks; keys and values it keeps in float16.
ROUNDING, CACHE = 0.03, 0.002


def off(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture(scope="module")
def engine() -> Any:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it takes minutes to build")
    from llama_cpp import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    yield llama_cpp
    del quiet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write(tmp_path_factory.mktemp("engine") / "tiny.gguf")


@pytest.fixture(scope="module")
def answer(model: Path) -> Allocation:
    """Every type that ggml writes without an importance matrix, each somewhere."""
    kinds = [kind for kind in GGUF_TYPES if not kind.guided and kind.nominal < 16]
    problem: Problem = make_format("gguf").read(model)  # type: ignore[attr-defined]
    free = [name for name in problem.names if problem[name].length % 256 == 0]
    pins = {name: kind.name for name, kind in zip(free, kinds, strict=False)}
    assert len(free) >= len(kinds)
    pins |= {"blk.0.ffn_down.weight": "q5_1", "blk.1.ffn_down.weight": "iq4_nl"}
    return solve(problem.revise(pins=pins), bound=1e9)


def logits(engine: Any, path: Path, tokens: list[int]) -> Any:
    """Return the logits (tokens, words) of a sequence, of the file as llama.cpp computes with it."""
    options = engine.llama_model_default_params()
    options.n_gpu_layers = 0
    model = engine.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path}"
    settings = engine.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 64
    settings.n_threads = settings.n_threads_batch = 1
    context = engine.llama_init_from_model(model, settings)
    batch = engine.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
        batch.seq_id[place][0], batch.logits[place] = 0, 1
    assert engine.llama_decode(context, batch) == 0
    words = engine.llama_vocab_n_tokens(engine.llama_model_get_vocab(model))
    rows = [np.ctypeslib.as_array(engine.llama_get_logits_ith(context, i), (words,)).copy() for i in range(len(tokens))]
    engine.llama_batch_free(batch)
    engine.llama_free(context)
    engine.llama_model_free(model)
    return np.stack(rows)


def test_its_own_quantizer_writes_the_same_tensors(
    engine: Any, model: Path, answer: Allocation, tmp_path: Path
) -> None:
    """Given the lines of our file for --tensor-type-file, byte for byte."""
    lines = make_format("llama.cpp").dump(answer).decode().split()  # type: ignore[attr-defined]
    rules = (engine.llama_model_tensor_override * (len(lines) + 1))()
    for place, line in enumerate(lines):
        pattern, _, name = line.partition("=")
        kind: Any = encoding(name)
        rules[place].pattern, rules[place].type = pattern.encode(), kind.number
    options = engine.llama_model_quantize_default_params()
    options.nthread, options.ftype = 1, 7  # q8_0, of which nothing is left
    options.tt_overrides = ctypes.cast(rules, ctypes.POINTER(engine.llama_model_tensor_override))
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    assert engine.llama_model_quantize(str(model).encode(), str(theirs).encode(), ctypes.byref(options)) == 0
    make_format("gguf", model=str(model)).write(answer, ours)  # type: ignore[attr-defined]
    first, second = GgufModel.open(theirs).by_name, GgufModel.open(ours).by_name
    assert first.keys() == second.keys()
    for name, tensor in second.items():
        assert first[name].number == tensor.number, name
        assert np.array_equal(first[name].data, tensor.data), name


def test_it_computes_what_the_dequantized_model_does(
    engine: Any, model: Path, answer: Allocation, tmp_path: Path
) -> None:
    written = tmp_path / "ours.gguf"
    make_format("gguf", model=str(model)).write(answer, written)  # type: ignore[attr-defined]
    tensors = GgufModel.open(written).by_name
    plain = {name: tensor.weights().reshape(tensor.sides[::-1]) for name, tensor in tensors.items()}
    dequantized = tiny_llama.write(tmp_path / "dequantized.gguf", plain)
    tokens = np.random.default_rng(0).integers(0, tiny_llama.WORDS, 40).tolist()
    found, wanted, before = (logits(engine, path, tokens) for path in (written, dequantized, model))
    assert off(found, wanted) < ROUNDING < off(before, wanted)
    assert off(wanted, tiny_llama.logits(plain, tokens)) < CACHE
