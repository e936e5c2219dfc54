"""A compact picture of an allocation: one cell a layer, as many beside each other as the terminal holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.text import Text

from impq_opt.cli._screen import Screen, in_columns
from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.problem.allocation import Allocation
from impq_opt.text import shortened, visible

__all__ = ["picture"]

# Heights, what is empty, and what is full; the second where the stream has no blocks.
_BLOCKS = ("▁▂▃▄▅▆▇█", "·")
_ASCII = (":-=+*%@#", ".")
_LONGEST_NAME = 30
_MOST_CELLS = 240
_MOST_LEVELS = 16


@dataclass(frozen=True)
class _Cell:
    name: str
    groups: int
    bits: str
    bar: str


def picture(allocation: Allocation, screen: Screen) -> Text:
    """Return bits per layer: a number and a bar for one group, mean and histogram where a layer has several.

    One group is called by its format where it has one.
    """
    problem = allocation.problem
    bits = np.asarray(allocation.bits, dtype=np.float64)
    kinds = np.zeros(len(problem), dtype=np.int8) if problem.kinds is None else problem.kinds
    levels = np.unique([width for widths in problem.candidates.sets for width in widths])
    parts: list[Text] = []
    glyphs = _BLOCKS if screen.can("".join(_BLOCKS)) else _ASCII
    what = "candidate" if problem.candidates.numbered else "bits"
    for kind, name in enumerate(KIND_NAMES):
        inside = np.flatnonzero(kinds == kind)
        if len(inside) == 0:
            continue
        if parts:
            parts.append(Text())
        if len(inside) > 1 and float(np.ptp(bits[inside])) == 0 and not problem.candidates.formats:
            parts.append(Text(f"{what} of {name} groups: {bits[inside[0]]:g} in every layer", style="bold"))
            continue
        cells = list(_cells(allocation, bits, inside, levels, glyphs))
        if len(cells) > _MOST_CELLS:
            cells = [_cell(f"all {len(cells)} layers", problem.sizes[inside], bits[inside], levels, glyphs)]
        parts.append(Text(f"{what} of {name} groups by layer{_legend(cells, levels)}", style="bold"))
        parts += _columns(cells, screen)
    return Text("\n").join(parts)


def _cells(
    allocation: Allocation,
    bits: npt.NDArray[np.float64],
    inside: npt.NDArray[np.int64],
    levels: npt.NDArray[np.float64],
    glyphs: tuple[str, str],
) -> Iterator[_Cell]:
    """Yield one cell for each layer with groups ``inside``, in the order of the problem."""
    names, sizes, candidates = allocation.problem.names, allocation.problem.sizes, allocation.problem.candidates
    layer_numbers = {layer: number for number, layer in enumerate(dict.fromkeys(names.layers))}
    layer_of_label = np.array([layer_numbers[layer] for layer in names.layers])
    layer_of = layer_of_label[names.label_of[inside]]
    order = np.argsort(layer_of, kind="stable")
    starts = np.flatnonzero(np.diff(layer_of[order], prepend=-1))
    layers = list(layer_numbers)
    for part in np.split(order, starts[1:]):
        groups = inside[part]
        cell = _cell(layers[int(layer_of[part[0]])], sizes[groups], bits[groups], levels, glyphs)
        if cell.groups == 1 and candidates.formats and allocation.choice is not None:
            label = candidates.label(groups[0], int(allocation.choice[groups[0]]))
            cell = replace(cell, bits=f"{visible(label)} {cell.bits}")
        yield cell


def _cell(
    name: str,
    sizes: npt.NDArray[np.int64],
    bits: npt.NDArray[np.float64],
    levels: npt.NDArray[np.float64],
    glyphs: tuple[str, str],
) -> _Cell:
    heights, empty = glyphs
    few = len(levels) <= _MOST_LEVELS
    if len(bits) == 1:
        length = int(np.searchsorted(levels, bits[0])) + 1
        return _Cell(name, 1, f"{bits[0]:g}", (heights[-1] * length).ljust(len(levels), empty) if few else "")
    mean = f"{float(np.average(bits, weights=sizes)):.2f}"
    if not few:
        return _Cell(name, len(bits), mean, f"{bits.min():g} to {bits.max():g}")
    counts = np.bincount(np.searchsorted(levels, bits), minlength=len(levels))
    height = np.ceil(counts / counts.max() * (len(heights) - 1)).astype(int)
    bars = "".join(heights[h] if n else empty for h, n in zip(height, counts, strict=True))
    return _Cell(name, len(bits), mean, bars)


def _legend(cells: list[_Cell], levels: npt.NDArray[np.float64]) -> str:
    if len(levels) > _MOST_LEVELS or all(cell.groups == 1 for cell in cells):
        return ""
    return f" (mean, and how many groups have {levels[0]:g} to {levels[-1]:g})"


def _columns(cells: list[_Cell], screen: Screen) -> list[Text]:
    names = [screen.shown(shortened(visible(cell.name), _LONGEST_NAME)) for cell in cells]
    longest = max(map(cell_len, names))  # in columns of the terminal: some letters take two
    widest = max(len(cell.bits) for cell in cells)
    texts = [
        Text(f"{name}{' ' * (longest - cell_len(name))} {c.bits:>{widest}} {c.bar}")
        for name, c in zip(names, cells, strict=True)
    ]
    return in_columns(texts, screen.width if screen.is_terminal or "COLUMNS" in os.environ else 1)
