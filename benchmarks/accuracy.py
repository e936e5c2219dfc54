"""Which bits make the most accurate network: allocators on one grid, with one calibration, at the same mean bits.

    python benchmarks/accuracy.py [NETWORK ...] [--grids mid-rise,symmetric] [--budgets 1.5,2,...] [--allocators a,b]
        [--calibrations none,statistics] [--samples 512] [--test 10000] [--seeds 2] [--data FOLDER] [-o FILE]
        [--by accuracy,agreement,kl,loss] [--quick] [--json]

NETWORK is one of those in `_subjects.py`, or NAME=WEIGHTS with --data. Every row is a real quantized network: layers
are the groups, weights alone are rounded, nothing is retrained. Allocators get the same training samples, solve by
`exact` for the same storage, and are judged on the same test samples, by which nobody has calibrated or chosen. A row
is kept in FILE as soon as it is known; stopped, the same command goes on. Equal bits under the same grid and
calibration are one network, judged once.

Judged are accuracy, the share of decisions that are the float network's, the divergence of probabilities from the float
network's, and the loss above its loss. Differences are to the default, paired over the test samples, with intervals of
95 %: of shares after Agresti and Min (2005), of means by Student's t over 50 parts of the samples.
`kl` runs the network with one layer quantized at a time, on 128 samples; all others take all of --samples.
Allocators of others run the tools themselves with the same grid put into them (`_rivals.py`), and are skipped with a
sentence where they are not installed: `modelopt` and `modelopt-kl` are the scores of ModelOpt's auto_quantize, `mct`
those of Sony's MCT, `clado` is CLADO's matrix of all pairs of layers; `hawq` is HAWQ-V3's sum of Hessian trace times
squared error. With --pipelines whole tools run instead, each with its own grid, candidates, search and calibration
(`_pipelines.py`): sizes of files, accuracies, and the processor seconds of all but judging.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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
from _judging import MEASURES, ahead, bits_of, has, judgement, level, logits_on, text_of
from _pipelines import PIPELINES
from _rivals import RIVALS, SWEPT, unmeasured
from _subjects import SUBJECTS, Subject, subject
from torch import Tensor, nn

from impq_opt import Problem, solve
from impq_opt.calibrate import STEPS, calibrate
from impq_opt.data import Dataset
from impq_opt.data.torchvision import torchvision_module
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import MissingPackageError
from impq_opt.groups.damage import DamageTable
from impq_opt.measure import Sampling, measure
from impq_opt.memory import kept_memory
from impq_opt.quantize import quantize

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
    network, _, test = part[:3]
    judged = test.subset(torch.arange(min(options.test, len(test))))
    reference = functools.cache(lambda: logits_on(network, judged)[0])
    truth = rows.get(f"{name}|truth|{len(judged)}", lambda: _right(network, judged))
    for seed in range(options.seeds):
        for grid in options.grids:
            problem = functools.cache(lambda grid=grid: unmeasured(part, *grid_of(part, grid)))
            for allocator, budget, bits, seconds in _allocations(name, part, rows, options, grid, seed):
                for calibration in options.calibrations:
                    told = hashlib.sha256(json.dumps(bits).encode()).hexdigest()[:16]
                    key = f"{name}|{grid}|{calibration}|{seed}|{told}|{len(judged)}"
                    made = rows.get(
                        key,
                        lambda bits=bits, problem=problem, calibration=calibration, seed=seed: _network_row(
                            part, judged, reference(), problem(), bits, CALIBRATIONS[calibration], options.samples, seed
                        ),
                    )
                    yield {
                        "network": name, "grid": grid, "allocator": allocator, "budget": budget, "seed": seed,
                        "calibration": calibration, "seconds": seconds, "truth": truth, **made,
                    }  # fmt: skip


def _allocations(
    name: str, part: Subject, rows: Rows, options: argparse.Namespace, grid: str, seed: int
) -> Iterator[tuple[str, float, list[float], float]]:
    spec, widths = grid_of(part, grid)
    budgets = [budget for budget in options.budgets if budget >= min(widths)]

    def key(allocator: str, budget: float) -> str:
        return f"{name}|{grid}|{allocator}|{budget:g}|{seed}|bits"

    for allocator in options.allocators:
        asked = [budget for budget in budgets if key(allocator, budget) not in rows.known]
        if not asked:
            continue
        began = time.process_time()
        problem = ALLOCATORS[allocator](part, spec, widths, options.samples, seed)
        rows.get(f"{name}|{grid}|{allocator}|{seed}|seconds", lambda began=began: time.process_time() - began)
        for budget in asked:
            rows.get(key(allocator, budget), lambda problem=problem, budget=budget: _solved(problem, budget))
    for budget in budgets:
        found = {allocator: rows.known[key(allocator, budget)]["bits"] for allocator in options.allocators}
        for allocator, bits in found.items():
            yield allocator, budget, bits, rows.known.get(f"{name}|{grid}|{allocator}|{seed}|seconds", 0.0)
        if budget in widths and found:
            yield "uniform", budget, [budget] * len(next(iter(found.values()))), 0.0


def _solved(problem: Problem, budget: float) -> dict[str, Any]:
    answer = solve(problem, budget=f"{budget:g}bpw", minimize="storage", time_limit=60)
    return {"bits": [float(b) for b in answer.bits], "status": answer.status.value}


def grid_of(part: Subject, name: str) -> tuple[str, tuple[float, ...]]:
    """Return how a grid is spelled, and which precisions of a network it has."""
    spec, widths = GRIDS[name]
    return spec, tuple(bits for bits in part.candidates if bits >= min(widths))


def _right(network: nn.Module, judged: Dataset) -> str:
    logits, labels = logits_on(network, judged)
    return text_of(logits.argmax(1) == labels) if labels is not None else ""


def _network_row(
    part: Subject,
    judged: Dataset,
    reference: Tensor,
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
    return judgement(quantized, judged, reference) | {"steps": done}


# -- what is shown ---------------------------------------------------------------------------------------------------

Table = dict[tuple[float, str], list[dict[str, Any]]]


def show(found: list[dict[str, Any]], measures: Sequence[str], figures: Figures) -> None:
    """Print a table for each network, grid, calibration and measure, with differences to the default."""
    tables: dict[tuple[str, str, str], Table] = {}
    for row in found:
        table = tables.setdefault((row["network"], row["grid"], row["calibration"]), {})
        table.setdefault((row["budget"], row["allocator"]), []).append(row)
    for (network, grid, calibration), table in tables.items():
        for by in measures:
            if has([row for seeds in table.values() for row in seeds], by):
                _show(f"{network}, {grid}, {calibration}", table, by, figures)


def _show(title: str, table: Table, by: str, figures: Figures) -> None:
    truth = next(iter(table.values()))[0]["truth"]
    told = f", float {level([{'right': truth}], 'accuracy')}" if by == "accuracy" else ""
    print(f"\n{title}: {by}{told}")
    names = list(dict.fromkeys(allocator for _, allocator in table))
    print(f"{'bits':>5} " + " ".join(f"{name:>{_WIDE}}" for name in names))
    for budget in sorted({budget for budget, _ in table}):
        default = table.get((budget, DEFAULT))
        cells = []
        for name in names:
            seeds = table.get((budget, name))
            cells.append(("-" if seeds is None else _cell(seeds, default, by)).rjust(_WIDE))
            if seeds is not None and default is not None:
                value, error, _ = ahead(seeds, default, by)
                if value > error:
                    figures.add(f"{title} {budget:g}, {by}: {name} ahead", value - error, 0.0, "beyond the interval")
        print(f"{budget:5g} " + " ".join(cells))


def _cell(seeds: list[dict[str, Any]], default: list[dict[str, Any]] | None, by: str = "accuracy") -> str:
    alone = default is None or default is seeds
    return level(seeds, by) if alone else f"{level(seeds, by)} ({ahead(seeds, default, by)[2]})"


def _installed(names: Sequence[str], needs: Mapping[str, tuple[Any, tuple[str, ...]]]) -> list[str]:
    """Return the names whose tools can be imported, once a torchvision of another build than torch's is seen to."""
    if any(name in needs and needs[name][1] for name in names):
        with contextlib.suppress(MissingPackageError):
            torchvision_module()
    return [name for name in names if name not in needs or not skips(name, *needs[name][1])]


def pipelines_of(name: str, part: Subject, rows: Rows, options: argparse.Namespace) -> None:
    """Run whole tools, and print a row for each."""
    judged = part[2].subset(torch.arange(min(options.test, len(part[2]))))
    truth = bits_of(rows.get(f"{name}|truth|{len(judged)}", lambda: _right(part[0], judged)))
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
    reader.add_argument("networks", nargs="*", default=["resnet20-fashion-mnist"], help=", ".join(SUBJECTS))
    for name, usual in (
        ("grids", "mid-rise,symmetric"),
        ("budgets", ",".join(f"{b:g}" for b in BUDGETS)),
        ("allocators", ",".join(ALLOCATORS)),
        ("calibrations", "none,statistics"),
        ("by", ",".join(MEASURES)),
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
            told = ", ".join(f"{by} {level([row], by)}" for by in options.by if has([row], by))
            what = f"{row['grid']} {row['calibration']} {row['budget']:g} {row['allocator']} seed {row['seed']}"
            print(f"{name} {what}: {told}", file=sys.stderr, flush=True)
    show(found, options.by, figures)
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
