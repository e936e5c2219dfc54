"""Figures as data: drawn by the page's script for the screen, and by matplotlib for files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from impq_opt.report.layers import Layer, alike
from impq_opt.text import bits_text

__all__ = [
    "Figure",
    "Series",
    "bits_figure",
    "depth_figure",
    "mismatch_figure",
    "size_figure",
    "spread_figure",
]


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Parameters
    ----------
    style : {"line", "dots", "bars", "stack", "ring"}
    labels : sequence of str
        What each point is.
    marked : bool
        Whether the labels are written beside the points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "dots"
    labels: Sequence[str] = ()
    marked: bool = False


@dataclass(frozen=True)
class Figure:
    """Series with their axes.

    Parameters
    ----------
    key : str
        Name of its file.
    ticks : sequence of str
        Names along x; then x counts them from 0.
    """

    key: str
    title: str
    caption: str
    x: str
    y: str
    series: Sequence[Series]
    x_log: bool = False
    y_log: bool = False
    ticks: Sequence[str] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "key": self.key, "title": self.title, "x": self.x, "y": self.y,
            "xLog": self.x_log, "yLog": self.y_log, "ticks": list(self.ticks),
            "series": [
                {"name": s.name, "style": s.style, "marked": s.marked, "x": list(s.x), "y": list(s.y),
                 "labels": list(s.labels)}
                for s in self.series
            ],
        }  # fmt: skip


def depth_figure(layers: Sequence[Layer], what: str) -> Figure:
    """Return the sensitivity of each layer by depth."""
    shown = [layer for layer in layers if 0 < layer.sensitivity < math.inf]
    names = [layer.name for layer in shown]
    series = [
        Series(
            f"{kind}s" if kind == "weight" else "activations",
            [float(k) for k, layer in enumerate(shown) if layer.kind == kind],
            [layer.sensitivity for layer in shown if layer.kind == kind],
            "bars",
            [layer.name for layer in shown if layer.kind == kind],
        )
        for kind in ("weight", "activation")
    ]
    return Figure(
        "sensitivity-by-depth",
        "Sensitivity by depth",
        f"The {what} of each layer, first layer left. Tall bars need precision.",
        "layer",
        what,
        [line for line in series if line.x],
        y_log=True,
        ticks=names,
    )


def size_figure(layers: Sequence[Layer], what: str) -> Figure:
    """Return sensitivity per element against the number of elements: large layers tend to be less sensitive."""
    series = []
    for kind, name in (("weight", "weights"), ("activation", "activations")):
        some = [layer for layer in layers if layer.kind == kind and 0 < layer.sensitivity < math.inf]
        if some:
            per = [layer.sensitivity / layer.size for layer in some]
            labels = [f"{layer.name}, mean {layer.bits:.3g} bits" for layer in some]
            series.append(Series(name, [float(layer.size) for layer in some], per, "dots", labels))
    return Figure(
        "sensitivity-by-size",
        "Sensitivity by size",
        f"The {what} of one element, on average, against the number of elements of the layer.",
        "elements of the layer",
        f"{what} per element",
        series,
        x_log=True,
        y_log=True,
    )


def bits_figure(every: Sequence[Layer]) -> Figure:
    """Return mean bits by depth; a kind of which all layers get the same bits is said, not drawn."""
    same = alike(every)
    layers = [layer for layer in every if layer.kind not in same]
    series = []
    for kind, name in (("weight", "weights"), ("activation", "activations")):
        places = [k for k, layer in enumerate(layers) if layer.kind == kind]
        if places:
            some = [layers[k] for k in places]
            labels = [layer.name for layer in some]
            series.append(Series(name, [float(k) for k in places], [layer.bits for layer in some], "bars", labels))
    said = "".join(f" All {kind}s get {bits_text(bits)}." for kind, bits in same.items())
    return Figure(
        "bits-by-depth",
        "Bits by depth",
        f"Mean precision of each layer's elements, first layer left.{said}",
        "layer",
        "bits",
        series,
        ticks=[layer.name for layer in layers],
    )


def spread_figure(every: Sequence[Layer]) -> Figure | None:
    """Return the shares of each precision inside each layer of several groups; None where every layer has one."""
    layers = [layer for layer in every if layer.groups > 1]
    if all(len(layer.shares) == 1 for layer in layers):
        return None
    levels = sorted({level for layer in layers for level in layer.shares})
    places = [float(k) for k in range(len(layers))]
    names = [layer.name for layer in layers]
    return Figure(
        "spread-inside-layers",
        "Precisions inside each layer",
        "Share of each layer's elements at each precision.",
        "layer",
        "share of elements",
        [
            Series(bits_text(level), places, [layer.shares.get(level, 0.0) for layer in layers], "stack", names)
            for level in levels
        ],
        ticks=names,
    )


def mismatch_figure(rows: Sequence[tuple[str, float, float | None, float]]) -> Figure:
    """Return measured mismatch against bound and estimate; rows of (label, bound, Gaussian estimate, measured)."""
    series = []
    for name, predicted in (("bound", [row[1] for row in rows]), ("Gaussian estimate", [row[2] for row in rows])):
        shown = [(x, row[3], row[0]) for x, row in zip(predicted, rows, strict=True) if x and x > 0 and row[3] > 0]
        if shown:
            xs, ys, labels = zip(*shown, strict=True)
            series.append(Series(name, xs, ys, "dots", labels))
    ends = [v for line in series for v in (*line.x, *line.y)] or [0.1, 1.0]
    diagonal = [min(ends), max(ends)]
    return Figure(
        "bound-and-measured-mismatch",
        "Bound and measured mismatch",
        "Below the line the network differs from the float network less often than predicted. "
        "Points without a measured mismatch are left out of this logarithmic figure and stand in the table.",
        "predicted mismatch",
        "measured mismatch",
        [*series, Series("predicted = measured", diagonal, diagonal, "line")],
        x_log=True,
        y_log=True,
    )
