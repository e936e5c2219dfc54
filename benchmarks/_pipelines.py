"""Whole tools from a trained network to one of so many mean weight bits, each with all that it usually does.

Weights alone are quantized. Sizes are of files: ours as it is; those of tools that have no file of such precisions as
one would be that holds their codes without gaps, a float32 scale for each output kernel, and the rest in float32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from _rivals import Subject, auto_quantize, mct_quantized, quiet, seen, unmeasured, weights_format
from torch import nn

from impq_opt.data.torchvision import torchvision_module
from impq_opt.pipeline import Plan, quantize_network
from impq_opt.quantize import unpack_into

CANDIDATES = (2, 3, 4, 8)  # of the others: what they name integers for
_HELD = 512  # test images that our command is given to judge by; here others do


@dataclass(frozen=True)
class Whole:
    """What a tool made: a network that computes with quantized weights, mean bits, bytes, processor seconds."""

    network: nn.Module
    bits: float
    size: float
    seconds: float


Pipeline = Callable[[Subject, float, int, int], Whole]


def ours(part: Subject, bits: float, samples: int, seed: int) -> Whole:
    """Return what ``impq-opt quantize --bits`` makes, read from its file."""
    with tempfile.TemporaryDirectory() as folder:
        held = part[2].subset(torch.arange(len(part[2]) - _HELD, len(part[2])))
        plan = Plan(bits=bits, samples=samples, seed=seed)
        outcome = quantize_network(part[0], part[1], held, plan, Path(folder) / "out")
        file = outcome.folder / "network.safetensors"
        network = unpack_into(part[0], file)
        size = file.stat().st_size
    mean = float(outcome.allocation.effective_bits[0] or 0.0)
    return Whole(network.eval(), mean, size, sum(outcome.seconds.values()))


def modelopt(method: str) -> Pipeline:
    """Return ModelOpt's auto_quantize with its own search, and the network with its quantizers."""

    def made(part: Subject, bits: float, samples: int, seed: int) -> Whole:
        with quiet():
            torchvision_module()
            import modelopt.torch.quantization as mtq
        batches, began = seen(part, samples, seed), time.process_time()
        with quiet():
            formats = [weights_format(width) for width in CANDIDATES]
            network, state = auto_quantize(mtq, part[0], formats, batches, method, bits)
        seconds = time.process_time() - began
        weights = int(unmeasured(part, "symmetric", (8.0,)).sizes.sum())
        mean = float(state["best"]["constraints"]["effective_bits"])
        return Whole(network.eval(), mean, _size(part[0], weights * mean), seconds)

    return made


def mct(part: Subject, bits: float, samples: int, seed: int) -> Whole:
    """Return what MCT's post-training quantization makes with mixed precision to a size of weights."""
    with quiet():
        torchvision_module()
        began = time.process_time()
        network, told = mct_quantized(part, CANDIDATES, samples, seed, bits)
        seconds = time.process_time() - began
    codes = 8 * float(told.final_resource_utilization.weights_memory)
    weights = int(unmeasured(part, "symmetric", (8.0,)).sizes.sum())
    kernels = sum(module.weight.shape[0] for module in part[0].modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return Whole(network.eval(), codes / weights, (codes + 32 * 2 * kernels) / 8, seconds)  # folded: a bias a kernel


def _size(network: nn.Module, codes: float) -> float:
    """Return the bytes of codes (bits), of a scale for each output kernel, and of what stays in float."""
    quantized = [module.weight for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    rest = sum(tensor.numel() for tensor in network.state_dict().values()) - sum(w.numel() for w in quantized)
    return (codes + 32 * (rest + sum(len(weight) for weight in quantized))) / 8


# What each is, and the module that it takes.
PIPELINES: dict[str, tuple[Pipeline, tuple[str, ...]]] = {
    "impq-opt": (ours, ()),
    "modelopt": (modelopt("gradient"), ("modelopt",)),
    "modelopt-kl": (modelopt("kl_div"), ("modelopt",)),
    "mct": (mct, ("model_compression_toolkit",)),
}
