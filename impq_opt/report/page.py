"""The report as one page of HTML: no network, no framework, readable without its script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from impq_opt import __version__
from impq_opt.costs import format_quantity
from impq_opt.exactness.sums import nearest_float
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.plain import number as allocation_number
from impq_opt.problem.stays import Whole
from impq_opt.problem.unmeasured import few
from impq_opt.report.content import Report
from impq_opt.report.figures import Figure
from impq_opt.report.layers import Layer, LayerIndex, alike, sensitivity_name
from impq_opt.text import bits_text, script_json
from impq_opt.text import html_text as _text

__all__ = ["render_page"]

# Nothing may be loaded from anywhere: the page says so to the browser.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_MOST_ROWS = 400
# Kernels whose bits are in the page, a letter each.
_MOST_KERNELS = 300_000


def render_page(report: Report) -> str:
    """Return the page; the same report gives the same text."""
    sections = [
        ("summary", "Summary", _summary(report)),
        ("certificate", "What is proved", _certificate(report.allocation)),
        ("bits", "Bits by layer", _bits(report)),
        ("sensitivity", "Sensitivity by layer", _sensitivity(report)),
        ("frontier", "The whole trade-off", _frontier(report)),
        ("strategies", "Strategies", _strategies(report)),
        ("mismatch", "Bound and measured mismatch", _mismatch(report)),
        ("rounds", "Rounds", _rounds(report)),
        ("provenance", "Provenance", _provenance(report)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{title}</h2>{text}</section>'
        for key, title, text in sections
    )
    here = files("impq_opt.report")
    style, charts, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "charts.js", "page.js"))
    title = _text(report.title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - impq-opt</title><style>{style}</style></head><body>"
        '<a class="skip" href="#summary">Skip to the summary</a>'
        f'<header><h1>{title}</h1>{_headline(report)}<nav aria-label="Sections">{links}</nav></header>'
        f"<main>{body}</main><footer>Written by impq-opt {__version__}.</footer>"
        f'<script type="application/json" id="data">{_data(report)}</script>'
        f"<script>{charts}</script><script>{script}</script></body></html>\n"
    )


def _data(report: Report) -> str:
    curve = report.curve
    document = {
        "figures": {key: figure.as_dict() for key, figure in report.figures.items()},
        "curve": None if curve is None else curve.as_dict(),
        "kernels": _kernels(report),
    }
    return script_json(document)


def _kernels(report: Report) -> dict[str, Any] | None:
    """Return the precision of every kernel of layers of several groups: a letter each, by layer, from the first on."""
    answer = report.allocation
    if len(answer.problem) > _MOST_KERNELS or all(layer.groups == 1 for layer in report.layers):
        return None
    index = LayerIndex(answer.problem)
    levels, place = np.unique(np.asarray(answer.bits, dtype=np.float64), return_inverse=True)
    letters = (place.reshape(-1) + ord("0")).astype(np.uint32)
    order = np.argsort(index.of_group, kind="stable")
    ends = np.cumsum(np.bincount(index.of_group))
    texts = [part.tobytes().decode("utf-32-le") for part in np.split(letters[order].astype("<u4"), ends[:-1])]
    return {
        "levels": levels.tolist(),
        "layers": [text if layer.groups > 1 else "" for text, layer in zip(texts, report.layers, strict=True)],
    }


class _Cell(str):
    """A cell of HTML made here, in which all text is escaped; every other string is text."""

    __slots__ = ()


class _Sorted(str):
    """Text of a cell that is sorted by a number."""

    __slots__ = ("key",)
    key: float

    def __new__(cls, text: str, key: float) -> _Sorted:
        made = super().__new__(cls, text)
        made.key = key
        return made


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value == 0 or value >= 0.0005 else "< 0.1 %"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _cost(allocation: Allocation, value: Any) -> str:
    units = {allocation.problem.cost(name).unit for name in allocation.cost_weights}
    return format_quantity(value, units.pop() if len(units) == 1 else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """Return a table of text; a heading with ``>`` is set flush right, one with ``~`` is left out on a phone."""
    classes = ["n" * h.startswith(">") + " wide" * ("~" in h[:2]) for h in head]
    names = [h.lstrip(">~") for h in head]
    top = "".join(f'<th scope="col" class="{c}">{_text(n)}</th>' for n, c in zip(names, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(_cell(cell, c) for cell, c in zip(row, classes, strict=True)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(label)}"><table class="data">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: str, classes: str) -> str:
    if isinstance(cell, _Cell):
        return cell
    key = f' data-key="{cell.key:.17g}"' if isinstance(cell, _Sorted) else ""
    return f'<td class="{classes}"{key}>{_text(cell)}</td>'


def _chart(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return (
        f'<figure><h3>{_text(figure.title)}</h3><div class="chart" data-figure="{figure.key}"></div>'
        f"<figcaption>{_text(figure.caption)}</figcaption>{_numbers(figure)}</figure>"
    )


def _numbers(figure: Figure) -> str:
    """Return the figure's numbers as a table to fold out."""
    rows = [
        (s.name, s.labels[k] if k < len(s.labels) else "", _number(float(x), 6), _number(float(y), 6))
        for s in figure.series
        for k, (x, y) in enumerate(zip(s.x, s.y, strict=True))
        if s.style != "stack" or y
    ]
    more = f"<p>{len(rows) - _MOST_ROWS} more are left out.</p>" if len(rows) > _MOST_ROWS else ""
    head = ("series", "", ">" + figure.x, ">" + figure.y)
    return f"<details><summary>Numbers</summary>{_table(head, rows[:_MOST_ROWS], figure.title)}{more}</details>"


