"""``impq-opt cost``: what precisions cost, by every convention."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._choices import COSTS, PROBLEMS_AND_NETWORKS
from impq_opt.cli._common import JsonFlag, find_problem, refuse
from impq_opt.cli._screen import console, cost_heading, cost_text, grid, print_json
from impq_opt.costs import cost_names
from impq_opt.documents.numbers import read_float, read_whole
from impq_opt.errors import ImpqError, OptionError, nearest
from impq_opt.files import load_allocation
from impq_opt.insight.cost_at import cost_at, uniform_bits
from impq_opt.problem.plain import number
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Whole

__all__ = ["cost"]

# The conventions of the field for the cost of computing, by what they are called.
_CONVENTIONS = {"product": "bit-operations", "sakr": "adders", "slides": "slides"}

_WHOLE = "codes of the groups, and what stays as it is stored; a packed file adds scales and names"


def cost(
    problem: Annotated[
        str,
        PROBLEMS_AND_NETWORKS,
        Parameter(help="A name in the gallery, a problem file, or a network, of which only shapes are used."),
    ],
    allocation: Annotated[Path | None, Parameter(help="What this allocation costs.")] = None,
    /,
    *,
    bits: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="WEIGHTS,ACTIVATIONS: uniform precisions, such as 8,8. One number, such as 4.5 or 4.5bpw, is the mean "
            "bits of the weights alone. May be repeated.",
        ),
    ] = None,
    convention: Annotated[
        list[str] | None,
        COSTS,
        Parameter(negative="", help="product, sakr, slides, or the name of a cost. All costs where left out."),
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None, Parameter(help="Shape of one input of a network, C,H,W; 3,32,32 unless given.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Print what precisions cost, each cost with its unit and source.

    A network's input image counts 8 bits, as in the paper, except for mobilenet-v1, whose published rows count it at
    the precision of the activations.
    """
    declared = _problem(problem, input)
    rows: list[tuple[str, Problem, Any]] = []
    if allocation is not None:
        answer = load_allocation(allocation, declared)
        if answer.choice is None:
            raise OptionError("holds no answer", where=str(allocation), value=answer.status.value)
        rows.append((allocation.name, answer.problem, answer.bits))
    texts = bits or ([] if allocation else ["8,8"])
    rows += [(text, declared, uniform_bits(declared, *_pair(text))) for text in texts]
    # Rows of weights alone: a cost that other activations change is not known there.
    alone = {text for text in texts if "," not in text}
    names = _names(declared, convention)
    strict = convention is not None
    values = [
        [
            None if title in alone and _by_activations(of, at, name) else _value(of, at, name, strict=strict)
            for title, of, at in rows
        ]
        for name in names
    ]
    wholes = [] if convention is not None or declared.stays is None else [of.whole(at) for _, of, at in rows]
    if json:
        records = [_record(declared, name, rows, line) for name, line in zip(names, values, strict=True)]
        print_json(records + ([_whole_record(declared, rows, wholes)] if wholes else []))
        return 0
    table = grid("cost", *(f">{title}" for title, _, _ in rows), "source")
    for name, line in zip(names, values, strict=True):
        term = declared.cost(name)
        table.add_row(cost_heading(name, term.unit), *(cost_text(value, term.unit) for value in line), term.source)
    out = console()
    if wholes:
        sizes = [None if whole is None else whole.bits for whole in wholes]
        table.add_row("whole network", *(cost_text(size, "bit") for size in sizes), _WHOLE)
    out.print(table)
    for note in declared.notes() if wholes else ():
        out.print(note)
    return 0


def _whole_record(problem: Problem, rows: Any, wholes: list[Whole | None]) -> dict[str, Any]:
    """Return the size of the whole network as a cost like the others, and what of it stays as it is."""
    values = {title: None if w is None else number(w.bits) for (title, _, _), w in zip(rows, wholes, strict=True)}
    stays = [
        {"name": stay.name, "elements": stay.elements, "bits": number(Fraction(stay.bits)), "reason": stay.reason}
        for stay in problem.stays or ()
    ]
    return {"cost": "whole network", "unit": "bit", "source": _WHOLE, "values": values, "stays": stays}


def _problem(name: str, shape: str | None) -> Problem:
    """Return the problem or, for a network, one that knows its groups and graph and no damages."""
    if name == "mobilenet-v1":
        refuse("--input", shape, "is known of mobilenet-v1")
        return problems.load("mobilenet-v1-synthetic")
    try:
        found = find_problem(name)
        refuse("--input", shape, "goes with a network: a problem knows its shapes")
        return found
    except OptionError as unknown:
        if name in problems.names():
            raise
        if Path(name).suffix or find_spec("torch") is None:
            raise
        from impq_opt.measure.structure import structure
        from impq_opt.networks import load_network

        sides = _shape(shape or "3,32,32")
        try:
            network = load_network(name, classes=10, channels=sides[0], untrained=True)
        except OptionError:
            raise unknown from None
        return structure(network, sides)


def _shape(text: str) -> list[int]:
    try:
        sides = [read_whole(part, "--input") for part in text.split(",")]
        if min(sides) < 1:
            raise ValueError
    except ValueError:
        raise OptionError("must be whole numbers", where="--input", value=text, hint="for example 3,32,32") from None
    return sides


def _pair(text: str) -> tuple[float, float]:
    parts = text.removesuffix("bpw").split(",")
    try:
        weights, activations = (read_float(part, "--bits") for part in (*parts, "8")[: max(2, len(parts))])
        if weights < 0 or activations < 0:
            raise ValueError
    except ValueError:
        raise OptionError(
            "must be the bits of weights and of activations", where="--bits", value=text, hint="for example 8,8, or 4.5"
        ) from None
    return weights, activations


def _names(problem: Problem, convention: list[str] | None) -> list[str]:
    declared = [term.name for term in problem.costs]
    if convention is None:
        return [*cost_names(), *declared]
    known = {*_CONVENTIONS, *cost_names(), *declared}
    for name in convention:
        if name not in known:
            raise OptionError("unknown convention", where="--convention", value=name, hint=nearest(name, known))
    return [_CONVENTIONS.get(name, name) for name in convention]


def _value(problem: Problem, bits: Any, name: str, *, strict: bool) -> Fraction | None:
    """Return the cost, or None where the problem does not say enough and the cost was not asked for by name."""
    try:
        return cost_at(problem, bits, name)
    except ImpqError:
        if strict:
            raise
        return None


def _by_activations(problem: Problem, bits: Any, name: str) -> bool:
    """Whether a cost is another where activations have one bit more."""
    weights = problem.weights()
    more = np.where(weights, bits, bits + 1)
    return _value(problem, bits, name, strict=False) != _value(problem, more, name, strict=False)


def _record(problem: Problem, name: str, rows: Any, line: list[Fraction | None]) -> dict[str, Any]:
    term = problem.cost(name)
    values = {title: None if v is None else number(v) for (title, _, _), v in zip(rows, line, strict=True)}
    return {"cost": name, "unit": term.unit, "source": term.source, "values": values}
