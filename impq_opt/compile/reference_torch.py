"""The reference in torch: the same numbers, bit for bit, in batches on a device.

Products are summed by matrix products of floating point, as there: exact, whatever the order, and whatever a device
does with convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.compile.program import Add, Concat, Flatten, Layer, Move, Operation, Part, Pool, Program, Rescale

__all__ = ["run_torch"]

_FLOAT32_WHOLE = 2**24


@torch.no_grad()
def run_torch(program: Program, codes: Tensor) -> Tensor:
    """Return the output codes (n, classes), int64, of input codes (n, ...), on their device.

    Raises
    ------
    ValueError
        Codes that are not of the input's shape, or beyond its ends.
    """
    given, tensor = codes.long(), program.tensors[program.input]
    inside = given.numel() == 0 or tensor.low <= int(given.min()) <= int(given.max()) <= tensor.high
    if given.shape[1:] != tensor.shape or not inside:
        raise ValueError(f"codes must be (n, {', '.join(map(str, tensor.shape))}), {tensor.low} to {tensor.high}")
    last = {name: end for name, _, end in program.uses()}
    held = {program.input: given}
    for number, operation in enumerate(program.operations):
        sources = [held[source] for source in operation.sources]
        held[operation.target] = _DOERS[type(operation)](program, operation, sources)
        held = {name: x for name, x in held.items() if last[name] > number}
    return held[program.output]


def _on(x: Tensor, values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values).to(x.device)


def _rescaled(total: Tensor, rescale: Rescale) -> Tensor:
    addends = _on(total, rescale.addends).reshape(-1, *(1,) * (total.ndim - 2))
    return (total.add_(addends) >> rescale.shift).clamp_(rescale.low, rescale.high)


def _layer(program: Program, layer: Layer, sources: list[Tensor]) -> Tensor:
    source, target = program.tensors[layer.source], program.tensors[layer.target]
    x = sources[0] - source.zero
    x = x.reshape(*x.shape[:2], 1, 1) if x.ndim == 2 else x
    narrow = all(program.sums(layer, part) < _FLOAT32_WHOLE for part in layer.parts)
    windows = _windows(x.float() if narrow else x.double(), layer, 0)
    made = x.new_empty(len(x), target.shape[0], *windows.shape[2:4])
    for part in layer.parts:
        total = _sums(windows, part) * _on(x, part.rescale.multipliers).reshape(-1, 1, 1)
        channels = _on(x, part.channels)
        for name, y, factors in zip(layer.added, sources[1:], part.added, strict=True):
            across = y.reshape(made.shape)[:, channels] - program.tensors[name].zero
            total += across * _on(x, factors).reshape(-1, 1, 1)
        made[:, channels] = _rescaled(total, part.rescale)
    return made.reshape(len(x), *target.shape)


def _sums(windows: Tensor, part: Part) -> Tensor:
    """Return sums (n, kernels, rows, columns) over windows (n, channels, rows, columns, height, width)."""
    weights, (n, _, rows, columns) = _on(windows, part.weights).to(windows.dtype), windows.shape[:4]
    inputs = weights.shape[1]
    if inputs == 1:  # a kernel a channel: element by element
        taken = windows[:, _on(windows, part.reads)]
        total = torch.zeros(taken.shape[:4], dtype=windows.dtype, device=windows.device)
        for i in range(weights.shape[2]):
            for j in range(weights.shape[3]):
                total += taken[..., i, j] * weights[:, 0, i, j].reshape(-1, 1, 1)
        return total.long()
    sums = torch.empty(n, len(part), rows, columns, dtype=torch.int64, device=windows.device)
    for first in sorted(set(part.reads.tolist())):
        own = _on(windows, part.reads == first)
        taken = windows[:, first : first + inputs].permute(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, -1)
        flat = taken @ weights[own].reshape(int(own.sum()), -1).T
        sums[:, own] = flat.reshape(n, rows, columns, -1).permute(0, 3, 1, 2).long()
    return sums


def _windows(x: Tensor, window: Layer | Pool, fill: int) -> Tensor:
    """Return the windows (n, channels, rows, columns, height, width) of a tensor (n, channels, height, width)."""
    (above, below), (left, right) = window.padding
    if above or below or left or right:
        x = torch.nn.functional.pad(x, (left, right, above, below), value=fill)
    for axis in (0, 1):
        spread = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, spread, window.stride[axis])
    return x[..., :: window.dilation[0], :: window.dilation[1]]


def _add(program: Program, add: Add, sources: list[Tensor]) -> Tensor:
    total = torch.zeros_like(sources[0])
    for name, x, multipliers in zip(add.sources, sources, add.rescale.multipliers, strict=True):
        total += (x - program.tensors[name].zero) * _on(x, multipliers).reshape(-1, *(1,) * (x.ndim - 2))
    return _rescaled(total, add.rescale)


def _pool(program: Program, pool: Pool, sources: list[Tensor]) -> Tensor:
    source, largest = program.tensors[pool.source], pool.kind == "max"
    windows = _windows(sources[0] if largest else sources[0] - source.zero, pool, source.low if largest else 0)
    rows, columns = program.tensors[pool.target].shape[1:]
    made = windows.amax((4, 5)) if largest else windows.sum((4, 5))
    return made[:, :, :rows, :columns]


def _move(program: Program, move: Move, sources: list[Tensor]) -> Tensor:
    x, zero = sources[0], program.tensors[move.source].zero
    for axis, place in enumerate((move.channels, move.rows, move.columns)[: x.ndim - 1], start=1):
        x = x.index_select(axis, _on(x, place).clamp_min(0))
        if (place < 0).any():
            x.index_fill_(axis, _on(x, place < 0).nonzero()[:, 0], zero)
    return x


def _concat(program: Program, concat: Concat, sources: list[Tensor]) -> Tensor:
    return torch.cat(sources, 1)


def _flatten(program: Program, flatten: Flatten, sources: list[Tensor]) -> Tensor:
    return sources[0].reshape(len(sources[0]), -1)


_DOERS: dict[type[Operation], Callable[[Program, Any, list[Tensor]], Tensor]] = {
    Layer: _layer,
    Add: _add,
    Pool: _pool,
    Move: _move,
    Concat: _concat,
    Flatten: _flatten,
}