# -- sections ------------------------------------------------------------------------------------------------------


def _headline(report: Report) -> str:
    answer = report.allocation
    least = " + ".join(answer.cost_weights) if answer.minimizes == "cost" else "damage"
    limits = [] if answer.bound is None else [f"damage at most {nearest_float(answer.bound):g}"]
    limits += [f"{name} at most {_cost(answer, value)}" for name, value in answer.budgets.items()]
    question = f"least {least} with {' and '.join(limits)}, over" if limits else "an allocation of"
    status = answer.status.value
    return f'<p><span class="badge {status}">{status}</span> {_text(question)} {len(answer.problem):,} groups.</p>'


def _summary(report: Report) -> str:
    answer = report.allocation
    weight, activation = answer.effective_bits
    lower = answer.lower_bound
    shown = _cost(answer, lower) if answer.minimizes == "cost" else _number(nearest_float(lower))
    tiles = [(" + ".join(answer.cost_weights), _cost(answer, answer.cost), "")]
    if answer.bound is None:
        tiles.append(("damage", _number(answer.damage), ""))
    else:
        used = answer.exact_damage / answer.bound if answer.exact_damage is not None else 0
        tiles.append(
            (
                "damage",
                _number(answer.damage),
                f"{math.floor(used * 10_000) / 100:.2f} % of {nearest_float(answer.bound):g}",
            )
        )
    gap = "unknown" if answer.gap == float("inf") else "0" if answer.gap == 0 else _percent(answer.gap)
    tiles.append(("gap", gap, "no lower bound" if lower == float("-inf") else f"lower bound {shown}"))
    if weight is not None:
        ratio = answer.compression_ratio
        inside = " in a group" if answer.problem.stays else ""
        smaller = f"{ratio:.2f} times smaller than 16 bits" if ratio else ""
        tiles.append((f"bits a weight{inside}", f"{weight:.3f}", smaller))
    if activation is not None:
        tiles.append(("bits an activation", f"{activation:.3f}", ""))
    if answer.whole is not None:
        tiles.append(("whole network", format_quantity(answer.whole.bits, "bit"), _whole(answer.whole)))
    if report.packed_bytes is not None:
        tiles.append(("packed file", format_quantity(8 * report.packed_bytes, "bit"), f"{report.packed_bytes:,} bytes"))
    if (held := report.held) is not None and held.accuracy is not None:
        beside = "" if held.float_accuracy is None else f"float {100 * held.float_accuracy:.2f} %"
        on = "" if held.samples is None else f"on {held.samples:,} samples"
        tiles.append(("accuracy", f"{100 * held.accuracy:.2f} %", ", ".join(filter(None, (beside, on)))))
    tiles.append(("solver", answer.solver, _seconds(answer.seconds) if answer.seconds else ""))
    items = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}{f'<small>{_text(note)}</small>' if note else ''}</dd></div>"
        for name, value, note in tiles
    )
    notes = "".join(f"<p>{_text(line)}.</p>" for line in answer.notes())
    return f'<dl class="tiles">{items}</dl>{notes}'


