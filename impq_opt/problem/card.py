"""How an object looks in a notebook: a card of HTML with a title, facts, and small pictures; no script, no size.

Names are text there, whatever they hold. Colours are those of the page around it, so it is legible on dark ones too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from impq_opt.groups.arrays import KIND_NAMES, WEIGHT
from impq_opt.groups.layout import Layout
from impq_opt.text import html_text, shortened, visible
from impq_opt.types import FloatArray, IntArray

__all__ = ["bars", "by_layer", "card", "curve"]

# Bars beside each other: where there are more layers, neighbours share one.
_MOST_BARS = 120
# Labels that are gathered into layers; more of them are drawn as they are.
_MOST_LABELS = 20_000
_MOST_POINTS = 240
_WIDTH, _HEIGHT = 640, 72
_NAME, _VALUE = 60, 400


def card(title: str, facts: Sequence[tuple[str, str]], pictures: Sequence[str]) -> str:
    """Return a card: ``title``, ``facts`` as pairs of text, and pictures that are HTML already."""
    cell = 'style="text-align:left;padding:0 1em 0 0"'
    rows = "".join(
        f"<tr><td {cell}>{html_text(shortened(visible(name), _NAME))}</td><td {cell}>"
        f"{html_text(shortened(visible(value), _VALUE))}</td></tr>"
        for name, value in facts
    )
    return f'<div style="max-width:{_WIDTH}px"><b>{html_text(title)}</b><table>{rows}</table>{"".join(pictures)}</div>'


def by_layer(layout: Layout, values: FloatArray, what: str, *, most: float | None = None, mean: bool) -> Iterator[str]:
    """Yield a picture for weights and one for activations: ``values`` (G,) by layer, in the network's order.

    Parameters
    ----------
    what : str
        What the values are.
    most : float, optional
        The value of a full bar; the largest where not given.
    mean : bool
        Show means over elements, not sums.
    """
    names = layout.names
    if len(names.labels) <= _MOST_LABELS:
        order = {layer: number for number, layer in enumerate(dict.fromkeys(names.layers))}
        layers, layer_of = list(order), np.array([order[layer] for layer in names.layers])[names.label_of]
    else:
        layers, layer_of = list(names.labels), names.label_of
    weights = layout.weights()
    for kind, inside in zip(KIND_NAMES, (weights, ~weights), strict=True):
        if inside.any():
            sizes = layout.sizes[inside].astype(np.float64)
            heights, called = _gathered(layer_of[inside], values[inside], sizes if mean else None, layers)
            title = f"{what} by layer, {kind if kind != KIND_NAMES[WEIGHT] else 'weight'}s"
            yield bars(title, called, heights, most=most)


def _gathered(
    layer_of: IntArray, values: FloatArray, sizes: FloatArray | None, layers: Sequence[str]
) -> tuple[FloatArray, list[str]]:
    """Return the values of at most _MOST_BARS bars, and what each is called."""
    amounts = np.bincount(layer_of, weights=values if sizes is None else values * sizes, minlength=len(layers))
    shares = np.bincount(layer_of, weights=sizes, minlength=len(layers))
    present = np.flatnonzero(shares)
    count = min(len(present), _MOST_BARS)
    bar = np.arange(len(present)) * count // len(present)
    total = np.bincount(bar, weights=amounts[present]).astype(np.float64)
    if sizes is not None:
        total = total / np.bincount(bar, weights=shares[present])
    first, last = np.searchsorted(bar, np.arange(count)), np.searchsorted(bar, np.arange(count), side="right") - 1
    called = [
        layers[present[a]] if a == b else f"{layers[present[a]]} to {layers[present[b]]}"
        for a, b in zip(first.tolist(), last.tolist(), strict=True)
    ]
    return total, called


def bars(title: str, names: Sequence[str], heights: FloatArray, *, most: float | None = None) -> str:
    """Return a bar for each height, with its name and number where one points at it."""
    full = most or float(heights.max(initial=0.0)) or 1.0
    wide = _WIDTH / max(len(names), 8)
    parts = []
    for place, (name, height) in enumerate(zip(names, heights.tolist(), strict=True)):
        tall = max(height / full, 0.0) * _HEIGHT
        parts.append(
            f'<rect x="{place * wide:.1f}" y="{_HEIGHT - tall:.1f}" width="{wide * 0.85:.1f}" height="{tall:.1f}">'
            f"<title>{html_text(shortened(visible(name), _NAME))}: {height:.4g}</title></rect>"
        )
    low, high = float(heights.min()), float(heights.max())
    span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return _picture(f"{title}: {span}", f'<g fill="currentColor" fill-opacity=".6">{"".join(parts)}</g>')


def curve(title: str, x: FloatArray, y: FloatArray) -> str:
    """Return the line through points (n,), both axes from their smallest to their largest value, y logarithmic."""
    taken = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(np.int64))
    with np.errstate(divide="ignore"):
        across, up = _share(x[taken]), _share(np.log10(np.where(y[taken] > 0, y[taken], np.nan)))
    places = [f"{a * _WIDTH:.1f},{(1 - b) * _HEIGHT:.1f}" for a, b in zip(across, up, strict=True) if not np.isnan(b)]
    line = f'<polyline points="{" ".join(places)}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    return _picture(title, line)


def _share(values: FloatArray) -> npt.NDArray[np.float64]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.where(np.isfinite(values), 0.5, np.nan)


def _picture(title: str, inside: str) -> str:
    return (
        f'<div style="font-size:smaller;margin-top:.5em">{html_text(title)}</div>'
        f'<svg viewBox="0 -2 {_WIDTH} {_HEIGHT + 4}" width="100%" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{html_text(title)}</title>{inside}"
        f'<path d="M0 {_HEIGHT}H{_WIDTH}" stroke="currentColor" stroke-opacity=".4"/></svg>'
    )
