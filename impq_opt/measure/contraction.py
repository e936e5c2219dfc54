"""Squared per-sample gradients of weights, from a layer's input and the gradient of its output.

For sample s a layer with unfolded input U (L positions, D inputs) and output gradient G (L, O) has the weight gradient
W = G'U (O, D). Three ways lead to the squared norms of its rows, the output kernels:

* directly: L D O multiplications, then squares and sums;
* the same as one convolution in which every sample is a group of channels of its own, where a kernel has several
  entries: nothing is unfolded then (Rochette et al. 2019, arXiv:1912.06015);
* by the ghost norm, |W_j|^2 = g_j' (U U') g_j: L^2 (D + O), without W (Goodfellow 2015, arXiv:1510.01799, for linear
  layers; Bu et al. 2022, arXiv:2205.10683, for convolutions).

The cheapest is taken, layer by layer. Samples go in portions so that what a portion takes stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from impq_opt.tracing.sites import Use

__all__ = ["batch_gradient", "gradients", "kernel_norms", "weight_gradient", "weight_squares"]

_PORTION = 1 << 21  # elements unfolded, or of gradients, at once: 8 MiB of float32
# A convolution takes less time for each multiplication than matrices that have to be unfolded first.
_GROUPED_GAIN = 2


def kernel_norms(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Tensor:
    """Return the squared norms (n, out) of the per-sample gradients of every output kernel.

    Parameters
    ----------
    grad : Tensor
        Gradient (n, out, *space) of a convolution's output, (n, *positions, out) of a linear layer's.
    x : Tensor
        The layer's input.
    weight : tuple of int
        Shape of the weights (out, in / groups, *kernel).
    use : Use
    """
    length = grad[0].numel() // weight[0]
    inputs, outputs = math.prod(weight[1:]), weight[0] // use.groups
    gain = _GROUPED_GAIN if _is_grouped(x, weight, use) else 1
    if gain * length * (inputs + outputs) >= inputs * outputs:
        return torch.cat([part.square().sum(2) for part in gradients(grad, x, weight, use)])
    pieces = []
    for u, g in _portions(grad, x, weight, use):  # (n, G, L, D), (n, G, L, O)
        gram = u @ u.transpose(2, 3)  # (n, G, L, L)
        pieces.append(((gram @ g) * g).sum(2).flatten(1))
    return torch.cat(pieces)


def weight_gradient(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Tensor:
    """Return the per-sample gradients (n, out, in / groups * prod(kernel)) of every weight, in the weights' order."""
    return torch.cat(list(gradients(grad, x, weight, use)))