def _whole(whole: Whole) -> str:
    ratio = "" if whole.ratio is None else f", {nearest_float(whole.ratio):.2f} times smaller than it is stored"
    return f"{nearest_float(whole.mean):.3f} bits a parameter{ratio}"


def _certificate(answer: Allocation) -> str:
    unit = "".join({answer.problem.cost(name).unit for name in answer.cost_weights})
    lines = [
        f"It costs {answer.cost:,} {unit} and does a damage of {answer.damage:.17g}: exact sums, rounded once to be "
        "shown. The limits were checked on the sums, without a tolerance."
    ]
    if len(answer.unknown):
        lines.append(
            f"No damage is known of {few(answer.problem.names, answer.unknown)}, so neither sum nor limit is proved."
        )
    proof = answer.certificate
    if proof is None:
        lines.append("Nothing is proved about how much better an allocation could be.")
    else:
        if proof.multipliers:
            said = ", ".join(f"{name} = {value:.6g}" for name, value in proof.multipliers.items())
            least = allocation_number(proof.dual_bound)
            dual = f"{least:,} {unit}" if answer.minimizes == "cost" else f"{least:.17g}"
            lines.append(
                f"The multiplier alone ({said}) proves that nothing is below {dual}: anyone can check it by one sum "
                "over the groups (Everett 1963)."
            )
        if proof.enumeration is not None and answer.exact_lower_bound > proof.dual_bound:
            lines.append(
                "The rest of the bound stands on the solver's own complete enumeration of "
                f"{proof.enumeration.groups:,} groups in {proof.enumeration.states:,} states, in exact arithmetic."
            )
    if answer.status.value == "optimal":
        lines.append("So the allocation is optimal: no other that meets the limits is better.")
    lines.append(
        "The damage is what the metric says it is. For the mismatch bound it is a bound over random rounding noise, "
        "and no promise for one deterministic rounding: compare it with measured mismatch."
    )
    noise = answer.problem.provenance.get("noise")
    if isinstance(noise, Mapping) and isinstance(unlike := noise.get("errors_as_they_are"), Mapping):
        lines.append(
            f"Rounding errors are such noise for {noise.get('holds')} of {noise.get('of')} weight groups. For "
            f"{', '.join(map(str, unlike))} the damage is of the errors as they are, to first order."
        )
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def _bits(report: Report) -> str:
    layers, figures, same = report.layers, report.figures, alike(report.layers)
    rows = [(place, layer) for place, layer in enumerate(layers) if layer.kind not in same]
    text = _layer_table(report, rows[:_MOST_ROWS], "Bits by layer") if rows else ""
    if len(rows) > _MOST_ROWS:
        text += f"<p>{len(rows) - _MOST_ROWS:,} more layers are left out of the table.</p>"
    for kind, bits in same.items():
        some = [(place, layer) for place, layer in enumerate(layers) if layer.kind == kind]
        line = f"{len(some):,} {'layers' if kind == 'weight' else 'activations'}, all at {bits_text(bits)}"
        text += f"<details><summary>{line}</summary>{_layer_table(report, some[:_MOST_ROWS], line)}</details>"
    notes = ["Each bar is as long as the mean precision."] if rows else []
    if any(len(layer.shares) > 1 for layer in layers):
        notes.append("Where a layer holds several precisions its second line shows their shares, darker for more bits.")
    if len(report.allocation.problem) > _MOST_KERNELS:
        notes.append(f"Single kernels are left out of a page about more than {_MOST_KERNELS:,} groups.")
    elif any(layer.groups > 1 for layer in layers):
        notes.append('<span class="script">Press a layer\'s name to see its kernels.</span>')
    charts = f"{_chart(figures.get('bits-by-depth'))}{_chart(figures.get('spread-inside-layers'))}"
    return f"<p>{' '.join(notes)}</p>{charts}{text}"


