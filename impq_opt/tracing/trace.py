"""From a module to a traced network: exported, free of in-place calls, detached, checked against the module."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from impq_opt.errors import DataError
from impq_opt.tracing.graph import TRANSPARENT, Network
from impq_opt.tracing.nodes import EXAMPLES, Layout, batch_place, op_of

__all__ = ["trace"]

aten = torch.ops.aten
# In-place calls are replaced by their pure twins, so that a tensor that was kept for the gradient stays what it was.
_IN_PLACE = frozenset(
    [
        "relu_",
        "relu6_",
        "hardtanh_",
        "hardswish_",
        "hardsigmoid_",
        "silu_",
        "gelu_",
        "elu_",
        "leaky_relu_",
        "sigmoid_",
        "tanh_",
        "mish_",
        "celu_",
        "selu_",
        "add_",
        "mul_",
        "sub_",
        "div_",
        "clamp_",
        "clamp_min_",
        "dropout_",
    ]
)


def trace(network: nn.Module, example: Tensor, *, residual: str = "tie") -> Network:
    """Return the graph of a classifier, in eval mode: dropout is off and batch-norm keeps samples apart.

    Parameters
    ----------
    network : nn.Module
        Takes one tensor (n, ...) and returns logits (n, classes). Left as it was.
    example : Tensor
        One input or more.
    residual : {"tie", "accumulate"}
        What a residual addition reads. ``"tie"``: both summands are quantized, by one quantizer, as where the sum is
        computed on integers. ``"accumulate"``: sums are kept at the accumulator's precision, as in the IMPQ paper;
        only what convolutions and linear layers read is quantized.

    Raises
    ------
    DataError
        The network cannot be traced, or is not a classifier.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    if len(example) < EXAMPLES:  # a batch of one would be taken for a constant; the second sample must be another one
        example = torch.cat([example[:1], example[:1].flip(-1)])
    example = example[:EXAMPLES]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export deprecates its own internals
            expected = _logits(network, example)
            exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
            module = exported.module(check_guards=False)
    except DataError:
        raise
    except Exception as error:  # torch.export raises many kinds, all of which mean the same here
        raise DataError(
            "cannot be traced by torch.export",
            where="network",
            value=(str(error).strip().splitlines() or [type(error).__name__])[0],
            hint="its forward must take one tensor (n, ...), for any n, without branching on values",
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    assert isinstance(module, fx.GraphModule)
    _make_pure(module.graph)
    module.recompile()
    traced = Network(_unshare(module), residual, dict(network.named_parameters()))
    with torch.no_grad():
        got = traced.run(example)
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise DataError(
            "computes something else when traced", where="network", hint="does it write into views in place?"
        )
    _find_layouts(traced, example)
    return traced


@torch.no_grad()
def _logits(network: nn.Module, example: Tensor) -> Tensor:
    try:
        logits: Tensor = network(example)
    except Exception as error:  # whatever the layers raise, the inputs do not fit them
        raise DataError(
            f"does not take samples of shape {tuple(example.shape[1:])}, {example.dtype}",
            where="network",
            value=(str(error).strip().splitlines() or [type(error).__name__])[0],
            hint="is it the network's own data, with its number of channels?",
        ) from error
    return logits


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
    both, twice = (_outputs(traced, x, frozenset(unclear)) for x in (example, example[[0, 0]]))
    for name, dimension in unclear.items():
        changed = (both[name] != twice[name]).movedim(dimension, 0).flatten(1).any(1)
        half = len(changed) // EXAMPLES
        if not bool(changed[:half].any()):
            traced.layouts[name] = Layout(dimension, "major")
        elif not bool(changed[::EXAMPLES].any()):
            traced.layouts[name] = Layout(dimension, "minor")
        else:
            raise DataError("mixes the samples of a batch", where=f"network: {name}")


def _outputs(traced: Network, x: Tensor, watch: frozenset[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        found[node] = out
        return out

    with torch.no_grad():
        traced.run(x, visit, watch=watch)
    return found


def _unshare(module: fx.GraphModule) -> fx.GraphModule:
    """Detach the graph's parameters from the network's, so that turning their gradients off does not reach it."""
    for parent in list(module.modules()):
        for name, parameter in list(parent._parameters.items()):
            if parameter is not None:
                del parent._parameters[name]
                parent.register_buffer(name, parameter.detach())
    return module


def _make_pure(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if op_of(node) not in _IN_PLACE:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or op_of(source) in TRANSPARENT or source.op != "call_function":
            continue  # writing into a view, or into a parameter, is left alone
        packet = getattr(aten, op_of(node).removesuffix("_"))
        node.target = getattr(packet, node.target._overloadname, packet.default)
        later = set()
        for user in reversed(graph.nodes):
            if user is node:
                break
            later.add(user)
        source.replace_all_uses_with(node, delete_user_cb=later.__contains__)
    graph.lint()
