"""The network's graph as a problem keeps it: who reads which activation, ties and pins; and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np

from impq_opt.problem.problem import Problem
from impq_opt.text import bits_text, html_text, shortened, visible

__all__ = ["graph_svg", "network_graph"]

_ROW, _TOP = 30, 74
_LEFT, _RIGHT, _WIDTH, _BOX = 80, 660, 1080, 400
# From few bits to many.
_PALE, _DEEP = (238, 244, 251), (10, 69, 131)
# Characters that surely fit into a box.
_FITS = 66
_INPUT = "input"


def network_graph(problem: Problem) -> nx.Graph:
    """Return the graph of a problem's labels (a layer's kernels are one node).

    Nodes have ``kind`` ("weight", "activation", or "input" for the network's own), ``groups``, ``size`` and ``pinned``
    (how many of the groups are). Edges have ``macs`` where a weight reads an activation, ``tied`` where groups of two
    labels must take equal precisions, and ``kept`` where an activation stays in memory, past the one that comes after
    it, until the other is made: a residual sum or another branch.
    """
    graph = nx.Graph()
    names = problem.names
    weights = problem.weights()
    label_of = names.label_of
    pinned = np.bincount(label_of[list(problem.pins)], minlength=len(names.labels)) if problem.pins else None
    for number, label in enumerate(names.labels):
        first, last = int(names.offsets[number]), int(names.offsets[number + 1])
        graph.add_node(
            label,
            kind="weight" if weights[first] else "activation",
            groups=last - first,
            size=int(problem.sizes[first:last].sum()),
            pinned=0 if pinned is None else int(pinned[number]),
        )
    for weight, activation, macs in _reads(problem):
        other = names.labels[int(label_of[activation])] if activation >= 0 else _INPUT
        if activation < 0 and _INPUT not in graph:
            graph.add_node(_INPUT, kind="input", groups=0, size=0, pinned=0)
        _add(graph, names.labels[int(label_of[weight])], other, macs=macs)
    for tie in problem.ties:
        labels = list(dict.fromkeys(names.labels[int(label_of[g])] for g in tie))
        for left, right in pairwise(labels):
            _add(graph, left, right, tied=True)
    for kept, until in _kept(problem):
        _add(graph, names.labels[int(label_of[kept])], names.labels[int(label_of[until])], kept=True)
    return graph


def _kept(problem: Problem) -> Iterator[tuple[int, int]]:
    """Yield each activation that outlives the making of the next, with the activation for which it was kept."""
    if problem.steps is None:
        return
    alive = np.flatnonzero(~problem.weights() & (problem.steps[:, 0] >= 0))
    alive = alive[np.argsort(problem.steps[alive, 0], kind="stable")]
    made = problem.steps[alive, 0]
    for place, group in enumerate(alive):
        last = int(problem.steps[group, 1])
        until = int(np.searchsorted(made, max(last, int(made[place]) + 1)))
        if place + 1 < until < len(alive) and last > made[place + 1]:
            yield int(group), int(alive[until])


def _reads(problem: Problem) -> list[tuple[int, int, int]]:
    """Return (weight, activation or -1, macs) summed over the groups of each pair of labels."""
    if problem.reads is None and problem.macs is None and problem.also_reads is None:
        return []
    weights = np.flatnonzero(problem.weights())
    macs = np.zeros(len(problem), dtype=np.int64) if problem.macs is None else problem.macs
    reads = np.full(len(problem), -1) if problem.reads is None else problem.reads
    rows = np.stack([weights, reads[weights], macs[weights]], axis=1)
    if problem.also_reads is not None:
        rows = np.concatenate([rows, problem.also_reads])
    label_of = problem.names.label_of
    other = np.where(rows[:, 1] >= 0, label_of[rows[:, 1]], -1)
    keys, first, place = np.unique(
        np.stack([label_of[rows[:, 0]], other], axis=1), axis=0, return_index=True, return_inverse=True
    )
    total = np.zeros(len(keys), dtype=np.int64)
    np.add.at(total, place.reshape(-1), rows[:, 2])
    return [(int(rows[f, 0]), int(rows[f, 1]), int(t)) for f, t in sorted(zip(first, total, strict=True))]


def _add(graph: nx.Graph, first: str, second: str, **data: Any) -> None:
    if graph.has_edge(first, second):
        graph.edges[first, second].update(data)
    else:
        graph.add_edge(first, second, **data)


def graph_svg(problem: Problem, bits: Any = None) -> str:
    """Return the graph as an SVG picture: activations on the left, the layers that read them on the right.

    Ties are dashed arcs, activations that are kept for a residual sum or another branch have an arc on the left, pinned
    labels a thick frame; a legend says so of what there is. ``bits`` (G,), where given, are written into the boxes (the
    range over a label's groups) and colour them by their mean.
    """
    graph = network_graph(problem)
    height = _rows(graph)
    rows = max(height.values(), default=0.0) + 1
    tall = _TOP + rows * _ROW + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {tall:g}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        "<style>.b{fill:#fff;stroke:#555}.a{fill:#eaf2fb}.p{stroke-width:2.5}path{fill:none;stroke:#8a8a8a}"
        ".t{stroke:#c2571a;stroke-dasharray:4 3}.k{stroke:#00805c;stroke-width:1.6}.h{font-weight:600}</style>",
        f'<rect width="{_WIDTH}" height="{tall:g}" fill="#fff"/>',
        f'<text class="h" x="{_LEFT}" y="{_TOP - 8}">activations</text>'
        f'<text class="h" x="{_RIGHT}" y="{_TOP - 8}">layers</text>',
        *_legend(problem, graph, bits),
    ]
    parts += [_edge(graph, height, first, second) for first, second in graph.edges]
    parts += [_box(problem, graph, height, label, bits) for label in height]
    return "\n".join([*parts, "</svg>", ""])


def _shade(part: float) -> str:
    return f"rgb({','.join(f'{pale + part * (deep - pale):.0f}' for pale, deep in zip(_PALE, _DEEP, strict=True))})"


def _range(problem: Problem) -> tuple[float, float]:
    every = [float(b) for widths in problem.candidates.sets for b in widths]
    return min(every), max(every)


def _legend(problem: Problem, graph: nx.Graph, bits: Any) -> Iterator[str]:
    """Yield what the marks mean, of those that are in the picture."""
    x, y = _LEFT, 22
    if bits is not None:
        low, high = _range(problem)
        for k in range(13):
            yield f'<rect x="{x + 14 * k}" y="{y - 10}" width="14" height="12" fill="{_shade(k / 12)}"/>'
        yield f'<text x="{x}" y="{y + 15}">{low:g}</text>'
        yield f'<text x="{x + 182}" y="{y + 15}" text-anchor="end">{high:g} bits</text>'
        x += 220
    edges = [data for *_, data in graph.edges(data=True)]
    for there, style, words in (
        (any(data.get("kept") for data in edges), "k", "kept for a sum or a branch"),
        (any(data.get("tied") for data in edges), "t", "tied: equal bits"),
    ):
        if there:
            yield f'<path class="{style}" d="M{x} {y - 4}h28"/><text x="{x + 34}" y="{y}">{words}</text>'
            x += 200
    if any(data["pinned"] for _, data in graph.nodes(data=True)):
        yield f'<rect class="b p" x="{x}" y="{y - 11}" width="28" height="13" rx="3"/>'
        yield f'<text x="{x + 34}" y="{y}">pinned</text>'


def _rows(graph: nx.Graph) -> dict[str, float]:
    """Return the row of every label: a layer stands beside what it reads, each column in the order of execution.

    An activation that no layer reads stands before the one that it is tied to.
    """
    layers = [n for n, data in graph.nodes(data=True) if data["kind"] == "weight"]
    number = {layer: place for place, layer in enumerate(layers)}
    tensors = [n for n, data in graph.nodes(data=True) if data["kind"] != "weight"]
    first = {n: min((number[r] for r in graph[n] if r in number), default=len(layers)) for n in tensors}
    unread = {n for n in tensors if first[n] == len(layers)}
    for n in unread:
        first[n] = min((first[other] for other in graph[n] if other in first), default=len(layers))
    height: dict[str, float] = {}
    left = right = 0.0
    for place, layer in enumerate([*layers, None]):
        mine = sorted((n for n in tensors if first[n] == place), key=lambda n: n not in unread)
        read = [n for n in mine if n not in unread]
        for n in mine:
            height[n] = max(left, right) if n in read else left
            left = height[n] + 1
        if layer is not None:
            height[layer] = max(right, height[read[0]]) if read else right
            right = height[layer] + 1
    return height


def _middle(height: dict[str, float], label: str) -> float:
    return _TOP + height[label] * _ROW + 11


def _edge(graph: nx.Graph, height: dict[str, float], first: str, second: str) -> str:
    data = graph.edges[first, second]
    y_first, y_second = _middle(height, first), _middle(height, second)
    arc = ""
    if data.get("kept"):
        out = max(_LEFT - 16 - 6 * abs(height[first] - height[second]), 6)
        title = f"<title>{html_text(first)} is in memory until {html_text(second)} is made</title>"
        curve = f"M{_LEFT} {y_first:g}C{out:g} {y_first:g} {out:g} {y_second:g} {_LEFT} {y_second:g}"
        arc = f'<path class="k" d="{curve}">{title}</path>'
        if not data.get("tied"):
            return arc
    kinds = {graph.nodes[first]["kind"] == "weight", graph.nodes[second]["kind"] == "weight"}
    if len(kinds) == 1:  # a tie on one side: an arc beside the boxes
        side = _RIGHT if True in kinds else _LEFT + _BOX
        out = side + (-60 if True in kinds else 60)
        return (
            f'{arc}<path class="t" d="M{side} {y_first:g}C{out} {y_first:g} {out} {y_second:g} {side} {y_second:g}"/>'
        )
    if graph.nodes[first]["kind"] == "weight":
        y_first, y_second = y_second, y_first
    start, middle = _LEFT + _BOX, (_LEFT + _BOX + _RIGHT) / 2
    title = f"<title>{data['macs']:,} multiply-accumulates</title>" if "macs" in data else ""
    style = ' class="t"' if data.get("tied") else ""
    curve = f"M{start} {y_first:g}C{middle:g} {y_first:g} {middle:g} {y_second:g} {_RIGHT} {y_second:g}"
    return f'<path{style} d="{curve}">{title}</path>'


def _box(problem: Problem, graph: nx.Graph, height: dict[str, float], label: str, bits: Any) -> str:
    data = graph.nodes[label]
    left = _RIGHT if data["kind"] == "weight" else _LEFT
    top = _TOP + height[label] * _ROW
    fill, ink, soft = "", "", ' fill="#666"'
    note = "8 bits" if data["kind"] == "input" else f"{data['size']:,}" + _groups(data["groups"])
    if bits is not None and data["kind"] != "input":
        number = problem.names.labels.index(label)
        part = np.asarray(bits)[problem.names.offsets[number] : problem.names.offsets[number + 1]]
        low, high = float(part.min()), float(part.max())
        least, most = _range(problem)
        deep = (float(part.mean()) - least) / max(most - least, 1e-9)
        fill = f' style="fill:{_shade(deep)}"'
        ink, soft = (' fill="#fff"', ' fill="#fff"') if deep > 0.62 else ("", "")
        note += f" · {bits_text(low)}" if low == high else f" · {low:g} to {high:g} bits"
    room = max(_FITS - len(note), 8)
    shown = shortened(visible(label), room)
    whole = "" if shown == label else f"<title>{html_text(label)}</title>"
    classes = ["b", *(["a"] if data["kind"] != "weight" else []), *(["p"] if data["pinned"] else [])]
    return (
        f'<rect class="{" ".join(classes)}" x="{left}" y="{top:g}" width="{_BOX}" height="22" rx="4"{fill}/>'
        f'<text x="{left + 8}" y="{top + 15:g}"{ink}>{html_text(shown)}{whole}</text>'
        f'<text x="{left + _BOX - 8}" y="{top + 15:g}" text-anchor="end"{soft}>{html_text(note)}</text>'
    )


def _groups(count: int) -> str:
    return "" if count == 1 else f" in {count:,} groups"
