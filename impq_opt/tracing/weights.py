"""Where weights are: the calls that multiply by a parameter, or look rows of it up, and what each of them reads."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from impq_opt.tracing.nodes import batch_place, op_of, sample_shape
from impq_opt.tracing.operations import SHAPES
from impq_opt.tracing.sites import Use, WeightSite

__all__ = ["find_weights"]

_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3, "linear": 0}  # spatial dimensions
# Where other calls have weights among their arguments; of products, any factor can be one.
_PLACES: dict[str, tuple[int, ...]] = {
    **{f"conv_transpose{k}d": (1,) for k in (1, 2, 3)},
    "bilinear": (2,),
    "embedding": (0,),
    "embedding_bag": (0,),
    **dict.fromkeys(("gru", "lstm", "rnn_relu", "rnn_tanh"), (2,)),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"), (2, 3)),
    **dict.fromkeys(("bmm", "einsum", "matmul", "mm"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm"), (1, 2)),
    **dict.fromkeys(_CONVOLUTIONS, (1,)),
}
_VIEWS = SHAPES | {"alias", "clone", "contiguous", "getitem"}
_CONSTANT = frozenset(["full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"])
_LEAST = 2  # dimensions of a weight: the first has its kernels


@dataclass(frozen=True)
class _Operand:
    """A factor that is a parameter: the node that holds it, views of it in order, and the node that the call reads."""

    parameter: fx.Node
    views: tuple[str, ...]
    node: fx.Node


def find_weights(
    live: Iterable[fx.Node],
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    resolve: Callable[[fx.Node], Iterator[fx.Node]],
) -> tuple[WeightSite, ...]:
    """Return the weight sites of a graph, in the order of their first calls.

    Parameters
    ----------
    live : iterable of Node
        Calls that depend on the network's input.
    tensors : mapping of str to Tensor
        Parameters and buffers by node.
    parameters : mapping of str to Parameter
        All names of the network's parameters.
    resolve : callable
        Yields the tensors that a node only moves.
    """
    sites: dict[tuple[int, torch.Size], WeightSite] = {}
    for node in live:
        for operand in _operands(node):
            tensor, name = tensors[operand.parameter.name], str(operand.parameter.target)
            plain = op_of(node) in _CONVOLUTIONS and not operand.views
            if tensor.ndim < _LEAST or not tensor.is_floating_point():
                continue
            if not plain and (name not in parameters or not _apart(node, operand)):
                continue
            use = _use(node, tensor, resolve) if plain else _other_use(node, operand, tensor, resolve)
            key = tensor.data_ptr(), tensor.shape
            site = sites.get(key) or WeightSite(name.removesuffix(".weight"), name, tuple(tensor.shape), ())
            sites[key] = WeightSite(site.name, site.parameter, site.shape, (*site.uses, use))
    return tuple(sites.values())


def _operands(node: fx.Node) -> Iterator[_Operand]:
    """Yield the factors of a call that are parameters, or views of one."""
    for place in _PLACES.get(op_of(node), ()):
        argument: Any = node.args[place] if place < len(node.args) else None
        for factor in argument if isinstance(argument, (list, tuple)) else (argument,):
            views: list[str] = []
            source = factor
            while isinstance(source, fx.Node) and source.op == "call_function" and op_of(source) in _VIEWS:
                if len(source.all_input_nodes) > 1:  # a view that depends on the size of the batch
                    break
                views.insert(0, source.name)
                source = source.args[0]
            if isinstance(source, fx.Node) and source.op == "get_attr":
                yield _Operand(source, tuple(views), factor)


def _apart(node: fx.Node, operand: _Operand) -> bool:
    """Return whether the samples are apart in all that a call reads and returns, each in a dimension of its own."""
    others = [source for source in node.all_input_nodes if source is not operand.node and _is_tensor(source)]
    parts = (
        [node] if _is_tensor(node) else [user for user in node.users if user.target is operator.getitem and user.users]
    )
    places = [batch_place(part) for part in (*others, *parts) if _has_batch(part)]
    return bool(parts) and all(place is not None and place[1] for place in places)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _has_batch(node: fx.Node) -> bool:
    return any(not isinstance(size, int) for size in node.meta["val"].shape)


def _use(node: fx.Node, weight: Tensor, resolve: Callable[[fx.Node], Iterator[fx.Node]]) -> Use:
    """Return the use of the weight of a convolution or linear layer."""
    dimensions = _CONVOLUTIONS[op_of(node)]
    positions = math.prod(sample_shape(node)) // weight.shape[0]
    reads, macs = _reads(node, resolve), positions * weight.numel()
    length = math.prod(weight.shape[1:])
    if not dimensions:
        return Use(node.name, 0, (), (), (), 1, reads, macs, length)
    bound: dict[str, Any] = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False)) | dict(
        node.kwargs
    )
    stride, dilation = (_tuple(bound.get(key, 1), dimensions) for key in ("stride", "dilation"))
    padding = _padding(bound.get("padding", 0), weight.shape[2:], dilation)
    groups = int(bound.get("groups", 1))
    return Use(node.name, dimensions, stride, padding, dilation, groups, reads, macs, length)


def _other_use(
    node: fx.Node, operand: _Operand, weight: Tensor, resolve: Callable[[fx.Node], Iterator[fx.Node]]
) -> Use:
    macs = _macs(node, operand, weight)
    outputs = math.prod(sample_shape(node)) if _is_tensor(node) else weight.shape[0]
    length = max(1, macs // max(1, outputs))
    return Use(
        node.name, 0, (), (), (), 1, _reads(node, resolve), macs, length, operand=operand.node.name, views=operand.views
    )


def _reads(node: fx.Node, resolve: Callable[[fx.Node], Iterator[fx.Node]]) -> tuple[str, ...]:
    sources = (source for argument in node.all_input_nodes for source in resolve(argument))
    return tuple(dict.fromkeys(source.name for source in sources if _is_activation(source)))


def _is_activation(node: fx.Node) -> bool:
    if node.op == "placeholder" or not _is_tensor(node) or op_of(node) in _CONSTANT:
        return False
    return bool(node.meta["val"].dtype.is_floating_point)


def _macs(node: fx.Node, operand: _Operand, weight: Tensor) -> int:
    """Return the multiply-accumulates of a call for one sample; looking up takes none."""
    op, shape = op_of(node), operand.node.meta["val"].shape
    if op.startswith("embedding"):
        return 0
    if op == "einsum":
        return _einsum_macs(node)
    if op in ("addmm", "baddbmm", "bmm", "matmul", "mm"):
        left = operand.node is node.args[_PLACES[op][0]]
        return math.prod(sample_shape(node)) * int(shape[-1] if left or len(shape) == 1 else shape[-2])
    if op.startswith("conv_transpose"):
        source: Any = node.args[0]
        return math.prod(sample_shape(source)) // weight.shape[0] * weight.numel()
    if op == "bilinear":
        return math.prod(sample_shape(node)) // weight.shape[0] * weight.numel()
    first = next((user for user in node.users if user.target is operator.getitem and user.args[1] == 0), None)
    steps = 1 if first is None else math.prod(sample_shape(first)[:-1])  # of a recurrent layer; a cell takes one
    return steps * weight.numel()


def _einsum_macs(node: fx.Node) -> int:
    equation, factors = str(node.args[0]).replace(" ", ""), node.args[1]
    assert isinstance(factors, (list, tuple))
    sizes: dict[str, int] = {}
    for letters, factor in zip(equation.split("->")[0].split(","), factors, strict=True):
        shape = factor.meta["val"].shape
        sizes |= {
            letter: size
            for letter, size in zip(reversed(letters), reversed(shape), strict=False)
            if isinstance(size, int) and letter.isalpha()
        }
    return math.prod(sizes.values())


def _tuple(value: Any, dimensions: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * dimensions if len(values) == 1 else values


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if value == "valid":
        value = 0
    if value == "same":  # torch puts the odd one behind
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _tuple(value, len(kernel)))
