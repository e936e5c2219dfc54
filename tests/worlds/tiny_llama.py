"""A model of llama.cpp's in a few hundred kilobytes: drawn weights, two blocks, no vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

EMBED, FORWARD, HEADS, SHARED, BLOCKS, WORDS = 256, 320, 4, 2, 2, 96
# As gguf.GGUFWriter is told, rows first: (outputs, inputs).
MATRICES = {
    "attn_q": (EMBED, EMBED),
    "attn_k": (EMBED // HEADS * SHARED, EMBED),
    "attn_v": (EMBED // HEADS * SHARED, EMBED),
    "attn_output": (EMBED, EMBED),
    "ffn_gate": (FORWARD, EMBED),
    "ffn_up": (FORWARD, EMBED),
    "ffn_down": (EMBED, FORWARD),  # rows of 320, which blocks of 256 do not divide
}


def tensors(seed: int = 0) -> dict[str, Any]:
    """Return weights by name; norms have one dimension."""
    rng = np.random.default_rng(seed)
    found = {"token_embd.weight": rng.standard_normal((WORDS, EMBED))}
    for block in range(BLOCKS):
        for part, shape in MATRICES.items():
            found[f"blk.{block}.{part}.weight"] = rng.standard_normal(shape) / np.sqrt(shape[1])
        for norm in ("attn_norm", "ffn_norm"):
            found[f"blk.{block}.{norm}.weight"] = 1 + 0.1 * rng.standard_normal(EMBED)
    found["output_norm.weight"] = 1 + 0.1 * rng.standard_normal(EMBED)
    return {name: weights.astype(np.float32) for name, weights in found.items()}


def write(path: Path, weights: dict[str, Any] | None = None, *, types: bool = True) -> Path:
    """Write the model as float32; needs gguf."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny: two blocks")
    writer.add_context_length(64)
    writer.add_embedding_length(EMBED)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBED // HEADS)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("none")
    if types:
        writer.add_file_type(0)
    writer.add_array("tiny.numbers", [3, 1, 4])
    for name, values in (tensors() if weights is None else weights).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(weights: dict[str, Any], tokens: list[int]) -> Any:
    """Return logits (tokens, words) of a sequence, by the definition of the network, in float64."""
    weight = {name: values.astype(np.float64) for name, values in weights.items()}

    def norm(x: Any, name: str) -> Any:
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5) * weight[f"{name}.weight"]

    def turned(x: Any) -> Any:
        """Rotate pairs of neighbours by their position (RoPE)."""
        places, size = np.arange(len(x))[:, None], x.shape[-1]
        angle = (places * 10000.0 ** (-np.arange(0, size, 2) / size))[:, None]
        even, odd = x[..., ::2], x[..., 1::2]
        pairs = [even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)]
        return np.stack(pairs, axis=-1).reshape(x.shape)

    x = weight["token_embd.weight"][tokens]
    for block in range(BLOCKS):
        part = {name: weight[f"blk.{block}.{name}.weight"] for name in MATRICES}
        y = norm(x, f"blk.{block}.attn_norm")
        query, key, value = ((y @ part[f"attn_{n}"].T).reshape(len(y), -1, EMBED // HEADS) for n in "qkv")
        query, key = turned(query), turned(key)
        key, value = (np.repeat(z, HEADS // SHARED, axis=1) for z in (key, value))
        scores = np.einsum("ihd,jhd->hij", query, key) / np.sqrt(EMBED // HEADS)
        scores = np.where(np.tri(len(y), dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", scores, value).reshape(len(y), -1) @ part["attn_output"].T
        y = norm(x, f"blk.{block}.ffn_norm")
        gate = y @ part["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ part["ffn_up"].T)) @ part["ffn_down"].T
    return norm(x, "output_norm") @ weight["token_embd.weight"].T
