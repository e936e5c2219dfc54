"""From a module to a traced network: copied plain, exported, free of in-place calls, checked against the module."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from impq_opt.errors import DataError
from impq_opt.tracing.example import describe_input
from impq_opt.tracing.export import export
from impq_opt.tracing.graph import Network
from impq_opt.tracing.nodes import EXAMPLES, Layout, batch_place
from impq_opt.tracing.plain import plain
from impq_opt.tracing.precision import taken_by

__all__ = ["trace"]

# How far sums of products may be off that are added up in another order, relative and absolute, by type.
_TOLERANCE = {torch.float64: (1e-6, 1e-8), torch.float16: (2e-2, 2e-3), torch.bfloat16: (1e-1, 1e-2)}


def trace(network: nn.Module, example: Tensor, *, residual: str = "tie") -> Network:
    """Return the graph of a classifier, in eval mode: dropout is off and batch-norm keeps samples apart.

    Parameters
    ----------
    network : nn.Module
        Takes one tensor (n, ...) and returns logits (n, classes), alone or with other outputs. Left as it was.
    example : Tensor
        One input or more.
    residual : {"tie", "accumulate"}
        What a residual addition reads. ``"tie"``: both summands are quantized, by one quantizer, as where the sum is
        computed on integers. ``"accumulate"``: sums are kept at the accumulator's precision, as in the IMPQ paper;
        only what convolutions and linear layers read is quantized.

    Raises
    ------
    DataError
        The network cannot be traced, is not a classifier, decides by chance, or mixes the samples of a batch.
    """
    copied = plain(network)
    modes = {module: module.training for module in copied.modules()}
    copied.eval()
    if len(example) < EXAMPLES:  # a batch of one would be taken for a constant; the second sample must be another one
        example = torch.cat([example[:1], example[:1].flip(-1)])
    example = taken_by(copied, example[:EXAMPLES])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export deprecates its own internals
        outputs = _outputs(copied, example)
        exported = export(copied, example)
        again = _outputs(copied, example)
    for part, mode in modes.items():
        part.training = mode
    traced = Network(copied, exported, residual)
    traced.module.takes = describe_input(example)
    traced.input_type = example.dtype
    _check(traced, example, outputs[traced.place], again[traced.place])
    _find_layouts(traced, example)
    return traced


@torch.no_grad()
def _outputs(network: nn.Module, example: Tensor) -> list[Any]:
    """Return what the network returns, out of all nesting."""
    try:
        return pytree.tree_leaves(network(example))
    except Exception as error:  # whatever the layers raise, the inputs do not fit them
        raise DataError(
            f"does not take samples of shape {tuple(example.shape[1:])}, {example.dtype}",
            where="network",
            value=(str(error).strip().splitlines() or [type(error).__name__])[0],
            hint="is it the network's own data, with its number of channels?",
        ) from error


@torch.no_grad()
def _check(traced: Network, example: Tensor, expected: Tensor, again: Tensor) -> None:
    """Raise unless the graph computes what the network does, sample by sample and the same each time."""
    relative, absolute = _TOLERANCE.get(expected.dtype, (1e-3, 1e-4))

    def same(left: Tensor, right: Tensor) -> bool:
        return torch.allclose(left, right, rtol=relative, atol=absolute, equal_nan=True)

    if not same(again, expected):
        raise DataError(
            "decides by chance: the same input gives other logits each time",
            where="network",
            hint="in eval mode its forward must draw no random numbers; dropout takes training=self.training",
        )
    logits = traced.run(example)
    if not same(logits, expected):
        raise DataError(
            "computes something else when traced", where="network", hint="does its forward keep or change state?"
        )
    if not all(same(traced.run(example[[row, row]])[row], logits[row]) for row in range(EXAMPLES)):
        raise DataError(
            "mixes the samples of a batch: the logits of one depend on the others",
            where="network",
            hint="in eval mode batch-norms need running statistics, and no mean may go over the batch",
        )


def _find_layouts(traced: Network, example: Tensor) -> None:
    """Find where each watched tensor has its samples; where they share a dimension, by changing one of two samples."""
    unclear: dict[str, int] = {}
    watched = {use.node for site in traced.weights for use in site.uses} | {site.node for site in traced.activations}
    for name in watched:
        place = batch_place(traced.nodes[name])
        if place is None:
            raise DataError(
                "has a tensor in which the samples of a batch cannot be told apart", where=f"network: {name}"
            )
        dimension, alone = place
        if alone:
            traced.layouts[name] = Layout(dimension)
        else:
            unclear[name] = dimension
    if not unclear:
        return
    both, twice = (_watched(traced, x, frozenset(unclear)) for x in (example, example[[0, 0]]))
    for name, dimension in unclear.items():
        changed = (both[name] != twice[name]).movedim(dimension, 0).flatten(1).any(1)
        half = len(changed) // EXAMPLES
        if not bool(changed[:half].any()):
            traced.layouts[name] = Layout(dimension, "major")
        elif not bool(changed[::EXAMPLES].any()):
            traced.layouts[name] = Layout(dimension, "minor")
        else:
            raise DataError("mixes the samples of a batch", where=f"network: {name}")


def _watched(traced: Network, x: Tensor, watch: frozenset[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        found[node] = out
        return out

    with torch.no_grad():
        traced.run(x, visit, watch=watch)
    return found
