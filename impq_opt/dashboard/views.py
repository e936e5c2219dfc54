"""What the page is told: plain JSON about problems, answers, runs and comparisons; figures as the report has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from impq_opt.costs import cost_names, format_quantity, readable_unit
from impq_opt.dashboard.desk import Answered, Work
from impq_opt.dashboard.folder import Folder, Item, Subject
from impq_opt.errors import ImpqError
from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.cost_row import cost_row
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.plain import number
from impq_opt.problem.problem import Problem
from impq_opt.report.curve import knee, thin
from impq_opt.report.figures import Figure, Series
from impq_opt.report.layers import LayerIndex, layers_of
from impq_opt.rounds.record import Record
from impq_opt.types import IntArray

__all__ = [
    "answer_view",
    "compared",
    "curve_view",
    "groups_view",
    "item_view",
    "problem_view",
    "rounds_view",
]

# Points of one curve that are drawn.
_MOST_POINTS = 200


def item_view(item: Item) -> dict[str, Any]:
    """Return what the list shows of an item."""
    state = f"{hash(item.stamp) & 0xFFFFFFFF:x}"
    return {
        "key": item.key,
        "kind": item.kind,
        "path": item.shown,
        "state": state,
        "error": item.error,
        **{name: value for name, value in item.facts.items() if value is not None},
    }


# -- a problem -----------------------------------------------------------------------------------------------------


def problem_view(subject: Subject, folder: Folder) -> dict[str, Any]:
    """Return what of a problem does not change with the question: its layers, costs and limits."""
    problem = subject.revision.apply(subject.base) if subject.revision else subject.base
    index = LayerIndex(problem)
    counts = np.bincount(index.of_group, minlength=len(index.keys))
    pinned = np.zeros(len(problem))
    pinned[list(problem.pins)] = 1
    held = index.sum(pinned)
    told = problem.provenance
    title = told.get("title") or told.get("description") or told.get("network") or ""
    run = folder.run_of(subject.item)
    return {
        "key": subject.item.key,
        "kind": subject.item.kind,
        "path": subject.item.shown,
        "state": item_view(subject.item)["state"],
        "title": str(title),
        "groups": len(problem),
        "layers": [
            {
                "name": name,
                "kind": kind,
                "groups": int(counts[k]),
                "size": int(index.sizes[k]),
                "held": int(held[k]),
                "options": options,
            }
            for k, ((name, kind), options) in enumerate(zip(index.keys, _options(problem, index), strict=True))
        ],
        "most": _most(problem),
        "objective": " + ".join(problem.objective),
        "costs": _costs(problem),
        "bound": None if problem.bound is None else nearest_float(problem.bound),
        "budgets": [f"{name} at most {_quantity(problem, [name], limit)}" for name, limit in problem.budgets.items()],
        "ties": len(problem.ties),
        "metric": problem.metric,
        "damage": _damage_name(problem),
        "revised": bool(subject.revision),
        "mean": None if subject.mean_bits is None else np.round(subject.mean_bits, 4).tolist(),
        "run": None if run is None else {"key": run[0], "round": run[1]},
        "facts": [[name, value] for name, value in _facts(problem)],
    }


def _most(problem: Problem) -> float:
    return max(float(max(map(max, problem.candidates.sets))), 1e-9)


def _damage_name(problem: Problem) -> str:
    return problem.damage_unit or f"damage ({problem.metric})"


def _facts(problem: Problem) -> Iterable[tuple[str, str]]:
    yield "digest", problem.digest
    yield "metric", f"{problem.metric} ({problem.damage_unit})" if problem.damage_unit else problem.metric
    for name, value in problem.provenance.items():
        if isinstance(value, (str, int, float)):
            yield str(name), str(value)


def _options(problem: Problem, index: LayerIndex) -> list[list[str]]:
    """Return what all groups of each layer may take, by name."""
    candidates = problem.candidates
    if candidates.set_of is None:
        return [list(candidates.labels(0))] * len(index.keys)
    width = len(candidates.sets)
    used = np.unique(index.of_group * width + candidates.set_of)
    options: list[list[str] | None] = [None] * len(index.keys)
    for code in used.tolist():
        layer, labels = code // width, candidates.labels(code % width)
        before = options[layer]
        options[layer] = list(labels) if before is None else [label for label in before if label in labels]
    return [option or [] for option in options]


def _costs(problem: Problem) -> list[dict[str, str]]:
    """Return the costs that the problem says enough about, and that are not zero whatever is chosen."""
    candidates, found = problem.candidates, []
    most = np.array([int(np.argmax(widths)) for widths in candidates.sets])[candidates.numbers(len(problem))]
    for name in dict.fromkeys([*problem.objective, *(term.name for term in problem.costs), *cost_names()]):
        try:
            if cost_row(problem, {name: 1}).total(candidates, most) > 0:
                found.append({"name": name, "unit": problem.cost(name).unit})
        except ImpqError:
            continue  # the problem does not say enough
    return found


def _quantity(problem: Problem, names: Iterable[str], value: Any) -> str:
    return format_quantity(value, _unit(problem, names))


def _unit(problem: Problem, names: Iterable[str]) -> str:
    units = {problem.cost(part).unit for name in names for part in name.split("+")}
    return units.pop() if len(units) == 1 else ""


# -- its frontier --------------------------------------------------------------------------------------------------


def curve_view(work: Work) -> dict[str, Any]:
    """Return the frontier for drawing, the range of its limits, and where the slider starts."""
    problem, front = work.problem, work.front
    name, unit = " + ".join(work.weights), _unit(problem, work.weights)
    uniform = _uniform(work)
    series = []
    if front is not None:
        places = thin(front.damage, _MOST_POINTS)
        cost, damage = front.cost[places], front.damage[places]
        inside = damage > 0  # a logarithmic axis has no 0
        series.append(Series("convex hull", damage[inside].tolist(), cost[inside].tolist(), "line"))
        at = knee(cost, damage)
        knee_at = [float(damage[at]), float(cost[at])]
        ranges = [damage[-1], damage[0], cost[0], cost[-1]]
    else:
        points = [point for point in uniform if math.isfinite(point[1])]
        middle = points[len(points) // 2] if points else ("", 1.0, 1.0)
        knee_at = [middle[1], middle[2]]
        ranges = [pick(point[k] for point in points or [middle]) for k in (1, 2) for pick in (min, max)]
    shown = [point for point in uniform if 0 < point[1] < math.inf]
    if shown:
        labels, x, y = zip(*shown, strict=True)
        series.append(Series("uniform precisions", x, y, "dots", labels, marked=True))
    figure, factor, shown_unit = _in_units("frontier", name, unit, _damage_name(problem), series)
    bound = problem.bound
    return {
        "figure": figure.as_dict(),
        "breakpoints": 0 if front is None else len(front),
        "reason": work.reason.partition(";")[0],
        "unit": shown_unit,
        "factor": factor,
        "whole": unit == "bit",
        "cost": name,
        "range": {"damage": [float(v) for v in ranges[:2]], "cost": [float(v) for v in ranges[2:]]},
        "start": {"damage": knee_at[0] if bound is None else nearest_float(bound), "cost": knee_at[1]},
        "given": bound is not None,
    }


def _in_units(key: str, cost: str, unit: str, damage: str, series: Sequence[Series]) -> tuple[Figure, float, str]:
    """Return cost against damage with costs in a unit of their size, that unit in the cost's own, and its name."""
    factor, shown = readable_unit(max((value for one in series for value in one.y), default=0.0), unit)
    scaled = [replace(one, y=[value / factor for value in one.y]) for one in series]
    axis = f"{cost} [{shown}]" if shown else cost
    return Figure(key, "Cost against damage", "", damage, axis, scaled, x_log=True), factor, shown


