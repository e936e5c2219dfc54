"""A program run in whole numbers by NumPy: what every back end must put out, bit for bit.

Products are summed by matrix products of floating point, which are exact: where no partial sum can reach 2^24 float32
holds them all, else float64, whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import Add, Concat, Flatten, Layer, Move, Operation, Part, Pool, Program, Rescale
from impq_opt.types import IntArray

__all__ = ["run", "trace_program"]

_FLOAT32_WHOLE = 2**24


def run(program: Program, codes: npt.ArrayLike) -> IntArray:
    """Return the output codes (n, classes) of input codes (n, ...).

    Raises
    ------
    ValueError
        Codes that are not of the input's shape, or beyond its ends.
    """
    last = {name: end for name, _, end in program.uses()}
    held: dict[str, IntArray] = {}
    for number, (name, values) in enumerate(trace_program(program, codes, held), start=-1):
        held[name] = values
        for other in [other for other in held if last[other] <= number and other != program.output]:
            del held[other]
    return held[program.output]


def trace_program(
    program: Program, codes: npt.ArrayLike, held: dict[str, IntArray] | None = None
) -> Iterator[tuple[str, IntArray]]:
    """Yield every tensor of a pass with its codes (n, ...), the input first, in the order of the operations.

    Parameters
    ----------
    program : Program
    codes : array of int (n, ...)
    held : dict, optional
        Where the caller puts what is yielded, and may take out what nothing reads any more; all is kept without it.

    Raises
    ------
    ValueError
        Codes that are not of the input's shape, or beyond its ends.
    """
    given, tensor = np.asarray(codes, dtype=np.int64), program.tensors[program.input]
    if given.shape[1:] != tensor.shape or (given.size and not tensor.low <= given.min() <= given.max() <= tensor.high):
        raise ValueError(f"codes must be (n, {', '.join(map(str, tensor.shape))}), {tensor.low} to {tensor.high}")
    values = {program.input: given} if held is None else held
    yield program.input, given
    for operation in program.operations:
        made = _DOERS[type(operation)](program, operation, [values[source] for source in operation.sources])
        if held is None:
            values[operation.target] = made
        yield operation.target, made


def _rescaled(sums: IntArray, rescale: Rescale) -> IntArray:
    """Return the codes (n, channels, ...) of sums that are multiplied already."""
    addends = rescale.addends.reshape(-1, *(1,) * (sums.ndim - 2))
    return np.clip((sums + addends) >> rescale.shift, rescale.low, rescale.high)


def _layer(program: Program, layer: Layer, sources: list[IntArray]) -> IntArray:
    source, target = program.tensors[layer.source], program.tensors[layer.target]
    x = sources[0] - source.zero
    x = x.reshape(*x.shape[:2], 1, 1) if x.ndim == 2 else x
    windows = _windows(x, layer.kernel, layer.stride, layer.dilation, layer.padding, 0)
    made = np.empty((len(x), target.shape[0], *windows.shape[2:4]), dtype=np.int64)
    for part in layer.parts:
        sums = _sums(windows, part, program.sums(layer, part))
        multipliers = part.rescale.multipliers.reshape(-1, 1, 1)
        total = sums * multipliers
        for name, y, factors in zip(layer.added, sources[1:], part.added, strict=True):
            across = y.reshape(made.shape)[:, part.channels] - program.tensors[name].zero
            total += across * factors.reshape(-1, 1, 1)
        made[:, part.channels] = _rescaled(total, part.rescale)
    return made.reshape(len(x), *target.shape)


def _sums(windows: IntArray, part: Part, largest: int) -> IntArray:
    """Return sums (n, kernels, rows, columns) over windows (n, channels, rows, columns, height, width)."""
    kind: Any = np.float32 if largest < _FLOAT32_WHOLE else np.float64
    weights, (n, _, rows, columns) = part.weights.astype(kind), windows.shape[:4]
    inputs = weights.shape[1]
    sums = np.empty((n, len(part), rows, columns), dtype=np.int64)
    if inputs == 1:  # a kernel a channel: element by element
        taken = windows[:, part.reads].astype(kind)
        return np.einsum("nkrchw,khw->nkrc", taken, weights[:, 0]).astype(np.int64)
    for first in np.unique(part.reads):
        own = part.reads == first
        taken = windows[:, first : first + inputs].transpose(0, 2, 3, 1, 4, 5).astype(kind)
        flat = taken.reshape(n * rows * columns, -1) @ weights[own].reshape(int(own.sum()), -1).T
        sums[:, own] = flat.reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)
    return sums


def _windows(
    x: IntArray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    fill: int,
) -> IntArray:
    """Return the windows (n, channels, rows, columns, height, width) of a tensor (n, channels, height, width)."""
    if any(map(any, padding)):
        x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    spread = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    every = np.lib.stride_tricks.sliding_window_view(x, spread, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _add(program: Program, add: Add, sources: list[IntArray]) -> IntArray:
    total: Any = 0
    for name, x, multipliers in zip(add.sources, sources, add.rescale.multipliers, strict=True):
        total = total + (x - program.tensors[name].zero) * multipliers.reshape(-1, *(1,) * (x.ndim - 2))
    return _rescaled(total, add.rescale)


def _pool(program: Program, pool: Pool, sources: list[IntArray]) -> IntArray:
    source, largest = program.tensors[pool.source], pool.kind == "max"
    x = sources[0] if largest else sources[0] - source.zero
    fill = source.low if largest else 0
    windows = _windows(x, pool.kernel, pool.stride, pool.dilation, pool.padding, fill)
    rows, columns = program.tensors[pool.target].shape[1:]
    made: IntArray = (windows.max((4, 5)) if largest else windows.sum((4, 5)))[:, :, :rows, :columns]
    return made


def _move(program: Program, move: Move, sources: list[IntArray]) -> IntArray:
    x, zero = sources[0], program.tensors[move.source].zero
    places = (move.channels, move.rows, move.columns) if x.ndim == 4 else (move.channels,)
    made = x[np.ix_(np.arange(len(x)), *(np.maximum(place, 0) for place in places))]
    for axis, place in enumerate(places, start=1):
        made[(slice(None),) * axis + (place < 0,)] = zero
    return made


def _concat(program: Program, concat: Concat, sources: list[IntArray]) -> IntArray:
    return np.concatenate(sources, axis=1)


def _flatten(program: Program, flatten: Flatten, sources: list[IntArray]) -> IntArray:
    return sources[0].reshape(len(sources[0]), -1)


_DOERS: dict[type[Operation], Callable[[Program, Any, list[IntArray]], IntArray]] = {
    Layer: _layer,
    Add: _add,
    Pool: _pool,
    Move: _move,
    Concat: _concat,
    Flatten: _flatten,
}
