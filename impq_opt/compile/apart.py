"""Layers that add tensors to their sums, as layers and additions: for targets whose layers do not add."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from impq_opt.compile.program import Add, IntTensor, Layer, Operation, Program, Rescale

__all__ = ["with_additions"]


def with_additions(program: Program, adds: Callable[[Layer], bool] = lambda layer: False) -> Program:
    """Return a program of the same tensors, bit for bit, whose layers add nothing: their sums are held as they are.

    What an addition shifts has at most 62 bits there, and its multipliers more than 32.

    Parameters
    ----------
    program : Program
    adds : callable, optional
        Whether a layer that adds stays as it is.
    """
    tensors = dict(program.tensors)
    operations = tuple(
        made
        for operation in program.operations
        for made in (
            _apart(program, operation, tensors)
            if isinstance(operation, Layer) and operation.added and not adds(operation)
            else (operation,)
        )
    )
    return replace(program, tensors=tensors, operations=operations)


def _apart(program: Program, layer: Layer, tensors: dict[str, IntTensor]) -> Iterator[Operation]:
    target = tensors[layer.target]
    bits = max(program.sums(layer, part) for part in layer.parts).bit_length() + 1
    held = IntTensor(f"{layer.target}.sums", target.shape, bits, True, 1.0)
    tensors[held.name] = held
    shift = max(part.rescale.shift for part in layer.parts)
    multipliers = np.zeros((1 + len(layer.added), target.shape[0]), dtype=np.int64)
    addends = np.zeros(target.shape[0], dtype=np.int64)
    parts = []
    for part in layer.parts:
        own, lift = part.rescale, shift - part.rescale.shift
        multipliers[:, part.channels] = np.vstack([own.multipliers, part.added]) << lift
        addends[part.channels] = own.addends << lift
        as_it_is = Rescale(np.ones_like(own.multipliers), np.zeros_like(own.addends), 0, held.low, held.high)
        parts.append(replace(part, rescale=as_it_is, added=part.added[:0]))
    yield replace(layer, target=held.name, parts=tuple(parts), added=())
    ends = layer.parts[0].rescale
    yield Add(
        layer.name, (held.name, *layer.added), layer.target, Rescale(multipliers, addends, shift, ends.low, ends.high)
    )