def _uniform(work: Work) -> list[tuple[str, float, float]]:
    """Return label, damage and cost of each column for all groups that may take it, pins kept."""
    problem, candidates = work.problem, work.problem.candidates
    row, found = cost_row(problem, work.weights), []
    counts = candidates.counts(len(problem))
    for column in range(candidates.width):
        choice = np.minimum(column, counts - 1)
        if problem.pins:
            choice[list(problem.pins)] = list(problem.pins.values())
        damage = nearest_float(problem.total_damage(choice))
        cost = nearest_float(row.quantum * row.total(candidates, choice))
        labels = {label[min(column, len(label) - 1)] for label in map(candidates.labels, range(len(candidates.sets)))}
        label = labels.pop() if len(labels) == 1 else f"candidate {column + 1}"
        found.append((label if candidates.formats or candidates.numbered else f"{label} bits", damage, cost))
    return found


# -- an answer -----------------------------------------------------------------------------------------------------


def answer_view(answered: Answered, *, claimed: bool = False) -> dict[str, Any]:
    """Return an answer by layer, ``claimed`` where a file states it and nothing was checked."""
    found, problem = answered.allocation, answered.allocation.problem
    budget = found.budgets.get("+".join(found.cost_weights))
    told: dict[str, Any] = {
        "key": answered.key,
        "status": found.status.value,
        "stop": found.stop.value,
        "claimed": claimed,
        "solver": found.solver,
        "seconds": found.seconds,
        "minimizes": found.minimizes,
        "cost": " + ".join(found.cost_weights),
        "bound": None if found.bound is None else nearest_float(found.bound),
        "budget": None if budget is None or found.minimizes == "cost" else nearest_float(budget),
        "limits": [f"{name} at most {_quantity(problem, [name], limit)}" for name, limit in found.budgets.items()],
        "diagnosis": "" if found.diagnosis is None else str(found.diagnosis),
    }
    if found.choice is None:
        return told
    weight, activation = found.effective_bits
    lower = found.lower_bound
    layers = layers_of(found)
    return told | {
        "costValue": nearest_float(found.cost),
        "costText": _quantity(problem, found.cost_weights, found.cost),
        "damageValue": found.damage,
        "used": _share(found),
        "gap": None if found.gap == math.inf else found.gap,
        "lower": ""
        if lower == -math.inf
        else _quantity(problem, found.cost_weights, lower)
        if found.minimizes == "cost"
        else f"{nearest_float(lower):.4g}",
        "weightBits": weight,
        "activationBits": activation,
        "ratio": found.compression_ratio,
        "whole": "" if found.whole is None else format_quantity(found.whole.bits, "bit"),
        "wholeBits": None if found.whole is None else nearest_float(found.whole.mean),
        "notes": found.notes(),
        "layers": [
            {
                "bits": layer.bits,
                "shares": [[bits, share] for bits, share in layer.shares.items()],
                "cost": layer.cost,
                "damage": layer.damage,
                "pinned": layer.pinned,
            }
            for layer in layers
        ],
    }


