"""What stays as it is: every parameter of a network that is in no weight site, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor, fx

from impq_opt.problem.stays import Stay
from impq_opt.tracing.nodes import op_of

__all__ = ["find_stays"]

_LAYERS = {
    "conv_transpose": "weight of a transposed convolution",
    "embedding": "table of an embedding",
    "bilinear": "weight of a bilinear layer",
    "gru": "part of a recurrent layer",
    "lstm": "part of a recurrent layer",
    "rnn_": "part of a recurrent layer",
    "norm": "scale or shift of a normalization",
}
_BIASED = ("conv", "linear", "addmm", "bilinear")
_RECURRENT = ("gru", "lstm", "rnn_")  # their biases are vectors among several operands


def find_stays(
    parameters: Mapping[str, Tensor],
    quantized: Iterable[Tensor],
    nodes: Iterable[fx.Node],
    tensors: Mapping[str, Tensor],
    left: Collection[int] = (),
) -> tuple[Stay, ...]:
    """Return the parameters that are none of the ``quantized`` tensors, in the network's order.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Every parameter of the network once.
    quantized : iterable of Tensor
        The tensors of the weight sites.
    nodes : iterable of Node
        Calls that carry what is computed from the input.
    tensors : mapping of str to Tensor
        Parameters and buffers by their node in the graph.
    left : collection of int
        Addresses of those that are weights of layers and are left alone because somebody said so.
    """
    taken = {_place(tensor) for tensor in quantized}
    readers: dict[tuple[int, torch.Size], list[fx.Node]] = {}
    for node in _with_constants(nodes):
        for source in node.all_input_nodes:
            if source.name in tensors:
                readers.setdefault(_place(tensors[source.name]), []).append(node)

    def reason(tensor: Tensor) -> str:
        found = _reason(tensor, readers.get(_place(tensor), []), tensors)
        return "left out, as was asked" if tensor.data_ptr() in left and found.endswith("no layer's weight") else found

    return tuple(
        Stay(name, tensor.numel(), 8 * tensor.element_size(), reason(tensor))
        for name, tensor in parameters.items()
        if _place(tensor) not in taken
    )


def _with_constants(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Return ``nodes`` and the calls behind them that are computed from parameters alone, such as of positions."""
    front, reached = list(nodes), dict[fx.Node, None]()
    while front:
        node = front.pop()
        if node not in reached:
            reached[node] = None
            front += [source for source in node.all_input_nodes if source.op == "call_function"]
    return list(reached)


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def _reason(tensor: Tensor, readers: list[fx.Node], tensors: Mapping[str, Tensor]) -> str:
    if not readers:
        return "the logits do not depend on it"
    return next(_named(tensor, readers, tensors), f"read by {op_of(readers[0])}, as no layer's weight")


def _named(tensor: Tensor, readers: list[fx.Node], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for node in readers:
        operands = [tensors.get(operand.name) for operand in node.all_input_nodes]
        last = operands[-1] is not None and _place(operands[-1]) == _place(tensor)
        if last and tensor.ndim == 1 and any(part in op_of(node) for part in _BIASED):
            yield "bias of a layer"
        if tensor.ndim == 1 and any(part in op_of(node) for part in _RECURRENT):
            yield "bias of a recurrent layer"
        yield from (reason for part, reason in _LAYERS.items() if part in op_of(node))
