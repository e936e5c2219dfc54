"""From a module to a traced network: copied plain, exported, free of in-place calls, checked against the module."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from impq_opt.data.batch import Several, Structure, together
from impq_opt.data.calling import call, flat_logits, register
from impq_opt.errors import DataError, first_line
from impq_opt.tracing.example import describe_input
from impq_opt.tracing.export import export
from impq_opt.tracing.graph import Network
from impq_opt.tracing.nodes import EXAMPLES, Layout, batch_place
from impq_opt.tracing.plain import merged_names, plain

__all__ = ["trace"]

# How far sums of products may be off that are added up in another order, relative and absolute, by type.
_TOLERANCE = {torch.float64: (1e-6, 1e-8), torch.float16: (2e-2, 2e-3), torch.bfloat16: (1e-1, 1e-2)}


def trace(
    network: nn.Module, example: Structure | Several, *, residual: str = "tie", without: Collection[str] = ()
) -> Network:
    """Return the graph of a network that decides, in eval mode: dropout is off and batch-norm keeps samples apart.

    Parameters
    ----------
    network : nn.Module
        Takes a tensor (n, ...), or several, and returns logits (n, classes), alone or with other outputs (see
        :func:`~impq_opt.data.calling.place_of_logits`). Left as it was.
    example : Tensor (n, ...), tuple of Tensor, or dict of str to Tensor
        One sample or more: of one input, or of several by position or by keyword.
    residual : {"tie", "accumulate"}
        What a residual addition reads. ``"tie"``: both summands are quantized, by one quantizer, as where the sum is
        computed on integers. ``"accumulate"``: sums are kept at the accumulator's precision, as in the IMPQ paper;
        only what convolutions and linear layers read is quantized.
    without : collection of str
        Names of parameters that are left alone, under all names of each.

    Raises
    ------
    DataError
        A name that is no parameter's; or the network cannot be traced, is not a classifier, decides by chance, or mixes
        the samples of a batch.
    """
    copied = plain(network)
    modes = {module: module.training for module in copied.modules()}
    copied.eval()
    example = _two(copied, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export deprecates its own internals
        outputs = _outputs(copied, example)
        exported = export(copied, example)
        again = _outputs(copied, example)
    for part, mode in modes.items():
        part.training = mode
    keywords = tuple(example.kwargs) if isinstance(example, Several) else ()
    merged = merged_names(network, copied)
    traced = Network(copied, exported, residual, keywords=keywords, merged=merged, without=without)
    traced.module.takes = describe_input(example)
    _check(traced, example, outputs[traced.place], again[traced.place])
    _find_layouts(traced, example)
    return traced


def _two(network: nn.Module, example: Structure | Several) -> Tensor | Several:
    """Return two samples, inputs by keyword in the order of the network's forward, which is the graph's then."""
    example = together(example)
    if isinstance(example, Several) and example.kwargs:
        order = list(inspect.signature(network.forward).parameters)
        named = example.kwargs
        example = Several(
            {name: named[name] for name in sorted(named, key=lambda n: order.index(n) if n in order else 99)}
        )
    if len(example) >= EXAMPLES:
        return example[:EXAMPLES]

    def with_another(part: Tensor) -> Tensor:  # a batch of one would be taken for a constant
        return torch.cat([part[:1], part[:1].flip(-1)])

    return with_another(example) if isinstance(example, Tensor) else example.mapped(with_another)


@torch.no_grad()
def _outputs(network: nn.Module, example: Tensor | Several) -> list[Any]:
    """Return what the network returns, out of all nesting."""
    try:
        output = call(network, example)
        register(output)
        return pytree.tree_leaves(output)
    except Exception as error:  # whatever the layers raise, the inputs do not fit them
        parts = (example,) if isinstance(example, Tensor) else example.tensors
        raise DataError(
            f"does not take samples of shape {', '.join(f'{tuple(x.shape[1:])}, {x.dtype}' for x in parts)}",
            where="network",
            value=first_line(error),
            hint="is it the network's own data, with its number of channels?",
        ) from error


@torch.no_grad()
def _check(traced: Network, example: Tensor | Several, expected: Tensor, again: Tensor) -> None:
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
    if not same(logits, flat_logits(expected)):
        raise DataError(
            "computes something else when traced", where="network", hint="does its forward keep or change state?"
        )
    first = slice(traced.decisions)
    each = logits.split(traced.decisions)
    if not all(same(traced.run(example[[row, row]])[first], each[row]) for row in range(EXAMPLES)):
        raise DataError(
            "mixes the samples of a batch: the logits of one depend on the others",
            where="network",
            hint="in eval mode batch-norms need running statistics, and no mean, maximum or sum may go over the batch",
        )


def _find_layouts(traced: Network, example: Tensor | Several) -> None:
    """Find where each watched tensor has its samples; where they share a dimension, by changing one of two samples."""
    unclear: dict[str, int] = {}
    uses = (use for site in traced.weights for use in site.uses)
    watched = {use.node for use in uses if isinstance(traced.nodes[use.node].meta["val"], Tensor)}
    watched |= {site.node for site in traced.activations}
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


def _watched(traced: Network, x: Tensor | Several, watch: frozenset[str]) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}

    def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        outputs[node] = out
        return out

    with torch.no_grad():
        traced.run(x, visit, watch=watch)
    return outputs
