"""What keeping freed memory is worth: the same passes with and without it, in pairs of processes that take turns.

    python benchmarks/passes.py [--quick] [--pairs 5] [--json]

Where the C library gives large blocks back, the kernel clears their pages for every layer again (`impq_opt/memory.py`).
Four pieces of work, each in a process of its own, with freed memory kept and without: a forward pass of MobileNetV2
(random weights) on 50 pictures of 224x224; `measure` of it by kernel; `validate` of six allocations in one call;
training steps of ResNet-20 on 128 pictures of 28x28. Seconds are the process's on the processor, its own and the
kernel's for it, so that other programs do not count; the ratio of a pair is without / with, and what is printed is
the median over pairs. Peak memory is that of the whole process, with / without.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from _figures import Figures
from _needs import need

TARGETS = {"forward": 1.5, "measure": 1.2, "validate": 1.3, "train": 1.02}  # at least; 1 is no gain
PEAK = 2.5  # at most, with / without
MOBILENET = "mobilenet_v2"


def forward(quick: bool) -> Callable[[], object]:
    import torch

    from impq_opt.memory import kept_memory
    from impq_opt.networks import load_network

    network = load_network(MOBILENET, untrained=True).eval().to(memory_format=torch.channels_last)
    pictures = torch.randn(10 if quick else 50, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def work() -> None:
        with kept_memory(), torch.no_grad():
            for _ in range(4):
                network(pictures)

    return work


def measure(quick: bool) -> Callable[[], object]:
    import torch

    from impq_opt.data import Dataset
    from impq_opt.measure import Sampling
    from impq_opt.measure import measure as measured
    from impq_opt.networks import load_network

    network = load_network(MOBILENET, untrained=True).eval()
    data = Dataset(torch.randn(32 if quick else 128, 3, 224, 224))
    return lambda: measured(network, data, groups="kernel", residual="accumulate", sampling=Sampling())


def validate(quick: bool) -> Callable[[], object]:
    import numpy as np
    import torch

    from impq_opt.data import Dataset
    from impq_opt.measure.structure import structure
    from impq_opt.networks import load_network
    from impq_opt.validate.reality import Validation

    network = load_network(MOBILENET, untrained=True).eval()
    problem = structure(network, (3, 224, 224), groups="kernel", bits=range(1, 9))
    data = Dataset(torch.randn(16 if quick else 64, 3, 224, 224))
    rows = [np.full(len(problem), float(bits)) for bits in range(3, 9)]
    return lambda: Validation(network, problem, data).hold_all(rows)


def train(quick: bool) -> Callable[[], object]:
    import torch

    from impq_opt.data import Dataset
    from impq_opt.networks import load_network
    from impq_opt.training import Training
    from impq_opt.training import train as trained

    network = load_network("resnet20", channels=1, classes=10, untrained=True)
    pictures = torch.randn(128 * (8 if quick else 30), 1, 28, 28)
    data = Dataset(pictures, torch.arange(len(pictures)) % 10)
    return lambda: trained(network, data, Training(batch=128, augment="none"), epochs=1)


WORK = {"forward": forward, "measure": measure, "validate": validate, "train": train}


def worker(name: str, *, kept: bool, quick: bool) -> None:
    """Do one piece of work and print its seconds on the processor, on the clock, and the peak of memory in MiB."""
    import torch

    from impq_opt import memory

    if not kept:
        memory._glibc = lambda: None  # as where there is another C library
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work = WORK[name](quick)
    clock, processor = time.perf_counter(), time.process_time()
    work()
    seconds = time.process_time() - processor, time.perf_counter() - clock
    print(json.dumps([*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def measured(name: str, *, kept: bool, quick: bool) -> list[float]:
    command = [
        sys.executable,
        __file__,
        "--worker",
        name,
        *(["--kept"] if kept else []),
        *(["--quick"] if quick else []),
    ]
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    found: list[float] = json.loads(
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    )
    return found


def pair(name: str, turn: int, *, quick: bool) -> tuple[list[float], list[float]]:
    """Return what the work takes without and with freed memory kept; which goes first alternates."""
    order = (True, False) if turn % 2 else (False, True)
    found = {kept: measured(name, kept=kept, quick=quick) for kept in order}
    return found[False], found[True]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller work")
    parser.add_argument("--pairs", type=int, help="of processes; 5, or 1 with --quick")
    parser.add_argument("--only", choices=WORK, action="append", help="this piece of work; may be repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, kept=options.kept, quick=options.quick)
        return 0
    need("torch", "torchvision")
    figures = Figures()
    for name in options.only or WORK:
        turns = range(options.pairs or (1 if options.quick else 5))
        without, kept = zip(*(pair(name, turn, quick=options.quick) for turn in turns), strict=True)
        for label, some in (("without", without), ("kept", kept)):
            processor, clock, peak = (statistics.median(column) for column in zip(*some, strict=True))
            figures.add(f"{name}, {label}", processor, None, f"s ({clock:.3g} by the clock)")
            figures.add(f"{name}, {label}: peak", peak, None, "MiB")
        ratios = [a[0] / b[0] for a, b in zip(without, kept, strict=True)]
        figures.add(f"{name}: without / kept", statistics.median(ratios), TARGETS[name], "ratio", least=True)
        peaks = [b[2] / a[2] for a, b in zip(without, kept, strict=True)]
        figures.add(f"{name}: peak, kept / without", statistics.median(peaks), PEAK, "ratio")
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