def _layer_table(report: Report, rows: Sequence[tuple[int, Layer]], label: str) -> str:
    most = max(float(max(map(max, report.allocation.problem.candidates.sets))), 1e-9)
    digits = 0 if all(layer.bits == round(layer.bits) for _, layer in rows) else 2
    head = ["layer", "bits", ">mean", ">~groups", ">~elements", ">~of cost", ">of damage"]
    return _table(head, [_layer_row(place, layer, most, digits) for place, layer in rows], label)


def _layer_row(place: int, layer: Layer, most: float, digits: int) -> list[str]:
    bar = f'<span class="track {layer.kind}"><i style="width:{100 * layer.bits / most:.2f}%"></i></span>'
    if len(layer.shares) > 1:
        parts = "".join(
            f'<i style="width:{100 * share:.2f}%;background:color-mix(in srgb, rgb(var(--shade1)) '
            f'{100 * level / most:.0f}%, rgb(var(--shade0)))" title="{bits_text(level)}: {_percent(share)}"></i>'
            for level, share in layer.shares.items()
        )
        said = ", ".join(f"{bits_text(level)} {_percent(share)}" for level, share in layer.shares.items())
        bar += f'<span class="track" role="img" aria-label="{said}">{parts}</span>'
    marks = (("pinned", layer.pinned), ("no damage known", layer.kept))
    held = "".join(f" <small>({mark})</small>" for mark, groups in marks if groups)
    kind = "" if layer.kind == "weight" else ' <small class="soft">activation</small>'
    taken = f" <small>{_text(', '.join(layer.formats))}</small>" if layer.formats else ""
    kernels = f' data-layer="{place}"' if layer.groups > 1 else ""
    return [
        _Cell(f'<td class="name"><span{kernels}>{_text(layer.name)}</span>{kind}{taken}{held}</td>'),
        _Cell(f'<td class="bar" data-key="{layer.bits:.17g}">{bar}</td>'),
        _Sorted(f"{layer.bits:.{digits}f}", layer.bits),
        _Sorted(f"{layer.groups:,}", layer.groups),
        _Sorted(f"{layer.size:,}", layer.size),
        _Sorted(_percent(layer.cost), layer.cost),
        _Sorted(_percent(layer.damage), layer.damage),
    ]


def _sensitivity(report: Report) -> str:
    what, layers = sensitivity_name(report.allocation.problem), report.layers
    top = sorted(layers, key=lambda layer: -layer.sensitivity / layer.size)[:3]
    total = sum(layer.sensitivity for layer in layers) or 1.0
    lines = [
        f"{layer.name} ({layer.kind}, {layer.size:,} elements) carries {_percent(layer.sensitivity / total)} of the "
        f"{what} and gets {layer.bits:.3g} bits"
        for layer in top
    ]
    text = f"<p>Most sensitive for each element: {_text('; '.join(lines))}.</p>"
    return text + _chart(report.figures.get("sensitivity-by-depth")) + _chart(report.figures.get("sensitivity-by-size"))