def _share(found: Allocation) -> float | None:
    """Return the part of the bound that is used."""
    if not found.bound or found.exact_damage is None:
        return None
    return math.floor(found.exact_damage / found.bound * 10_000) / 10_000


def groups_view(answered: Answered, layer: int, first: int, many: int) -> dict[str, Any]:
    """Return ``many`` groups of a layer from its ``first`` on: name, precision, damage."""
    found, index = answered.allocation, answered.work.index
    problem, choice = found.problem, found.choice
    if choice is None or not 0 <= layer < len(index.keys):
        return {"total": 0, "groups": []}
    of_layer: IntArray = np.flatnonzero(index.of_group == layer)
    some = of_layer[max(first, 0) : max(first, 0) + many]
    damage = problem.damage.chosen(problem.candidates, choice) + problem.interaction_shares(choice)
    total = float(damage.sum()) or 1.0
    labels = [problem.candidates.label(g, int(choice[g])) for g in some.tolist()]
    return {
        "total": len(of_layer),
        "groups": [
            {
                "place": max(first, 0) + k,
                "name": problem.names[g],
                "size": int(problem.sizes[g]),
                "label": label,
                "bits": float(bits),
                "damage": float(damage[g]) / total,
                "pinned": g in problem.pins,
                "options": list(problem.candidates.labels(problem.candidates.number_of(g))),
            }
            for k, (g, label, bits) in enumerate(
                zip(some.tolist(), labels, problem.candidates.bits(choice)[some].tolist(), strict=True)
            )
        ],
    }


# -- runs ----------------------------------------------------------------------------------------------------------