def weight_squares(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Tensor:
    """Return the squares, summed over samples, (out, in / groups * prod(kernel)) of the per-sample gradients."""
    if grad[0].numel() == weight[0] and x[0].numel() == math.prod(weight[1:]):
        # one position: an outer product, and its squares are the outer product of squares
        return grad.flatten(1).square().T @ x.flatten(1).square()
    total: Tensor | None = None
    for part in gradients(grad, x, weight, use):
        squares = part.square().sum(0)
        total = squares if total is None else total + squares
    assert total is not None
    return total


def batch_gradient(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Tensor:
    """Return the gradient (1, out, in / groups * prod(kernel)) of every weight, summed over the batch."""
    if not use.dimensions:
        total = grad.flatten(0, -2).T @ x.flatten(0, -2)
    else:
        total = _convolution(grad, x, weight, use, use.groups)
    return total.reshape(1, weight[0], -1)


def _is_grouped(x: Tensor, weight: tuple[int, ...], use: Use) -> bool:
    """Return whether one convolution with a group for each sample gives the gradients in the least time.

    On accelerators many small groups are what convolutions do worst.
    """
    return use.dimensions > 0 and math.prod(weight[2:]) > 1 and x.device.type == "cpu"


def gradients(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Iterator[Tensor]:
    """Yield the gradients (n, out, in / groups * prod(kernel)) of a few samples at a time, in the weights' order."""
    if not _is_grouped(x, weight, use):
        for u, g in _portions(grad, x, weight, use):
            yield _weight_order(_direct(g, u).flatten(1, 2), weight)
        return
    step = max(1, _PORTION // max(math.prod(weight), x[0].numel(), grad[0].numel()))
    for rows in range(0, len(grad), step):
        slopes, inputs = grad[rows : rows + step].contiguous(), x[rows : rows + step].contiguous()
        count = len(slopes)
        wide = (count * weight[0], *weight[1:])
        products = _convolution(slopes.flatten(0, 1)[None], inputs.flatten(0, 1)[None], wide, use, count * use.groups)
        yield products.reshape(count, weight[0], -1)


def _convolution(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use, groups: int) -> Tensor:
    """Return the gradient of a convolution's weights, from torch's own backward."""
    before = [p[0] for p in use.padding]
    if any(p[0] != p[1] for p in use.padding):  # torch pads evenly: pad here instead
        x = functional.pad(x, [p for pair in reversed(use.padding) for p in pair])
        before = [0] * use.dimensions
    gradient: Tensor = torch.ops.aten.convolution_backward(
        grad,
        x,
        x.new_empty(weight),
        None,
        use.stride,
        before,
        use.dilation,
        False,
        [0] * use.dimensions,
        groups,
        [False, True, False],
    )[1]
    return gradient


def _direct(g: Tensor, u: Tensor) -> Tensor:
    """Return W = G'U (n, G, O, D); depthwise layers have O = 1, where a product and a sum beat a matrix product."""
    if g.shape[3] == 1 and g.shape[1] > 1:
        return (g * u).sum(2).unsqueeze(2)
    return g.transpose(2, 3) @ u


def _weight_order(values: Tensor, weight: tuple[int, ...]) -> Tensor:
    """Unfolding puts channels last: bring (..., kernel * in) into the weights' order (..., in * kernel)."""
    taps = math.prod(weight[2:])
    if taps == 1:
        return values
    return values.unflatten(-1, (taps, weight[1])).transpose(-1, -2).flatten(-2)


def _portions(grad: Tensor, x: Tensor, weight: tuple[int, ...], use: Use) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the unfolded input (n, G, L, D) and the gradient (n, G, L, O) of a few samples at a time."""
    per_sample = math.prod(weight[1:]) * use.groups * (grad[0].numel() // weight[0])
    step = max(1, _PORTION // max(1, per_sample))
    for rows in range(0, len(grad), step):
        yield _unfold(x[rows : rows + step], weight, use), _positions(grad[rows : rows + step], use)


def _positions(grad: Tensor, use: Use) -> Tensor:
    """Return gradients as (n, G, L, O)."""
    if not use.dimensions:
        return grad.flatten(1, -2).unsqueeze(1) if grad.ndim > 2 else grad[:, None, None, :]
    flat = grad.movedim(1, -1).flatten(1, -2)  # (n, L, out)
    return flat.unflatten(2, (use.groups, -1)).transpose(1, 2)


def _unfold(x: Tensor, weight: tuple[int, ...], use: Use) -> Tensor:
    """Return the inputs of every dot product (n, G, L, D), channels innermost."""
    if not use.dimensions:
        return x.flatten(1, -2).unsqueeze(1) if x.ndim > 2 else x[:, None, None, :]
    kernel = weight[2:]
    if any(p for pair in use.padding for p in pair):
        x = functional.pad(x, [p for pair in reversed(use.padding) for p in pair])
    x = x.movedim(1, -1)  # (n, *space, C): a view of a channels-last tensor
    space = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[1:-1], kernel, use.stride, use.dilation, strict=True)
    ]
    strides = x.stride()
    windows = x.as_strided(
        (len(x), *space, *kernel, x.shape[-1]),
        (
            strides[0],
            *(a * b for a, b in zip(strides[1:-1], use.stride, strict=True)),
            *(a * b for a, b in zip(strides[1:-1], use.dilation, strict=True)),
            strides[-1],
        ),
        x.storage_offset(),
    )
    n, length, taps = len(x), math.prod(space), math.prod(kernel)
    if use.groups == 1:
        return windows.reshape(n, 1, length, taps * x.shape[-1])
    grouped = windows.reshape(n, length, taps, use.groups, weight[1])
    return grouped.permute(0, 3, 1, 2, 4).flatten(3)