def _frontier(report: Report) -> str:
    if report.curve is None:
        return ""
    return (
        "<p>Move the slider, or click on the curve, to see the allocation of a breakpoint. At first it "
        "shows this allocation.</p>"
        '<div class="control"><label for="point">point</label>'
        '<input type="range" id="point" min="0" max="1" value="0" step="1">'
        '<button type="button" id="back">this allocation</button></div>'
        '<p id="said" aria-live="polite"></p>'
        f"{_chart(report.figures.get('frontier'))}<h3>Bits by layer at this point</h3>"
        '<div class="cells" id="cells"></div><p id="rest"></p>'
        "<noscript><p>The slider needs JavaScript; the numbers stand in the table.</p></noscript>"
    )


def _strategies(report: Report) -> str:
    if not report.strategies:
        return ""
    rows = []
    for strategy in report.strategies:
        answer = strategy.allocation
        time = _Sorted(_seconds(answer.seconds), answer.seconds)
        if answer.choice is None:
            rows.append([strategy.name, answer.status.value, "-", "-", "-", "-", time])
            continue
        weight = answer.effective_bits[0]
        gap = "-" if answer.gap == float("inf") else _percent(answer.gap)
        cells = [
            _Sorted(_cost(answer, answer.cost), nearest_float(answer.cost)),
            _Sorted(_number(answer.damage), answer.damage),
            _Sorted(gap, nearest_float(answer.gap)),
            "-" if weight is None else f"{weight:.3f}",
        ]
        rows.append([strategy.name, answer.status.value, *cells, time])
    head = ["strategy", "status", ">cost", ">damage", ">gap it proves", ">~bits a weight", ">~time"]
    asked = "<p>The same question, put to each strategy.</p>" + _table(head, rows, "Strategies")
    reasons: dict[str, list[str]] = {}
    for name, reason in report.unasked.items():
        reasons.setdefault(reason, []).append(name)
    others = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return asked + (f"<p>Not asked: {_text(others)}.</p>" if others else "")


def _mismatch(report: Report) -> str:
    if not report.measured:
        return ""
    rows = [
        [
            m.label,
            _number(m.bound),
            _number(m.gaussian),
            f"{m.mismatch:.4g}",
            f"{m.low:.2g} to {m.high:.2g}",
            "-" if m.accuracy is None else f"{100 * m.accuracy:.2f} %",
        ]
        for m in report.measured
    ]
    head = ["allocation", ">bound", ">~Gaussian", ">measured", ">~interval", ">accuracy"]
    return _table(head, rows, "Bound and measured") + _chart(report.figures.get("bound-and-measured-mismatch"))


def _rounds(report: Report) -> str:
    if not report.rounds:
        return ""
    rows = []
    several = len({record.get("seed") for record in report.rounds}) > 1
    for record in report.rounds:
        accuracy = record.get("accuracy") or {}
        bits = record.get("effective_bits") or {}
        shown = [accuracy.get("validation"), accuracy.get("test")]
        rows.append(
            [
                record.get("strategy", "") + (f", seed {record.get('seed')}" if several else ""),
                _number(record["round"]),
                record.get("status", ""),
                _number(bits.get("weights")),
                _number(bits.get("activations")),
                _number(record.get("damage")),
                *("-" if value is None else f"{100 * value:.2f} %" for value in shown),
            ]
        )
    head = [
        "strategy",
        ">round",
        "~status",
        ">bits a weight",
        ">~bits an activation",
        ">damage",
        ">validation",
        ">test",
    ]
    return _chart(report.figures.get("accuracy-by-bits")) + _table(head, rows, "Rounds")


def _provenance(report: Report) -> str:
    problem, answer = report.allocation.problem, report.allocation
    facts: list[tuple[str, str]] = [
        ("problem digest", problem.digest),
        ("metric", f"{problem.metric} ({problem.damage_unit})" if problem.damage_unit else problem.metric),
        ("cost", ", ".join(f"{n}: {problem.cost(n).source}" for n in answer.cost_weights)),
        ("solver", f"{answer.solver} {json.dumps(dict(answer.options), default=str)}, seed {answer.seed}"),
        ("stopped", answer.stop.value),
        *((name, str(value)) for name, value in report.origin.items()),
        *_flat(problem.provenance),
    ]
    items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