def rounds_view(runs: Sequence[tuple[Item, Sequence[Record]]], folder: Folder) -> dict[str, Any]:
    """Return the rounds of some runs as a table, and accuracy against bits as a figure."""
    series, rows = [], []
    for item, records in runs:
        for part in ("validation", "test"):
            points = [
                (record.effective_bits.weights, getattr(record.accuracy, part), f"round {record.round}")
                for record in records
            ]
            shown = [(bits, 100 * accuracy, label) for bits, accuracy, label in points if bits and accuracy is not None]
            if shown and (part == "validation" or len(runs) == 1):
                bits, accuracy, labels = zip(*shown, strict=True)
                name = part if len(runs) == 1 else item.shown
                series.append(Series(name, bits, accuracy, "line", labels))
        rows += [_round_row(item, record, folder) for record in records]
    figure = Figure(
        "rounds",
        "Accuracy against bits, round by round",
        "Bits fall from right to left.",
        "effective bits of the weights",
        "accuracy [%]" if len(runs) == 1 else "validation accuracy [%]",
        series,
    )
    return {"figure": figure.as_dict(), "rows": rows, "runs": [item_view(item) for item, _ in runs]}


def _round_row(item: Item, record: Record, folder: Folder) -> dict[str, Any]:
    problem = folder.round_problem(item, record.round)
    return {
        "run": item.shown,
        "round": record.round,
        "strategy": record.strategy,
        "seed": record.seed,
        "status": record.status if isinstance(record.status, str) else "",
        "weightBits": record.effective_bits.weights,
        "activationBits": record.effective_bits.activations,
        "damage": record.damage,
        "validation": record.accuracy.validation,
        "test": record.accuracy.test,
        "problem": None if problem is None else problem.key,
    }


# -- side by side --------------------------------------------------------------------------------------------------


def compared(works: Sequence[Work]) -> dict[str, Any]:
    """Return frontiers and allocations side by side: a chart for each network, cost and damage, and bits by layer."""
    charts: dict[tuple[frozenset[tuple[str, str]], str, str, str], list[Series]] = {}
    answers: dict[frozenset[tuple[str, str]], list[tuple[str, Work, Allocation]]] = {}
    for work in works:
        network, unit = frozenset(work.index.keys), _unit(work.problem, work.weights)
        axes = network, " + ".join(work.weights), unit, _damage_name(work.problem)
        series, name = charts.setdefault(axes, []), work.subject.item.shown
        answer = work.subject.answer
        if answer is not None and answer.choice is not None:
            series.append(Series(name, [answer.damage], [nearest_float(answer.cost)], "ring", [name], marked=True))
            answers.setdefault(network, []).append((name, work, answer))
        elif answer is None and work.front is not None:
            places = thin(work.front.damage, _MOST_POINTS)
            places = places[work.front.damage[places] > 0]
            series.append(Series(name, work.front.damage[places].tolist(), work.front.cost[places].tolist(), "line"))
    return {
        "figures": [
            _in_units("frontiers", cost, unit, damage, series)[0].as_dict()
            for (_, cost, unit, damage), series in charts.items()
            if sum(len(one.x) for one in series) > 1
        ],
        "without": [[work.subject.item.shown, work.reason.partition(";")[0]] for work in works if work.reason],
        "allocations": [_answer_row(name, answer) for some in answers.values() for name, _, answer in some],
        "layers": [_layers_side_by_side(some) for some in answers.values()],
    }


def _answer_row(name: str, answer: Allocation) -> dict[str, Any]:
    weight, activation = answer.effective_bits
    return {
        "path": name,
        "status": answer.status.value,
        "solver": answer.solver,
        "cost": f"{_quantity(answer.problem, answer.cost_weights, answer.cost)} {' + '.join(answer.cost_weights)}",
        "damage": answer.damage,
        "bound": None if answer.bound is None else number(answer.bound),
        "weightBits": weight,
        "activationBits": activation,
        "ratio": answer.compression_ratio,
        "whole": "" if answer.whole is None else format_quantity(answer.whole.bits, "bit"),
    }


def _layers_side_by_side(answers: Sequence[tuple[str, Work, Allocation]]) -> dict[str, Any]:
    rows: dict[tuple[str, str], list[float]] = {}
    most = 0.0
    for _, work, answer in answers:
        assert answer.choice is not None
        most = max(most, _most(work.problem))
        bits = LayerIndex(answer.problem).mean_bits(answer.choice)
        for key, value in zip(work.index.keys, bits.tolist(), strict=True):
            rows.setdefault(key, []).append(value)
    return {
        "names": [name for name, _, _ in answers],
        "rows": [{"name": name, "kind": kind, "bits": bits} for (name, kind), bits in rows.items()],
        "most": most,
    }
