"""What a problem says that an allocation does, held against what it does: damages alone, and with interactions.

    python benchmarks/predictions.py [--allocations 40] [--samples 256] [--seed 0] [--quick] [--json]

Allocations of 2, 3 and 4 bits are drawn for the layers of the packaged ResNet-20 (Fashion-MNIST), weights alone, and
each is really quantized. The truth is the mean KL divergence from the float network on training images; predictions
are measured on the same images, and on as many others. Printed are the rank correlation over the allocations, and how
many times the prediction the truth is, at the median.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction

from _figures import Figures
from _needs import need

need("torch")

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from impq_opt import Problem
from impq_opt.data import Dataset, load_data
from impq_opt.measure import measure
from impq_opt.measure.metrics.kl import divergence
from impq_opt.memory import kept_memory
from impq_opt.networks import load_network
from impq_opt.quantize import quantize

WIDTHS = (2.0, 3.0, 4.0)


@torch.no_grad()
def logits(network: nn.Module, images: Tensor) -> Tensor:
    """Return logits (n, classes), float64."""
    return torch.cat([network(part) for part in images.split(64)]).double()


def predicted(problem: Problem, choice: np.ndarray) -> tuple[float, float]:
    """Return the sum of the damages of a choice (G,), and that with what groups do together."""
    alone = float(problem.damage.chosen(problem.candidates, choice).sum())
    assert problem.interactions is not None
    together: Fraction = problem.interactions.total(choice)
    return alone, alone + float(together)


@kept_memory()
def main() -> int:
    """Draw allocations, and hold predictions against the truth."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("allocations", 40), ("samples", 256), ("seed", 0)):
        reader.add_argument(f"--{name}", type=int, default=usual)
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--json", action="store_true")
    options = reader.parse_args()
    if options.quick:
        options.allocations, options.samples = 8, 32
    network, count = load_network("resnet20-fashion-mnist"), options.samples
    images = load_data("fashion-mnist", "train").inputs
    assert isinstance(images, Tensor)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
    same, others = images[order[:count]], images[order[count : 2 * count]]
    problems = {
        f"from {whose}": measure(
            network, Dataset(part, name=whose), metric="kl", interactions=True, bits=WIDTHS, weights_only=True
        )
        for whose, part in (("the same images", same), ("others", others))
    }
    problem = problems["from the same images"]
    float_logits, random, truth = logits(network, same), np.random.default_rng(options.seed), []
    choices = random.integers(0, len(WIDTHS), (options.allocations, len(problem)))
    for choice in choices:
        quantized = quantize(network, problem, np.array(WIDTHS)[choice]).eval()
        shifts = logits(quantized, same) - float_logits
        truth.append(float(divergence(float_logits.softmax(1), shifts).mean()))
    figures = Figures()
    for whose, measured in problems.items():
        told = np.array([predicted(measured, choice) for choice in choices])
        for column, name in enumerate(("sum of damages", "with interactions")):
            rank, ratio = spearmanr(told[:, column], truth)[0], float(np.median(truth / told[:, column]))
            figures.add(f"{name}, {whose}: rank correlation", float(rank), None, "")
            figures.add(f"{name}, {whose}: truth over prediction", ratio, None, "")
    return figures.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
