"""MobileNetV1 1.0/224: groups, operations and graph counted from the published shapes, and synthetic sensitivities.

Sizes, dot products, multiply-accumulates and who reads what are facts of the network (Howard et al. 2017, table 1).
The sensitivities are not measured: they are drawn from the generator that :func:`mobilenet_v1` states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impq_opt.errors import OptionError
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import PowerLaw
from impq_opt.groups.names import GroupNames
from impq_opt.problem.problem import Problem

__all__ = ["LAYERS", "Layer", "layers", "microcontroller", "mobilenet_v1", "on_microcontroller"]

# Output channels and stride of the 13 pairs of a depthwise and a pointwise convolution.
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
_CLASSES = 1000
# Of the microcontroller: precisions, and bits of memory.
_WIDTHS, _RAM = (2, 4, 8), 512 * 2**10 * 8


class Layer(NamedTuple):
    """A layer with ``kernels`` dot products of ``length`` at each of ``positions``; it reads ``inputs`` elements."""

    name: str
    kernels: int
    length: int
    positions: int
    inputs: int


def layers() -> tuple[Layer, ...]:
    """Return the 28 layers in the order of execution."""
    stack = [Layer("conv1", 32, 3 * 9, 112 * 112, 3 * 224 * 224)]
    channels, side = 32, 112
    for number, (wider, stride) in enumerate(_PAIRS, start=2):
        inputs, side = channels * side * side, side // stride
        stack.append(Layer(f"conv{number}.depthwise", channels, 9, side * side, inputs))
        stack.append(Layer(f"conv{number}.pointwise", wider, channels, side * side, channels * side * side))
        channels = wider
    # The mean over positions stands between: it is read at the precision of the tensor it averages.
    return (*stack, Layer("fc", _CLASSES, channels, 1, channels * side * side))


LAYERS = layers()


def mobilenet_v1(
    *, granularity: str = "kernel", seed: int = 0, bits: Sequence[float] = range(1, 9), bound: float | None = 0.01
) -> Problem:
    """Return MobileNetV1 with 28 activation groups and one weight group a kernel (11,944) or a layer (28).

    Sensitivities, drawn with ``numpy.random.default_rng(seed)``: a layer's is 10**U(-1, 1) and spreads over its kernels
    with weights exp(0.8 N(0, 1)); an activation's is 10**U(-1.5, 0.5).

    Parameters
    ----------
    granularity : {"kernel", "layer"}
    seed : int
    bits : sequence of float
        Candidates of all groups.
    bound : float, optional
        Largest damage.

    Raises
    ------
    OptionError
        Where ``granularity`` is neither.
    """
    if granularity not in ("kernel", "layer"):
        raise OptionError("must be 'kernel' or 'layer'", where="granularity", value=granularity)
    random = np.random.default_rng(seed)
    of_layer = 10 ** random.uniform(-1, 1, len(LAYERS))
    of_activation = 10 ** random.uniform(-1.5, 0.5, len(LAYERS))
    spread = [np.exp(0.8 * random.standard_normal(layer.kernels)) for layer in LAYERS]
    by_kernel = granularity == "kernel"
    parts = [layer.kernels if by_kernel else 1 for layer in LAYERS]
    counts = np.array(parts)
    total = np.array([layer.kernels * layer.length for layer in LAYERS])
    macs = total * np.array([layer.positions for layer in LAYERS])
    shares = [s / s.sum() if by_kernel else np.ones(1) for s in spread]
    weights = np.concatenate([e * share for e, share in zip(of_layer, shares, strict=True)])
    first, count = len(LAYERS), len(LAYERS) + int(counts.sum())
    labels = [f"{layer.name}.input" for layer in LAYERS] + [layer.name for layer in LAYERS]
    shapes: list[tuple[int, ...]] = [()] * first + [(n,) if by_kernel else () for n in parts]
    place = np.repeat(np.arange(first), counts)

    def column(values: np.ndarray, of_activations: int | np.ndarray) -> np.ndarray:
        table = np.empty(count, dtype=np.int64)
        table[:first], table[first:] = of_activations, values
        return table

    step = np.arange(first)
    steps = np.full((count, 2), -1)
    steps[:first] = np.stack([np.maximum(step - 1, 0), step], axis=1)
    return Problem(
        names=GroupNames(tuple(labels), tuple(shapes), tuple([layer.name for layer in LAYERS] * 2)),
        candidates=Candidates((tuple(float(b) for b in bits),)),
        damage=PowerLaw(np.concatenate([of_activation, weights])),
        sizes=column(np.repeat(total // counts, counts), np.array([layer.inputs for layer in LAYERS])),
        kinds=np.repeat(np.array([1, 0], dtype=np.int8), [first, count - first]),
        macs=column(np.repeat(macs // counts, counts), 0),
        reads=column(place, -1),
        lengths=column(np.array([layer.length for layer in LAYERS])[place], 0),
        steps=steps,
        objective={"bit-operations": 1},
        bound=bound,
        provenance={
            "description": f"MobileNetV1 by {granularity}; synthetic sensitivities",
            "network": "MobileNetV1 1.0/224, shapes of Howard et al. 2017, table 1",
            "sensitivities": f"synthetic: problems.mobilenet.mobilenet_v1, seed {seed}",
        },
    )


def microcontroller(*, granularity: str = "layer", seed: int = 0) -> Problem:
    """Return MobileNetV1 for a microcontroller: 2, 4 or 8 bits in 2 MiB of flash and 512 KiB of RAM.

    The limits are those of Rusci et al. (2019, arXiv:1905.13082): weights in flash; in RAM, while a layer runs, what it
    reads and what it writes. The picture has 8 bits. Scales and biases are not counted. Sensitivities are those of
    :func:`mobilenet_v1`, drawn and not measured. ``solve(microcontroller(), budget="2MiB")`` asks for the least damage.

    Parameters
    ----------
    granularity : {"kernel", "layer"}
        Of the weights; each activation tensor has one precision.
    seed : int

    Raises
    ------
    OptionError
        Where ``granularity`` is neither.
    """
    problem = mobilenet_v1(granularity=granularity, seed=seed, bits=_WIDTHS, bound=None)
    return _within(problem, {f"{LAYERS[0].name}.input": 8})


def on_microcontroller(measured: Problem) -> Problem:
    """Return a measured MobileNetV1 with the precisions and limits of :func:`microcontroller`.

    The picture is no group of a measured problem. Its 147 KiB leave the output of the first layer, which reads it, 4
    bits at most.

    Parameters
    ----------
    measured : Problem
        ``mobilenet-v1-imagenet`` of the gallery, or the one by kernel.
    """
    # A layer's operations run as one, as in the paper: who reads a tensor says how long it is in memory.
    problem = _within(dataclasses.replace(measured, steps=None), {})
    first = problem.select("features.0.relu")
    most = (_RAM - 8 * LAYERS[0].inputs) / problem.sizes[first].item()
    set_of = np.zeros(len(problem), dtype=np.int64)
    set_of[first] = 1
    narrow = tuple(width for width in problem.candidates.sets[0] if width <= most)
    return dataclasses.replace(problem, candidates=Candidates((problem.candidates.sets[0], narrow), set_of))


def _within(problem: Problem, pins: dict[str, float]) -> Problem:
    """Return a problem with the microcontroller's precisions and memory."""
    problem = problem.revise(
        bits=_WIDTHS,
        minimize="storage",
        budgets={"storage": "2MiB", "peak-activation-memory": "512KiB"},
        pins=pins,
    )
    told = {
        "description": f"{problem.provenance['description']}; within the memory of a microcontroller",
        "limits": "2 MiB of flash, 512 KiB of RAM, 2/4/8 bits: Rusci et al. 2019, arXiv:1905.13082",
    }
    return dataclasses.replace(problem, provenance=dict(problem.provenance) | told)
