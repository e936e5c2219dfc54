"""Allocations of language models by several metrics, held against the float model on another text.

    python benchmarks/language.py MODEL --calibration TEXT --held-out TEXT -o FOLDER [--bits 2.5,3,3.5,4,4.5] ...

MODEL is ``hf:FOLDER``, or weights that ``benchmarks/_llama.py`` wrote, whose tokens are bytes. Each metric is measured
once, and each budget of mean bits is answered from it; uniform precision stands beside. All of them are judged on the
same windows: KL to the float model in nat a token, and perplexity, with Student's intervals over windows. What is known
is not made again: the folder keeps the problems, and the rows in ``rows.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _needs import need

need("torch", "safetensors")

import numpy as np
import torch
from _llama import WINDOW as BYTES_WINDOW
from _llama import Llama, as_bytes
from _llama import load as load_bytes
from torch import Tensor, nn

from impq_opt import Problem, solve
from impq_opt.data import Dataset, load_data
from impq_opt.documents.writing import atomic_write
from impq_opt.files import load_problem, save_problem
from impq_opt.measure import Sampling, measure
from impq_opt.networks import load_network
from impq_opt.networks.huggingface import embeddings, folder_of, tokens_of
from impq_opt.validate.reality import Validation

METRICS = ("fisher", "fisher --interactions", "fit", "impq", "output-error", "kl")


class Bytes(nn.Module):
    """The model of bytes with a decision at each of them."""

    def __init__(self, network: Llama) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network.head(self.network.states(input_ids))}


def subject(options: argparse.Namespace) -> tuple[nn.Module, Dataset, Dataset, tuple[str, ...]]:
    """Return the model, the windows to measure on and to judge by, and what is left out of the groups."""
    folder = folder_of(options.model)
    texts = (options.calibration, options.held_out)
    if folder is not None:
        network = load_network(options.model)
        tokens = tokens_of(folder, options.window)
        seen, held = (load_data(str(text), "all", tokens=tokens) for text in texts)
        return network, seen, held, embeddings(network)
    network = Bytes(load_bytes(options.model)).eval()
    seen, held = (_windows(text, options.window or BYTES_WINDOW) for text in texts)
    return network, seen, held, ("network.embed.weight", "network.head.weight")


def _windows(text: Path, window: int) -> Dataset:
    whole = as_bytes(text.read_text(encoding="utf-8")).long()
    count = (len(whole) - 1) // window
    inputs, labels = (whole[start : start + count * window].view(count, window) for start in (0, 1))
    return Dataset({"input_ids": inputs}, labels, name=text.name)


def problems(
    network: nn.Module, seen: Dataset, without: tuple[str, ...], options: argparse.Namespace
) -> Iterator[tuple[str, Problem]]:
    """Yield the problem of each metric, and what it took, measured unless it is in the folder."""
    for metric in options.metrics.split(","):
        name, _, more = metric.partition(" ")
        path = options.output / f"{metric.replace(' --', '-').replace(':', '-')}.toml"
        if not path.exists():
            began = time.process_time()
            problem = measure(
                network, seen, metric=name, interactions=bool(more), bits=options.candidates, grid=options.grid,
                sampling=Sampling(samples=options.samples), weights_only=True, without=without,
            )  # fmt: skip
            provenance = dict(problem.provenance) | {"seconds": time.process_time() - began}
            save_problem(replace(problem, provenance=provenance), path)
        yield metric, load_problem(path)


def allocations(metric: str, problem: Problem, budgets: list[float]) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield the name, the mean bits and the bits of each group."""
    for budget in budgets:
        answer = solve(problem, budget=f"{budget}bpw", minimize="storage", time_limit=120.0)
        if answer.choice is not None:
            yield metric, budget, np.asarray(answer.bits)


def main() -> int:
    """Measure what is not known, judge what is not judged, and print all rows."""
    options = _options()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "rows.json"
    rows: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    network, seen, held, without = subject(options)
    held = held.subset(torch.linspace(0, len(held) - 1, min(options.judged, len(held))).round().long())
    budgets = [float(text) for text in options.bits.split(",")]
    judge: Validation | None = None
    for metric, problem in problems(network, seen, without, options):
        wanted = list(allocations(metric, problem, budgets))
        wanted += [("uniform", width, np.full(len(problem), width)) for width in options.candidates]
        new = [one for one in wanted if f"{one[0]} {one[1]:g}" not in rows]
        if not new:
            continue
        judge = judge or Validation(network, problem, held)
        judge.problem = problem
        for (name, budget, bits), reality in zip(new, judge.hold_all([one[2] for one in new]), strict=True):
            assert reality.language is not None
            told = asdict(reality.language) | {"bits": float(np.average(bits, weights=problem.sizes))}
            rows[f"{name} {budget:g}"] = told | {"seconds": problem.provenance.get("seconds")}
        atomic_write(kept, json.dumps(rows, indent=1).encode())
    _print(rows, budgets, list(options.candidates))
    return 0


def _print(rows: dict[str, Any], budgets: list[float], candidates: list[float]) -> None:
    names = list(dict.fromkeys(key.rpartition(" ")[0] for key in rows))
    widths = sorted({*budgets, *(width for width in candidates if min(budgets) <= width <= max(budgets))})
    print(f"{'KL, nat a token':24s}" + "".join(f"{width:>18g}" for width in widths))
    for name in names:
        cells = []
        for width in widths:
            told = rows.get(f"{name} {width:g}")
            shown = told and f"{told['kl']['value']:.4f} ± {told['kl']['high'] - told['kl']['value']:.4f}"
            cells.append(f"{shown or '':>18s}")
        print(f"{name:24s}" + "".join(cells))


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("model")
    reader.add_argument("--calibration", type=Path, required=True)
    reader.add_argument("--held-out", type=Path, required=True)
    reader.add_argument("-o", "--output", type=Path, required=True)
    reader.add_argument("--metrics", default=",".join(METRICS))
    reader.add_argument("--bits", default="2.5,3,3.5,4,4.5")
    reader.add_argument(
        "--candidates", type=lambda text: [float(b) for b in text.split(",")], default=[2, 3, 4, 5, 6, 8]
    )
    reader.add_argument("--grid", default="integer:over=32")
    reader.add_argument("--window", type=int)
    reader.add_argument("--samples", type=int, default=128)
    reader.add_argument("--judged", type=int, default=128)
    reader.add_argument("--threads", type=int, default=1)
    return reader.parse_args()


if __name__ == "__main__":
    sys.exit(main())
